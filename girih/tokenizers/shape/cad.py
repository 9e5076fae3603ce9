"""Sketch-and-extrude programs: what they are, their geometry and their canonical order.

Knows loops, faces, planes and extrusions as plain data in any unit of length (millimetres, by choice), and which of
them are valid; curves are cad_curves.py's. Does not know JSON (cad_json.py), tokens (cad_tokens.py, cad_vectors.py),
meshes or kernels.

A program is a tuple of extrusions; each raises the faces of one sketch along the normal of its plane and joins the
solid to, cuts it from or intersects it with what stands so far. The order of curves, loops and faces is DeepCAD's
(Wu et al. 2021, section 3.1).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

from girih.tokenizers.shape.cad_curves import (
    Arc,
    Box2,
    Circle,
    Curve,
    Line,
    Point,
    box_around,
    cross,
    minus,
    moved_by,
    near,
)

Vector = tuple[float, float, float]
Box3 = tuple[Vector, Vector]

BOOLEANS = ("new", "join", "cut", "intersect")
EXTENTS = ("one_side", "symmetric", "two_sides")
LARGEST, SMALLEST = 1e9, 1e-6  # of coordinates and lengths, and of a sketch; beyond, rounding decides what meets


@dataclass(frozen=True)
class Loop:
    """A closed chain of lines and arcs, or one circle."""

    curves: tuple[Curve, ...]

    @property
    def start(self) -> Point:
        return self.curves[0].start

    @property
    def bounds(self) -> Box2:
        return _union(curve.bounds for curve in self.curves)

    def moved(self, shift: Point, scale: float) -> Loop:
        """(point + shift) * scale."""
        return Loop(tuple(curve.moved(shift, scale) for curve in self.curves))

    def chained(self) -> Loop:
        """The same curves, each turned so that it starts where the one before ends. Raises ValueError at a gap."""
        curves = list(self.curves)
        if not curves:
            raise ValueError("a loop has no curves")
        if any(isinstance(curve, Circle) for curve in curves):
            if len(curves) > 1:
                raise ValueError(f"a circle must be alone in its loop, here it is one of {len(curves)} curves")
            return self
        if all(near(curve.end, curves[(i + 1) % len(curves)].start) for i, curve in enumerate(curves)):
            return self
        if len(curves) > 1 and (near(curves[0].start, curves[1].start) or near(curves[0].start, curves[1].end)):
            curves[0] = _turned(curves[0])
        for i in range(1, len(curves)):
            if near(curves[i - 1].end, curves[i].end):
                curves[i] = _turned(curves[i])
        for i, curve in enumerate(curves):
            after = curves[(i + 1) % len(curves)]
            if not near(curve.end, after.start):
                raise ValueError(f"the loop is open: curve {i} ends at {curve.end}, the next starts at {after.start}")
        return Loop(tuple(curves))

    def canonical(self) -> Loop:
        """Chained, starting at the curve whose start is leftmost (then lowest), counter-clockwise there."""
        loop = self.chained()
        if isinstance(loop.curves[0], Circle):
            return loop
        starts = [_rounded(curve.start) for curve in loop.curves]
        first = starts.index(min(starts))
        curves = loop.curves[first:] + loop.curves[:first]
        if cross(curves[-1].arriving, curves[0].leaving) <= 0:  # type: ignore[union-attr]
            curves = tuple(_turned(curve) for curve in reversed(curves))
        return Loop(curves)

    def simplified(self) -> Loop | None:
        """Without what encloses nothing: edges of no length go, arcs on a line become lines; None if nothing is left.

        Exact, so meant for whole-number coordinates, where rounding makes such curves.
        """
        if isinstance(self.curves[0], Circle):
            return self if self.curves[0].radius > 0 else None
        curves = [Line(c.start, c.end) if isinstance(c, Arc) and c.turn == 0 else c for c in self.curves]
        curves = [curve for curve in curves if curve.start != curve.end]
        return Loop(tuple(curves)) if encloses(curves) else None


@dataclass(frozen=True)
class Face:
    """A region of the sketch: its outer loop and the loops of its holes, in any order."""

    loops: tuple[Loop, ...]

    @property
    def bounds(self) -> Box2:
        return _union(loop.bounds for loop in self.loops)

    def moved(self, shift: Point, scale: float) -> Face:
        """(point + shift) * scale."""
        return Face(tuple(loop.moved(shift, scale) for loop in self.loops))

    def canonical(self) -> Face:
        """Canonical loops, sorted by the lower corner of their boxes (x, then y); the outer one comes first."""
        return Face(tuple(sorted((loop.canonical() for loop in self.loops), key=_lower_corner)))


@dataclass(frozen=True)
class Plane:
    """Where a sketch lies: its origin and the directions of its axes (unit length, at a right angle)."""

    origin: Vector = (0.0, 0.0, 0.0)
    x_axis: Vector = (1.0, 0.0, 0.0)
    y_axis: Vector = (0.0, 1.0, 0.0)

    @property
    def normal(self) -> Vector:
        (a, b, c), (d, e, f) = self.x_axis, self.y_axis
        return b * f - c * e, c * d - a * f, a * e - b * d

    def at(self, point: Point, height: float = 0.0) -> Vector:
        """A point of the sketch, ``height`` above it, in space."""
        axes = zip(self.origin, self.x_axis, self.y_axis, self.normal, strict=True)
        x, y, z = (o + point[0] * x + point[1] * y + height * n for o, x, y, n in axes)
        return x, y, z


@dataclass(frozen=True)
class Extrusion:
    """One step of a program.

    Attributes:
        faces: the regions that are raised.
        plane: where their sketch lies.
        distances: along the normal and against it, as files say them: of a symmetric extent the first is the whole.
        extent: one of ``EXTENTS``.
        boolean: one of ``BOOLEANS``.
        unit: the length of one unit of the sketch's coordinates.
        grid: the language in whose grid (and unit cube) the extrusion stands, as decoders leave it; encoding it again
            in that language then gives the same tokens.
    """

    faces: tuple[Face, ...]
    plane: Plane = Plane()
    distances: tuple[float, float] = (1.0, 0.0)
    extent: str = "one_side"
    boolean: str = "new"
    unit: float = 1.0
    grid: str | None = None

    @property
    def sides(self) -> tuple[float, float]:
        """How far the solid reaches along the normal and against it; a negative one reaches the other way."""
        one, two = self.distances
        return {"one_side": (one, 0.0), "symmetric": (one / 2, one / 2), "two_sides": (one, two)}[self.extent]

    @property
    def span(self) -> tuple[float, float]:
        """Lowest and highest height of the solid over its plane."""
        along, against = self.sides
        return min(0.0, along, -against), max(0.0, along, -against)

    @property
    def bounds(self) -> Box2:
        """Box of the sketch, in its own units."""
        return _union(face.bounds for face in self.faces)

    @property
    def sized(self) -> Extrusion:
        """The same with sketch coordinates as lengths, in no language's grid."""
        return replace(self, faces=tuple(face.moved((0.0, 0.0), self.unit) for face in self.faces), unit=1.0, grid=None)

    @property
    def box(self) -> Box3:
        """Box around the solid, from the corners of the sketch's box."""
        (x0, y0), (x1, y1) = moved_by(self.bounds[0], (0, 0), self.unit), moved_by(self.bounds[1], (0, 0), self.unit)
        corners = [self.plane.at((x, y), z) for x in (x0, x1) for y in (y0, y1) for z in self.span]
        return box_around(corners)

    def moved(self, shift: Vector, scale: float) -> Extrusion:
        """In space, (point + shift) * scale; it then stands in no language's grid."""
        plane = replace(self.plane, origin=moved_by(self.plane.origin, shift, scale))
        distances = self.distances[0] * scale, self.distances[1] * scale
        return replace(self, plane=plane, distances=distances, unit=self.unit * scale, grid=None)


@dataclass(frozen=True)
class Program:
    """Extrusions in order.

    ``bounds``: (lowest, highest) corner of the finished solid, where a file says it; languages scale by it.
    """

    extrusions: tuple[Extrusion, ...]
    bounds: Box3 | None = None

    @property
    def box(self) -> Box3:
        """``bounds``, or the box around what is joined where they are not known."""
        return self.bounds or _union(one.box for one in self.extrusions if one.boolean in ("new", "join"))

    def moved(self, shift: Vector, scale: float) -> Program:
        """(point + shift) * scale."""
        bounds = None if self.bounds is None else tuple(moved_by(corner, shift, scale) for corner in self.bounds)
        return Program(tuple(one.moved(shift, scale) for one in self.extrusions), bounds)

    def checked(self) -> Program:
        """Itself. Raises ValueError naming the first thing that is no valid program."""
        if not self.extrusions:
            raise ValueError("the program has no extrusions")
        for i, extrusion in enumerate(self.extrusions):
            try:
                _check(extrusion, first=i == 0)
            except ValueError as error:
                raise ValueError(f"extrusion {i}: {error}") from error
        return self


def encloses(curves: Sequence[Curve]) -> bool:
    """Whether a chain without edges of no length encloses any area (crossings aside)."""
    if len(curves) < 2:
        return len(curves) == 1 and isinstance(curves[0], Circle)
    arcs = [curve for curve in curves if isinstance(curve, Arc)]
    if len(curves) == 2 and len(arcs) == 2:  # there and back on the same circle is nothing
        return not _same_arc(arcs[0], arcs[1])
    first, second = curves[0].start, curves[0].end
    return bool(arcs) or any(cross(minus(second, first), minus(curve.end, first)) != 0 for curve in curves)


def check_corners(curves: Sequence[Curve]) -> None:
    """Raises ValueError where a corner of a loop comes twice (on a grid: the loop is too thin there)."""
    corners = [curve.start for curve in curves]
    for corner in corners:
        if corners.count(corner) > 1:
            raise ValueError(f"a loop touches itself at {corner} on the grid of its sketch; it is too thin there")


def _same_arc(one: Arc, back: Arc) -> bool:
    if one.turn * back.turn >= 0:
        return False
    reach = max(1.0, one.radius)
    return math.dist(one.center, back.center) < 1e-9 * reach and abs(abs(one.sweep) - abs(back.sweep)) < 1e-9


def _check(extrusion: Extrusion, first: bool) -> None:
    for what, value, known in (("boolean", extrusion.boolean, BOOLEANS), ("extent", extrusion.extent, EXTENTS)):
        if value not in known:
            raise ValueError(f"{what} must be one of {', '.join(known)}, got {value!r}")
    if first and extrusion.boolean != "new":
        raise ValueError(f"the first one must be a new body, got {extrusion.boolean!r}")
    frame = (*extrusion.plane.origin, *extrusion.plane.x_axis, *extrusion.plane.y_axis, *extrusion.distances)
    if not all(abs(number) <= LARGEST for number in frame):
        raise ValueError(f"plane and distances must be finite numbers up to {LARGEST:g}, "
                         f"got {extrusion.plane}, {extrusion.distances}")  # fmt: skip
    if not 0 < extrusion.unit <= LARGEST:
        raise ValueError(f"the unit of its sketch must be a positive number up to {LARGEST:g}, got {extrusion.unit}")
    x, y = extrusion.plane.x_axis, extrusion.plane.y_axis
    if max(abs(math.hypot(*x) - 1), abs(math.hypot(*y) - 1), abs(sum(map(lambda a, b: a * b, x, y)))) > 1e-3:
        raise ValueError(f"the plane's axes must have length 1 and be at a right angle, got {x} and {y}")
    if extrusion.sides == (0.0, 0.0):
        raise ValueError("both distances are 0, so it has no thickness")
    if not extrusion.faces or not all(face.loops for face in extrusion.faces):
        raise ValueError("its sketch has a face without a loop" if extrusion.faces else "its sketch has no faces")
    for face in extrusion.faces:
        for loop in face.loops:
            numbers = [n for c in loop.curves for p in _points(c) for n in p]
            if not all(abs(number) <= LARGEST for number in numbers):
                raise ValueError(f"its sketch has coordinates that are not finite numbers up to {LARGEST:g}")
            if loop.chained().simplified() is None:
                raise ValueError(f"a loop of {len(loop.curves)} curves encloses nothing")
    (x0, y0), (x1, y1) = extrusion.bounds
    if max(x1 - x0, y1 - y0) < SMALLEST:
        raise ValueError(f"its sketch is {max(x1 - x0, y1 - y0):.3g} across, must be at least {SMALLEST:g}")


def _points(curve: Curve) -> tuple[Point, ...]:
    return (curve.start, curve.mid, curve.end) if isinstance(curve, Arc) else (curve.start, curve.end)


def _turned(curve: Curve) -> Curve:
    return curve if isinstance(curve, Circle) else curve.reversed()


def _rounded(point: Point) -> Point:
    return round(point[0], 6), round(point[1], 6)


def _lower_corner(part: Loop | Face) -> Point:
    return _rounded(part.bounds[0])


def by_corner(faces: Iterable[Face]) -> tuple[Face, ...]:
    """Faces sorted by the lower corner of their boxes (x, then y)."""
    return tuple(sorted(faces, key=_lower_corner))


def _union(boxes: Iterable[Any]) -> Any:
    """The box around boxes."""
    return reduce(lambda a, b: box_around((*a, *b)), boxes)
