"""Rigs as tokens, MagicArticulate's and UniRig's way: there and back, always one tree, wrong input named."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import girih
from girih.tokenizers.grammars import accepts
from girih.tokenizers.shape.rig import SkeletonTokenizer, UniRigTokenizer
from girih.tokenizers.shape.skeleton import Rig
from tests.tokenizers.shape.skeletons import edges, rig
from tests.tokenizers.walks import WALKS, walk

SEEDS = st.integers(0, 2**31)
BONES, SPATIAL, UNIRIG = SkeletonTokenizer(), SkeletonTokenizer(order="spatial"), UniRigTokenizer()
EVERY = pytest.mark.parametrize("codec", [BONES, SPATIAL, UNIRIG], ids=["bones", "spatial", "unirig"])


@given(seed=SEEDS)
def test_bones_come_back_within_half_a_bin(seed):
    one = rig(seed)
    (back,) = BONES.decode(BONES.encode(one))
    place = np.abs(one.joints[:, None] - back.joints[None]).max(2)
    nearest = place.argmin(1)
    assert place.min(1).max() <= 0.5 / 128 + 1e-9
    if len(back.joints) == len(one.joints):
        assert back.root == nearest[one.root]
        assert {tuple(pair) for pair in nearest[one.bones].tolist()} == {tuple(pair) for pair in back.bones.tolist()}


@given(seed=SEEDS)
def test_unirig_keeps_joints_in_order_within_half_a_bin(seed):
    one = rig(seed, half=0.99).depth_first()
    parts = tuple(np.random.default_rng(seed).choice([None, "body", "hand"], len(one.joints)).tolist())
    one = replace(one, parts=parts, kind="mixamo")
    (back,) = UNIRIG.decode(UNIRIG.encode(one))
    assert np.abs(back.joints - one.joints).max() <= 0.5 * 2 / 256 + 1e-9
    assert (back.parents == one.parents).all() and back.parts == parts and back.kind == "mixamo"


@EVERY
@given(seed=SEEDS, joints=st.integers(2, 30), crowded=st.booleans())
def test_what_is_decoded_encodes_to_the_same_tokens(codec, seed, joints, crowded):
    one = rig(seed, joints, crowded=crowded)
    if len({tuple(place) for place in one.joints.round(2).tolist()}) < 2:
        return
    tokens = codec.encode(one)
    (back,) = codec.decode(tokens)
    assert torch.equal(codec.encode(back), tokens)
    assert bool(accepts(codec.grammar, tokens).all())


def test_bones_do_not_depend_on_the_order_of_joints():
    one = rig(5, 25)
    for seed in range(5):
        mixed = one.reordered(np.random.default_rng(seed).permutation(25).tolist())
        assert torch.equal(BONES.encode(mixed), BONES.encode(one))
        assert torch.equal(SPATIAL.encode(mixed), SPATIAL.encode(one))


def test_orders_of_bones():
    joints = np.array([[0, 0, 0], [0.2, 0, 0.1], [0.1, 0, 0.1], [0, 0.3, -0.2], [0.3, 0.1, 0.1]])
    one = Rig(joints, np.array([-1, 0, 0, 0, 1]))
    (written,) = BONES.bones(BONES.encode(one))
    assert np.allclose(written[:, 0], joints[[0, 0, 0, 1]], atol=0.01)
    assert np.allclose(written[:, 1], joints[[3, 2, 1, 4]], atol=0.01)  # a level by (z, y, x), then the next
    (written,) = SPATIAL.bones(SPATIAL.encode(one))
    assert np.allclose(written[:, 0], joints[[3, 0, 0, 1]], atol=0.01)  # joints sorted 3, 0, 2, 1, 4, bones by these
    assert np.allclose(written[:, 1], joints[[0, 2, 1, 4]], atol=0.01)


def test_rows_of_different_length_and_the_specs():
    spec = BONES.spec
    assert (spec.vocab_size, spec.shape, spec.bos, spec.eos, spec.pad) == (131, (602,), 0, 1, 2)
    spec = UNIRIG.spec
    assert (spec.vocab_size, spec.shape, spec.bos, spec.eos, spec.pad) == (267, (2048,), 257, 258, 259)
    for codec in (BONES, UNIRIG):
        tokens = codec.encode([rig(0, 3), rig(1, 9)])
        assert tokens[0, -1] == codec.spec.pad and tokens[1, -1] == codec.spec.eos
        assert [len(one.joints) for one in codec.decode(tokens)] == [3, 9]
        assert bool(accepts(codec.grammar, tokens).all())


@pytest.mark.parametrize(*WALKS)
def test_walks_are_trees_of_bones(count):
    for codec in (SkeletonTokenizer(bins=8, max_bones=7), SkeletonTokenizer(bins=8, max_bones=7, order="spatial")):
        tokens = walk(codec.grammar, count, longest=44)
        rigs = codec.decode(tokens)  # Rig refuses what is no tree
        assert all(len({tuple(place) for place in one.joints.tolist()}) == len(one.joints) > 1 for one in rigs)
        assert all(np.linalg.norm(np.diff(one.joints[one.bones], axis=1), axis=2).min() > 0 for one in rigs)
        if codec.config.order == "hierarchical":  # nothing had to be repaired: a joint a bone, as written
            written = codec.bones(tokens)
            assert all(len(bones) == len(one.joints) - 1 for bones, one in zip(written, rigs, strict=True))
            assert all(bones[0, 0].tolist() == one.joints[one.root].tolist()
                       for bones, one in zip(written, rigs, strict=True))  # fmt: skip
            for bones in written:
                places = [tuple(place) for place in bones[:, 0].tolist()]
                known = [tuple(place) for place in bones[:, 1].tolist()]
                assert all(place in (places[0], *known[:i]) for i, place in enumerate(places))
        # Joining the parts of loose bones may take more bones than there is room for.
        canonical = codec.encode([one for one in rigs if len(one.bones) <= 7])
        assert torch.equal(codec.encode(codec.decode(canonical)), canonical)
        assert bool(accepts(codec.grammar, canonical).all())


@pytest.mark.parametrize(*WALKS)
def test_walks_are_unirig_trees(count):
    codec = UniRigTokenizer(bins=6, classes=("a",), max_tokens=60)
    tokens = walk(codec.grammar, count, longest=60)
    rigs = codec.decode(tokens)
    assert all((one.parents < np.arange(len(one.parents))).all() for one in rigs)  # parents before children
    assert max(len(one.joints) for one in rigs) > 8 and {one.kind for one in rigs} == {None, "a"}
    for one, body in zip(rigs, codec.schema.bodies(tokens), strict=True):
        for record, start, end in codec.reader.split(body):
            if record == "branch":  # hangs on a joint that stands
                place = codec.quantizer.decode(body[start + 1 : end - 3], torch.float64).numpy()
                assert (one.joints == place).all(1).any()
    canonical = codec.encode(rigs)
    assert torch.equal(codec.encode(codec.decode(canonical)), canonical)
    assert bool(accepts(codec.grammar, canonical).all())


def test_walks_of_the_published_sizes():
    for codec in (SkeletonTokenizer(max_bones=8), UniRigTokenizer(max_tokens=70)):
        tokens = walk(codec.grammar, 60, longest=70)
        assert all(len(one.joints) >= 1 for one in codec.decode(tokens))


def test_joints_that_share_a_bin_become_one_bone_and_stay_a_tree():
    joints = np.array([[0, 0, 0], [0.2, 0, 0], [0, 0.2, 0], [0.3, 0.3, 0], [0.3, 0.3, 0.001], [0.4, 0, 0]])
    one = Rig(joints, np.array([-1, 0, 0, 1, 2, 4]))  # two branches meet in 3 = 4, and one of them goes on
    (back,) = BONES.decode(BONES.encode(one))
    assert len(back.joints) == 5 and len(edges(back)) == 4
    (same,) = UNIRIG.decode(UNIRIG.encode(one))
    assert len(same.joints) == 6


def test_published_decoding_is_the_lower_edge():
    edge = SkeletonTokenizer(decode_at="edge")
    tokens = edge.encode(rig(0))
    assert torch.equal(tokens, BONES.encode(rig(0)))
    assert np.allclose(BONES.bones(tokens)[0] - edge.bones(tokens)[0], 0.5 / 128)


def test_published_unirig_rounds_up_and_masks_loosely():
    published = UniRigTokenizer(published=True)
    one = rig(1, half=0.9).depth_first()
    (back,) = published.decode(published.encode(one))
    assert np.abs(back.joints - one.joints).max() <= 2 / 256 + 1e-9
    assert 0.4 < float(((back.joints - one.joints) * 128).mean()) < 0.6  # half a bin too high, as measured
    assert bool(accepts(published.grammar, published.encode(one)).all())
    empty = torch.tensor([[257, 263, 258]])
    assert bool(accepts(published.grammar, empty).all()) and not bool(accepts(UNIRIG.grammar, empty).any())


def test_what_no_tree_is_repaired():
    ends = torch.tensor([[9, 9, 9, 20, 9, 9], [60, 9, 9, 70, 9, 9], [20, 9, 9, 9, 9, 9], [70, 9, 9, 60, 9, 9]])
    tokens = BONES.schema.sequence(BONES.bone.to_tokens(ends))[None]
    assert not bool(accepts(BONES.grammar, tokens).any())
    (back,) = BONES.decode(tokens)
    assert len(back.joints) == 4 and len(back.bones) == 3


@EVERY
def test_save_and_load(codec, tmp_path):
    codec.save_pretrained(tmp_path)
    again = getattr(girih, type(codec).__name__).from_pretrained(tmp_path)
    assert again.spec == codec.spec
    assert torch.equal(again.encode(rig(0)), codec.encode(rig(0)))


@EVERY
def test_rigs_that_do_not_fit_are_refused(codec):
    with pytest.raises(ValueError, match=r"1 of 12 joints lie outside .* the first is 'joint\d+' at"):
        one = rig(0)
        codec.encode(replace(one, joints=np.where(np.arange(12)[:, None] == 4, 3.0, one.joints)))


def test_rigs_of_too_many_or_too_few_bones_are_refused():
    with pytest.raises(ValueError, match="has 0 bones longer than a bin; there must be 1 to 100"):
        BONES.encode(Rig(np.zeros((2, 3)), np.array([-1, 0])))
    with pytest.raises(ValueError, match="has 119 bones longer"):
        BONES.encode(rig(0, 120))
    with pytest.raises(ValueError, match=r"the rig takes \d+ tokens \(40 joints\); at most 100 fit"):
        UniRigTokenizer(max_tokens=100).encode(rig(0, 40))


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="unknown class 'miximo'; did you mean 'mixamo'"):
        UNIRIG.encode(replace(rig(0), kind="miximo"))
    with pytest.raises(ValueError, match="unknown part 'tail'"):
        UNIRIG.encode(replace(rig(0), parts=("tail",) * 12))
    with pytest.raises(ValueError, match="unknown order 'deep'"):
        SkeletonTokenizer(order="deep")
    with pytest.raises(ValueError, match="unknown decode_at 'middle'"):
        SkeletonTokenizer(decode_at="middle")
    with pytest.raises(ValueError, match="max_bones is 0"):
        SkeletonTokenizer(max_bones=0)
    with pytest.raises(ValueError, match="max_bones is 8; it must be in 1 .. 7"):
        SkeletonTokenizer(bins=2, max_bones=8)
    with pytest.raises(ValueError, match="tolerance 0.0025 .* the width of a bin, 0.00195312"):
        SkeletonTokenizer(bins=512)


def test_the_grammar_never_runs_out_of_places():
    codec = SkeletonTokenizer(bins=2, max_bones=7)
    tokens = walk(codec.grammar, 60, longest=44)
    assert max(len(one.joints) for one in codec.decode(tokens)) == 8


@pytest.mark.parametrize(
    ("codec", "tokens", "message"),
    [
        (BONES, [0, 3, 3, 3, 9, 9, 9], "row 0 has no end token"),
        (BONES, [3, 3, 3, 9, 9, 9, 1], "does not begin with bos"),
        (BONES, [0, 1], "row 0 has 0 coordinates; a skeleton has six a bone"),
        (BONES, [0, 3, 3, 3, 9, 9, 1], "row 0 has 5 coordinates"),
        (BONES, [0, 3, 3, 2, 9, 9, 9, 1], "token 2 in slot 2 of bone 0"),
        (BONES, [0, 3, 3, 3, 9, 9, 131, 1], "0 .. 130"),
        (BONES, [0, 3, 3, 3, 9, 9, 9, 1, 5], "goes on after its end"),
        (UNIRIG, [257, 263, 260, 1, 2, 3], "no end token"),
        (UNIRIG, [257, 258], "stops after 0 tokens"),
        (UNIRIG, [257, 263, 260, 258], "stops after 2 tokens"),
        (UNIRIG, [257, 260, 1, 2, 3, 258], "token 0 .id 260. may not come here; what may: class of class"),
        (UNIRIG, [257, 263, 260, 256, 1, 2, 3, 1, 2, 3, 258], "id 256. may not come here"),
        (UNIRIG, [257, 263, 260, 1, 2, 3, 261, 258], "stops after 6 tokens"),
        (UniRigTokenizer(published=True), [257, 263, 258], "row 0 has no joint"),
    ],
)
def test_tokens_that_are_no_rig_are_refused(codec, tokens, message):
    with pytest.raises(ValueError, match=message):
        codec.decode(torch.tensor([tokens]))
