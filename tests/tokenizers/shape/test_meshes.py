"""Mesh files there and back, canonical meshes and what the report says of them, and bad input in one line."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from girih.tokenizers.records import FieldQuantizer
from girih.tokenizers.shape.meshes import Mesh, canonicalize, edge_counts, normalize, read_mesh, weld, write_mesh
from tests.tokenizers.shape.solids import box, soups, torus, turned, two_cubes_on_an_edge

GRID = FieldQuantizer(128)


def canonical(mesh: Mesh, **options):
    return canonicalize(mesh, GRID, 2.0, **{"max_faces": 1000, **options})


@pytest.mark.parametrize("suffix", ["obj", "glb", "ply", "stl", "off"])
def test_files_there_and_back(tmp_path, suffix):
    mesh = torus(triangles_every=5)
    write_mesh(mesh, tmp_path / f"torus.{suffix}")
    back = read_mesh(tmp_path / f"torus.{suffix}")
    triangles = canonical(Mesh(mesh.vertices, mesh.triangles))
    again = canonical(Mesh(back.vertices, back.triangles))
    assert np.array_equal(again.bins, triangles.bins) and np.array_equal(again.faces, triangles.faces)
    if suffix == "obj":
        assert np.array_equal(back.faces, mesh.faces) and np.allclose(back.vertices, mesh.vertices)
    assert [path.name for path in tmp_path.iterdir()] == [f"torus.{suffix}"]


def test_obj_with_materials_names_negative_indices_and_a_pentagon(tmp_path):
    path = tmp_path / "house.obj"
    path.write_text("mtllib gone.mtl\no house\nv 0 0 0 1 1 1\nv 1 0 0\nv 1 1 0\nv 0.5 2 0\nv 0 1 0\nvt 0 0\nvn 0 0 1\n"
                    "usemtl gone\nf 1/1/1 2/1/1 3//1 4 5\nf -5 -4 -3\n")  # fmt: skip
    mesh = read_mesh(path)
    assert mesh.polygons_split == 1
    assert mesh.faces.tolist() == [[0, 1, 2], [0, 2, 3], [0, 3, 4], [0, 1, 2]]
    assert canonical(mesh).report.polygons_split == 1 and canonical(mesh).report.faces_repeated == 1


def test_trimesh_objects_go_in_and_out():
    import trimesh

    solid = trimesh.creation.icosphere(2)
    mesh = Mesh.of(solid)
    assert mesh.to_trimesh().is_watertight and Mesh.of(mesh) is mesh
    with pytest.raises(ValueError, match="must have vertices and faces, got int"):
        Mesh.of(3)


def test_without_trimesh_the_extra_is_named(monkeypatch, tmp_path):
    write_mesh(box(), tmp_path / "box.stl")
    monkeypatch.setitem(sys.modules, "trimesh", None)
    with pytest.raises(ValueError, match=r"pip install girih\[shape\]"):
        read_mesh(tmp_path / "box.stl")
    write_mesh(box(), tmp_path / "box.obj")
    assert read_mesh(tmp_path / "box.obj").quads == 6


@given(mesh=soups(quads=True))
@settings(max_examples=60, deadline=None)
def test_canonical_meshes_are_in_order_and_nothing_is_unaccounted_for(mesh):
    made = canonical(mesh, triangles=False)
    key = made.bins[:, 2] << 32 | made.bins[:, 1] << 16 | made.bins[:, 0]
    assert (np.diff(key) > 0).all()
    assert made.faces.tolist() == sorted(made.faces.tolist())
    for face in made.faces.tolist():
        corners = [i for i in face if i >= 0]
        assert len(set(corners)) == len(corners) >= 3 and corners[0] == min(corners)
    report = made.report
    assert report.faces - report.faces_collapsed - report.faces_repeated == len(made.faces)
    assert report.values_clipped == 0
    split = canonical(mesh)
    assert split.report.quads_split == mesh.quads and split.faces.shape[1] == 3


@given(mesh=soups(quads=True), seed=st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_the_order_given_does_not_matter(mesh, seed):
    noise = np.random.default_rng(seed)
    names, order = noise.permutation(len(mesh.vertices)), noise.permutation(len(mesh.faces))
    faces = np.where(mesh.faces < 0, -1, np.argsort(names)[mesh.faces])[order]
    shuffled = Mesh(mesh.vertices[names], faces)
    one, other = canonical(mesh, triangles=False), canonical(shuffled, triangles=False)
    assert np.array_equal(one.bins, other.bins) and np.array_equal(one.faces, other.faces)


def test_winding_stays_and_normalising_centres():
    made = canonical(torus(), triangles=False)
    assert turned(made.faces) == {tuple(face) for face in made.faces.tolist()}
    assert set(edge_counts(made.faces)) == {2}
    assert (np.bincount(made.faces.reshape(-1)) == 4).all()
    values = normalize(box((1.0, 2.0, 4.0)).vertices + 7, 2.0)
    assert values.min(0).tolist() == [-0.25, -0.5, -1.0] and values.max(0).tolist() == [0.25, 0.5, 1.0]


def test_the_report_counts_what_was_done():
    """One of everything: a doubled vertex, an unused one, a quad that becomes a triangle, one that vanishes."""
    vertices = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [1e-9, 0, 0], [0.5, 0.5, 1], [9, 9, np.nan]])
    faces = np.array([[0, 1, 2, 3], [0, 4, 2, 3], [0, 1, 0, 3], [2, 3, 5, -1], [3, 5, 2, -1], [0, 4, 5, -1]])
    report = canonical(Mesh(vertices, faces), triangles=False).report
    assert (report.vertices, report.faces, report.vertices_unused, report.vertices_merged) == (7, 6, 1, 1)
    assert (report.quads_to_triangles, report.faces_collapsed, report.faces_repeated) == (1, 2, 1)
    assert str(report).startswith("7 vertices, 6 faces: vertices unused 1, vertices merged 1, faces collapsed 2")
    clipped = canonical(Mesh(vertices[:3] * 3, faces[:1, :3]), normalized=True).report
    assert clipped.values_clipped == 3 and str(canonical(box(), triangles=False).report) == "8 vertices, 6 faces"


def test_number_types_do_not_matter():
    mesh = box()
    for points, names in ((np.int16, np.uint32), (np.float16, np.int32), (np.float32, np.int64)):
        made = canonical(Mesh(mesh.vertices.astype(points), mesh.triangles.astype(names)))
        assert np.array_equal(made.bins, canonical(mesh).bins) and np.array_equal(made.faces, canonical(mesh).faces)


def test_non_manifold_edges_are_kept_and_counted():
    assert canonical(two_cubes_on_an_edge(), triangles=False).crowded_edges == 1
    assert canonical(Mesh(box().vertices, box().faces[:5]), triangles=False).boundary_edges == 4


def test_weld_is_the_inverse_of_gathering_corners():
    made = canonical(torus(triangles_every=3), triangles=False)
    corners = np.where(made.faces[..., None] < 0, -1, made.bins[made.faces])
    bins, faces = weld(corners)
    assert np.array_equal(bins, made.bins) and np.array_equal(faces, made.faces)


EMPTY = np.zeros((0, 3))
TRIANGLE = np.array([[0, 1, 2]])
POINTS = np.eye(3)
BAD = {
    "no faces": (Mesh(POINTS, TRIANGLE[:0]), "the mesh has no faces"),
    "no vertices": (Mesh(EMPTY, TRIANGLE), r"a face names vertex 2, but the mesh has vertices 0 .. -1"),
    "index": (Mesh(POINTS, np.array([[0, 1, 3]])), "a face names vertex 3, but the mesh has vertices 0 .. 2"),
    "negative": (Mesh(POINTS, np.array([[0, -1, 2]])), "a face names vertex -1"),
    "nan": (Mesh(POINTS * np.nan, TRIANGLE), "3 vertices have coordinates that are NaN or infinite"),
    "infinite": (Mesh(np.where(POINTS > 0, np.inf, 0), TRIANGLE), "NaN or infinite"),
    "huge": (Mesh(POINTS * 1.7e308 - (1 - POINTS) * 1.7e308, TRIANGLE), "extent inf"),
    "point": (Mesh(np.ones((3, 3)), TRIANGLE), "extent 0.0: all its vertices lie at one point"),
    "flat array": (Mesh(POINTS.reshape(-1), TRIANGLE), r"vertices \[V, 3\] and faces"),
    "pentagons": (Mesh(np.ones((5, 3)), np.array([[0, 1, 2, 3, 4]])), r"faces \[F, 3\] or \[F, 4\]"),
    "many": (Mesh(POINTS, np.zeros((1_000_000, 3), int)), "the mesh has 1000000 faces, the limit is 1000"),
    "many quads": (Mesh(POINTS[[0, 1, 2, 0]], np.tile(np.arange(4), (600, 1))), "1200 triangles, the limit"),
    "collapsed": (Mesh(POINTS, np.array([[0, 1, 1]])), "none of the 1 faces is left on a grid of 128 bins"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_meshes_are_refused_in_one_line(name):
    mesh, words = BAD[name]
    with pytest.raises(ValueError, match=words) as error:
        canonical(mesh)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name, text, words", [
    ("a.xyz", "", "mesh files end in .obj"),
    ("a.obj", "", "a.obj: the mesh has no faces"),
    ("a.obj", "v 0 0 zero\n", "a.obj: line 1 is no vertex or face: 'v 0 0 zero'"),
    ("a.obj", "v 0 0 0\nf 1 2\n", "line 2 is no vertex or face"),
    ("a.obj", "v 0 0 0\nf 0 1 1\n", "line 2 is no vertex or face"),
    ("a.obj", "v 0 0 0\nf -2 1 1\n", "line 2 is no vertex or face"),
    ("a.obj", "v 0 0 0\nv 1 nan 0\nv 1 1 1\nf 1 2 3\n", "a.obj: 1 vertices have coordinates that are NaN"),
    ("a.obj", "v 0 0 0\nv 1 0 0\nv 1 1 1\n" + "f 1 2 3\n" * 20, "more than 9 faces"),
    ("a.stl", "solid nothing", "a.stl: "),
    ("a.glb", "glTF", "a.glb: cannot be read as GLB"),
    ("a.ply", "ply\nformat ascii 1.0\nelement vertex 999999999999\nend_header\n", "a.ply: "),
])  # fmt: skip
def test_bad_files_are_refused_in_one_line(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=words) as error:
        read_mesh(tmp_path / name, max_faces=9)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_mesh(tmp_path / "gone.obj")
    with pytest.raises(ValueError, match="written as .obj"):
        write_mesh(box(), tmp_path / "box.gltf")


@pytest.mark.parametrize("suffix", ["obj", "glb", "ply", "stl"])
@pytest.mark.parametrize("count", [50, pytest.param(2000, marks=pytest.mark.slow)])
def test_fuzzed_files_are_refused_or_read(tmp_path, suffix, count):
    """Bytes changed, cut off or doubled: a mesh or a ValueError of one line, nothing else."""
    noise = np.random.default_rng(count)
    write_mesh(box(), tmp_path / f"box.{suffix}")
    good = np.frombuffer((tmp_path / f"box.{suffix}").read_bytes(), np.uint8)
    path = tmp_path / f"fuzzed.{suffix}"
    for _ in range(count):
        data = good.copy()
        at = noise.integers(0, len(data), noise.integers(1, 9))
        data[at] = noise.integers(0, 256, len(at))
        cut = int(noise.integers(0, len(data)))
        kind = noise.integers(0, 3)
        path.write_bytes(data[:cut].tobytes() if kind == 0 else data.tobytes() + data[cut:].tobytes() * int(kind == 1))
        try:
            mesh = read_mesh(path)
        except ValueError as error:
            assert "\n" not in str(error)
        else:
            assert len(mesh.faces)
