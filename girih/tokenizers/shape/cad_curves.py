"""The curves of a sketch: lines, arcs and circles, and the little plane geometry that they need.

Knows single curves. Does not know loops or programs (cad.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

Point = tuple[float, float]
Box2 = tuple[Point, Point]


@dataclass(frozen=True)
class Line:
    """A straight edge."""

    start: Point
    end: Point

    @property
    def leaving(self) -> Point:
        """Direction at the start, any length."""
        return minus(self.end, self.start)

    @property
    def arriving(self) -> Point:
        """Direction at the end, any length."""
        return self.leaving

    @property
    def bounds(self) -> Box2:
        return box_around((self.start, self.end))

    def reversed(self) -> Line:
        return Line(self.end, self.start)

    def moved(self, shift: Point, scale: float) -> Line:
        """(point + shift) * scale."""
        return Line(moved_by(self.start, shift, scale), moved_by(self.end, shift, scale))


@dataclass(frozen=True)
class Arc:
    """A circular edge through a middle point.

    ``angles``: where the file says them, the two angles in radians from the file's reference direction. Only DeepCAD's
    sweep is computed from them; they say nothing that the three points do not.
    """

    start: Point
    mid: Point
    end: Point
    angles: tuple[float, float] | None = None

    @property
    def turn(self) -> float:
        """Twice the signed area of start, mid, end: positive for counter-clockwise, 0 where it is no arc."""
        return cross(minus(self.mid, self.start), minus(self.end, self.start))

    @property
    def center(self) -> Point:
        """Centre of the circle through the three points. Raises ValueError where they lie on a line."""
        if self.turn == 0:
            raise ValueError(f"the arc {self.start}, {self.mid}, {self.end} lies on a line")
        a, b = minus(self.mid, self.start), minus(self.end, self.start)
        aa, bb = a[0] ** 2 + a[1] ** 2, b[0] ** 2 + b[1] ** 2
        return (self.start[0] + (b[1] * aa - a[1] * bb) / (2 * self.turn),
                self.start[1] + (a[0] * bb - b[0] * aa) / (2 * self.turn))  # fmt: skip

    @property
    def radius(self) -> float:
        return math.dist(self.center, self.start)

    @property
    def sweep(self) -> float:
        """Signed angle in radians from start to end by way of the middle, -2 pi .. 2 pi."""
        begin, finish = (_angle(minus(point, self.center)) for point in (self.start, self.end))
        return (finish - begin) % math.tau if self.turn > 0 else -((begin - finish) % math.tau)

    @property
    def leaving(self) -> Point:
        """Chord to the middle: DeepCAD's direction at the start."""
        return minus(self.mid, self.start)

    @property
    def arriving(self) -> Point:
        """Chord from the middle: DeepCAD's direction at the end."""
        return minus(self.end, self.mid)

    @property
    def bounds(self) -> Box2:
        if self.turn == 0:
            return box_around((self.start, self.mid, self.end))
        (x, y), radius, sweep = self.center, self.radius, self.sweep
        begin = _angle(minus(self.start if sweep > 0 else self.end, self.center))
        extremes = ((x + radius, y), (x, y + radius), (x - radius, y), (x, y - radius))
        inside = [p for k, p in enumerate(extremes) if 0 < (k * math.pi / 2 - begin) % math.tau < abs(sweep)]
        return box_around((self.start, self.end, *inside))

    def reversed(self) -> Arc:
        return replace(self, start=self.end, end=self.start)

    def moved(self, shift: Point, scale: float) -> Arc:
        """(point + shift) * scale."""
        start, mid, end = (moved_by(point, shift, scale) for point in (self.start, self.mid, self.end))
        return Arc(start, mid, end, self.angles)


@dataclass(frozen=True)
class Circle:
    """A whole circle, alone in its loop. For ordering it starts at its left and ends at its right."""

    center: Point
    radius: float

    @property
    def start(self) -> Point:
        return self.center[0] - self.radius, self.center[1]

    @property
    def end(self) -> Point:
        return self.center[0] + self.radius, self.center[1]

    @property
    def bounds(self) -> Box2:
        (x, y), r = self.center, self.radius
        return (x - r, y - r), (x + r, y + r)

    def moved(self, shift: Point, scale: float) -> Circle:
        """(point + shift) * scale."""
        return Circle(moved_by(self.center, shift, scale), self.radius * scale)


Curve = Line | Arc | Circle


def cross(a: Point, b: Point) -> float:
    """z of the cross product: positive where b points left of a."""
    return a[0] * b[1] - a[1] * b[0]


def near(a: Point, b: Point) -> bool:
    """Equal but for rounding: 1e-5 relative, 1e-8 absolute in each coordinate (NumPy's and the published readers')."""
    return all(abs(x - y) <= 1e-8 + 1e-5 * abs(y) for x, y in zip(a, b, strict=True))


def minus(a: Point, b: Point) -> Point:
    """a - b."""
    return a[0] - b[0], a[1] - b[1]


def moved_by(point: Sequence[float], shift: Sequence[float], scale: float) -> Any:
    """(point + shift) * scale, in the plane or in space."""
    return tuple((value + by) * scale for value, by in zip(point, shift, strict=True))


def _angle(vector: Point) -> float:
    return math.atan2(vector[1], vector[0])


def box_around(points: Sequence[Sequence[float]]) -> Any:
    """(lowest corner, highest corner) of points in the plane or in space."""
    return tuple(map(min, zip(*points, strict=True))), tuple(map(max, zip(*points, strict=True)))
