"""Meshes for the tests of the mesh languages: closed ones, open ones, soups, and their hypothesis strategies."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from girih.tokenizers.shape.meshes import Mesh


def box(sides=(1.0, 2.0, 3.0)) -> Mesh:
    """Six quads, wound outwards."""
    corners = np.array([[x, y, z] for z in (0, 1) for y in (0, 1) for x in (0, 1)], float) * sides
    faces = [[0, 2, 3, 1], [4, 5, 7, 6], [0, 1, 5, 4], [2, 6, 7, 3], [0, 4, 6, 2], [1, 3, 7, 5]]
    return Mesh(corners, np.array(faces))


def torus(around: int = 12, across: int = 8, triangles_every: int = 0) -> Mesh:
    """A closed, consistently wound quad mesh; every ``triangles_every``-th quad is two triangles."""
    u, v = np.meshgrid(np.arange(around), np.arange(across), indexing="ij")
    a, b = 2 * np.pi * u / around, 2 * np.pi * v / across
    points = np.stack(((1 + 0.4 * np.cos(b)) * np.cos(a), (1 + 0.4 * np.cos(b)) * np.sin(a), 0.4 * np.sin(b)), -1)
    name = lambda i, j: (i % around) * across + j % across  # noqa: E731
    faces = []
    for i in range(around):
        for j in range(across):
            quad = [name(i, j), name(i + 1, j), name(i + 1, j + 1), name(i, j + 1)]
            if triangles_every and (i * across + j) % triangles_every == 0:
                faces += [[*quad[:3], -1], [quad[0], quad[2], quad[3], -1]]
            else:
                faces.append(quad)
    # Slightly irregular: symmetric points lie on the edges of bins, where the last digit of a file decides.
    points = points + np.random.default_rng(0).uniform(-0.01, 0.01, points.shape)
    return Mesh(points.reshape(-1, 3), np.array(faces))


def two_cubes_on_an_edge() -> Mesh:
    """Two boxes that share one edge, which then has four faces: no manifold."""
    one = box((1.0, 1.0, 1.0))
    points = np.concatenate((one.vertices, one.vertices + [1.0, 1.0, 0.0]))
    _, first, index = np.unique(points, axis=0, return_index=True, return_inverse=True)
    return Mesh(points[first], index.reshape(-1)[np.concatenate((one.faces, one.faces + 8))])


@st.composite
def soups(draw, quads: bool = False) -> Mesh:
    """Random vertices and random faces on them: non-manifold, degenerate and repeated faces included; not flat."""
    count, seed = draw(st.integers(4, 16)), draw(st.integers(0, 2**32 - 1))
    noise = np.random.default_rng(seed)
    faces = noise.integers(0, count, (draw(st.integers(1, 24)), 4 if quads else 3))
    if quads:
        faces[noise.random(len(faces)) < 0.4, 3] = -1
    faces[0, :3] = (0, 1, 2)  # one face at least that does not collapse
    faces[0, 3:] = 3
    return Mesh(noise.normal(size=(count, 3)) * draw(st.sampled_from([1e-3, 1.0, 1e4])), faces)


def turned(faces: np.ndarray) -> set[tuple[int, ...]]:
    """Faces as a set, each rotated to its lowest vertex: equal sets are equal meshes with equal winding."""
    out = set()
    for face in faces.tolist():
        face = [i for i in face if i >= 0]
        at = face.index(min(face))
        out.add(tuple(face[at:] + face[:at]))
    return out
