"""CAD programs as pairs of tokens: the language of CAD-SIGNet (Khan et al., CVPR 2024) and Text2CAD.

Knows how a program is brought into the unit cube, quantised and written, and the grammar. Does not know JSON or meshes,
nor networks; the second streams that those read (``flags``, ``indices``) are computed here.

A token is a pair (x, y) of ids from one vocabulary of 267: 0 padding, 1 start and end, 2 to 6 the end of a sketch,
face, loop, curve, extrusion, 7 to 10 new, join, cut, intersect, 11 to 266 values. All but sketch points are (id, 0).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from diffusers import ConfigMixin, SchedulerMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor

from girih.spec import TokenSpec
from girih.tokenizers.grammars import Automaton, RecordGrammar
from girih.tokenizers.records import Field, FieldQuantizer, Record, RecordSchema
from girih.tokenizers.shape.cad import (
    BOOLEANS,
    Arc,
    Circle,
    Curve,
    Extrusion,
    Face,
    Line,
    Loop,
    Point,
    Program,
    Vector,
    by_corner,
    check_corners,
)
from girih.tokenizers.shape.cad_planes import euler, plane_from_euler
from girih.tokenizers.shape.cad_rules import After, ClosedLoops

LANGUAGE = "pairs"
VALUES = 11  # id of value 0
CUBE = 0.75  # longest side of the normalised solid
GRID = 255  # sketch coordinates are 0 .. 255
END_SKETCH, END_EXTRUSION = 2, 6

_LENGTH = FieldQuantizer(256, (-1.0, 1.0), shift=0.0, offset=0.0, rounding="half-up")
_ANGLE = FieldQuantizer(256, (-math.pi, math.pi), shift=0.0, offset=0.0, rounding="half-up")
_SIZE = FieldQuantizer(256, (0.0, 2.0), shift=0.0, offset=0.0, rounding="half-up")  # bin 0 is not used
_COORDINATE = FieldQuantizer(256, (0.0, 256.0), shift=0.0, offset=0.0, rounding="half-up")

_X, _Y, _MID_X, _MID_Y = (Field(name, _COORDINATE, VALUES) for name in ("x", "y", "mid x", "mid y"))
_EXTENTS = tuple(Field(name, _LENGTH, VALUES) for name in ("extent one", "extent two", "x", "y", "z"))
_ANGLES = tuple(Field(name, _ANGLE, VALUES) for name in ("theta", "phi", "gamma"))
_BOOLEAN = Field("boolean", FieldQuantizer.integers(4), first=7)


def _singles(*slots: int | Field) -> tuple[int | Field, ...]:
    """Each slot as the first half of a pair whose other half is 0."""
    return tuple(half for slot in slots for half in (slot, 0))


def _extrusion(name: str, boolean: int | Field) -> Record:
    size = Field("sketch size", FieldQuantizer.integers(255), VALUES + 1)
    return Record(name, _singles(*_EXTENTS, *_ANGLES, boolean, size, END_EXTRUSION))


SCHEMA = RecordSchema(
    (
        Record("line", (_X, _Y, 5, 0)),
        Record("arc", (_X, _Y, _MID_X, _MID_Y, 5, 0)),  # alone in its loop: a circle by its centre and a point on it
        Record("end loop", (4, 0)),
        Record("end face", (3, 0)),
        Record("end sketch", (END_SKETCH, 0)),
        _extrusion("first extrusion", 7),
        _extrusion("extrusion", _BOOLEAN),
        Record("begin", (0,)),  # the other half of the start token
    ),
    vocab_size=267, bos=1, eos=1, pad=0,
)  # fmt: skip


def _sketch(name: str, after: str) -> dict[str, dict[str, str]]:
    """The states of a sketch; a loop is a circle, three curves, or two of which one is an arc."""
    line, lines, arc, ring, looped, faced = (f"{name}{part}" for part in (".l", ".ll", ".a", ".m", ".loop", ".face"))
    begin, go_on = {"line": line, "arc": arc}, {"line": ring, "arc": ring}
    return {
        name: begin,
        line: {"line": lines, "arc": ring},
        lines: go_on,
        arc: {**go_on, "end loop": looped},
        ring: {**go_on, "end loop": looped},
        looped: {**begin, "end face": faced},
        faced: {**begin, "end sketch": after},
    }


def automaton(extrusion_first: bool = False) -> Automaton:
    """What may follow what. In CAD-SIGNet's own order an extrusion stands before its sketch, else after it."""
    if extrusion_first:
        states = {"start": {"begin": "first"}, "first": {"first extrusion": "sketch"}, **_sketch("sketch", "more"),
                  "more": {"extrusion": "sketch", "eos": "end"}}  # fmt: skip
    else:
        states = {"start": {"begin": "sketch"}, **_sketch("sketch", "first"), "first": {"first extrusion": "more"},
                  "more": {"line": "next.l", "arc": "next.a", "eos": "end"}, **_sketch("next", "extrude"),
                  "extrude": {"extrusion": "more"}}  # fmt: skip
    return Automaton(SCHEMA, states)


class CadTokenizer(SchedulerMixin, ConfigMixin):
    """Sketch-and-extrude programs to pairs of tokens and back.

    ``encode`` scales the solid to a longest side of 0.75 with its lowest corner at the origin, each sketch to a grid of
    0 .. 255 along its longer side. Bound: half a bin in every field (a bin is 1/128 for lengths, 2 pi / 256 for angles,
    size / 255 for coordinates) where nothing is clipped; what rounding leaves without area goes.
    Tokens are [rows, n], the two halves of each pair side by side; ``spec.shape`` is (2 * max_length,).

    Args:
        max_length: most pairs, start and end included.
        extrusion_first: CAD-SIGNet's order; False is Text2CAD's.
        wrap_angles: an angle of pi is bin 0, as -pi is. The published tokens clip it to 255, 1.4 degrees off: False.
        second_extent: the second distance of a two-sided extrusion is written. The published tokens lack it: False.
    """

    @register_to_config
    def __init__(self, max_length: int = 272, extrusion_first: bool = False, wrap_angles: bool = True,
                 second_extent: bool = True) -> None:  # fmt: skip
        self.schema, self.automaton = SCHEMA, automaton(extrusion_first)
        corner = [("line", 0), ("arc", 0)], [("line", 1), ("arc", 1)]
        limit = 2 * max_length - 1  # the second half of the end is padding
        loops = ClosedLoops(self.automaton, corner, ([("arc", 2)], [("arc", 3)]), VALUES, 256,
                            closes=[([("end loop", 0)], 4)], reserve=4, limit=limit)  # fmt: skip
        names = ("first extrusion", "extrusion")
        nothing = VALUES + 128
        extents = After(self.automaton, [(n, 0) for n in names], nothing, [(n, 2) for n in names], [nothing])
        self.grammar = RecordGrammar(self.automaton, (loops, extents), limit)

    @property
    def spec(self) -> TokenSpec:
        return TokenSpec(267, (2 * self.config.max_length,), bos=1, eos=1, pad=0, grammar=self.grammar)

    def framed(self, program: Program) -> Program:
        """The program in the unit cube, in canonical order, each sketch in its grid's units; itself if it already is.

        Raises ValueError for an invalid program.
        """
        program.checked()
        if all(one.grid == LANGUAGE for one in program.extrusions):
            return program
        low, high = program.box
        longest = max(b - a for a, b in zip(low, high, strict=True))
        if not 0 < longest < math.inf:
            raise ValueError(f"the program's bounding box has no extent: {low} to {high}")
        scale = CUBE / longest
        return Program(tuple(self._framed(one, low, scale) for one in program.extrusions))

    def _framed(self, one: Extrusion, low: Vector, scale: float) -> Extrusion:
        one = replace(one, faces=by_corner(face.canonical() for face in one.faces))  # order in the file's own units
        if one.extent == "two_sides" and not self.config.second_extent:
            one = replace(one, distances=(one.distances[0], 0.0))
        (x, y), (right, top) = one.bounds
        side = max(right - x, top - y)
        faces = tuple(face.moved((-x, -y), GRID / side) for face in one.faces)
        corner = replace(one.plane, origin=one.plane.at((x * one.unit, y * one.unit)))
        one = replace(one, plane=corner, faces=faces, unit=one.unit * side / GRID)
        return replace(one.moved((-low[0], -low[1], -low[2]), scale), grid=LANGUAGE)

    def encode(self, programs: Program | Sequence[Program]) -> Tensor:
        """One or several programs to LongTensor [rows, n], padded on the right with 0.

        Raises ValueError for an invalid program, one that is too long, and a face that rounding leaves without area.
        """
        programs = [programs] if isinstance(programs, Program) else list(programs)
        return SCHEMA.batch([self._sequence(self.framed(program)) for program in programs])

    def _sequence(self, program: Program) -> Tensor:
        blocks = [torch.tensor([0])]
        for i, one in enumerate(program.extrusions):
            faces = [torch.cat(self._face(face)) for face in quantised(one)]
            sketch, extrusion = torch.cat([*faces, _record("end sketch")]), self._extrusion(one, first=i == 0)
            blocks += [extrusion, sketch] if self.config.extrusion_first else [sketch, extrusion]
        tokens = torch.cat([SCHEMA.sequence(*blocks), torch.tensor([0])])
        if len(tokens) > 2 * self.config.max_length:
            raise ValueError(f"the program takes {len(tokens) // 2} pairs, more than the {self.config.max_length}")
        return tokens

    def _face(self, face: Face) -> list[Tensor]:
        blocks = []
        for loop in face.loops:
            for curve in loop.curves:
                if isinstance(curve, Line):
                    blocks.append(_record("line", curve.start))
                elif isinstance(curve, Arc):
                    blocks.append(_record("arc", (*curve.start, *curve.mid)))
                else:
                    (x, y), radius = curve.center, curve.radius
                    blocks.append(_record("arc", (x, y, x, y + radius if y + radius <= GRID else y - radius)))
            blocks.append(_record("end loop"))
        return [*blocks, _record("end face")]

    def _extrusion(self, one: Extrusion, first: bool) -> Tensor:
        *bins, boolean, size = self.bins(one)
        return _record("first extrusion" if first else "extrusion", (*bins, *[boolean] * (not first), size - 1))

    def bins(self, one: Extrusion) -> tuple[int, ...]:
        """The ten bins of an extrusion in the unit cube: extents, origin, angles, boolean, sketch size."""
        lengths = _LENGTH.encode(torch.tensor([*one.sides, *one.plane.origin], dtype=torch.float64))
        if bool((lengths[:2] == 128).all()):
            lengths[0] = 129 if one.sides[0] >= 0 else 127  # thinner than half a bin: the thinnest there is
        angles = torch.tensor(euler(one.plane), dtype=torch.float64)
        turned = _ANGLE.encode(angles)
        if self.config.wrap_angles:
            turned[_ANGLE.encode(angles - math.pi) == 128] = 0  # nearer to pi than to bin 255
        size = max(int(_SIZE.encode(torch.tensor(one.unit * GRID, dtype=torch.float64))), 1)
        return (*lengths.tolist(), *turned.tolist(), BOOLEANS.index(one.boolean), size)

    def changes(self, program: Program) -> list[str]:
        """A line on each thing that ``encode`` changes beyond rounding: lengths clipped, holes and curves that go."""
        lines = []
        for i, one in enumerate(self.framed(program).extrusions):
            names = ("extent one", "extent two", "x", "y", "z")
            lengths = dict(zip(names, (*one.sides, *one.plane.origin), strict=True))
            lines += clipped(i, lengths, _LENGTH) + clipped(i, {"sketch size": one.unit * GRID}, _SIZE)
            before, after = ([len(loop.curves) for face in faces for loop in face.loops]
                             for faces in (one.faces, quantised(one)))  # fmt: skip
            lines += lost(i, before, after)
        return lines

    def decode(self, tokens: Tensor) -> list[Program]:
        """LongTensor [rows, n] to programs in the unit cube. Raises ValueError naming a token that may not be there."""
        return [self._program(body) for body in SCHEMA.bodies(tokens.cpu())]

    def _program(self, body: Tensor) -> Program:
        faces: list[Face] = []
        loops: list[Loop] = []
        rows: list[list[int]] = []
        sketches: list[tuple[Face, ...]] = []
        extrusions: list[list[int]] = []
        for name, start, end in self.automaton.split(body):
            if name == "begin":
                continue
            bins = SCHEMA[name].to_bins(body[None, start:end])[0].tolist()
            if name in ("line", "arc"):
                rows.append(bins)
            elif name == "end loop":
                loops, rows = [*loops, _loop(rows)], []
            elif name == "end face":
                faces, loops = [*faces, Face(tuple(loops))], []
            elif name == "end sketch":
                sketches, faces = [*sketches, tuple(faces)], []
            else:
                extrusions.append([*bins[:8], bins[8] if name == "extrusion" else 0, bins[-1] + 1])
        pairs = zip(sketches, extrusions, strict=True)
        return Program(tuple(_unquantised(sketch, bins) for sketch, bins in pairs)).checked()

    def pairs(self, tokens: Tensor) -> Tensor:
        """Tokens [rows, n] as the published layout [rows, max_length, 2], padded with (0, 0); ``flatten(1)`` undoes it.

        Raises ValueError for more than ``max_length`` pairs.
        """
        rows, n = tokens.shape
        if n > 2 * self.config.max_length:
            raise ValueError(f"{n} tokens are more than the {self.config.max_length} pairs of this language")
        flat = torch.nn.functional.pad(tokens, (0, 2 * self.config.max_length - n))
        return flat.reshape(rows, -1, 2)

    def flags(self, pairs: Tensor) -> Tensor:
        """[rows, n, 2] -> [rows, n]: 0 start, end and sketch, 1, 1, 2 .. 10 the eleven of an extrusion, 11 padding."""
        at = torch.arange(pairs.shape[1]).expand(pairs.shape[:2])
        ids = pairs[..., 0]
        before = (ids == END_SKETCH) | (at == 0) if self.config.extrusion_first else ids == END_SKETCH
        since = at - torch.where(before, at, at.new_tensor(-99)).cummax(1).values - 1  # pairs since the extrusion began
        inside = (since >= 0) & (since < 11) & (ids != 1) & ~before
        return torch.where(inside, since.clamp(min=1), 0).masked_fill(ids == 0, 11)

    def indices(self, pairs: Tensor) -> Tensor:
        """[rows, n, 2] -> [rows, n]: the extrusion that a pair belongs to, sketch included; on padding one more."""
        ids = pairs[..., 0]
        closes = (ids == (END_SKETCH if self.config.extrusion_first else END_EXTRUSION)).long()
        count = closes.cumsum(1)
        ended = (ids == 1) & (torch.arange(ids.shape[1]) > 0)  # the end belongs to the last one
        return torch.where(ids == 0, count, count - (closes | ended.long()))


def _record(name: str, bins: Sequence[float] = ()) -> Tensor:
    return SCHEMA[name].to_tokens(torch.tensor([list(bins)]).long().reshape(1, -1))[0]


def quantised(one: Extrusion) -> tuple[Face, ...]:
    """The sketch of an extrusion in the unit cube on its grid: whole numbers, without what rounding leaves no area.

    Raises ValueError where nothing is left of a face, or where a loop touches itself.
    """

    def bins(point: Point) -> Point:
        across, up = _COORDINATE.encode(torch.tensor(point, dtype=torch.float64)).tolist()
        return across, up

    def on_grid(loop: Loop) -> Loop | None:
        curve = loop.curves[0]
        if isinstance(curve, Circle):
            center, top = bins(curve.center), bins((curve.center[0], curve.center[1] + curve.radius))
            return Loop((Circle(center, max(top[1] - center[1], 1)),))
        return rounded(loop, bins)

    return tuple(_on_grid(face, on_grid) for face in one.faces)


def clipped(place: int, values: Mapping[str, float], quantizer: FieldQuantizer) -> list[str]:
    """Which values of an extrusion are out of range, in words."""
    low, high = quantizer.edges
    return [f"extrusion {place}: {name} {value:.4g} is clipped to {low:g} .. {high:g}"
            for name, value in values.items() if not low <= value <= high]  # fmt: skip


def lost(place: int, before: Sequence[int], after: Sequence[int]) -> list[str]:
    """Which loops (curves in each) of an extrusion went, in words."""
    counts = {"loops": (len(before), len(after)), "curves": (sum(before), sum(after))}
    return [f"extrusion {place}: {a - b} of {a} {what} are too small for the grid and go"
            for what, (a, b) in counts.items() if a > b]  # fmt: skip


def _on_grid(face: Face, on_grid: Callable[[Loop], Loop | None]) -> Face:
    loops = [on_grid(loop) for loop in face.loops]
    if loops[0] is None:
        raise ValueError("a face is too small for the grid of its sketch; nothing of it is left")
    return Face(tuple(loop for loop in loops if loop is not None))


def rounded(loop: Loop, bins: Callable[[Point], Point]) -> Loop | None:
    """Lines and arcs with whole-number ends and middles, ``bins(point)`` each; None where no area is left."""
    curves: list[Curve] = []
    starts = [bins(curve.start) for curve in loop.curves]
    for curve, start, end in zip(loop.curves, starts, [*starts[1:], starts[0]], strict=True):
        curves.append(Arc(start, bins(curve.mid), end, curve.angles) if isinstance(curve, Arc) else Line(start, end))
    left = Loop(tuple(curves)).simplified()
    if left is not None:
        check_corners(left.curves)
    return left


def _loop(rows: Sequence[Sequence[int]]) -> Loop:
    """Bins of the curves of a loop to the loop on its grid."""
    if len(rows) == 1:
        x, y, u, v = rows[0]
        return Loop((Circle((x, y), math.dist((x, y), (u, v))),))
    curves: list[Curve] = []
    for row, after in zip(rows, [*rows[1:], rows[0]], strict=True):
        start, end = (row[0], row[1]), (after[0], after[1])
        curves.append(Arc(start, (row[2], row[3]), end) if len(row) == 4 else Line(start, end))
    return Loop(tuple(curves))


def _unquantised(sketch: tuple[Face, ...], bins: Sequence[int]) -> Extrusion:
    lengths = _LENGTH.decode(torch.tensor(bins[:5]), torch.float64).tolist()
    angles = _ANGLE.decode(torch.tensor(bins[5:8]), torch.float64).tolist()
    size = float(_SIZE.decode(torch.tensor(bins[9]), torch.float64))
    one, two = lengths[:2]
    extent, distances = ("one_side", (one, 0.0)) if two == 0 else ("two_sides", (one, two))
    if one == two:
        extent, distances = "symmetric", (2 * one, 0.0)
    plane = plane_from_euler(tuple(lengths[2:]), angles)
    return Extrusion(sketch, plane, distances, extent, BOOLEANS[bins[8]], size / GRID, LANGUAGE)
