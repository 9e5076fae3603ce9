"""A picture of a mesh: orthographic, lit from the viewer's upper left, edges of the shape drawn.

Knows trimesh meshes and pixels; needs no graphics card or window. Does not know where meshes come from.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

VIEW = (np.radians(-60.0), np.radians(35.0))  # tilt about x after a turn about z: a drawing board's view
COLOUR = np.array([176.0, 190.0, 205.0])
LINE = np.array([52.0, 60.0, 70.0])
SHARP = np.radians(25.0)  # an edge between faces that turn more than this is drawn


def render(mesh: object, size: int = 512, margin: float = 0.08) -> Image.Image:
    """RGB picture ``size`` x ``size`` of a ``trimesh.Trimesh`` on white, fitted to the frame."""
    scale = 2  # drawn larger, then averaged
    side = size * scale
    vertices = np.asarray(mesh.vertices) @ _turn().T  # type: ignore[attr-defined]
    low, high = vertices.min(0), vertices.max(0)
    zoom = side * (1 - 2 * margin) / max(high[0] - low[0], high[1] - low[1], 1e-9)
    flat = (vertices - (low + high) / 2) * zoom
    points = np.column_stack([side / 2 + flat[:, 0], side / 2 - flat[:, 1], flat[:, 2]])
    faces = np.asarray(mesh.faces)  # type: ignore[attr-defined]
    normals = np.asarray(mesh.face_normals) @ _turn().T  # type: ignore[attr-defined]
    light = np.array([-0.45, 0.55, 0.75]) / np.linalg.norm([-0.45, 0.55, 0.75])
    shade = 0.35 + 0.65 * np.clip(normals @ light, 0, 1)
    canvas, depth = np.full((side, side, 3), 255.0), np.full((side, side), -np.inf)
    for face in np.nonzero(normals[:, 2] > 1e-9)[0]:
        _fill(points[faces[face]], COLOUR * shade[face], canvas, depth)
    sharp = np.asarray(mesh.face_adjacency_angles) > SHARP  # type: ignore[attr-defined]
    for a, b in np.asarray(mesh.face_adjacency_edges)[sharp]:  # type: ignore[attr-defined]
        _stroke(points[a], points[b], canvas, depth, scale)
    small = canvas.reshape(size, scale, size, scale, 3).mean((1, 3))
    return Image.fromarray(small.round().clip(0, 255).astype(np.uint8))


def _turn() -> np.ndarray:
    tilt, spin = VIEW
    about_z = np.array([[np.cos(spin), -np.sin(spin), 0], [np.sin(spin), np.cos(spin), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    return about_x @ about_z


def _fill(corners: np.ndarray, colour: np.ndarray, canvas: np.ndarray, depth: np.ndarray) -> None:
    """One triangle [3, (x, y, depth)] into the canvas where it is nearer than what stands there."""
    side = len(canvas)
    x0, y0 = np.maximum(np.floor(corners[:, :2].min(0)).astype(int), 0)
    x1, y1 = np.minimum(np.ceil(corners[:, :2].max(0)).astype(int) + 1, side)
    (ax, ay, az), (bx, by, bz), (cx, cy, cz) = corners
    area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
    if x0 >= x1 or y0 >= y1 or abs(area) < 1e-9:
        return
    x, y = np.arange(x0, x1) + 0.5, (np.arange(y0, y1) + 0.5)[:, None]
    u = ((bx - x) * (cy - y) - (cx - x) * (by - y)) / area
    v = ((cx - x) * (ay - y) - (ax - x) * (cy - y)) / area
    inside = (u >= -1e-6) & (v >= -1e-6) & (u + v <= 1 + 1e-6)
    z = u * az + v * bz + (1 - u - v) * cz
    window = depth[y0:y1, x0:x1]
    nearer = inside & (z > window)
    window[nearer] = z[nearer]
    canvas[y0:y1, x0:x1][nearer] = colour


def _stroke(start: np.ndarray, end: np.ndarray, canvas: np.ndarray, depth: np.ndarray, width: int) -> None:
    """A line in front of the surface it lies on, hidden by what is nearer."""
    side = len(canvas)
    steps = int(np.abs(end - start)[:2].max()) + 2
    places = start + np.linspace(0, 1, steps)[:, None] * (end - start)
    for dx in range(width):
        for dy in range(width):
            x, y = (np.floor(places[:, axis]).astype(int) + shift for axis, shift in ((0, dx), (1, dy)))
            seen = (x >= 0) & (x < side) & (y >= 0) & (y < side)
            x, y, z = x[seen], y[seen], places[seen, 2]
            shown = z >= depth[y, x] - 3.0 * width
            canvas[y[shown], x[shown]] = LINE
