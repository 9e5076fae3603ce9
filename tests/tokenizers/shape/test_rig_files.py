"""Rigs in files: a valid skin that moves its mesh, both ways, and broken files refused."""

from __future__ import annotations

import json
import struct
from dataclasses import replace

import numpy as np
import pytest
import trimesh
from hypothesis import given
from hypothesis import strategies as st

from girih.tokenizers.shape.rig_files import Skin, read_rig, stick_figure, write_rig
from girih.tokenizers.shape.skeleton import Rig
from tests.tokenizers.shape.skeletons import rig

SEEDS = st.integers(0, 2**31)


def chunks(data: bytes) -> tuple[dict, bytes]:
    """Description and numbers of a .glb."""
    length = struct.unpack_from("<I", data, 12)[0]
    return json.loads(data[20 : 20 + length]), data[28 + length :]


def glb(document: dict, numbers: bytes) -> bytes:
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    parts = struct.pack("<II", len(text), 0x4E4F534A) + text + struct.pack("<II", len(numbers), 0x004E4942) + numbers
    return struct.pack("<III", 0x46546C67, 2, 12 + len(parts)) + parts


@given(seed=SEEDS, joints=st.integers(1, 30), crowded=st.booleans())
def test_rigs_there_and_back(tmp_path_factory, seed, joints, crowded):
    one = rig(seed, joints, crowded=crowded)
    one = replace(one, parts=(None, "hand") * (joints // 2) + ("body",) * (joints % 2), kind="mixamo")
    path = tmp_path_factory.mktemp("rig") / "rig.glb"
    write_rig(path, one)
    back, skin = read_rig(path)
    assert np.abs(back.joints - one.joints).max() < 1e-6 and (back.parents == one.parents).all()
    assert (back.names, back.parts, back.kind) == (one.names, one.parts, one.kind)
    assert skin is not None and np.allclose(skin.vertices, stick_figure(one).vertices, atol=1e-6)
    assert np.array_equal(skin.weights, stick_figure(one).weights)


def test_a_mesh_keeps_its_four_largest_weights(tmp_path):
    ball, one = trimesh.creation.icosphere(2), rig(1, 7)
    weights = np.random.default_rng(0).dirichlet(np.ones(7), len(ball.vertices))
    write_rig(tmp_path / "ball.glb", one, Skin(ball.vertices, ball.faces, weights))
    _, skin = read_rig(tmp_path / "ball.glb")
    kept = np.where(weights >= np.sort(weights)[:, -4:-3], weights, 0)
    assert np.allclose(skin.weights, kept / kept.sum(1, keepdims=True), atol=1e-6)
    assert np.allclose(skin.vertices, ball.vertices, atol=1e-6) and np.array_equal(skin.faces, ball.faces)
    assert len(trimesh.load(tmp_path / "ball.glb", force="mesh").faces) == len(ball.faces)  # others see the mesh too


def test_the_file_rests_in_the_bind_pose_and_a_joint_moves_what_follows_it(tmp_path):
    one = Rig(np.array([[0, 0, 0], [0, 1, 0], [0, 2, 0]]), np.array([-1, 0, 1]))
    write_rig(tmp_path / "arm.glb", one)
    document, numbers = chunks((tmp_path / "arm.glb").read_bytes())
    nodes, skin = document["nodes"], document["skins"][0]
    view = document["bufferViews"][document["accessors"][skin["inverseBindMatrices"]]["bufferView"]]
    binding = np.frombuffer(numbers, "<f4", 48, view["byteOffset"]).reshape(3, 4, 4).transpose(0, 2, 1)
    _, mesh = read_rig(tmp_path / "arm.glb")

    def posed(turn: np.ndarray) -> np.ndarray:
        """The vertices as glTF 2.0 (3.7.3) skins them, joint 1 turned."""
        world: dict[int, np.ndarray] = {}
        for joint in (0, 1, 2):
            local = np.eye(4)
            local[:3, 3] = nodes[joint]["translation"]
            local[:3, :3] = turn if joint == 1 else np.eye(3)
            world[joint] = (world[joint - 1] if joint else np.eye(4)) @ local
        moved = np.stack([world[joint] @ binding[joint] for joint in (0, 1, 2)])
        corners = np.hstack([mesh.vertices, np.ones((len(mesh.vertices), 1))])
        return np.einsum("vj,jab,vb->va", mesh.weights, moved, corners)[:, :3]

    assert np.allclose(posed(np.eye(3)), mesh.vertices, atol=1e-6)
    quarter = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1.0]])  # about z: what pointed up points to -x
    turned = posed(quarter)
    upper = mesh.weights[:, 1] == 1
    assert np.allclose(turned[~upper], mesh.vertices[~upper], atol=1e-6)
    assert np.allclose(turned[upper].min(0)[0], -1, atol=1e-6) and np.allclose(turned[upper].max(0)[1], 1.1, atol=1e-2)


def test_files_of_other_programs(tmp_path):
    one = rig(3, 5)
    write_rig(tmp_path / "rig.glb", one)
    document, numbers = chunks((tmp_path / "rig.glb").read_bytes())
    nodes, joints = document["nodes"], document["skins"][0]["joints"]
    # A helper between the root and its children, rotations and scales instead of binding matrices, names twice.
    nodes.append({"name": "helper", "children": nodes[one.root].pop("children")})
    nodes[one.root]["children"] = [len(nodes) - 1]
    del document["skins"][0]["inverseBindMatrices"], document["skins"][0]["skeleton"]
    for joint in joints:
        nodes[joint]["name"] = "bone"
        nodes[joint]["extras"] = 7
    (tmp_path / "other.glb").write_bytes(glb(document, numbers))
    back, skin = read_rig(tmp_path / "other.glb")
    assert np.allclose(back.joints, one.joints, atol=1e-6) and (back.parents == one.parents).all()
    assert len(set(back.names)) == 5 and skin is not None
    nodes.append({"name": "world", "children": [one.root], "rotation": [0, 0, 0.5**0.5, 0.5**0.5], "scale": [2, 2, 2]})
    (tmp_path / "turned.glb").write_bytes(glb(document, numbers))
    turned, _ = read_rig(tmp_path / "turned.glb")
    assert np.allclose(turned.joints, 2 * np.column_stack([-one.joints[:, 1], one.joints[:, 0], one.joints[:, 2]]))


def test_a_skin_without_a_mesh(tmp_path):
    write_rig(tmp_path / "rig.glb", rig(0))
    document, numbers = chunks((tmp_path / "rig.glb").read_bytes())
    del document["nodes"][-1]["mesh"]
    (tmp_path / "bare.glb").write_bytes(glb(document, numbers))
    back, skin = read_rig(tmp_path / "bare.glb")
    assert skin is None and len(back.joints) == 12


def test_text_files(tmp_path):
    write_rig(tmp_path / "rig.txt", rig(0))
    back, skin = read_rig(tmp_path / "rig.txt")
    assert skin is None and np.allclose(back.joints, rig(0).joints, atol=1e-8)
    (tmp_path / "rig.txt").write_bytes(b"joints \xff")
    with pytest.raises(ValueError, match="rig.txt holds no readable rig: 'utf-8'"):
        read_rig(tmp_path / "rig.txt")


def change(document: dict, path: str, value: object) -> None:
    *keys, last = [int(key) if key.isdigit() else key for key in path.split(".")]
    for key in keys:
        document = document[key]
    if value is None:
        del document[last]
    else:
        document[last] = value


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("skins", [], "it has no skin"),
        ("skins", None, "it has no skin"),
        ("nodes", None, "no 'nodes'"),
        ("skins.0.joints.0", 99, "index out of range"),
        ("skins.0.joints.0", -1, "it counts with -1"),
        ("skins.0.joints", [0, 1, 3], "exactly one root|not finite|parents"),
        ("accessors.0.count", 10**9, "accessor 0 reaches beyond its"),
        ("accessors.0.count", 0, "accessor 0 reaches beyond its"),
        ("accessors.1.componentType", 1, "no 1"),
        ("accessors.0.sparse", {}, "sparse"),
        ("bufferViews.0.buffer", 1, "in another file"),
        ("accessors.2.count", 1, "weights fit neither"),
        ("meshes.0.primitives.0.attributes.WEIGHTS_0", 0, "weights fit neither|follow no joint|not below 0|broadcast"),
        ("nodes.0.matrix", [1, 2], "cannot reshape"),
        ("nodes.3.children", [3], "hang in a circle|hangs on two nodes"),
    ],
)
def test_broken_descriptions_are_refused(path, value, message, tmp_path):
    chain = Rig(np.random.default_rng(0).uniform(-1, 1, (4, 3)), np.array([-1, 0, 1, 2]))
    write_rig(tmp_path / "rig.glb", chain)
    document, numbers = chunks((tmp_path / "rig.glb").read_bytes())
    change(document, path, value)
    if path == "skins.0.joints":  # two joints that hang on none
        change(document, "nodes.0.children", None)
        change(document, "nodes.2.children", None)
    (tmp_path / "rig.glb").write_bytes(glb(document, numbers))
    with pytest.raises(ValueError, match=f"rig.glb holds no readable rig: .*({message})"):
        read_rig(tmp_path / "rig.glb")


@pytest.mark.parametrize("count", [50, pytest.param(2000, marks=pytest.mark.slow)])
def test_damaged_files_are_refused_or_read_as_a_rig(count, tmp_path):
    write_rig(tmp_path / "rig.glb", rig(0, 6))
    good, path = (tmp_path / "rig.glb").read_bytes(), tmp_path / "damaged.glb"
    rng, refused = np.random.default_rng(0), 0
    for index in range(count):
        data = bytearray(good[: int(rng.integers(len(good)))] if index % 3 == 0 else good)
        for at in rng.integers(0, max(len(data), 1), 1 + index % 20):
            if data:
                data[at] = int(rng.integers(256))
        path.write_bytes(bytes(data))
        try:
            back, _ = read_rig(path)
        except ValueError as error:
            assert str(error).startswith(f"{path} holds no readable rig: ")
            refused += 1
        else:
            assert np.isfinite(back.joints).all()
    assert 0 < refused


def test_what_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(ValueError, match="written as .glb or .txt, not '.fbx'"):
        write_rig(tmp_path / "rig.fbx", rig(0))
    ball = trimesh.creation.icosphere(1)
    with pytest.raises(ValueError, match="weights for 1 joints, the rig has 12"):
        write_rig(tmp_path / "rig.glb", rig(0), Skin(ball.vertices, ball.faces, np.ones((len(ball.vertices), 1))))
    with pytest.raises(ValueError, match="must sum to 1 a vertex, got 2"):
        Skin(ball.vertices, ball.faces, np.full((len(ball.vertices), 1), 2.0))
    with pytest.raises(ValueError, match=r"need weights \[V, J\]"):
        Skin(ball.vertices, ball.faces, np.ones((3, 1)))
    with pytest.raises(ValueError, match="needs triangles between"):
        Skin(ball.vertices[:3], ball.faces, np.ones((3, 1)))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError):
        read_rig(tmp_path / "missing.glb")
