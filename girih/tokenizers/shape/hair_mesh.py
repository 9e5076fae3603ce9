"""Hair cards as meshes and back: a root-to-tip list of control points swept into a closed diamond tube.

Knows one card's geometry: its frames, its mesh, the inverse that reads the control points out of such a mesh, and hair
files (GLB and whatever else trimesh writes). Does not know tokens or the order of cards (hair.py).

A card is a float array ``[n, 5]``, n >= 5, of x, y, z, width, thickness; y is up and the face looks along +z. After
CHARM (SIGGRAPH Asia 2025), with two differences: only the ends are capped, so a card is watertight and its own inverse
reads it, and the sign and the degenerate cases of the first normal are fixed instead of left to the linear algebra.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from girih.files import whole

if TYPE_CHECKING:
    import trimesh

Floats = NDArray[np.float64]

MIN_POINTS = 5
WELD = 1e-8  # vertices nearer than this are one
MAX_VERTICES = 1_000_000
_STRAIGHT = 1e-6  # second over first variance of three points below which they span no plane
_DIFFERENCE = np.array([-1 / 12, 2 / 3, 0, -2 / 3, 1 / 12])  # five-point derivative; this sign looks from tip to root
# The eight triangles between ring 0 (vertices 0-3) and ring 1 (vertices 4-7), and the caps; all wound outwards.
_SIDE = np.array([[4, 0, 5], [5, 1, 6], [6, 2, 7], [7, 3, 4], [1, 5, 0], [0, 4, 3], [3, 7, 2], [2, 6, 1]])
_ROOT_CAP, _TIP_CAP = np.array([[0, 2, 1], [0, 3, 2]]), np.array([[0, 1, 2], [0, 2, 3]])


def _unit(vectors: NDArray[Any]) -> Floats:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def check_card(card: ArrayLike, name: str = "card", min_points: int = MIN_POINTS) -> Floats:
    """``card`` as float64 ``[n, 5]``.

    Raises ValueError for another shape, fewer than ``min_points`` points, or numbers that are not finite.
    """
    points = np.asarray(card, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 5:
        raise ValueError(f"{name} must be [points, 5] (x, y, z, width, thickness), got {list(points.shape)}")
    if len(points) < min_points:
        raise ValueError(f"{name} has {len(points)} control points; it needs at least {min_points}")
    if not np.isfinite(points).all():
        raise ValueError(f"{name} holds numbers that are not finite")
    return points


def card_normals(points: ArrayLike, smooth: float = 1.0) -> Floats:
    """Unit vectors along the card's width, one a control point ``[n, 3]``.

    The first is normal to the plane of the first three points and looks away from the head's axis. The others minimise
    sum (n_i . d)^2 over the segments d beside point i, plus ``smooth`` times the squared differences along the card
    (and, as published, times the square of the last, as if a zero came after the tip).
    """
    at = np.asarray(points, dtype=np.float64)[:, :3]
    count = len(at)
    segments = np.diff(at, axis=0)
    outer = segments[:, :, None] * segments[:, None]
    system = np.zeros((count, 3, count, 3))
    each = np.arange(count)
    system[each, :, each, :] += 2 * smooth * np.eye(3)
    system[each[1:], :, each[1:], :] += outer
    system[each[:-1], :, each[:-1], :] += outer
    system[each[1:], :, each[:-1], :] = system[each[:-1], :, each[1:], :] = -smooth * np.eye(3)
    matrix = system.reshape(3 * count, 3 * count)
    first = _first_normal(at)
    rest = np.linalg.solve(matrix[3:, 3:], -matrix[3:, :3] @ first).reshape(-1, 3)
    return np.concatenate([first[None], _unit(rest)])


def _first_normal(at: Floats) -> Floats:
    """Normal of the plane of the first three points, away from the axis of the head; of a straight start, which has no
    plane, the direction across it that looks away most."""
    variances, axes = np.linalg.eigh(np.cov(at[:3].T))
    outwards = at[0] * np.array([1.0, 0.0, 1.0])
    if variances[1] > _STRAIGHT * variances[2]:
        normal = axes[:, 0]
    else:
        along = axes[:, 2]
        normal = outwards - (outwards @ along) * along
        if np.linalg.norm(normal) < 1e-3 * np.linalg.norm(at[0]) + 1e-9:  # it runs outwards itself, or on the axis
            spare = np.eye(3)[np.abs(along).argmin()]
            normal = spare - (spare @ along) * along
        normal = _unit(normal)
    return -normal if normal @ outwards < 0 else normal


def card_frames(card: ArrayLike, smooth: float = 1.0) -> tuple[Floats, Floats]:
    """(width axes, thickness axes) of a card, unit, ``[n, 3]`` each."""
    at = check_card(card)[:, :3]
    normals = card_normals(at, smooth)
    middle = np.clip(np.arange(len(at)), 2, len(at) - 3)  # the ends use the nearest whole window
    tangents = np.tensordot(_DIFFERENCE, at[middle + np.arange(-2, 3)[:, None]], axes=1)
    across = tangents - (tangents * normals).sum(1, keepdims=True) * normals
    # A card that turns back on itself may have no derivative across its normal; any direction across will do.
    lost = np.linalg.norm(across, axis=1) < 1e-9
    spare = np.eye(3)[np.abs(normals[lost]).argmin(1)]
    across[lost] = spare - (spare * normals[lost]).sum(1, keepdims=True) * normals[lost]
    return normals, np.cross(normals, _unit(across))


def card_faces(count: int) -> NDArray[np.int64]:
    """Triangles ``[8 count - 4, 3]`` of a card of ``count`` rings of four vertices: sides, and a cap at each end."""
    sides = _SIDE + 4 * np.arange(count - 1)[:, None, None]
    return np.concatenate([_ROOT_CAP, sides.reshape(-1, 3), _TIP_CAP + 4 * (count - 1)])


def card_mesh(card: ArrayLike, smooth: float = 1.0) -> tuple[Floats, NDArray[np.int64]]:
    """(vertices ``[4 n, 3]``, triangles ``[8 n - 4, 3]``) of a card: watertight, wound outwards.

    Ring i is vertices 4 i to 4 i + 3: half a width along the normal, half a thickness across, and the two opposite.
    Raises ValueError for a card that ``check_card`` refuses, with a width or thickness that is not above ``WELD``, or
    with two successive points in one place.
    """
    points = check_card(card)
    if points[:, 3:].min() <= WELD:
        raise ValueError(f"widths and thicknesses must be above {WELD:g} to make a mesh, got {points[:, 3:].min():g}")
    if np.linalg.norm(np.diff(points[:, :3], axis=0), axis=1).min() <= WELD:
        raise ValueError("two successive control points of a card lie in one place")
    width, thickness = card_frames(points, smooth)
    wide, thick = points[:, 3:4] / 2 * width, points[:, 4:5] / 2 * thickness
    rings = points[:, None, :3] + np.stack([wide, thick, -wide, -thick], axis=1)
    return rings.reshape(-1, 3), card_faces(len(points))


def read_cards(vertices: ArrayLike, faces: ArrayLike, smooth: float = 1.0) -> list[Floats]:
    """Control points of every card of a mesh made by ``card_mesh``, whatever the order of vertices and triangles.

    ``vertices [v, 3]``, ``faces [f, 3]``. Cards come in the order of their lowest vertex, each from the end whose
    recomputed normals fit its rings (from the lower end vertex where both do), which also tells width from thickness.
    Exact up to rounding.
    Raises ValueError when a connected part is no chain of four-vertex rings with closed ends.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    at, edges = _welded(vertices, faces)
    graph = coo_array((np.ones(len(edges)), edges.T), shape=(len(at), len(at))).tocsr()
    _, part = connected_components(graph, directed=False)
    order = np.argsort(part, kind="stable")
    _, first = np.unique(part[order], return_index=True)
    members = sorted(np.split(order, first[1:]), key=lambda group: group[0])
    neighbours = np.split(graph.indices, graph.indptr[1:-1])
    return [_read_card(at, group, neighbours, smooth) for group in members]


def _welded(vertices: ArrayLike, faces: ArrayLike) -> tuple[Floats, NDArray[np.int64]]:
    """Distinct vertices in order of first appearance, and every edge in both directions once."""
    at, triangles = np.asarray(vertices, dtype=np.float64), np.asarray(faces)
    if at.ndim != 2 or at.shape[1] != 3 or triangles.ndim != 2 or triangles.shape[1] != 3 or not len(triangles):
        raise ValueError(f"a hair mesh needs vertices [v, 3] and triangles [f, 3], got {at.shape}, {triangles.shape}")
    if len(at) > MAX_VERTICES:
        raise ValueError(f"the hair mesh has {len(at)} vertices; at most {MAX_VERTICES} are read")
    if not np.isfinite(at).all() or np.abs(at).max() > 1e6:
        raise ValueError("the hair mesh holds vertices that are not finite or beyond 1e6")
    if triangles.min() < 0 or triangles.max() >= len(at):
        raise ValueError(f"the hair mesh has a triangle with vertex {triangles.max()} of {len(at)}")
    at, triangles = _used(at, triangles)
    _, first, label = np.unique(np.round(at / WELD).astype(np.int64), axis=0, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))  # distinct places renumbered by first appearance
    triangles = rank[label.reshape(-1)][triangles]
    edges = triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    edges = edges[edges[:, 0] != edges[:, 1]]
    return at[np.sort(first)], np.unique(np.concatenate([edges, edges[:, ::-1]]), axis=0)


def _used(at: Floats, triangles: NDArray[Any]) -> tuple[Floats, NDArray[Any]]:
    """Without the vertices that no triangle has."""
    used = np.zeros(len(at), dtype=bool)
    used[triangles] = True
    return at[used], (np.cumsum(used) - 1)[triangles]


def _read_card(at: Floats, group: NDArray[Any], neighbours: Sequence[NDArray[Any]], smooth: float) -> Floats:
    rings = at[np.array(_rings(group, neighbours))]  # [n, 4, 3]
    # Normals grow from the root, so the end whose normals fit the rings is the root; the first end where both fit.
    card, fit = _points(rings, smooth)
    back, back_fit = _points(rings[::-1], smooth)
    return back if back_fit > fit + 1e-6 else card


def _points(rings: Floats, smooth: float) -> tuple[Floats, float]:
    """Control points of rings ``[n, 4, 3]`` in any order of corners, and the mean cosine of widths and normals."""
    # Opposite corners of a diamond have the same middle, its centre: find the corner opposite to the first.
    centre = rings.mean(1)
    off = np.linalg.norm(rings[:, :1] + rings[:, 1:] - 2 * centre[:, None], axis=2)
    opposite = off.argmin(1) + 1
    each = np.arange(len(rings))
    left, right = np.array([[2, 3], [1, 3], [1, 2]])[opposite - 1].T
    diagonals = np.stack([rings[:, 0] - rings[each, opposite], rings[each, left] - rings[each, right]], axis=1)
    lengths = np.linalg.norm(diagonals, axis=2)
    normals = card_normals(centre, smooth)
    cosines = np.abs((diagonals * normals[:, None]).sum(2)) / np.maximum(lengths, WELD)
    wide = cosines.argmax(1)
    return np.column_stack([centre, lengths[each, wide], lengths[each, 1 - wide]]), float(cosines.max(1).mean())


def _rings(group: NDArray[Any], neighbours: Sequence[NDArray[Any]]) -> list[list[int]]:
    """The card's vertices ring by ring, from one end to the other. An inner vertex has six neighbours, an end's not."""
    ends = {int(v) for v in group if len(neighbours[v]) != 6}
    refused = ValueError(f"a part of the mesh with {len(group)} vertices is no hair card: a chain of four-vertex rings")
    if len(ends) != 8 or len(group) % 4 or len(group) < 4 * MIN_POINTS:
        raise refused
    start = min(ends)
    ring = {start, *(int(v) for v in neighbours[start] if int(v) in ends)}
    # The diagonal of the cap reaches only two of the four corners, so ask their neighbours too.
    ring |= {int(v) for corner in tuple(ring) for v in neighbours[corner] if int(v) in ends}
    rings, seen = [], set(ring)
    while ring:
        if len(ring) != 4:
            raise refused
        rings.append(sorted(ring))
        ring = {int(v) for corner in ring for v in neighbours[corner]} - seen
        seen |= ring
    if 4 * len(rings) != len(group):
        raise refused
    return rings


def hair_scene(cards: Sequence[ArrayLike], smooth: float = 1.0) -> trimesh.Scene:
    """A trimesh scene with one closed mesh a card, named ``card_0000`` and so on. Raises ValueError like card_mesh."""
    import trimesh

    scene = trimesh.Scene()
    for index, card in enumerate(cards):
        name = f"card_{index:04d}"
        mesh = trimesh.Trimesh(*card_mesh(card, smooth), process=False)
        scene.add_geometry(mesh, node_name=name, geom_name=name)
    return scene


def write_hair(path: str | os.PathLike[str], cards: Sequence[ArrayLike], smooth: float = 1.0) -> None:
    """Write cards as a mesh file; the ending (.glb, .obj, .ply, .stl) names the format.

    Raises ValueError for cards that make no mesh, no cards at all, or an ending trimesh cannot write.
    """
    if not len(cards):
        raise ValueError("there are no hair cards to write")
    kind = os.path.splitext(os.fspath(path))[1].lstrip(".").lower()
    data = hair_scene(cards, smooth).export(file_type=kind)
    with whole(path) as part:
        part.write_bytes(data.encode("utf-8") if isinstance(data, str) else data)


def read_hair(path: str | os.PathLike[str], smooth: float = 1.0) -> list[Floats]:
    """Control points of every card in a mesh file that holds hair cards and nothing else.

    Raises ValueError for a file that trimesh cannot read or that holds other meshes, OSError where there is none.
    """
    import trimesh

    with open(path, "rb"):  # a missing file is an OSError, not a reader's error
        pass
    try:
        loaded = trimesh.load_scene(os.fspath(path), process=False)
        nodes = [loaded.graph[name] for name in sorted(loaded.graph.nodes_geometry)]
        meshes = [(loaded.geometry[name], place) for place, name in nodes
                  if isinstance(loaded.geometry[name], trimesh.Trimesh)]  # fmt: skip
    except Exception as error:  # readers of broken files raise anything
        raise ValueError(f"{os.fspath(path)} is not a readable mesh file: {type(error).__name__}: {error}") from error
    if not meshes:
        raise ValueError(f"{os.fspath(path)} holds no mesh")
    return [card for mesh, place in meshes for card in read_cards(_moved(mesh.vertices, place), mesh.faces, smooth)]


def _moved(vertices: ArrayLike, place: ArrayLike) -> Floats:
    place = np.asarray(place, dtype=np.float64)
    return np.asarray(vertices, dtype=np.float64) @ place[:3, :3].T + place[:3, 3]
