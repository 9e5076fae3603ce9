"""Rigs in files: binary glTF with a skin, and RigNet's text form, both ways.

Knows the parts of glTF 2.0 that carry a skeleton and the mesh it moves. Does not know tokens, materials or animation.
The writer and the reader are by hand, because trimesh drops skins and pygltflib leaves the numbers undecoded.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from girih.files import whole
from girih.tokenizers.shape.skeleton import Floats, Ints, Rig, parse_rig_text, rig_text

INFLUENCES = 4  # joints a vertex may follow in a file
MAX_WEIGHTS = 50_000_000  # vertices x joints that are read
_MAGIC, _JSON, _BIN = 0x46546C67, 0x4E4F534A, 0x004E4942
_TYPES = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}


@dataclass(frozen=True, eq=False)
class Skin:
    """A triangle mesh that a rig moves: ``vertices [V, 3]``, ``faces [F, 3]``, ``weights [V, J]``, each row sums to 1.

    Raises:
        ValueError: shapes that do not fit, numbers that are not finite, a triangle or a weight out of range.
    """

    vertices: Floats
    faces: Ints
    weights: Floats

    def __post_init__(self) -> None:
        if self.vertices.ndim != 2 or self.vertices.shape[1] != 3 or self.faces.ndim != 2 or self.faces.shape[1] != 3:
            raise ValueError(f"a skin needs vertices [V, 3] and faces [F, 3], got {self.vertices.shape}, "
                             f"{self.faces.shape}")
        if not len(self.faces) or self.faces.min() < 0 or self.faces.max() >= len(self.vertices):
            raise ValueError(f"a skin needs triangles between its {len(self.vertices)} vertices")
        if self.weights.ndim != 2 or len(self.weights) != len(self.vertices):
            raise ValueError(f"{len(self.vertices)} vertices need weights [V, J], got {list(self.weights.shape)}")
        if not np.isfinite(self.vertices).all() or not np.isfinite(self.weights).all() or (self.weights < 0).any():
            raise ValueError("a skin's vertices must be finite and its weights finite and not below 0")
        if np.abs(self.weights.sum(1) - 1).max() > 1e-3:
            raise ValueError(f"weights must sum to 1 a vertex, got {self.weights.sum(1).min():g} to "
                             f"{self.weights.sum(1).max():g}")


def stick_figure(rig: Rig) -> Skin:
    """A mesh that shows a rig: an octahedron from parent to child a bone, following the parent; a rig without a bone of
    any length shows its root."""
    bones = [(a, b) for a, b in rig.bones.tolist() if np.linalg.norm(rig.joints[b] - rig.joints[a]) > 1e-9]
    start = rig.joints[[a for a, _ in bones] or [rig.root]]
    end = rig.joints[[b for _, b in bones]] if bones else start + np.array([0.0, 0.05, 0.0])
    along = end - start
    length = np.linalg.norm(along, axis=1, keepdims=True)
    side = np.cross(along, np.eye(3)[np.abs(along).argmin(1)])
    side *= 0.1 * length / np.linalg.norm(side, axis=1, keepdims=True)
    other = np.cross(along, side) / length
    belt = start + 0.2 * along
    corners = np.stack([start, belt + side, belt + other, belt - side, belt - other, end], axis=1)
    cone = np.array([[0, 2, 1], [0, 3, 2], [0, 4, 3], [0, 1, 4], [5, 1, 2], [5, 2, 3], [5, 3, 4], [5, 4, 1]])
    weights = np.zeros((len(start), 6, len(rig.joints)))
    weights[np.arange(len(start)), :, [a for a, _ in bones] or [rig.root]] = 1
    faces = cone + 6 * np.arange(len(start))[:, None, None]
    return Skin(corners.reshape(-1, 3), faces.reshape(-1, 3), weights.reshape(-1, len(rig.joints)))


def write_rig(path: str | os.PathLike[str], rig: Rig, skin: Skin | None = None) -> None:
    """Write a rig as .glb, with the mesh it moves (``stick_figure`` where there is none), or as .txt without a mesh.

    Each vertex keeps its four largest weights. Raises ValueError for another ending or weights of another rig.
    """
    ending = Path(path).suffix.lower()
    if ending == ".txt":
        data = rig_text(rig.joints, rig.bones, rig.root, rig.names).encode("utf-8")
    elif ending == ".glb":
        data = _glb(rig, stick_figure(rig) if skin is None else skin)
    else:
        raise ValueError(f"a rig is written as .glb or .txt, not {ending or 'without an ending'!r}")
    with whole(path) as part:
        part.write_bytes(data)


def read_rig(path: str | os.PathLike[str]) -> tuple[Rig, Skin | None]:
    """The first skin of a .glb with its mesh, if it has one, or the rig of RigNet's .txt.

    Joints stand where they were when the mesh was bound to them, in the mesh's coordinates. Raises ValueError for a
    file that is no rig, OSError where there is none.
    """
    data = Path(path).read_bytes()
    try:
        if Path(path).suffix.lower() == ".txt":
            return parse_rig_text(data.decode("utf-8")), None
        return _File.parse(data).rig()
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError, struct.error) as error:
        detail = f"no {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"{os.fspath(path)} holds no readable rig: {detail}") from error


# --- writing --------------------------------------------------------------------------------------------------------


def _glb(rig: Rig, skin: Skin) -> bytes:
    if skin.weights.shape[1] != len(rig.joints):
        raise ValueError(f"the skin has weights for {skin.weights.shape[1]} joints, the rig has {len(rig.joints)}")
    followed = np.argsort(-skin.weights, axis=1, kind="stable")[:, :INFLUENCES]
    weights = np.take_along_axis(skin.weights, followed, axis=1)
    missing = ((0, 0), (0, INFLUENCES - followed.shape[1]))
    followed, weights = np.pad(followed, missing), np.pad(weights, missing)
    weights = weights / weights.sum(1, keepdims=True)
    binding = np.tile(np.eye(4), (len(rig.joints), 1, 1))
    binding[:, 3, :3] = -rig.joints  # a column of the matrix is a row here: glTF stores columns
    out = _Writer()
    corners = skin.vertices.astype(np.float32)
    attributes = {
        "POSITION": out.add(corners, "VEC3", 34962, min=corners.min(0).tolist(), max=corners.max(0).tolist()),
        "JOINTS_0": out.add(np.where(weights > 0, followed, 0).astype(np.uint16), "VEC4", 34962),
        "WEIGHTS_0": out.add(weights.astype(np.float32), "VEC4", 34962),
    }
    indices = out.add(skin.faces.reshape(-1).astype(np.uint32), "SCALAR", 34963)
    inverse = out.add(binding.reshape(-1, 16).astype(np.float32), "MAT4")
    children = rig.children()
    offsets = rig.joints - np.where(rig.parents[:, None] < 0, 0.0, rig.joints[rig.parents])
    nodes: list[dict[str, Any]] = []
    for name, offset, below, part in zip(rig.names, offsets.tolist(), children, rig.parts, strict=True):
        node: dict[str, Any] = {"name": name, "translation": offset}
        node |= {"children": below} if below else {}
        nodes.append(node | ({"extras": {"part": part}} if part is not None else {}))
    bound: dict[str, Any] = {"joints": list(range(len(nodes))), "skeleton": rig.root, "inverseBindMatrices": inverse}
    return out.finish({
        "asset": {"version": "2.0", "generator": "girih"},
        "scene": 0,
        "scenes": [{"nodes": [rig.root, len(nodes)]}],
        "nodes": [*nodes, {"name": "mesh", "mesh": 0, "skin": 0}],
        "meshes": [{"primitives": [{"attributes": attributes, "indices": indices}]}],
        "skins": [bound | ({"extras": {"kind": rig.kind}} if rig.kind is not None else {})],
    })  # fmt: skip


class _Writer:
    """Collects arrays as accessors of one buffer."""

    def __init__(self) -> None:
        self.views: list[dict[str, int]] = []
        self.accessors: list[dict[str, Any]] = []
        self.data = bytearray()

    def add(self, values: NDArray[Any], kind: str, target: int | None = None, **bounds: list[float]) -> int:
        view = {"buffer": 0, "byteOffset": len(self.data), "byteLength": values.nbytes}
        self.views.append(view | ({"target": target} if target else {}))
        component = next(code for code, name in _TYPES.items() if np.dtype(name) == values.dtype)
        self.accessors.append({"bufferView": len(self.views) - 1, "componentType": component, "count": len(values),
                               "type": kind, **bounds})  # fmt: skip
        self.data += values.tobytes()
        self.data += bytes(-len(self.data) % 4)
        return len(self.accessors) - 1

    def finish(self, document: dict[str, Any]) -> bytes:
        arrays = {"accessors": self.accessors, "bufferViews": self.views, "buffers": [{"byteLength": len(self.data)}]}
        text = json.dumps(document | arrays, separators=(",", ":")).encode("utf-8")
        text += b" " * (-len(text) % 4)
        length = 12 + 8 + len(text) + 8 + len(self.data)
        return b"".join([struct.pack("<III", _MAGIC, 2, length), struct.pack("<II", len(text), _JSON), text,
                         struct.pack("<II", len(self.data), _BIN), bytes(self.data)])  # fmt: skip


# --- reading --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _File:
    """A parsed .glb."""

    document: Mapping[str, Any]
    data: bytes

    @classmethod
    def parse(cls, data: bytes) -> _File:
        magic, version, _ = struct.unpack_from("<III", data)
        if magic != _MAGIC or version != 2:
            raise ValueError("it is no binary glTF 2.0 file")
        at, chunks = 12, dict[int, bytes]()
        while at + 8 <= len(data):
            length, kind = struct.unpack_from("<II", data, at)
            if at + 8 + length > len(data):
                raise ValueError(f"it is cut off: {len(data)} bytes of at least {at + 8 + length}")
            chunks.setdefault(kind, data[at + 8 : at + 8 + length])
            at += 8 + length
        try:
            document = json.loads(chunks[_JSON])
        except RecursionError:
            raise ValueError("its description is nested too deeply") from None
        return cls(document, chunks.get(_BIN, b""))

    def array(self, index: int) -> NDArray[Any]:
        """Accessor ``index`` as ``[count, width]`` numbers, normalised integers as fractions."""
        accessor = self.document["accessors"][_index(index)]
        if "sparse" in accessor or "bufferView" not in accessor:
            raise ValueError(f"accessor {index} is sparse, which is not read")
        view = self.document["bufferViews"][_index(accessor["bufferView"])]
        if view.get("buffer", 0) != 0 or "uri" in self.document["buffers"][0]:
            raise ValueError("its numbers lie in another file")
        kind, width, count = np.dtype(_TYPES[accessor["componentType"]]), _WIDTHS[accessor["type"]], accessor["count"]
        begin, packed = _index(view.get("byteOffset", 0)) + _index(accessor.get("byteOffset", 0)), kind.itemsize * width
        stride = view.get("byteStride", packed)
        if not 0 < count <= len(self.data) or stride < packed or begin + stride * (count - 1) + packed > len(self.data):
            raise ValueError(f"accessor {index} reaches beyond its {len(self.data)} bytes")
        values = np.ndarray((count, width), kind, self.data, begin, (stride, kind.itemsize)).copy()
        return values / np.iinfo(kind).max if accessor.get("normalized") and kind.kind in "iu" else values

    def rig(self) -> tuple[Rig, Skin | None]:
        skins = self.document.get("skins")
        if not skins:
            raise ValueError("it has no skin")
        nodes, joints = self.document["nodes"], skins[0]["joints"]
        above, world = _places(nodes)
        place = {_index(node): i for i, node in enumerate(joints)}
        parents = []
        for node in joints:
            node = above[node]
            while node >= 0 and node not in place:
                node = above[node]
            parents.append(place.get(node, -1))
        if "inverseBindMatrices" in skins[0]:
            inverse = self.array(skins[0]["inverseBindMatrices"]).astype(np.float64).reshape(-1, 4, 4)[: len(joints)]
            at = np.asarray(np.linalg.inv(inverse)[:, 3, :3], dtype=np.float64)
        else:
            at = world[joints][:, :3, 3]
        names = [str(nodes[node].get("name", "")) for node in joints]
        names = [name if name and names.count(name) == 1 else f"{name or 'joint'}{i}" for i, name in enumerate(names)]
        parts = tuple(_note(nodes[node], "part") for node in joints)
        rig = Rig(at, np.array(parents), tuple(names), parts, kind=_note(skins[0], "kind"))
        return rig, self._skin(len(joints))

    def _skin(self, joints: int) -> Skin | None:
        """The meshes that follow the first skin, as one."""
        vertices, faces, weights, count = [], [], [], 0
        for node in self.document["nodes"]:
            if node.get("skin") != 0 or "mesh" not in node:
                continue
            for primitive in self.document["meshes"][_index(node["mesh"])]["primitives"]:
                attributes = primitive["attributes"]
                if primitive.get("mode", 4) != 4 or "JOINTS_0" not in attributes:
                    continue
                corners = self.array(attributes["POSITION"])
                if (count + len(corners)) * joints > MAX_WEIGHTS:
                    raise ValueError(f"{count + len(corners)} vertices x {joints} joints exceed {MAX_WEIGHTS} weights")
                index = self.array(primitive["indices"]) if "indices" in primitive else np.arange(len(corners))
                vertices.append(corners.astype(np.float64))
                faces.append(index.reshape(-1, 3).astype(np.int64) + count)
                weights.append(self._weights(attributes, len(corners), joints))
                count += len(corners)
        return Skin(np.concatenate(vertices), np.concatenate(faces), np.concatenate(weights)) if vertices else None

    def _weights(self, attributes: Mapping[str, int], count: int, joints: int) -> Floats:
        out = np.zeros((count, joints))
        for n in range(len(attributes)):
            if f"JOINTS_{n}" not in attributes:
                break
            followed, share = self.array(attributes[f"JOINTS_{n}"]), self.array(attributes[f"WEIGHTS_{n}"])
            if len(followed) != count or len(share) != count or (followed >= joints).any():
                raise ValueError("its weights fit neither its vertices nor its joints")
            np.add.at(out, (np.arange(count)[:, None], followed.astype(np.int64)), share)
        total = out.sum(1, keepdims=True)
        if not (total > 0).all():
            raise ValueError(f"{int((total <= 0).sum())} of its {count} vertices follow no joint")
        return out / total


def _note(owner: Mapping[str, Any], name: str) -> str | None:
    """What we wrote beside a node or skin; other programs write anything there."""
    extras = owner.get("extras")
    note = extras.get(name) if isinstance(extras, dict) else None
    return note if isinstance(note, str) else None


def _index(value: Any) -> int:
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"it counts with {value!r}")
    return value


def _places(nodes: Sequence[Mapping[str, Any]]) -> tuple[list[int], Floats]:
    """(the node above each, -1 for none; its matrix ``[n, 4, 4]`` in the scene). Raises ValueError for a cycle."""
    above = [-1] * len(nodes)
    for parent, node in enumerate(nodes):
        for child in node.get("children", []):
            if above[_index(child)] >= 0:
                raise ValueError(f"node {child} hangs on two nodes")
            above[child] = parent
    world = np.stack([_matrix(node) for node in nodes])
    order = [index for index, parent in enumerate(above) if parent < 0]
    for index in order:
        order += nodes[index].get("children", [])
    if len(order) < len(nodes):
        raise ValueError("its nodes hang in a circle")
    for index in order:
        if above[index] >= 0:
            world[index] = world[above[index]] @ world[index]
    return above, world


def _matrix(node: Mapping[str, Any]) -> Floats:
    if "matrix" in node:
        return np.array(node["matrix"], dtype=np.float64).reshape(4, 4).T
    x, y, z, w = (float(value) for value in node.get("rotation", (0, 0, 0, 1)))
    turn = np.array([[1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
                     [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
                     [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)]])  # fmt: skip
    out = np.eye(4)
    out[:3, :3] = turn * np.array(node.get("scale", (1, 1, 1)), dtype=np.float64)
    out[:3, 3] = node.get("translation", (0, 0, 0))
    return out
