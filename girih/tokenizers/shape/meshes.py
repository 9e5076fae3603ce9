"""Polygon meshes: from files and to files, and the canonical form that the mesh languages write down.

Knows triangles and quads, mesh files (OBJ itself, because trimesh splits its quads; GLB, PLY, STL and the rest through
trimesh), and what canonicalisation merges, drops and clips, which it reports and never repairs in silence. Does not
know tokens. The order of vertices and faces is that of PolyGen (Nash et al. 2020, section 2): vertices by their
quantised coordinates, faces rotated so that their lowest vertex leads, which keeps the winding, then sorted by their
vertices.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from girih.files import whole
from girih.tokenizers.records import FieldQuantizer

if TYPE_CHECKING:
    import trimesh

Array = np.ndarray[Any, Any]

FORMATS = ("obj", "glb", "gltf", "ply", "stl", "off")
MAX_FACES = 1_000_000  # of a file; languages have their own, lower limits
MAX_BYTES = 128 * 2**20


@dataclass(frozen=True)
class Mesh:
    """``vertices`` float [V, 3] and ``faces`` int64 [F, 3] or [F, 4], where a fourth of -1 makes a triangle.

    ``polygons_split``: faces of more than four corners that became fans when the mesh was made.
    """

    vertices: Array
    faces: Array
    polygons_split: int = 0

    @classmethod
    def of(cls, mesh: Mesh | trimesh.Trimesh) -> Mesh:
        """The mesh itself, or a trimesh as one. Raises ValueError for anything else."""
        if isinstance(mesh, Mesh):
            return mesh
        if not hasattr(mesh, "vertices") or not hasattr(mesh, "faces"):
            raise ValueError(f"a mesh must have vertices and faces, got {type(mesh).__name__}")
        return cls(np.asarray(mesh.vertices), np.asarray(mesh.faces, np.int64))

    @property
    def triangles(self) -> Array:
        """int64 [F, 3]: the faces, quads split along the diagonal from their first corner."""
        if self.faces.shape[1] == 3:
            return self.faces
        quads = self.faces[:, 3] >= 0
        both = np.stack((self.faces[:, [0, 1, 2]], self.faces[:, [0, 2, 3]]), 1)
        keep = np.stack((np.ones_like(quads), quads), 1)
        return both[keep]

    @property
    def quads(self) -> int:
        """How many faces have four corners."""
        return 0 if self.faces.shape[1] == 3 else int((self.faces[:, 3] >= 0).sum())

    def to_trimesh(self) -> trimesh.Trimesh:
        """As a trimesh, quads split. Needs the extra ``shape``."""
        return _trimesh().Trimesh(self.vertices, self.triangles, process=False)


@dataclass(frozen=True)
class Report:
    """What canonicalisation was given and what it changed, in counts."""

    vertices: int
    faces: int
    vertices_unused: int = 0
    vertices_merged: int = 0
    values_clipped: int = 0
    faces_collapsed: int = 0
    faces_repeated: int = 0
    quads_to_triangles: int = 0
    quads_split: int = 0
    polygons_split: int = 0

    def __str__(self) -> str:
        changed = [f"{name.replace('_', ' ')} {count}" for name, count in list(asdict(self).items())[2:] if count]
        return f"{self.vertices} vertices, {self.faces} faces" + (": " + ", ".join(changed) if changed else "")


@dataclass(frozen=True)
class Canonical:
    """A mesh on the grid: ``bins`` int64 [V, 3], all different and in order; ``faces`` as in ``Mesh``."""

    bins: Array
    faces: Array
    report: Report

    @property
    def boundary_edges(self) -> int:
        """Edges of one face: the surface is open there."""
        return int((edge_counts(self.faces) == 1).sum())

    @property
    def crowded_edges(self) -> int:
        """Edges of more than two faces: the surface is no manifold there."""
        return int((edge_counts(self.faces) > 2).sum())


def by_zyx(bins: Array) -> Array:
    """The order of vertices along z, then y, then x: one key a bin triple, int64 [N]."""
    return bins[:, 2] << 32 | bins[:, 1] << 16 | bins[:, 0]


def by_zxy(bins: Array) -> Array:
    """The order of vertices along z, then x, then y (QuadGPT)."""
    return bins[:, 2] << 32 | bins[:, 0] << 16 | bins[:, 1]


def normalize(vertices: Array, extent: float) -> Array:
    """Vertices [V, 3] with their bounding box centred and its longest side scaled to ``extent``."""
    low, high = vertices.min(0), vertices.max(0)
    return (vertices - (low + high) / 2) / (high - low).max() * extent


def canonicalize(mesh: Mesh, quantizer: FieldQuantizer, extent: float, *, max_faces: int, normalized: bool = False,
                 triangles: bool = True, order: Callable[[Array], Array] = by_zyx,
                 sort_corners: bool = False) -> Canonical:
    """Check, normalise, quantise, merge, drop and sort.

    Args:
        mesh: with quads or without. quantizer: of a coordinate. max_faces: more are an error.
        extent: the longest side of the bounding box after normalising.
        normalized: the mesh is in the quantizer's range already and stays where it is.
        triangles: split quads. order: one sortable key a bin triple.
        sort_corners: sort the corners of a face (AMT); the winding is lost.

    Raises:
        ValueError: a mesh that ``check`` refuses, or of which nothing is left on the grid.
    """
    check(mesh, max_faces)
    given = mesh.triangles if triangles else mesh.faces
    if len(given) > max_faces:
        raise ValueError(f"the mesh has {len(given)} triangles, the limit is {max_faces}")
    vertices, faces = _without_unused(np.asarray(mesh.vertices), given.astype(np.int64))
    vertices = vertices if vertices.dtype in (np.float32, np.float64) else vertices.astype(np.float64)
    vertices = vertices if normalized else normalize(vertices, extent)
    values = torch.from_numpy(np.ascontiguousarray(vertices))
    clipped = int(quantizer.outside(values).sum()) if normalized else 0
    grid = quantizer.encode(values).numpy()
    grid, merged = _merged(grid, order)
    faces = np.where(faces < 0, -1, merged[faces]) if faces.shape[1] == 4 else merged[faces]
    faces, to_triangles = _without_collapsed(faces)
    whole_faces = len(faces)
    faces = _sorted_unique(np.sort(faces, 1) if sort_corners else _lowest_first(faces))
    if not len(faces):
        raise ValueError(f"none of the {len(given)} faces is left on a grid of {quantizer.size} bins")
    report = Report(
        len(mesh.vertices), len(mesh.faces), vertices_unused=len(mesh.vertices) - len(vertices),
        vertices_merged=len(vertices) - len(grid), values_clipped=clipped,
        faces_collapsed=len(given) - whole_faces, faces_repeated=whole_faces - len(faces),
        quads_to_triangles=to_triangles, quads_split=mesh.quads if triangles else 0, polygons_split=mesh.polygons_split)
    return Canonical(*_without_unused(grid, faces), report)


def check(mesh: Mesh, max_faces: int) -> None:
    """Raises ValueError, one line that names the value, for a mesh that no language can hold."""
    vertices, faces = np.asarray(mesh.vertices), np.asarray(mesh.faces)
    if vertices.ndim != 2 or vertices.shape[1] != 3 or faces.ndim != 2 or faces.shape[1] not in (3, 4):
        raise ValueError(f"a mesh is vertices [V, 3] and faces [F, 3] or [F, 4], got {list(vertices.shape)} and "
                         f"{list(faces.shape)}")
    if not len(faces):
        raise ValueError("the mesh has no faces")
    if len(faces) > max_faces:
        raise ValueError(f"the mesh has {len(faces)} faces, the limit is {max_faces}")
    if faces[:, :3].min() < 0 or faces.min() < -1 or faces.max() >= len(vertices):
        raise ValueError(f"a face names vertex {faces.max() if faces.max() >= len(vertices) else faces.min()}, "
                         f"but the mesh has vertices 0 .. {len(vertices) - 1}")
    used = _without_unused(vertices, faces)[0]
    if not np.isfinite(used).all():
        raise ValueError(f"{int((~np.isfinite(used)).any(1).sum())} vertices have coordinates that are NaN or infinite")
    with np.errstate(over="ignore"):
        size = (used.max(0) - used.min(0)).max()
    if not 0 < size < np.inf:
        raise ValueError(f"the mesh has the extent {size}: "
                         + ("all its vertices lie at one point" if size == 0 else "too large for its number type"))


def weld(corners: Array, order: Callable[[Array], Array] = by_zyx) -> tuple[Array, Array]:
    """Corner bins [F, k, 3], rows of -1 where a corner is missing, to (bins [V, 3], faces [F, k]) without doubles."""
    flat = corners.reshape(-1, 3)
    real = flat[:, 0] >= 0
    bins, inverse = _merged(flat[real], order)
    faces = np.full(len(flat), -1, np.int64)
    faces[real] = inverse
    return bins, faces.reshape(corners.shape[:2])


def edge_counts(faces: Array) -> Array:
    """How many faces each edge has, int64 [edges]; 1 is a boundary, more than 2 is not a manifold."""
    if faces.shape[1] == 3:
        pairs = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    else:
        last = np.where(faces[:, 3] < 0, faces[:, 2], faces[:, 3])
        pairs = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 3]],
                                np.stack((last, faces[:, 0]), 1)])
        pairs = pairs[(pairs >= 0).all(1)]
    pairs = np.sort(pairs, 1)
    return np.unique(pairs[:, 0] << 32 | pairs[:, 1], return_counts=True)[1]


def read_mesh(path: str | os.PathLike[str], max_faces: int = MAX_FACES) -> Mesh:
    """A mesh file as one mesh: its parts joined at their places, materials and textures left out.

    Quads are kept in OBJ; polygons of more corners become fans. Other formats need the extra ``shape``.

    Raises:
        ValueError: an unknown format, a file that is too large, broken or holds no mesh, or a limit exceeded.
        OSError: the file cannot be opened.
    """
    path = Path(path)
    kind = path.suffix.lower().lstrip(".")
    if kind not in FORMATS:
        raise ValueError(f"{path.name}: mesh files end in {', '.join('.' + one for one in FORMATS)}")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path.name}: {path.stat().st_size} bytes, the limit for mesh files is {MAX_BYTES}")
    if kind == "obj":
        mesh = _read_obj(path, max_faces)
    else:
        library = _trimesh()
        try:
            scene = library.load_scene(path, process=False)
            mesh = Mesh.of(scene.to_mesh())
        except Exception as error:  # the library's readers raise what they like on broken files
            reason = f"{error}".splitlines() or [type(error).__name__]
            raise ValueError(f"{path.name}: cannot be read as {kind.upper()} ({reason[0][:120]})") from error
    try:
        check(mesh, max_faces)
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from None
    return mesh


def write_mesh(mesh: Mesh, path: str | os.PathLike[str]) -> None:
    """Write OBJ (quads kept), or GLB, PLY, STL, OFF through trimesh (quads split); whole or not at all.

    Raises:
        ValueError: an unknown format. OSError: the folder cannot be written to.
    """
    path = Path(path)
    kind = path.suffix.lower().lstrip(".")
    if kind not in FORMATS or kind == "gltf":  # which would be several files
        raise ValueError(f"{path.name}: meshes are written as .obj, .glb, .ply, .stl or .off")
    if kind == "obj":
        lines = [f"v {x:.8g} {y:.8g} {z:.8g}" for x, y, z in np.asarray(mesh.vertices).tolist()]
        lines += ["f " + " ".join(str(i + 1) for i in face if i >= 0) for face in mesh.faces.tolist()]
        data = ("\n".join(lines) + "\n").encode()
    else:
        exported: Any = mesh.to_trimesh().export(file_type=kind)
        data = exported.encode() if isinstance(exported, str) else exported
    with whole(path) as part:
        part.write_bytes(data)


def _read_obj(path: Path, max_faces: int) -> Mesh:
    """Vertices and faces of an OBJ file; normals, texture coordinates, groups and materials are passed over."""
    vertices: list[list[float]] = []
    faces: list[Sequence[int]] = []
    split = 0
    with path.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            words = line.split()
            try:
                if words[:1] == ["v"]:
                    x, y, z = words[1:4]
                    vertices.append([float(x), float(y), float(z)])
                elif words[:1] == ["f"]:
                    named = [int(word.split("/")[0]) for word in words[1:]]
                    corners = [i - 1 if i > 0 else len(vertices) + i for i in named]
                    if len(corners) < 3 or 0 in named or min(corners) < 0:
                        raise ValueError
                    split += len(corners) > 4
                    faces += (corners, ) if len(corners) < 5 else [
                        (corners[0], corners[i], corners[i + 1]) for i in range(1, len(corners) - 1)]
            except ValueError:
                raise ValueError(f"{path.name}: line {number} is no vertex or face: {line.strip()[:60]!r}") from None
            if len(faces) > max_faces:
                raise ValueError(f"{path.name}: the mesh has more than {max_faces} faces, the limit")
    width = max((len(face) for face in faces), default=3)
    table = np.array([(*face, -1)[:width] for face in faces], np.int64).reshape(-1, width)
    return Mesh(np.array(vertices, float).reshape(-1, 3), table, split)


def _merged(bins: Array, order: Callable[[Array], Array]) -> tuple[Array, Array]:
    """Bins [N, 3] in order and each once [V, 3], and where each row went [N]."""
    keys, went = np.unique(order(bins), return_inverse=True)
    source = np.empty(len(keys), np.int64)
    source[went] = np.arange(len(went))
    return bins[source], went


def _without_unused(vertices: Array, faces: Array) -> tuple[Array, Array]:
    """Vertices that a face names, and the faces that name them."""
    used = np.zeros(len(vertices) + 1, bool)  # the last one stands for the corners of -1
    used[faces] = True
    used[-1] = False
    if used[:-1].all():
        return vertices, faces
    name = np.append(used[:-1].cumsum() - 1, -1)
    return vertices[used[:-1]], name[faces]


def _without_collapsed(faces: Array) -> tuple[Array, int]:
    """Faces whose corners all differ, and how many quads lost one corner and became triangles."""
    if faces.shape[1] == 3:
        a, b, c = faces.T
        return faces[(a != b) & (b != c) & (c != a)], 0
    quad = faces[:, 3] >= 0
    beside = (faces == np.roll(faces, -1, 1)) & quad[:, None]  # a corner equals the next
    across = quad & ((faces[:, 0] == faces[:, 2]) | (faces[:, 1] == faces[:, 3]))
    shrunk = quad & (beside.sum(1) == 1) & ~across
    out = faces.copy()
    for corner in range(4):
        rows = shrunk & beside[:, corner]
        out[rows, :3] = np.delete(faces[rows], corner, 1)
        out[rows, 3] = -1
    triangle = ~quad & (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
    return out[triangle | shrunk | (quad & ~beside.any(1) & ~across)], int(shrunk.sum())


# Which corner stands where when the corner at the first index leads; a triangle's missing fourth stays where it is.
_TURNS = {3: np.array([[0, 1, 2, 3], [1, 2, 0, 3], [2, 0, 1, 3], [3, 3, 3, 3]]),
          4: (np.arange(4)[:, None] + np.arange(4)) % 4}


def _lowest_first(faces: Array) -> Array:
    """Faces rotated so that their lowest vertex leads; the winding stays."""
    width = faces.shape[1]
    if width == 3:
        turns = _TURNS[3][faces.argmin(1), :3]
    else:
        lowest = np.where(faces < 0, np.iinfo(np.int64).max, faces).argmin(1)
        turns = np.where(faces[:, 3:] < 0, _TURNS[3][lowest], _TURNS[4][lowest])
    return faces.reshape(-1)[turns + np.arange(0, faces.size, width)[:, None]]


def _sorted_unique(faces: Array) -> Array:
    """Faces in the order of their vertices, each once."""
    ordered = faces[np.lexsort(faces.T[::-1])]
    keep = np.ones(len(ordered), bool)
    keep[1:] = (ordered[1:] != ordered[:-1]).any(1)
    return ordered[keep]


def _trimesh() -> Any:
    try:
        import trimesh
    except ImportError:
        raise ValueError("mesh files and trimesh objects need the extra 'shape': pip install girih[shape]") from None
    return trimesh
