"""Hair card meshes: closed, read back exactly from any order of vertices, in files, and foreign meshes refused."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh
from hypothesis import given
from hypothesis import strategies as st

from girih.tokenizers.shape.hair_mesh import card_mesh, card_normals, hair_scene, read_cards, read_hair, write_hair
from tests.tokenizers.shape.hairdos import card, hairdo

SEEDS = st.integers(0, 2**31)


@given(seed=SEEDS, points=st.integers(5, 40))
def test_cards_are_closed_and_their_rings_as_wide_as_asked(seed, points):
    one = card(seed, points)
    vertices, faces = card_mesh(one)
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    assert mesh.is_watertight and mesh.is_winding_consistent and mesh.volume > 0 and mesh.euler_number == 2
    rings = vertices.reshape(-1, 4, 3)
    assert np.allclose(rings.mean(1), one[:, :3], atol=1e-12)
    assert np.allclose(np.linalg.norm(rings[:, 0] - rings[:, 2], axis=1), one[:, 3], atol=1e-12)
    assert np.allclose(np.linalg.norm(rings[:, 1] - rings[:, 3], axis=1), one[:, 4], atol=1e-12)


@given(seed=SEEDS)
def test_cards_are_read_back_exactly_from_any_order(seed):
    cards, rng = hairdo(seed, 4), np.random.default_rng(seed)
    parts = [card_mesh(one) for one in cards]
    starts = np.cumsum([0, *(len(vertices) for vertices, _ in parts)])
    vertices = np.concatenate([vertices for vertices, _ in parts])
    faces = np.concatenate([faces + start for (_, faces), start in zip(parts, starts, strict=False)])
    order = rng.permutation(len(vertices))
    mixed = np.argsort(order)[faces][rng.permutation(len(faces))][:, [1, 2, 0]]
    back = read_cards(vertices[order], mixed)
    assert len(back) == len(cards)
    for one in cards:
        assert min(np.abs(one - made).max() for made in back if made.shape == one.shape) < 1e-9


@pytest.mark.parametrize("direction", [(0, -1, 0), (1, 0, 0), (0.6, -0.8, 0), (0, 0, -1)])
def test_straight_cards_are_read_back_too(direction):
    along = np.linspace(0, 0.3, 8)[:, None]
    one = np.hstack([np.array([0.05, 0.3, -0.02]) + along * direction, 0.03 + 0 * along, 0.008 + 0 * along])
    (back,) = read_cards(*card_mesh(one))
    assert np.abs(back - one).max() < 1e-9


def test_first_normal_looks_away_from_the_head():
    for seed in range(20):
        one = card(seed)
        assert card_normals(one)[0] @ (one[0, :3] * [1, 0, 1]) >= 0


@pytest.mark.parametrize("ending", ["glb", "obj", "ply", "stl"])
def test_files_there_and_back(ending, tmp_path):
    cards = hairdo(3)
    write_hair(tmp_path / f"hair.{ending}", cards)
    back = read_hair(tmp_path / f"hair.{ending}")
    assert [len(one) for one in back] == [len(one) for one in cards]
    assert max(np.abs(a - b).max() for a, b in zip(back, cards, strict=True)) < 2e-7
    assert [path.name for path in tmp_path.iterdir()] == [f"hair.{ending}"]


def test_scene_has_one_named_mesh_a_card():
    scene = hair_scene(hairdo(0, 3))
    assert sorted(scene.geometry) == ["card_0000", "card_0001", "card_0002"]


def test_a_scene_that_moves_its_meshes_is_read_where_they_stand(tmp_path):
    scene = hair_scene([card(0)])
    scene.apply_transform(trimesh.transformations.translation_matrix([0.1, 0.2, 0.3]))
    (tmp_path / "moved.glb").write_bytes(scene.export(file_type="glb"))
    (back,) = read_hair(tmp_path / "moved.glb")
    assert np.abs(back[:, :3] - card(0)[:, :3] - [0.1, 0.2, 0.3]).max() < 1e-6


def changed(rows: slice, columns: slice, value: float) -> np.ndarray:
    out = card(0)
    out[rows, columns] = value
    return out


@pytest.mark.parametrize(
    ("one", "message"),
    [
        (changed(slice(-1, None), slice(3, 4), 0.0), "must be above 1e-08 to make a mesh, got 0"),
        (changed(slice(2, 4), slice(0, 3), 0.1), "two successive control points"),
        (changed(slice(2, 3), slice(0, 1), float("nan")), "not finite"),
        (card(0, 4), "needs at least 5"),
    ],
)
def test_cards_without_a_mesh_are_refused(one, message):
    with pytest.raises(ValueError, match=message):
        card_mesh(one)


def test_foreign_meshes_are_refused():
    for mesh in (trimesh.creation.box(), trimesh.creation.icosphere(2), trimesh.creation.torus(1, 0.2)):
        with pytest.raises(ValueError, match="is no hair card"):
            read_cards(mesh.vertices, mesh.faces)
    vertices, faces = card_mesh(card(0))
    with pytest.raises(ValueError, match="is no hair card"):
        read_cards(vertices, np.concatenate([faces, [[8, 10, 9], [8, 11, 10]]]))  # a cap inside, as the peer emits
    with pytest.raises(ValueError, match="triangle with vertex 999"):
        read_cards(vertices, np.array([[0, 1, 999]]))
    with pytest.raises(ValueError, match="not finite"):
        read_cards(vertices * np.nan, faces)
    with pytest.raises(ValueError, match=r"needs vertices \[v, 3\]"):
        read_cards(vertices, faces[:0])
    with pytest.raises(ValueError, match="no hair cards to write"):
        write_hair("hair.glb", [])


@pytest.mark.parametrize("count", [50, pytest.param(2000, marks=pytest.mark.slow)])
def test_files_that_hold_no_hair_are_refused(count, tmp_path):
    with pytest.raises(FileNotFoundError):
        read_hair(tmp_path / "missing.glb")
    good = hair_scene(hairdo(0, 2)).export(file_type="glb")
    rng = np.random.default_rng(0)
    for index in range(count):
        data = bytearray(good[: int(rng.integers(len(good)))] if index % 2 else good)
        for at in rng.integers(0, max(len(data), 1), 1 + index % 50):
            if data:
                data[at] = int(rng.integers(256))
        path = tmp_path / "broken.glb"
        path.write_bytes(bytes(data))
        try:
            cards = read_hair(path)
        except ValueError as error:
            assert "hair" in str(error) or "mesh" in str(error)
        else:
            assert all(np.isfinite(one).all() and one.shape[1] == 5 for one in cards)
