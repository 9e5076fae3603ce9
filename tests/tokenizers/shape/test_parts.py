"""The language of parts: exact both ways, and every walk of its grammar is one sound solid with half a millimetre to
spare everywhere."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import girih
from girih.tokenizers.grammars import accepts
from girih.tokenizers.shape.cad import Circle, Extrusion, Face, Line, Loop, Plane, Program
from girih.tokenizers.shape.part_features import COUNTS, FEATURES, Feature, build, read
from girih.tokenizers.shape.parts import PartTokenizer
from girih.training.data.parts import sample
from tests.tokenizers.walks import WALKS, walk

CODEC = PartTokenizer()
LONGEST = CODEC.spec.shape[0]
PLATE = Feature("block", (120, 80, 10, 0))


def steered(grammar, rows, longest, seed=0):
    """Walks that cut a lot: uniform but for a liking for features, and in three of four rows for extreme values."""
    noise, state, taken = torch.Generator().manual_seed(seed), grammar.start(rows), []
    liking = torch.zeros(rows, grammar.vocab_size)
    for name in ("block", "pocket", "wall", "walls", "port", "corners", "window", "row", "hole", "ring", "boss"):
        liking[:, CODEC.schema[name].slots[0]] = 4 if name == "block" else 2
    liking[:, 0] = 3.0  # sharp corners, holes in the middle
    slope = torch.linspace(1, 0, 256)
    for kind, steepness in enumerate((0, 6, -18, 48)):
        liking[kind::4, :256] += steepness * slope
    while not bool(grammar.done(state).all()):
        allowed = grammar.mask(state)
        assert bool(allowed.any(-1).all()) and len(taken) < longest
        chance = -torch.log(-torch.log(torch.rand(rows, grammar.vocab_size, generator=noise)))
        taken.append((chance + liking).masked_fill(~allowed, -torch.inf).argmax(-1))
        state = grammar.advance(state, taken[-1])
    return torch.stack(taken, 1)


def outline(loop):
    """A loop as a polygon [n, 2], arcs and circles by points on them."""
    points = []
    for curve in loop.curves:
        if isinstance(curve, Line):
            points.append([curve.start])
            continue
        sweep = math.tau if isinstance(curve, Circle) else curve.sweep
        start = math.atan2(curve.start[1] - curve.center[1], curve.start[0] - curve.center[0])
        turns = start + np.linspace(0, sweep, 48 if isinstance(curve, Circle) else 12, endpoint=False)
        points.append(np.array(curve.center) + curve.radius * np.stack([np.cos(turns), np.sin(turns)], 1))
    return np.concatenate(points)


def outlines(step):
    return [outline(loop) for face in step.faces for loop in face.loops]


def circles(steps):
    """(centres [n, 2], radii [n]) of all circles of some steps, and the outlines of the rest of their loops."""
    loops = [loop for step in steps for face in step.faces for loop in face.loops]
    found = [loop.curves[0] for loop in loops if isinstance(loop.curves[0], Circle)]
    rest = [outline(loop) for loop in loops if not isinstance(loop.curves[0], Circle)]
    return np.array([one.center for one in found]).reshape(-1, 2), np.array([one.radius for one in found]), rest


def inside(points, polygon):
    """bool [n]: the points lie in the polygon."""
    a, b = polygon, np.roll(polygon, -1, 0)
    x, y = points[:, None, 0], points[:, None, 1]
    spans = (a[:, 1] > y) != (b[:, 1] > y)
    with np.errstate(divide="ignore", invalid="ignore"):
        crossing = (b[:, 0] - a[:, 0]) * (y - a[:, 1]) / (b[:, 1] - a[:, 1]) + a[:, 0]
    return (spans & (x < crossing)).sum(1) % 2 == 1


def distances(points, polygon):
    """[n]: from each point to the nearest edge of the polygon."""
    edge = np.roll(polygon, -1, 0) - polygon
    offset = points[:, None] - polygon
    along = ((offset * edge).sum(-1) / (edge**2).sum(-1)).clip(0, 1)
    return np.linalg.norm(offset - along[..., None] * edge, axis=-1).min(1)


SPARE = 0.5 - 0.15  # millimetres, less what the polygons of this file take from circles and arcs of up to 64 mm


def assert_sound(program):
    """Every cut lies inside of what it cuts and apart from every other, and what is joined stands on what is there."""
    body, *rest = program.checked().extrusions
    joins = [step for step in rest if step.boolean == "join"]
    cuts = [step for step in rest if step.boolean == "cut"]
    assert body.boolean == "new" and len(joins) + len(cuts) == len(rest)
    (outer,), base = outlines(body), body.span[1]
    upright = [step for step in cuts if step.plane.normal[2] == 1]
    pockets = [step for step in upright if step.plane.origin[2] > 0]
    centers, radii, windows = circles([step for step in upright if step not in pockets])
    edges = [outer]  # holes lie inside of these
    for step in pockets:
        (pocket,) = outlines(step)
        assert 0 < step.plane.origin[2] < base < step.plane.origin[2] + step.span[1]
        assert inside(pocket, outer).all() and distances(pocket, outer).min() > 0.49
        edges.append(pocket)
    for polygon in edges:
        assert inside(centers, polygon).all() and (distances(centers, polygon) - radii > SPARE).all()
        for window in windows:
            assert inside(window, polygon).all() and distances(window, polygon).min() > SPARE
    for window in windows:
        assert not inside(centers, window).any() and (distances(centers, window) - radii > SPARE).all()
    gaps = np.linalg.norm(centers[:, None] - centers, axis=-1) - radii[:, None] - radii
    assert (gaps[np.triu_indices(len(radii), 1)] > 0.49).all()
    top = base
    for step in joins:
        middles, sizes, walls = circles([step])
        for size in sizes:  # a boss, in the middle of what is below it; holes pass through it or stay outside
            assert step.plane.origin[2] == top and not middles.any()
            top += step.span[1]
            reach = np.linalg.norm(centers, axis=1)
            assert ((reach + radii < size - 0.49) | (reach - radii > size + 0.49)).all()
        for wall in walls:
            assert step.plane.origin[2] == base and (np.abs(wall) <= np.abs(outer).max(0) + 1e-9).all()
            assert not inside(centers, wall).any() and (distances(centers, wall) - radii > 0.49).all()
            assert all(not inside(window, wall).any() and distances(window, wall).min() > 0.49 for window in windows)
    for step in (step for step in cuts if step not in upright):  # a port: in one wall, over the floor, under the top
        (x0, z0), (x1, z1) = step.bounds
        low, high = (pockets[0].plane.origin[2], base) if pockets else (base, base + joins[0].span[1])
        assert low + 0.49 < z0 < z1 < high - 0.49
        assert abs(x0 + x1) < 1e-9 and x1 < np.abs(outer[:, 0]).max() - 0.49
        assert (np.diff(sorted(circles([step])[0][:, 0])) > 2 * circles([step])[1][0] + 0.49).all()


def test_there_and_back_exactly():
    rng = np.random.default_rng(0)
    programs = [sample(rng).program for _ in range(200)]
    tokens = CODEC.encode(programs)
    assert bool(accepts(CODEC.grammar, tokens).all())
    assert CODEC.decode(tokens) == programs
    assert tokens.shape[1] <= LONGEST and tokens.dtype == torch.long


def test_numbers_are_copied():
    tokens = CODEC.encode([build([PLATE, Feature("corners", (8, 12)), Feature("bore", (20,))])])
    kinds = {name: CODEC.schema[name].slots[0] for name in FEATURES}
    spec = CODEC.spec
    assert tokens.tolist() == [[spec.bos, kinds["block"], 120, 80, 10, 0, kinds["corners"], 8, 12, kinds["bore"], 20,
                                spec.eos]]  # fmt: skip


@pytest.mark.parametrize("walker", [walk, steered])
@pytest.mark.parametrize(*WALKS)
def test_every_walk_is_a_sound_part_and_canonical(walker, count):
    tokens = walker(CODEC.grammar, count, LONGEST)
    programs = CODEC.decode(tokens)
    for program in programs:
        assert_sound(program)
    assert torch.equal(CODEC.encode(programs), tokens)


@pytest.mark.parametrize("walker", [walk, steered])
@pytest.mark.parametrize("count", [40, pytest.param(5_000, marks=pytest.mark.slow)])
def test_the_meshes_of_walks_are_closed_and_in_one_piece(walker, count):
    pytest.importorskip("manifold3d")
    from girih.tokenizers.shape.cad_mesh import program_mesh

    for program in CODEC.decode(walker(CODEC.grammar, count, LONGEST, seed=1)):
        mesh = program_mesh(program)
        assert mesh.is_watertight and mesh.is_winding_consistent and mesh.volume > 0
        assert mesh.body_count == 1


def test_walks_reach_every_feature():
    bodies = CODEC.schema.bodies(steered(CODEC.grammar, 300, LONGEST))
    assert {record for body in bodies for record, _, _ in CODEC.automaton.split(body)} == set(FEATURES)


def test_the_end_is_near_from_everywhere():
    grammar, automaton = CODEC.grammar, CODEC.automaton
    for steps in range(1, 24, 3):
        state = grammar.start(60)
        noise = torch.Generator().manual_seed(steps)
        for _ in range(steps):
            scores = torch.rand(60, CODEC.spec.vocab_size, generator=noise).masked_fill(~grammar.mask(state), -1.0)
            state = grammar.advance(state, scores.argmax(-1))
        for _ in range(8):  # the longest feature that may be open, and eos
            cost = automaton.cost[state["at"]].masked_fill(~grammar.mask(state), 32767)
            state = grammar.advance(state, cost.argmin(-1))
        assert bool(grammar.done(state).all())


def test_the_order_of_steps_does_not_matter():
    rng = np.random.default_rng(3)
    for _ in range(50):
        program = sample(rng).program
        first, *rest = program.extrusions
        shuffled = Program((first, *(rest[i] for i in rng.permutation(len(rest)))))
        assert read(shuffled) == read(program)


def test_saved_and_loaded(tmp_path):
    PartTokenizer(max_tokens=40).save_pretrained(tmp_path)
    again = PartTokenizer.from_pretrained(tmp_path)
    assert again.spec == PartTokenizer(max_tokens=40).spec and again.spec.shape == (40,)
    assert girih.PartTokenizer is PartTokenizer


def test_one_range_of_ids_for_lengths_and_one_for_counts():
    for name, fields in FEATURES.items():
        for field, slot in zip(fields, CODEC.schema[name].fields, strict=True):
            assert slot.ids == (range(256, 320) if field in COUNTS else range(256))


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ([PLATE, Feature("hole", (8, 3, 20))], "row 0: token 8"),  # hangs over the left edge
        ([PLATE, Feature("bore", (79,))], "row 0: token 7"),  # leaves a quarter of a millimetre
        ([PLATE, Feature("bore", (10,)), Feature("bore", (20,))], "row 0: token 8"),
        ([Feature("disc", (40, 10)), Feature("bore", (20,)), Feature("ring", (6, 8, 26))], "row 0"),  # holes overlap
        ([Feature("block", (300, 80, 10, 0))], "width of its block is 150 mm; it must be in 0 .. 127.5"),
        ([Feature("gear", (70, 200, 180, 10))], "teeth of its gear is 70; it must be in 0 .. 63"),
    ],
)
def test_parts_outside_the_language_are_refused(features, message):
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        CODEC.encode([build(features)])


def bent(program, **changes):
    return replace(program, extrusions=(replace(program.extrusions[0], **changes), *program.extrusions[1:]))


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (Program(()), "no extrusions"),
        (bent(build([PLATE]), distances=(5.2, 0.0)), "extrusion 0 .new. is no feature"),  # between the grid
        (bent(build([PLATE]), distances=(math.nan, 0.0)), "extrusion 0 has coordinates that are not finite"),
        (bent(build([PLATE]), distances=(1e300, 0.0)), "beyond 10 m"),
        (bent(build([PLATE]), faces=()), "extrusion 0 has a sketch without curves"),
        (bent(build([PLATE]), faces=(Face((Loop(()),)),)), "without curves"),
        (bent(build([PLATE]), boolean="intersect"), "no feature"),
        (bent(build([PLATE]), plane=Plane((0.0, 0.0, 1.0))), "no feature"),  # floats
        (bent(build([PLATE]), plane=Plane((0.0, 0.0, 0.0), (0.0, 1.0, 0.0), (-1.0, 0.0, 0.0))), "no feature|row 0"),
        (Program((Extrusion((Face((Loop((Line((0, 0), (9, 0)), Line((9, 0), (0, 5)), Line((0, 5), (0, 0)))),)),)),)),
         "an outline of 3 edges"),
        (Program((build([PLATE]).extrusions[0], replace(build([PLATE]).extrusions[0], boolean="join"))), "no feature"),
    ],
)  # fmt: skip
def test_other_programs_are_refused(program, message):
    with pytest.raises(ValueError, match=message):
        CODEC.encode([program])


def test_bad_tokens_are_refused():
    spec = CODEC.spec
    block, disc = (CODEC.schema[name].slots[0] for name in ("block", "disc"))
    with pytest.raises(ValueError, match="no end token"):
        CODEC.decode(torch.tensor([[spec.bos, disc, 40, 10]]))
    with pytest.raises(ValueError, match="row 1: token 5"):  # corners rounder than the block is wide
        CODEC.decode(torch.tensor([[spec.bos, disc, 40, 10, spec.eos, spec.pad, spec.pad],
                                   [spec.bos, block, 40, 40, 10, 20, spec.eos]]))  # fmt: skip
    with pytest.raises(ValueError, match="must be in 0"):
        CODEC.decode(torch.tensor([[spec.bos, 999, spec.eos]]))
    with pytest.raises(ValueError, match="at least one"):
        CODEC.encode([])
    with pytest.raises(ValueError, match="below the shortest"):
        PartTokenizer(max_tokens=3)
    with pytest.raises(ValueError, match="at most 12 fit"):
        PartTokenizer(max_tokens=12).encode([build([PLATE, *(Feature("hole", (4, 10 * i, 9)) for i in range(1, 5))])])
