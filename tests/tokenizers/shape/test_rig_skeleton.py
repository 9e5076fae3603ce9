"""Skeletons: what is no tree is refused, broken ones are repaired, distances and the text form."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from girih.tokenizers.shape.skeleton import (
    Rig,
    central_joint,
    fit,
    hierarchy,
    joints_of,
    parse_rig_text,
    repair,
    rig_of,
    rig_text,
    skeleton_distances,
)
from tests.tokenizers.shape.skeletons import edges, rig

SEEDS = st.integers(0, 2**31)


@given(seed=SEEDS, joints=st.integers(1, 40))
def test_depth_first_is_the_same_tree_with_parents_first(seed, joints):
    one = rig(seed, joints)
    ordered = one.depth_first()
    assert (ordered.parents < np.arange(joints)).all() and ordered.parents[0] == -1
    assert edges(ordered) == edges(one) and sorted(ordered.names) == sorted(one.names)
    assert all(ordered.joints[ordered.names.index(name)] is not None for name in one.names)
    assert np.array_equal(ordered.joints[[ordered.names.index(name) for name in one.names]], one.joints)


def test_fit_fills_the_range_and_can_be_undone():
    one = rig(0, 9, half=40.0)
    fitted, centre, scale = fit(one, -0.5, 0.5)
    assert np.abs(fitted.joints).max() == pytest.approx(0.5)
    assert np.allclose(fitted.joints * scale + centre, one.joints)
    assert fit(Rig(np.ones((1, 3)), np.array([-1])), 0.0, 1.0)[0].joints.tolist() == [[0.5] * 3]


@pytest.mark.parametrize(
    ("joints", "parents", "message"),
    [
        (np.zeros((0, 3)), [], "J >= 1"),
        (np.zeros((2, 2)), [-1, 0], r"\[J, 3\]"),
        ([[0, 0, 0], [0, np.nan, 0]], [-1, 0], "joint 1 has a position that is not finite"),
        (np.zeros((3, 3)), [-1, 0, -1], "exactly one root .parent -1., got 2: joints .0, 2"),
        (np.zeros((3, 3)), [1, 2, 0], "exactly one root .parent -1., got 0"),
        (np.zeros((4, 3)), [-1, 2, 3, 1], r"joints \[1, 2, 3\] hang on a cycle"),
        (np.zeros((2, 3)), [-1, 1], r"joints \[1\] hang on a cycle"),
        (np.zeros((2, 3)), [-1, 2], "in -1 .. 1, got -1 to 2"),
        (np.zeros((2, 3)), [-1, -2], "in -1 .. 1, got -2 to -1"),
        (np.zeros((2, 3)), [-1.0, 0.5], "2 whole numbers"),
        (np.zeros((2, 3)), [-1], "2 whole numbers"),
    ],
)
def test_what_is_no_tree_is_refused(joints, parents, message):
    with pytest.raises(ValueError, match=message):
        Rig(np.array(joints), np.array(parents))


def test_names_and_parts_must_fit():
    with pytest.raises(ValueError, match="2 names .1 different."):
        Rig(np.zeros((2, 3)), np.array([-1, 0]), ("a", "a"))
    with pytest.raises(ValueError, match="1 parts"):
        Rig(np.zeros((2, 3)), np.array([-1, 0]), parts=("body",))


@given(seed=SEEDS, lost=st.integers(0, 6))
def test_repair_makes_one_tree_of_what_is_left(seed, lost):
    one = rig(seed, 14)
    rng = np.random.default_rng(seed)
    kept = one.bones[rng.permutation(len(one.bones))[lost:]]
    joints, bones, root = repair(one.joints, kept, one.root)
    whole = rig_of(joints, bones, root)
    assert len(bones) == len(joints) - 1
    assert np.allclose(joints[root], one.joints[one.root], atol=0.02 * (lost + 1))
    if not lost:
        assert edges(whole) == edges(one)


def test_repair_merges_and_joins():
    joints = np.array([[0, 0, 0], [0.1, 0, 0], [0.1, 0.001, 0], [0.2, 0, 0], [0.21, 0, 0], [0.3, 0, 0], [0.5, 0, 0]])
    bones = np.array([[0, 1], [2, 3], [1, 2], [3, 2], [4, 5]])
    at, pairs, root = repair(joints, bones, 2)
    assert at[:, 0].tolist() == [0, 0.1, 0.2, 0.3, 0.5] and root == 1  # 1 and 2 are one; so are 3 and 4, being apart
    assert pairs.tolist() == [[0, 1], [1, 2], [2, 3], [3, 4]]  # the last bone is new
    at, pairs, _ = repair(joints, bones, near=0.0)
    assert len(at) == 6 and [2, 3] in pairs.tolist()


def test_bones_without_a_direction_get_one_from_the_root():
    joints, bones = joints_of([[[2, 0, 0], [1, 0, 0]], [[2, 0, 0], [3, 0, 0]], [[0, 0, 0], [1, 0, 0]]])
    assert joints[:, 0].tolist() == [0, 1, 2, 3] and bones.tolist() == [[2, 1], [2, 3], [0, 1]]
    assert hierarchy(4, bones, 0).tolist() == [[0, 1], [1, 2], [2, 3]]
    assert hierarchy(3, [[0, 1], [1, 2], [2, 0]], 1).tolist() == [[1, 0], [1, 2]]  # a loop is opened
    assert central_joint(joints) in (1, 2)
    with pytest.raises(ValueError, match="1 of 4 joints are not connected"):
        hierarchy(4, [[0, 1], [1, 2]], 0)


def test_distances():
    line = np.array([[0, 0, 0], [1, 0, 0]])
    same = skeleton_distances(line, [[0, 1]], line, [[0, 1]])
    assert same == {"j2j": 0, "j2b": 0, "b2b": 0}
    above = skeleton_distances(line, [[0, 1]], line + [0, 0.25, 0], [[0, 1]])
    assert all(value == pytest.approx(0.25) for value in above.values())
    split = np.array([[0, 0, 0], [0.5, 0, 0], [1, 0, 0]])  # the same bone in two pieces: joints differ, bones do not
    pieces = skeleton_distances(split, [[0, 1], [1, 2]], line, [[0, 1]])
    assert pieces["j2j"] == pytest.approx(0.5 / 3 / 2) and pieces["j2b"] < 1e-12 and pieces["b2b"] < 1e-12
    assert skeleton_distances(line[:1], [], line[1:], [])["b2b"] == 1.0


@given(seed=SEEDS, joints=st.integers(1, 20))
def test_text_there_and_back(seed, joints):
    one = rig(seed, joints)
    back = parse_rig_text(rig_text(one.joints, one.bones, one.root, one.names))
    assert back.names == one.names and (back.parents == one.parents).all()
    assert np.abs(back.joints - one.joints).max() <= 5e-9


GOOD = "joints a 0 0 0\njoints b 1 0 0\nroot a\nhier a b\nskin 0 a 1.0\n"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("hier a b", "hier a c", "from 'a' to 'c', but no such joint"),
        ("hier a b", "hier a b\nhier a b", "'b' of the rig has two parents"),
        ("hier a b", "", "exactly one root"),
        ("hier a b", "hier a b\nhier b a", "exactly one root"),
        ("root a", "root b", "names the roots .'b'., but the joint without a parent is 'a'"),
        ("root a", "", "names the roots ..,"),
        ("b 1 0 0", "b 1 0", "line 2 of the rig is not understood: 'joints b 1 0'"),
        ("b 1 0 0", "b 1 0 x", "line 2 .* no three numbers"),
        ("b 1 0 0", "b 1 0 inf", "not finite"),
        ("b 1 0 0", "a 1 0 0", "line 2 of the rig is not understood"),
        (GOOD, "", r"J >= 1"),
    ],
)
def test_text_that_is_no_rig_is_refused(old, new, message):
    assert parse_rig_text(GOOD).names == ("a", "b")
    with pytest.raises(ValueError, match=message):
        parse_rig_text(GOOD.replace(old, new))


def test_names_that_text_cannot_hold_are_refused():
    with pytest.raises(ValueError, match="the joint name 'left arm' has a space"):
        rig_text(np.zeros((1, 3)), [], 0, ["left arm"])
