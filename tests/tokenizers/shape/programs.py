"""Random CAD programs for the tests: every kind of curve, loops turned, any plane, extent and boolean."""

from __future__ import annotations

import math

import numpy as np

from girih.tokenizers.shape.cad import Arc, Circle, Curve, Extrusion, Face, Line, Loop, Plane, Point, Program

AXES = [np.array(axis, float) * sign for axis in np.eye(3) for sign in (1, -1)]


def arc(center: Point, radius: float, begin: float, end: float) -> Arc:
    """From the angle ``begin`` to the angle ``end``, counter-clockwise where that is larger."""
    angles = begin, (begin + end) / 2, end
    return Arc(*[(center[0] + radius * math.cos(a), center[1] + radius * math.sin(a)) for a in angles])


def ring(points: list[Point]) -> list[Curve]:
    """A closed chain of lines."""
    return [Line(a, b) for a, b in zip(points, [*points[1:], points[0]], strict=True)]


def loop(rng: np.random.Generator, x: float, y: float, reach: float) -> Loop:
    """A loop around (x, y) that reaches ``reach``: circle, polygon, slot, half disc, two arcs, or a bitten square."""
    kind, h = rng.integers(6), reach / 2
    curves: list[Curve]
    if kind == 0:
        return Loop((Circle((x, y), reach),))
    if kind == 1:
        n = rng.integers(3, 8)
        angles = (np.arange(n) + rng.uniform(0.1, 0.9, n)) / n * math.tau
        radii = reach * rng.uniform(0.5, 1, n)
        curves = ring([(x + r * math.cos(a), y + r * math.sin(a)) for r, a in zip(radii, angles, strict=True)])
    elif kind == 2:
        curves = [Line((x - h, y - h), (x + h, y - h)), arc((x + h, y), h, -math.pi / 2, math.pi / 2),
                  Line((x + h, y + h), (x - h, y + h)), arc((x - h, y), h, math.pi / 2, math.pi * 1.5)]  # fmt: skip
    elif kind == 3:
        half = arc((x, y), reach, 0, math.pi)
        curves = [half, Line(half.end, half.start)]
    elif kind == 4:
        first = arc((x, y), reach, 1, 3)
        second = arc((x, y), reach, 3, 1 + math.tau)
        curves = [first, Arc(first.end, second.mid, first.start)]
    else:
        corners = [(x - h, y - h), (x + h, y - h), (x + h, y), (x, y + h), (x - h, y + h)]
        curves = ring(corners)
        curves[2] = Arc(corners[2], (x + h * (1 - math.sqrt(0.5)), y + h * (1 - math.sqrt(0.5))), corners[3])
    turn = rng.integers(len(curves))
    return Loop(tuple(curves[turn:] + curves[:turn]))


def program(seed: int) -> Program:
    """One to three extrusions of one or two faces, some with a hole."""
    rng = np.random.default_rng(seed)
    extrusions = []
    for i in range(rng.integers(1, 4)):
        x, y = AXES[rng.integers(6)], AXES[rng.integers(6)]
        while abs(x @ y) > 0.5:
            y = AXES[rng.integers(6)]
        if rng.random() < 0.4:
            x, y = np.linalg.qr(rng.normal(size=(3, 3)))[0].T[:2]
        faces = []
        for j in range(rng.integers(1, 3)):
            at, reach = (100.0 * j + rng.uniform(-20, 20), rng.uniform(-20, 20)), rng.uniform(20, 40)
            loops = [loop(rng, *at, reach)]
            if rng.random() < 0.5:
                loops.append(loop(rng, at[0] - reach * 0.1, at[1] - reach * 0.1, reach * 0.2))
            faces.append(Face(tuple(loops)))
        extent = ("one_side", "symmetric", "two_sides")[rng.integers(3)]
        distances = float(rng.uniform(5, 60)) * (-1 if extent == "one_side" and rng.random() < 0.3 else 1)
        extrusions.append(
            Extrusion(
                tuple(faces),
                Plane(tuple(rng.uniform(-50, 50, 3).tolist()), tuple(x.tolist()), tuple(y.tolist())),
                (distances, float(rng.uniform(5, 30)) if extent == "two_sides" else 0.0),
                extent,
                "new" if i == 0 else ("new", "join", "cut", "intersect")[rng.integers(4)],
            )
        )
    return Program(tuple(extrusions))


def plate(width: float = 60.0, depth: float = 40.0, height: float = 5.0, hole: float = 4.0) -> Program:
    """A plate with a round hole through its middle."""
    corners = [(0.0, 0.0), (width, 0.0), (width, depth), (0.0, depth)]
    face = Face((Loop(tuple(ring(corners))), Loop((Circle((width / 2, depth / 2), hole),))))
    return Program((Extrusion((face,), distances=(height, 0.0)),))
