"""Parametric parts as features: a body, what stands on it and what is cut from it, in half millimetres.

Knows what each feature is as a sketch-and-extrude step, both ways: ``build`` makes a program of features, ``read``
finds the features of a program whatever the order of its steps. Does not know tokens or which features go together
(parts.py), nor how parts are called (part_facts.py).

A part stands on z = 0; the middle of its body is the origin. Positions are measured as a workshop does, from the left
and the front edge of the body; 0 stands for the middle of what walls leave free. So what a drawing says ("6 mm from
the edges", "on a 40 mm bolt circle") is a value of a feature, and nothing needs to be computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from girih.tokenizers.shape.cad import Arc, Circle, Extrusion, Face, Line, Loop, Plane, Point, Program

STEP = 0.5  # millimetres of a unit
OVER = 1.0  # millimetres by which a cut goes on past the material, so that no two faces coincide

# Name -> what its values are, in the order of a record. Lengths in half millimetres, diameters not radii; counts whole.
FEATURES: dict[str, tuple[str, ...]] = {
    "block": ("width", "depth", "height", "corner"),  # a box; corner: radius of its four upright edges, 0 = sharp
    "disc": ("diameter", "height"),
    "prism": ("sides", "across", "height"),  # regular; across: diameter of the circle inside
    "gear": ("teeth", "outer", "root", "height"),  # diameters over the teeth and between them
    "pocket": ("wall", "floor"),  # hollows a block from above
    "wall": ("thick", "high"),  # stands along the back edge of a block; high: its top over z = 0
    "walls": ("thick", "high"),  # the same along the left and the right edge
    "boss": ("diameter", "height"),  # a cylinder on top of a round body or of the boss before
    "port": ("holes", "diameter", "pitch"),  # a row through the wall, or a pocket's front; pitch 0 for one hole
    "corners": ("diameter", "inset"),  # four holes; inset: of their centres from the edges
    "bore": ("diameter",),  # in the middle; this and all that follow go through everything upright
    "ring": ("holes", "diameter", "circle"),  # on a circle around the middle, the first to the right
    "window": ("width", "depth"),  # a rectangle in the middle
    "row": ("holes", "diameter", "pitch"),  # along x through the middle
    "hole": ("diameter", "x", "y"),  # from the left and the front edge, 0 = the middle
}
COUNTS = ("sides", "teeth", "holes")
BODIES = ("block", "disc", "prism", "gear")


class Feature(NamedTuple):
    """A feature and its values, in the order of ``FEATURES``."""

    name: str
    values: tuple[int, ...]


class _Frame(NamedTuple):
    """What the cuts of a part refer to, in millimetres: half sizes, heights, and the free region of a block."""

    half: Point  # half width and depth of a block
    corner: float  # radius of its upright edges
    base: float  # height of the body
    top: float  # height of everything
    low: Point  # corners of the region that walls leave free
    high: Point
    wall: float  # thickness of the wall that a port goes through
    side: int  # -1: in front, 1: at the back
    port: float  # height of a port's middle

    @property
    def middle(self) -> Point:
        return (self.low[0] + self.high[0]) / 2, (self.low[1] + self.high[1]) / 2


def build(features: Sequence[Feature]) -> Program:
    """The program of a part: a body, then the rest in the order given. Bosses stand on each other in that order."""
    frame, top = _frame(features), 0.0
    steps = []
    for name, values in features:
        counts = [kind in COUNTS for kind in FEATURES[name]]
        sizes = [value if count else value * STEP for count, value in zip(counts, values, strict=True)]
        if name in BODIES:
            top = sizes[-2] if name == "block" else sizes[-1]
            steps.append(_upright(_BODY_FACES[name](*sizes), 0.0, top, "new"))
        elif name == "boss":
            steps.append(_upright([_disc((0.0, 0.0), sizes[0])], top, top + sizes[1], "join"))
            top += sizes[1]
        elif name in ("wall", "walls"):
            steps.append(_upright(_walls(frame, name, sizes[0]), frame.base, sizes[1], "join"))
        elif name == "pocket":
            wall, floor = sizes
            inside = _rectangle(_minus(frame.half, wall), max(frame.corner - wall, 0.0))
            steps.append(_upright([inside], floor, frame.base + OVER, "cut"))
        elif name == "port":
            steps.append(_port(frame, int(sizes[0]), *sizes[1:]))
        else:
            steps.append(_upright(_CUT_FACES[name](frame, *sizes), -OVER, frame.top + OVER, "cut"))
    return Program(tuple(steps))


def read(program: Program) -> tuple[Feature, ...]:
    """The features of a part, canonical: the body, what stands on it from below, then cuts as ``FEATURES`` lists them
    and single holes from the left. The order of the steps does not matter.

    Raises:
        ValueError: a step that is no feature on the grid of half millimetres; it is named.
    """
    if not program.extrusions:
        raise ValueError("the program has no extrusions")
    steps = [step if step.unit == 1 else step.sized for step in program.extrusions]
    solids = [_solid(step, i) for i, step in enumerate(steps)]  # refuses what is no outline at all
    body = _read_body(steps[0])
    joins = sorted((step for step in steps[1:] if step.boolean == "join"), key=lambda step: _heights(step)[0])
    features = [body, *map(_read_join, joins)]
    cuts = [step for step in steps[1:] if step.boolean != "join"]
    pockets = [step for step in cuts if _is_pocket(step)]
    features += [_read_pocket(body, step) for step in pockets]
    frame = _frame(features)
    rest = [_read_cut(frame, step) for step in cuts if step not in pockets]
    order = list(FEATURES)
    features += sorted(rest, key=lambda one: (order.index(one.name), one.name == "hole" and _from_left(frame, one)))
    rebuilt = {_solid(step, i) for i, step in enumerate(build(features).extrusions)}
    for i, solid in enumerate(solids):  # what was read loosely must give the same solid
        if solid not in rebuilt:
            raise ValueError(f"extrusion {i} ({steps[i].boolean}) is no feature of a part on the grid of {STEP:g} mm")
    return tuple(features)


def _frame(features: Iterable[Feature]) -> _Frame:
    sizes = {name: [value * STEP for value in values] for name, values in features if name != "boss"}
    bosses = [values[1] * STEP for name, values in features if name == "boss"]
    body = next(iter(sizes))
    width, depth, base, corner = sizes["block"] if body == "block" else (0.0, 0.0, sizes[body][-1], 0.0)
    half = width / 2, depth / 2
    low, high = _minus((0.0, 0.0), *half), half
    top, wall, side, port = base + sum(bosses), 0.0, -1, 0.0
    if "pocket" in sizes:
        wall, floor = sizes["pocket"]
        port = (floor + base) / 2
    elif "wall" in sizes:
        (wall, top), side = sizes["wall"], 1
        high, port = (half[0], half[1] - wall), (base + top) / 2
    elif "walls" in sizes:
        thick, top = sizes["walls"]
        low, high = (thick - half[0], -half[1]), (half[0] - thick, half[1])
    return _Frame(half, corner, base, top, low, high, wall, side, port)


# Faces of the features, in millimetres


def _disc(center: Point, diameter: float) -> Face:
    return Face((Loop((Circle(center, diameter / 2),)),))


def _polygon(points: Sequence[Point]) -> Face:
    return Face((Loop(tuple(Line(a, b) for a, b in zip(points, [*points[1:], points[0]], strict=True))),))


def _rectangle(half: Point, corner: float = 0.0, at: Point = (0.0, 0.0)) -> Face:
    """Around ``at``, counter-clockwise from the lower left, its corners rounded."""
    (a, b), (x, y) = half, at
    if not corner:
        return _polygon([(x - a, y - b), (x + a, y - b), (x + a, y + b), (x - a, y + b)])
    curves: list[Line | Arc] = []
    near = corner * (1 - math.sqrt(0.5))
    for i in range(4):  # the lower edge and the arc at its right end, turned three times
        p, q = (a, b) if i % 2 == 0 else (b, a)
        arc = ((p - corner, -q), (p - near, near - q), (p, corner - q))
        points = [_turned(point, i) for point in ((corner - p, -q), *arc)]
        start, begin, mid, end = ((x + u, y + v) for u, v in points)
        curves += [Line(start, begin), Arc(begin, mid, end)]
    return Face((Loop(tuple(curves)),))


def _turned(point: Point, quarters: int) -> Point:
    x, y = point
    return ((x, y), (-y, x), (-x, -y), (y, -x))[quarters]


def _polar(radius: float, turn: float) -> Point:
    return radius * math.cos(math.tau * turn), radius * math.sin(math.tau * turn)


def _prism(sides: int, across: float) -> Face:
    radius = across / 2 / math.cos(math.pi / sides)
    return _polygon([_polar(radius, i / sides) for i in range(sides)])


def _gear(teeth: int, outer: float, root: float) -> Face:
    tooth = ((root / 2, -0.25), (outer / 2, -0.12), (outer / 2, 0.12), (root / 2, 0.25))  # in parts of the pitch
    return _polygon([_polar(radius, (i + turn) / teeth) for i in range(teeth) for radius, turn in tooth])


def _walls(frame: _Frame, name: str, thick: float) -> list[Face]:
    a, b = frame.half
    if name == "wall":
        return [_rectangle((a, thick / 2), at=(0.0, b - thick / 2))]
    return [_rectangle((thick / 2, b), at=(side * (a - thick / 2), 0.0)) for side in (-1, 1)]


def _line_up(count: int, pitch: float, at: Point) -> list[Point]:
    return [(at[0] + (i - (count - 1) / 2) * pitch, at[1]) for i in range(count)]


def _hole(frame: _Frame, diameter: float, x: float, y: float) -> list[Face]:
    at = (x - frame.half[0] if x else frame.middle[0], y - frame.half[1] if y else frame.middle[1])
    return [_disc(at, diameter)]


def _corners(frame: _Frame, diameter: float, inset: float) -> list[Face]:
    a, b = _minus(frame.half, inset)
    return [_disc(at, diameter) for at in ((-a, -b), (a, -b), (a, b), (-a, b))]


def _ring(frame: _Frame, count: int, diameter: float, circle: float) -> list[Face]:
    around = [_polar(circle / 2, i / count) for i in range(count)]
    return [_disc((frame.middle[0] + x, frame.middle[1] + y), diameter) for x, y in around]


def _port(frame: _Frame, count: int, diameter: float, pitch: float) -> Extrusion:
    """Drawn in x and z on a plane whose normal is -y, past the wall on both sides."""
    y = frame.side * frame.half[1] + (OVER if frame.side > 0 else frame.wall + OVER)
    plane = Plane((0.0, y, 0.0), (1.0, 0.0, 0.0), (0.0, 0.0, 1.0))
    faces = tuple(_disc(at, diameter) for at in _line_up(count, pitch, (0.0, frame.port)))
    return Extrusion(faces, plane, (frame.wall + 2 * OVER, 0.0), boolean="cut")


_BODY_FACES: dict[str, Callable[..., list[Face]]] = {
    "block": lambda width, depth, height, corner: [_rectangle((width / 2, depth / 2), corner)],
    "disc": lambda diameter, height: [_disc((0.0, 0.0), diameter)],
    "prism": lambda sides, across, height: [_prism(sides, across)],
    "gear": lambda teeth, outer, root, height: [_gear(teeth, outer, root)],
}
_CUT_FACES: dict[str, Callable[..., list[Face]]] = {
    "corners": _corners,
    "bore": lambda frame, diameter: [_disc(frame.middle, diameter)],
    "ring": _ring,
    "window": lambda frame, width, depth: [_rectangle((width / 2, depth / 2), at=frame.middle)],
    "row": lambda frame, count, diameter, pitch: [_disc(at, diameter) for at in _line_up(count, pitch, frame.middle)],
    "hole": _hole,
}


def _upright(faces: Sequence[Face], low: float, high: float, boolean: str) -> Extrusion:
    return Extrusion(tuple(faces), Plane((0.0, 0.0, low)), (high - low, 0.0), boolean=boolean)


# Reading: values from sizes, centres and counts alone, rounded to the grid; ``read`` checks them by building again.


def _units(*lengths: float) -> tuple[int, ...]:
    return tuple(round(length / STEP) for length in lengths)


def _heights(step: Extrusion) -> tuple[float, float]:
    """Lowest and highest z of an upright step."""
    return step.plane.origin[2] + step.span[0], step.plane.origin[2] + step.span[1]


def _size(face: Face) -> Point:
    """Width and depth of an outline of lines and quarter arcs, or of a circle."""
    curves = face.loops[0].curves
    if isinstance(curves[0], Circle):
        return 2 * curves[0].radius, 2 * curves[0].radius
    xs, ys = zip(*(curve.start for curve in curves), strict=True)
    return max(xs) - min(xs), max(ys) - min(ys)


def _circles(step: Extrusion) -> list[Circle]:
    """The circles of a sketch that is nothing else, else none."""
    curves = [curve for face in step.faces for loop in face.loops for curve in loop.curves]
    circles = [curve for curve in curves if isinstance(curve, Circle)]
    return circles if len(circles) == len(curves) else []


def _read_body(step: Extrusion) -> Feature:
    height = _heights(step)[1]
    (width, depth), circles = _size(step.faces[0]), _circles(step)
    if circles:
        return Feature("disc", _units(width, height))
    curves = step.faces[0].loops[0].curves
    points = [curve.start for curve in curves]
    arcs = [curve for curve in curves if isinstance(curve, Arc) and curve.turn]
    radii = [math.hypot(*point) for point in points]
    if arcs or (len(points) == 4 and len({round(x, 3) for x, _ in points}) == 2):
        return Feature("block", _units(width, depth, height, arcs[0].radius if arcs else 0.0))
    if max(radii) - min(radii) < 1e-3:
        sides = len(points)
        return Feature("prism", (sides, *_units(2 * radii[0] * math.cos(math.pi / sides), height)))
    if len(points) % 4:
        raise ValueError(f"the body is an outline of {len(points)} edges, which no part of this language has")
    return Feature("gear", (len(points) // 4, *_units(2 * max(radii), 2 * min(radii), height)))


def _read_join(step: Extrusion) -> Feature:
    (low, high), (width, depth) = _heights(step), _size(step.faces[0])
    if _circles(step):
        return Feature("boss", _units(width, high - low))
    return Feature("walls", _units(width, high)) if len(step.faces) == 2 else Feature("wall", _units(depth, high))


def _is_pocket(step: Extrusion) -> bool:
    return not _circles(step) and _heights(step)[0] > 0


def _read_pocket(body: Feature, step: Extrusion) -> Feature:
    return Feature("pocket", _units((body.values[0] * STEP - _size(step.faces[0])[0]) / 2, _heights(step)[0]))


def _read_cut(frame: _Frame, step: Extrusion) -> Feature:
    circles = _circles(step)
    if not circles:
        return Feature("window", _units(*_size(step.faces[0])))
    count, diameter = len(circles), 2 * circles[0].radius
    xs, ys = sorted(circle.center[0] for circle in circles), sorted(circle.center[1] for circle in circles)
    x, y = sum(xs) / count - frame.middle[0], sum(ys) / count - frame.middle[1]
    pitch = xs[1] - xs[0] if count > 1 else 0.0
    if abs(step.plane.normal[1]) > 0.5:
        return Feature("port", (count, *_units(diameter, pitch)))
    if count == 1 and max(abs(x), abs(y)) < 1e-3:
        return Feature("bore", _units(diameter))
    if count == 1:
        left, front = (0.0 if abs(off) < 1e-3 else at + half
                       for off, at, half in zip((x, y), circles[0].center, frame.half, strict=True))  # fmt: skip
        return Feature("hole", _units(diameter, left, front))
    if ys[-1] - ys[0] < 1e-3:
        return Feature("row", (count, *_units(diameter, pitch)))
    if count == 4 and xs[1] - xs[0] < 1e-3 and ys[1] - ys[0] < 1e-3:
        return Feature("corners", _units(diameter, xs[0] + frame.half[0]))
    circle = 2 * math.dist(circles[0].center, frame.middle)
    return Feature("ring", (count, *_units(diameter, circle)))


def _from_left(frame: _Frame, hole: Feature) -> float:
    x = hole.values[1] * STEP
    return x - frame.half[0] if x else frame.middle[0]


def _solid(step: Extrusion, index: int) -> tuple[object, ...]:
    """What a step does, comparable whatever the order and direction of its faces and curves: its use, the ends of its
    span and every curve's ends and middle in space, in tenths of a grid step."""
    if not step.faces or not all(loop.curves for face in step.faces for loop in face.loops or (Loop(()),)):
        raise ValueError(f"extrusion {index} has a sketch without curves")
    plane = step.plane
    axes = np.array([plane.x_axis, plane.y_axis, plane.normal])
    starts, ends, mids = [], [], []
    for curve in (curve for face in step.faces for loop in face.loops for curve in loop.curves):
        starts.append(curve.start)
        ends.append(curve.end)
        mids.append(curve.mid if isinstance(curve, Arc) else curve.start)
    points = np.array([*starts, *ends, *mids, (0.0, 0.0), (0.0, 0.0)])
    heights = np.zeros(len(points))
    heights[-2:] = step.span
    space = np.column_stack([points, heights]) @ axes + np.array(plane.origin)
    if not (np.abs(space).max() < 1e4 and all(abs(distance) < 1e4 for distance in step.distances)):  # NaN is no less
        raise ValueError(f"extrusion {index} has coordinates that are not finite, or beyond 10 m")
    # Grid points are multiples of a quarter step; the shift keeps them away from where rounding flips.
    grid = np.rint(space * (10 / STEP) + 0.2).astype(np.int64) + 2**20
    keys = (grid[:, 0] << 42) + (grid[:, 1] << 21) + grid[:, 2]
    one, other, mid = keys[:-2].reshape(3, -1)
    mid = np.where(mid == one, -1, mid)  # of a straight edge its start stands there
    outline = zip(np.minimum(one, other).tolist(), np.maximum(one, other).tolist(), mid.tolist(), strict=True)
    return step.boolean, tuple(sorted(keys[-2:].tolist())), frozenset(outline)


def _minus(point: Point, x: float, y: float | None = None) -> Point:
    return point[0] - x, point[1] - (x if y is None else y)
