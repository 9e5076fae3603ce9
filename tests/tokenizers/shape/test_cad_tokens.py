"""Both token languages of CAD programs: bounds of a round trip, grammar, streams, published quirks, bad tokens."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import girih
from girih.tokenizers.grammars import accepts
from girih.tokenizers.shape.cad import Arc, Circle, Extrusion, Face, Loop, Plane, Program
from girih.tokenizers.shape.cad_planes import euler, plane_from_euler
from girih.tokenizers.shape.cad_tokens import CadTokenizer, quantised
from girih.tokenizers.shape.cad_vectors import CadVectorTokenizer

from ..walks import WALKS, walk
from .programs import plate, program, ring

SEEDS = st.integers(0, 2**32 - 1)
NAMES = ["pairs", "extrusion first", "vectors"]


@cache
def tokenizer(name: str, count: int | None = None) -> CadTokenizer | CadVectorTokenizer:
    """A language; ``count``: shorter, for so many walks."""
    if name == "vectors":
        return CadVectorTokenizer(max_rows={None: 60, 500: 8}.get(count, 20))
    return CadTokenizer(max_length={None: 272, 500: 30}.get(count, 100), extrusion_first=name == "extrusion first")


def fitting(codec, seed: int) -> Program:
    """The first program from ``seed`` on that is short enough for the language."""
    while True:
        try:
            codec.encode(program(seed))
            return program(seed)
        except ValueError as error:
            assert "more than" in str(error)
            seed += 1


def curves(one: Extrusion) -> list:
    return [curve for face in one.faces for loop in face.loops for curve in loop.curves]


@pytest.mark.parametrize("name", NAMES)
@given(seed=SEEDS)
def test_round_trip_stays_within_half_a_bin(name: str, seed: int) -> None:
    """Lengths 1/128, angles 2 pi / 256, sketch size 1/128, coordinates one unit of the grid: half of each."""
    codec = tokenizer(name)
    framed = codec.framed(fitting(codec, seed))
    (decoded,) = codec.decode(codec.encode(framed))
    assert len(decoded.extrusions) == len(framed.extrusions)
    bin = 1 / 128
    for a, b in zip(framed.extrusions, decoded.extrusions, strict=True):
        assert a.boolean == b.boolean
        for before, after in zip(a.plane.origin, b.plane.origin, strict=True):
            assert abs(max(-1.0, min(before, 1 - bin)) - after) <= bin / 2 + 1e-9  # clipped outside the cube
        sides = (a.sides, b.sides) if name != "vectors" else (a.distances, b.distances)
        for before, after in zip(*sides, strict=True):
            assert abs(max(-1.0, min(before, 1 - bin)) - after) <= bin / 2 + 1e-9
        axes = np.array([[p.x_axis, p.y_axis] for p in (a.plane, b.plane)])
        assert np.abs(axes[0] - axes[1]).max() <= 3 * math.pi / 256 + 1e-9  # three angles
        side = 255 if name != "vectors" else 95
        assert abs(min(a.unit * side, 2 - bin) - b.unit * side) <= bin / 2 + 1e-9
        if len(curves(a)) == len(curves(b)):  # order may differ where rounding makes another corner the leftmost
            points = [[c.center if isinstance(c, Circle) else c.start for c in curves(e)] for e in (a, b)]
            for p in points[0]:
                assert min(max(abs(u - v) for u, v in zip(p, q, strict=True)) for q in points[1]) <= 0.5 + 1e-6


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("count", [12, pytest.param(1000, marks=pytest.mark.slow)])
def test_encoded_programs_are_accepted_and_decode_to_what_encodes_the_same(name: str, count: int) -> None:
    codec = tokenizer(name)
    tokens = codec.encode([plate(), *(fitting(codec, 17 * seed) for seed in range(count))])
    assert bool(accepts(codec.grammar, tokens).all())
    assert torch.equal(codec.encode(codec.decode(tokens)), tokens)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(*WALKS)
def test_any_walk_decodes_to_closed_profiles(name: str, count: int) -> None:
    codec = tokenizer(name, count)
    _assert_valid(codec.decode(walk(codec.grammar, count, codec.spec.cells, seed=7)), count)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(*WALKS)
def test_walks_that_love_structure_decode_to_closed_profiles(name: str, count: int) -> None:
    """Every other token is one of structure where there is one: many short loops, faces and extrusions."""
    codec = CadVectorTokenizer(max_rows=10) if name == "vectors" else CadTokenizer(50, name == "extrusion first")
    noise, state, taken = torch.Generator().manual_seed(1), codec.grammar.start(count), []
    structure = torch.arange(codec.spec.vocab_size)
    structure = structure > 256 if name == "vectors" else structure < 11
    while not bool(codec.grammar.done(state).all()):
        scores = torch.rand(count, codec.spec.vocab_size, generator=noise)
        scores += (torch.rand(count, 1, generator=noise) < 0.5) & structure
        taken.append(scores.masked_fill(~codec.grammar.mask(state), -1).argmax(-1))
        state = codec.grammar.advance(state, taken[-1])
    programs = codec.decode(torch.stack(taken, 1))
    _assert_valid(programs, count)
    assert max(len(one.extrusions) for one in programs) > 1
    assert max(len(face.loops) for one in programs for e in one.extrusions for face in e.faces) > 1


def _assert_valid(programs: list[Program], count: int) -> None:
    assert len(programs) == count
    for one in programs:
        assert one.extrusions[0].boolean == "new"
        for extrusion in one.extrusions:
            assert extrusion.span[1] > extrusion.span[0] and extrusion.unit > 0 and extrusion.faces
            for face in extrusion.faces:
                assert face.loops
                for loop in face.loops:
                    _assert_closed(loop)


def _assert_closed(loop: Loop) -> None:
    if isinstance(loop.curves[0], Circle):
        assert len(loop.curves) == 1 and loop.curves[0].radius > 0
        return
    ends = [(c.start, c.end) for c in loop.curves]
    assert all(a[1] == b[0] for a, b in zip(ends, [*ends[1:], ends[0]], strict=True)) and all(s != e for s, e in ends)
    assert all(c.turn != 0 for c in loop.curves if isinstance(c, Arc))
    points = np.array([p for c in loop.curves for p in ((c.start, c.mid) if isinstance(c, Arc) else (c.start,))])
    assert np.linalg.matrix_rank(points - points[0], tol=1e-9) == 2, "all on a line"


@pytest.mark.parametrize(("name", "longest"), [("pairs", 19), ("extrusion first", 20), ("vectors", 4)])
def test_walks_end_in_the_shortest_room_there_is(name: str, longest: int) -> None:
    codec = CadVectorTokenizer(longest) if name == "vectors" else CadTokenizer(longest, name == "extrusion first")
    codec.decode(walk(codec.grammar, 100, codec.spec.cells))
    with pytest.raises(ValueError, match="limit"):
        CadVectorTokenizer(3) if name == "vectors" else CadTokenizer(18, name == "extrusion first")


def test_grammar_refuses_profiles_that_enclose_nothing() -> None:
    codec = tokenizer("pairs")
    good = codec.encode(plate())[0].tolist()
    body = [1, 0, 11, 11, 5, 0, 30, 11, 5, 0, 60, 11, 5, 0]  # three corners on a line
    state = codec.grammar.start(1)
    for token in body:
        state = codec.grammar.advance(state, torch.tensor([token]))
    mask = codec.grammar.mask(state)[0]
    assert not bool(mask[4]), "the loop may not end"
    assert bool(mask[11:].all()), "it may go on"
    assert bool(accepts(codec.grammar, torch.tensor([good]))[0])
    same_point = torch.tensor([[1, 0, 11, 11, 5, 0, 11, 11]])
    assert not bool(accepts(codec.grammar, same_point)[0])


def test_flags_and_indices_of_a_prefix_are_those_of_the_whole() -> None:
    for name in ("pairs", "extrusion first"):
        codec = tokenizer(name)
        pairs = codec.pairs(codec.encode(program(5)))
        assert pairs.shape == (1, 272, 2)
        assert codec.decode(pairs.flatten(1)) == codec.decode(codec.encode(program(5)))
        flags, indices = codec.flags(pairs), codec.indices(pairs)
        count = int((pairs[..., 0] != 0).sum())
        assert bool((flags[0, count:] == 11).all()) and int(indices[0, -1]) == int(indices[0, count - 1]) + 1
        assert int((flags == 10).sum()) == int(indices[0, -1])
        for k in (1, 7, count // 2, count):
            assert torch.equal(codec.flags(pairs[:, :k]), flags[:, :k])
            assert torch.equal(codec.indices(pairs[:, :k]), indices[:, :k])


def test_a_face_on_the_underside_keeps_its_direction() -> None:
    """An angle of pi is bin 0; the published tokens clip it."""
    one = replace(plate().extrusions[0], plane=Plane((0.0, 0.0, 5.0), (1.0, 0.0, 0.0), (0.0, -1.0, 0.0)))
    for codec, published in ((CadTokenizer(), CadTokenizer(wrap_angles=False)),
                             (CadVectorTokenizer(), CadVectorTokenizer(as_published=True))):  # fmt: skip
        (exact,), (clipped,) = (c.decode(c.encode(Program((one,)))) for c in (codec, published))
        assert exact.extrusions[0].plane.normal == pytest.approx((0, 0, -1), abs=1e-9)
        assert abs(clipped.extrusions[0].plane.normal[2] + 1) > 1e-5


def test_published_quirks_are_options() -> None:
    one = replace(plate().extrusions[0], extent="two_sides", distances=(5.0, 3.0))
    codec = CadTokenizer(second_extent=False)
    assert codec.decode(codec.encode(Program((one,))))[0].extrusions[0].sides[1] == 0
    assert CadTokenizer().decode(CadTokenizer().encode(Program((one,))))[0].extrusions[0].sides[1] > 0
    facing = replace(one, plane=Plane(x_axis=(0.0, 1.0, 0.0), y_axis=(0.0, 0.0, -1.0)))
    assert facing.plane.normal == (-1, 0, 0)
    for published, sign in ((False, -1), (True, 1)):
        codec = CadVectorTokenizer(as_published=published)
        assert codec.decode(codec.encode(Program((facing,))))[0].extrusions[0].plane.normal[0] * sign > 0.99


@pytest.mark.filterwarnings("ignore:Gimbal lock")
@given(SEEDS)
def test_euler_angles_make_the_plane_again(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = np.linalg.qr(rng.normal(size=(3, 3)))[0].T[:2] if seed % 2 else np.roll(np.eye(3), rng.integers(3), 0)[:2]
    plane = Plane((0.0, 0.0, 0.0), tuple((x * rng.choice([-1, 1])).tolist()), tuple((y * rng.choice([-1, 1])).tolist()))
    back = plane_from_euler((0.0, 0.0, 0.0), euler(plane))
    assert np.abs(np.array([back.x_axis, back.y_axis]) - [plane.x_axis, plane.y_axis]).max() < 1e-9
    scipy = pytest.importorskip("scipy.spatial.transform")
    expected = scipy.Rotation.from_matrix([plane.x_axis, plane.y_axis, plane.normal]).as_euler("zyx")
    apart = (np.array(euler(plane)) - expected + math.pi) % math.tau - math.pi
    assert np.abs(apart).max() < 1e-6


def test_what_rounding_leaves_without_area() -> None:
    outer = plate().extrusions[0].faces[0].loops[0]
    speck = Loop(tuple(ring([(30, 20), (30.01, 20), (30.01, 20.01)])))
    for name in NAMES:
        codec = tokenizer(name)
        (back,) = codec.decode(codec.encode(Program((Extrusion((Face((outer, speck)),)),))))
        assert len(back.extrusions[0].faces[0].loops) == 1, "the hole is gone"
    with pytest.raises(ValueError, match="too small"):
        tokenizer("pairs").encode(Program((Extrusion((Face((outer,)), Face((speck,)))),)))
    thin = Program((Extrusion((Face((outer,)),), distances=(1e-6, 0.0)),))
    for name in NAMES:
        codec = tokenizer(name)
        assert codec.decode(codec.encode(thin))[0].extrusions[0].span[1] == pytest.approx(1 / 128)


def test_quantised_sketch_is_whole_numbers() -> None:
    one = tokenizer("pairs").framed(plate()).extrusions[0]
    (face,) = quantised(one)
    assert face.loops[0].bounds == ((0, 0), (255, 170))


def test_vectors_and_tokens_are_two_forms_of_one_thing() -> None:
    codec = CadVectorTokenizer()
    tokens = codec.encode([program(3), plate()])
    vectors = codec.vectors(tokens)
    assert vectors.shape == (2, 60, 17) and int(vectors.min()) == -1 and vectors[1, -1].tolist() == [3] + [-1] * 16
    assert torch.equal(codec.from_vectors(vectors), tokens)
    with pytest.raises(ValueError, match="no end row"):
        codec.from_vectors(vectors[:, :3])
    with pytest.raises(ValueError, match="must be"):
        codec.from_vectors(vectors[..., :5])
    with pytest.raises(ValueError, match="432"):
        codec.from_vectors(vectors + 200)


@pytest.mark.parametrize("name", NAMES)
def test_bad_tokens_are_one_clear_line(name: str) -> None:
    codec = tokenizer(name)
    tokens = codec.encode(plate())
    wrong, after = tokens.clone(), tokens.clone()
    wrong[0, 3], after[0, -1] = 3, 30
    cut = tokens[:, :-4]
    for bad in (wrong, after, cut, tokens + 1000, tokens * 0, tokens[0], tokens[:, :0], -tokens):
        with pytest.raises(ValueError) as error:
            codec.decode(bad)
        assert "\n" not in str(error.value)


def test_programs_that_do_not_fit() -> None:
    wide = Loop(tuple(ring([(math.cos(k / 50 * math.tau), math.sin(k / 50 * math.tau)) for k in range(50)])))
    many = Program((Extrusion((Face((wide,)),)),) + (Extrusion((Face((wide,)),), boolean="join"),) * 12)
    with pytest.raises(ValueError, match="pairs, more than the 272"):
        tokenizer("pairs").encode(many)
    with pytest.raises(ValueError, match="extrusions of one face, more than the 10"):
        tokenizer("vectors").encode(many)
    with pytest.raises(ValueError, match="50 curves, more than the 14"):
        tokenizer("vectors").encode(Program(many.extrusions[:1]))
    holes = tuple(Loop((Circle((6.0 + 6 * k, 6.0), 2.0),)) for k in range(7))
    with pytest.raises(ValueError, match="8 loops, more than the 6"):
        tokenizer("vectors").encode(Program((Extrusion((Face((plate().extrusions[0].faces[0].loops[0], *holes)),)),)))
    with pytest.raises(ValueError, match="no extrusions"):
        tokenizer("pairs").encode(Program(()))


@pytest.mark.parametrize("codec", [CadTokenizer(100, True, False), CadVectorTokenizer(20, True)])
def test_saved_by_config(codec, tmp_path) -> None:
    codec.save_pretrained(tmp_path)
    again = getattr(girih, type(codec).__name__).from_pretrained(tmp_path)
    assert again.spec == codec.spec and all(again.config[name] == value for name, value in codec.config.items()
                                            if not name.startswith("_"))  # fmt: skip
    assert torch.equal(again.encode(plate()), codec.encode(plate()))


@pytest.mark.parametrize("name", NAMES)
def test_changes_are_said(name: str) -> None:
    codec = tokenizer(name)
    assert codec.changes(plate()) == []
    speck = Loop(tuple(ring([(30, 20), (30.01, 20), (30.01, 20.01)])))
    outer = plate().extrusions[0].faces[0].loops[0]
    far = replace(plate().extrusions[0], boolean="cut", plane=Plane((0.0, 0.0, 900.0)))
    lines = codec.changes(Program((Extrusion((Face((outer, speck)),)), far)))
    assert lines == ["extrusion 0: 1 of 2 loops are too small for the grid and go",
                     "extrusion 0: 3 of 7 curves are too small for the grid and go",
                     "extrusion 1: z 11.25 is clipped to -1 .. 1"]  # fmt: skip
