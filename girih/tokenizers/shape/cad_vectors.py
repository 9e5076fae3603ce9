"""CAD programs as rows of commands and arguments: the vectors of DeepCAD (Wu et al., ICCV 2021).

Knows how a program is brought into the unit cube, quantised and written, and the grammar. Does not know JSON or meshes.

A program is 60 rows of a command (0 line, 1 arc, 2 circle, 3 end, 4 start of loop, 5 extrude) and 16 arguments: x, y,
sweep, side, radius, then of extrusions theta, phi, gamma, x, y, z, sketch size, extents one and two, boolean, extent
type; -1 where an argument is not used. As tokens, row after row, -1 is 0, a value v is v + 1, a command c is 257 + c.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from diffusers import ConfigMixin, SchedulerMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor

from girih.spec import TokenSpec
from girih.tokenizers.grammars import Automaton, RecordGrammar
from girih.tokenizers.records import Field, FieldQuantizer, Record, RecordSchema
from girih.tokenizers.shape.cad import (
    BOOLEANS,
    EXTENTS,
    Arc,
    Circle,
    Curve,
    Extrusion,
    Face,
    Line,
    Loop,
    Plane,
    Point,
    Program,
    check_corners,
    cross,
    encloses,
)
from girih.tokenizers.shape.cad_planes import plane_from_polar, polar, polar_published
from girih.tokenizers.shape.cad_rules import After, AtMost, ClosedLoops, NoReturn
from girih.tokenizers.shape.cad_tokens import clipped, lost

LANGUAGE = "vectors"
COMMANDS = 257  # id of command 0
LINE, ARC, CIRCLE, END, LOOP, EXTRUDE = range(6)
WIDTH = 17  # a command and its arguments
CUBE = 0.75  # largest coordinate of the normalised solid
START, REACH = 128, 95  # a sketch starts at (128, 128) and reaches 95 from there
MOST_EXTRUSIONS, MOST_LOOPS, MOST_CURVES = 10, 6, 14  # a loop of 15 rows, its start among them

_LENGTH = FieldQuantizer(256, (-1.0, 1.0), shift=0.0, offset=0.0)
_ANGLE = FieldQuantizer(256, (-math.pi, math.pi), shift=0.0, offset=0.0)
_SIZE = FieldQuantizer(256, (0.0, 2.0), shift=0.0, offset=0.0)
_TURN = FieldQuantizer(256, (0.0, math.tau), shift=0.0, offset=0.0)
_COORDINATE = FieldQuantizer(256, (0.0, 256.0), shift=0.0, offset=0.0)


def _value(name: str, lowest: int = 0, count: int = 256) -> Field:
    return Field(name, FieldQuantizer.integers(count), 1 + lowest)


_POINT = _value("x"), _value("y")
_POSE = tuple(map(_value, ("theta", "phi", "gamma", "x", "y", "z"))) + (_value("size", 1, 255),)
_SHAPE = _value("extent one"), _value("extent two")
_EXTENT = _value("extent type", 0, 3)


def _row(name: str, command: int, *slots: int | Field) -> Record:
    return Record(name, (COMMANDS + command, *slots, *[0] * (WIDTH - 1 - len(slots))))


SCHEMA = RecordSchema(
    (
        _row("line", LINE, *_POINT),
        _row("arc", ARC, *_POINT, _value("sweep", 1, 255), _value("side", 0, 2)),
        _row("circle", CIRCLE, *_POINT, 0, 0, _value("radius", 1, 255)),
        _row("loop", LOOP),
        _row("first extrusion", EXTRUDE, *[0] * 5, *_POSE, *_SHAPE, 1, _EXTENT),
        _row("extrusion", EXTRUDE, *[0] * 5, *_POSE, *_SHAPE, _value("boolean", 0, 4), _EXTENT),
    ),
    vocab_size=263, eos=COMMANDS + END, pad=0,
)  # fmt: skip

# bool [6, 16]: the arguments that each command uses.
ARGUMENTS = torch.tensor(
    [[bool(name) and isinstance(SCHEMA[name].slots[i], Field) for i in range(1, WIDTH)]
     for name in ("line", "arc", "circle", "", "", "extrusion")]
)  # fmt: skip


def _sketch(name: str, extrusion: str) -> dict[str, dict[str, str]]:
    """The states of a sketch; a loop is a circle, three curves, or two of which one is an arc."""
    line, lines, arc, ring, whole = (f"{name}{part}" for part in (".l", ".ll", ".a", ".m", ".o"))
    over = {"loop": name, extrusion: "more"}
    return {
        name: {"line": line, "arc": arc, "circle": whole},
        line: {"line": lines, "arc": ring},
        lines: {"line": ring, "arc": ring},
        arc: {"line": ring, "arc": ring},
        ring: {"line": ring, "arc": ring, **over},
        whole: over,
    }


AUTOMATON = Automaton(
    SCHEMA,
    {"start": {"loop": "sketch"}, **_sketch("sketch", "first extrusion"), "more": {"loop": "next", "eos": "end"},
     **_sketch("next", "extrusion")},
)  # fmt: skip


class CadVectorTokenizer(SchedulerMixin, ConfigMixin):
    """Sketch-and-extrude programs to DeepCAD's command rows and back.

    ``encode`` scales the solid so that its largest coordinate is 0.75 about the file's own origin; each face becomes a
    sketch of its own, the later ones of a new body joined to it. Bound: half a bin in every field where nothing is
    clipped. A symmetric extent says its whole height, as the data set's files do.
    Tokens are [rows, n], 17 a row and one for the end; ``spec.shape`` is (17 * max_rows,).

    Args:
        max_rows: most rows, the end included.
        as_published: angles and arc sides exactly as the published vectors have them, faults included: phi by arctan
            (planes that face -x come back mirrored), pi clipped to bin 255, an arc's side from its rounded middle.
    """

    @register_to_config
    def __init__(self, max_rows: int = 60, as_published: bool = False) -> None:
        self.schema, self.automaton = SCHEMA, AUTOMATON
        limit = WIDTH * (max_rows - 1) + 1
        over = [([("loop", 0)], COMMANDS + LOOP), ([(n, 0) for n in _EXTRUSIONS], COMMANDS + EXTRUDE)]
        corner = [("line", 1), ("arc", 1)], [("line", 2), ("arc", 2)]
        curves, ends = [COMMANDS + LINE, COMMANDS + ARC], [COMMANDS + LOOP, COMMANDS + EXTRUDE]
        rules = (
            ClosedLoops(AUTOMATON, corner, ([], []), 1, 256, over, WIDTH, limit, [([("arc", 0)], COMMANDS + ARC)],
                        MOST_CURVES),
            NoReturn(AUTOMATON, ("arc", 3), ("arc", 4), [("line", 0), ("arc", 0)], over, WIDTH, limit),
            After(AUTOMATON, _slots(13), 1 + 128, _slots(14), [1 + 128]),
            After(AUTOMATON, _slots(13), 1 + 128, _slots(16), [1, 2]),
            AtMost(AUTOMATON, MOST_CURVES, curves, curves, ends),
            AtMost(AUTOMATON, MOST_LOOPS, [COMMANDS + LOOP], [COMMANDS + LOOP], [COMMANDS + EXTRUDE]),
            AtMost(AUTOMATON, MOST_EXTRUSIONS, [COMMANDS + EXTRUDE], [COMMANDS + LOOP]),
        )  # fmt: skip
        self.grammar = RecordGrammar(AUTOMATON, rules, limit)

    @property
    def spec(self) -> TokenSpec:
        return TokenSpec(263, (WIDTH * self.config.max_rows,), eos=COMMANDS + END, pad=0, grammar=self.grammar)

    def framed(self, program: Program) -> Program:
        """The program in the unit cube, in canonical order, one face an extrusion, sketches in units of their grid with
        their start at the origin; itself if it already is. Raises ValueError for an invalid program."""
        program.checked()
        if all(one.grid == LANGUAGE for one in program.extrusions):
            return program
        farthest = max(abs(value) for corner in program.box for value in corner)
        if not 0 < farthest < math.inf:
            raise ValueError(f"the program's bounding box has no extent: {program.box}")
        scale = CUBE / farthest
        return Program(tuple(self._framed(one, face, i, scale) for one in program.extrusions
                             for i, face in enumerate(one.faces)))  # fmt: skip

    def _framed(self, one: Extrusion, face: Face, place: int, scale: float) -> Extrusion:
        face = face.canonical()
        x, y = start = face.loops[0].start
        reach = max(abs(value - at) for corner in face.bounds for value, at in zip(corner, start, strict=True))
        plane = self._seen(one.plane)
        corner = replace(one.plane, origin=plane.at((x * one.unit, y * one.unit)))
        boolean = "join" if one.boolean == "new" and place else one.boolean
        faces = (face.moved((-x, -y), REACH / reach),)
        one = replace(one, faces=faces, plane=corner, boolean=boolean, unit=one.unit * reach / REACH)
        return replace(one.moved((0.0, 0.0, 0.0), scale), grid=LANGUAGE)

    def _seen(self, plane: Plane) -> Plane:
        """The plane as the published code takes it: its axes by way of their angles."""
        if not self.config.as_published:
            return plane
        x_axis = plane_from_polar(plane.origin, self.angles(plane)).x_axis
        theta, phi = polar_published(plane.y_axis)
        y_axis = math.sin(theta) * math.cos(phi), math.sin(theta) * math.sin(phi), math.cos(theta)
        return Plane(plane.origin, x_axis, y_axis)

    def angles(self, plane: Plane) -> tuple[float, float, float]:
        """theta and phi of the normal, and gamma, the turn of the x axis about it."""
        x_axis, normal = np.array(plane.x_axis), np.array(plane.normal) + 0.0
        theta, phi = (polar_published if self.config.as_published else polar)(plane.normal)
        unturned = np.array(plane_from_polar(plane.origin, (theta, phi, 0.0)).x_axis)
        across = float(np.cross(unturned, x_axis) @ normal)
        if self.config.as_published:
            gamma = math.acos(max(-1.0, min(round(float(unturned @ x_axis), 6), 1.0)))
            return theta, phi, -gamma if across < 0 else gamma
        return theta, phi, math.atan2(across, float(unturned @ x_axis))

    def encode(self, programs: Program | Sequence[Program]) -> Tensor:
        """One or several programs to LongTensor [rows, n], padded on the right with 0.

        Raises ValueError for an invalid program, one with too many rows, loops, curves or extrusions, and a face that
        rounding leaves without area.
        """
        programs = [programs] if isinstance(programs, Program) else list(programs)
        return SCHEMA.batch([self._sequence(self.framed(program)) for program in programs])

    def changes(self, program: Program) -> list[str]:
        """A line on each thing that ``encode`` changes beyond rounding: lengths clipped, holes and curves that go."""
        lines = []
        for i, one in enumerate(self.framed(program).extrusions):
            names = ("extent one", "extent two", "x", "y", "z")
            lengths = dict(zip(names, (*one.distances, *one.plane.origin), strict=True))
            lines += clipped(i, lengths, _LENGTH) + clipped(i, {"sketch size": one.unit * REACH}, _SIZE)
            loops = [self._loop(loop) for loop in one.faces[0].loops]
            lines += lost(i, [len(loop.curves) for loop in one.faces[0].loops], [len(rows) for rows in loops if rows])
        return lines

    def _sequence(self, program: Program) -> Tensor:
        if len(program.extrusions) > MOST_EXTRUSIONS:
            raise ValueError(f"the program has {len(program.extrusions)} extrusions of one face, "
                             f"more than the {MOST_EXTRUSIONS}")  # fmt: skip
        rows: list[Tensor] = []
        for i, one in enumerate(program.extrusions):
            loops = [loop for loop in map(self._loop, one.faces[0].loops) if loop is not None]
            if self._loop(one.faces[0].loops[0]) is None:
                raise ValueError("a face is too small for the grid of its sketch; nothing of it is left")
            if len(loops) > MOST_LOOPS:
                raise ValueError(f"a face has {len(loops)} loops, more than the {MOST_LOOPS}")
            for loop in loops:
                if len(loop) > MOST_CURVES:
                    raise ValueError(f"a loop has {len(loop)} curves, more than the {MOST_CURVES}")
                rows += [_record("loop"), *(_record(name, bins) for name, bins in loop)]
            *bins, boolean, extent = self.bins(one)
            bins[6] -= 1
            rows.append(_record("extrusion" if i else "first extrusion", (*bins, *[boolean] * (i > 0), extent)))
        if len(rows) >= self.config.max_rows:
            raise ValueError(f"the program takes {len(rows) + 1} rows, more than the {self.config.max_rows}")
        return SCHEMA.sequence(*rows)

    def _loop(self, loop: Loop) -> list[tuple[str, tuple[int, ...]]] | None:
        """The rows of a loop; None where rounding leaves it no area."""
        if isinstance(loop.curves[0], Circle):
            radius = int(round(loop.curves[0].radius))
            return [("circle", (*_bins(loop.curves[0].center), min(max(radius, 1), 255) - 1))]
        rows: list[tuple[str, tuple[int, ...]]] = []
        curves: list[Curve] = []
        for curve in loop.curves:
            start, end = _bins(curve.start), _bins(curve.end)
            if start == end:
                continue
            if isinstance(curve, Arc):
                mid = _bins(curve.mid) if self.config.as_published else (curve.mid[0] + START, curve.mid[1] + START)
                along, bulge = (end[0] - start[0], end[1] - start[1]), (mid[0] - start[0], mid[1] - start[1])
                side = int(cross(bulge, along) >= 0)
                begin, finish = _TURN.encode(torch.tensor(curve.angles or (0.0, abs(curve.sweep)))).tolist()
                sweep = max(abs(finish - begin), 1)
                rows.append(("arc", (*end, sweep - 1, side)))
                curves.append(_arc(start, end, sweep, side))
            else:
                rows.append(("line", end))
                curves.append(Line(start, end))
        if not encloses(curves):
            return None
        check_corners(curves)
        return rows

    def bins(self, one: Extrusion) -> tuple[int, ...]:
        """The eleven arguments of an extrusion in the unit cube, as bins."""
        angles = torch.tensor(self.angles(one.plane), dtype=torch.float64)
        turned = _ANGLE.encode(angles)
        if not self.config.as_published:
            turned[_ANGLE.encode(angles - math.pi) == 128] = 0  # nearer to pi than to bin 255
        lengths = _LENGTH.encode(torch.tensor([*one.plane.origin, *one.distances], dtype=torch.float64)).tolist()
        extent, thin = EXTENTS.index(one.extent), 129 if one.distances[0] >= 0 else 127
        if lengths[3] == 128 and (extent < 2 or lengths[4] == 128):
            lengths[3] = thin  # thinner than half a bin: the thinnest there is
        size = max(int(_SIZE.encode(torch.tensor(one.unit * REACH, dtype=torch.float64))), 1)
        return (*turned.tolist(), *lengths[:3], size, *lengths[3:], BOOLEANS.index(one.boolean), extent)

    def decode(self, tokens: Tensor) -> list[Program]:
        """LongTensor [rows, n] to programs in the unit cube. Raises ValueError naming a token that may not be there."""
        return [self._program(body) for body in SCHEMA.bodies(tokens.cpu())]

    def _program(self, body: Tensor) -> Program:
        loops: list[list[tuple[str, list[int]]]] = []
        extrusions = []
        for name, start, end in AUTOMATON.split(body):
            bins = SCHEMA[name].to_bins(body[None, start:end])[0].tolist()
            if name == "loop":
                loops.append([])
            elif "extrusion" in name:
                boolean = bins[9] if name == "extrusion" else 0
                extrusions.append(_extrusion(loops, [*bins[:6], bins[6] + 1, *bins[7:9], boolean, bins[-1]]))
                loops = []
            else:
                loops[-1].append((name, bins))
        return Program(tuple(extrusions)).checked()

    def vectors(self, tokens: Tensor) -> Tensor:
        """Tokens [rows, n] as the published layout [rows, max_rows, 17]: -1 = unused, filled up with end rows."""
        rows = torch.full((len(tokens), self.config.max_rows, WIDTH), -1)
        rows[..., 0] = END
        for row, body in zip(rows, SCHEMA.bodies(tokens), strict=True):
            row[: len(body) // WIDTH] = torch.where(body >= COMMANDS, body - COMMANDS, body - 1).reshape(-1, WIDTH)
        return rows

    def from_vectors(self, vectors: Tensor) -> Tensor:
        """The inverse of ``vectors``. Raises ValueError for another shape, a value out of range or no end row."""
        if vectors.ndim != 3 or vectors.shape[2] != WIDTH:
            raise ValueError(f"vectors must be [rows, n, {WIDTH}], got {list(vectors.shape)}")
        if bool((vectors < -1).any()) or bool((vectors > 255).any()):
            raise ValueError(f"values must be in -1 .. 255, got {int(vectors.min())} to {int(vectors.max())}")
        tokens = vectors.long() + 1
        tokens[..., 0] += COMMANDS - 1
        sequences = []
        for i, row in enumerate(tokens):
            ends = (row[:, 0] == COMMANDS + END).nonzero()
            if not len(ends):
                raise ValueError(f"program {i} has no end row")
            sequences.append(SCHEMA.sequence(row[: int(ends[0])]))
        return SCHEMA.batch(sequences)


_EXTRUSIONS = ("first extrusion", "extrusion")


def _slots(at: int) -> list[tuple[str, int]]:
    """A slot of either kind of extrusion."""
    return [(name, at) for name in _EXTRUSIONS]


def _record(name: str, bins: Sequence[int] = ()) -> Tensor:
    return SCHEMA[name].to_tokens(torch.tensor([list(bins)]).long().reshape(1, -1))[0]


def _bins(point: Point) -> tuple[int, int]:
    """A point of the sketch, whose start is the origin, on the grid."""
    at = torch.tensor([point[0] + START, point[1] + START], dtype=torch.float64)
    x, y = _COORDINATE.encode(at).tolist()
    return x, y


def _arc(start: Point, end: Point, sweep: int, side: int) -> Arc:
    """The arc of ``sweep`` 256ths of a turn; ``side`` 1 bulges to the right of start -> end (counter-clockwise)."""
    angle = sweep / 256 * math.tau
    (x, y), sign = (end[0] - start[0], end[1] - start[1]), 1 if side else -1
    bulge = math.tan(angle / 4) / 2  # sagitta over chord
    mid = (start[0] + end[0]) / 2 + sign * y * bulge, (start[1] + end[1]) / 2 - sign * x * bulge
    return Arc(start, mid, end, (0.0, angle))


def _extrusion(loops: Sequence[Sequence[tuple[str, list[int]]]], bins: Sequence[int]) -> Extrusion:
    pose, (px, py, pz), size = bins[:3], bins[3:6], bins[6]
    angles = _ANGLE.decode(torch.tensor(pose), torch.float64).tolist()
    x, y, z, one, two = _LENGTH.decode(torch.tensor([px, py, pz, *bins[7:9]]), torch.float64).tolist()
    extent = EXTENTS[bins[10]]
    face = Face(tuple(map(_ring, loops))).canonical().moved((-START, -START), 1.0)
    unit = float(_SIZE.decode(torch.tensor(size), torch.float64)) / REACH
    distances = one, two if extent == "two_sides" else 0.0
    return Extrusion((face,), plane_from_polar((x, y, z), angles), distances, extent, BOOLEANS[bins[9]], unit, LANGUAGE)


def _ring(rows: Sequence[tuple[str, list[int]]]) -> Loop:
    if rows[0][0] == "circle":
        x, y, radius = rows[0][1]
        return Loop((Circle((x, y), radius + 1),))
    curves: list[Curve] = []
    start = rows[-1][1][0], rows[-1][1][1]
    for name, bins in rows:
        end = bins[0], bins[1]
        curves.append(Line(start, end) if name == "line" else _arc(start, end, bins[2] + 1, bins[3]))
        start = end
    return Loop(tuple(curves))
