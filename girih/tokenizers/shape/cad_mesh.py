"""CAD programs as closed triangle meshes, without a CAD kernel.

Knows how curves become polygons and solids; extruding and the boolean operations are manifold3d's, whose results are
closed by construction. Does not know tokens or files; exact curved faces are cad_step.py's.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from girih.tokenizers.shape.cad import Arc, Circle, Extrusion, Face, Loop, Program

if TYPE_CHECKING:
    import trimesh


def program_mesh(program: Program, segments: int = 64) -> trimesh.Trimesh:
    """The finished solid in the program's own unit, watertight, normals outward.

    ``segments``: straight pieces that a whole turn is cut into. A profile that crosses itself is filled wherever it
    goes around; a hole that reaches over the edge of its face is cut off there.

    Raises:
        ValueError: an invalid program, or one that leaves no solid.
        ImportError: manifold3d or trimesh is missing.
    """
    if segments < 3:
        raise ValueError(f"segments must be at least 3, got {segments}")
    kernel, trimesh = _libraries()
    solid = kernel.Manifold()
    for i, extrusion in enumerate(program.checked().extrusions):
        part = _raised(kernel, extrusion, segments)
        if extrusion.boolean in ("new", "join"):
            solid = part if i == 0 else solid + part
        else:
            solid = solid - part if extrusion.boolean == "cut" else solid ^ part
    if solid.is_empty() or solid.num_tri() == 0:
        raise ValueError("the program leaves no solid: it is cut away whole, or its parts do not meet")
    raw = solid.to_mesh64()
    return trimesh.Trimesh(np.asarray(raw.vert_properties)[:, :3], np.asarray(raw.tri_verts), process=False)


def _libraries() -> tuple[Any, Any]:
    try:
        import manifold3d
        import trimesh
    except ImportError as error:
        raise ImportError(f"meshes of CAD programs need {error.name}: pip install 'girih[cad]'") from error
    return manifold3d, trimesh


def _raised(kernel: Any, extrusion: Extrusion, segments: int) -> Any:
    """The solid of one step alone."""
    sketch = kernel.CrossSection()
    for face in extrusion.sized.faces:
        sketch = sketch + _region(kernel, face, segments)
    low, high = extrusion.span
    plane = extrusion.plane
    pose = np.column_stack((plane.x_axis, plane.y_axis, plane.normal, plane.at((0.0, 0.0), low)))
    return sketch.extrude(high - low).transform(pose)


def _region(kernel: Any, face: Face, segments: int) -> Any:
    loops = [kernel.CrossSection([polygon(loop, segments)], kernel.FillRule.NonZero) for loop in face.loops]
    outer = max(loops, key=lambda loop: loop.area())
    region = outer
    for loop in loops:
        if loop is not outer:
            region = region - loop
    return region


def polygon(loop: Loop, segments: int = 64) -> np.ndarray:
    """The corners [n, 2] of a loop, with arcs and circles cut into pieces."""
    points: list[tuple[float, float]] = []
    for curve in loop.chained().curves:
        if isinstance(curve, Circle):
            return _turned(curve.center, curve.radius, np.arange(segments) / segments * math.tau)
        if isinstance(curve, Arc) and curve.turn != 0:
            (x, y), sweep = curve.center, curve.sweep
            pieces = max(2, math.ceil(abs(sweep) / math.tau * segments))
            begin = math.atan2(curve.start[1] - y, curve.start[0] - x)
            inner = _turned((x, y), curve.radius, begin + sweep * np.arange(1, pieces) / pieces)
            points += [curve.start, *map(tuple, inner.tolist())]
        else:
            points.append(curve.start)
    return np.array(points)


def _turned(center: tuple[float, float], radius: float, angles: np.ndarray) -> np.ndarray:
    return np.column_stack((np.cos(angles), np.sin(angles))) * radius + center
