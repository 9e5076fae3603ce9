"""Meshes, hair and rigs for `girih tokens`. Does not know their languages; tokenizers/shape does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from girih.apps.modalities import Loss, Side, Signal, farthest, frame
from girih.tokenizers.records import FieldQuantizer
from girih.tokenizers.shape import hair_mesh, meshes, rig_files
from girih.tokenizers.shape.skeleton import Rig, fit

MESH_FILES = tuple(f".{name}" for name in meshes.FORMATS)


class Meshes:
    """Languages of faces. Materials, textures, normals and names are left out."""

    reads = MESH_FILES
    writes = (".obj", ".glb", ".ply", ".stl", ".off")

    def read(self, path: Path, tokenizer: Any) -> Signal:
        mesh = meshes.read_mesh(path)
        meshes.check(mesh, tokenizer.config["max_faces"])
        at = _used(mesh).astype(np.float64)
        low, high = at.min(0), at.max(0)
        side = {"centre": ((low + high) / 2).tolist(), "scale": float((high - low).max()) / tokenizer.config["extent"]}
        corners = int((mesh.faces >= 0).sum())
        report = str(tokenizer.canonicalize(mesh).report)
        return Signal(mesh, 32 * (mesh.vertices.size + corners), side, (report,))

    def encode(self, tokenizer: Any, signal: Signal) -> Tensor:
        tokens: Tensor = tokenizer.encode(signal.value)
        return tokens

    def decode(self, tokenizer: Any, tokens: Tensor, side: Side) -> Any:
        centre, scale = frame(side)
        mesh = tokenizer.decode(tokens)[0]
        return replace(mesh, vertices=np.asarray(mesh.vertices, np.float64) * scale + centre.numpy())

    def loss(self, tokenizer: Any, signal: Signal, decoded: Any) -> Loss:
        error = farthest(torch.from_numpy(_used(signal.value)).double(), torch.from_numpy(decoded.vertices).double())
        bins = error / frame(signal.side)[1] / _width(tokenizer.quantizer)
        return Loss(bins, "bins", f"vertices off by up to {bins:.3f} bins ({error:.4g} in the file's unit); "
                                  f"{len(decoded.faces)} faces of {len(signal.value.faces)}")  # fmt: skip

    def words(self, tokenizer: Any, tokens: Tensor) -> Iterator[str]:
        mesh = tokenizer.decode(tokens)[0]
        for i, bins in enumerate(tokenizer.quantizer.encode(torch.as_tensor(mesh.vertices)).tolist()):
            yield f"v{i}: " + " ".join(map(str, bins))
        for i, face in enumerate(mesh.faces.tolist()):
            yield f"face {i}: " + " ".join(f"v{corner}" for corner in face if corner >= 0)

    def write(self, path: Path, decoded: Any) -> None:
        meshes.write_mesh(decoded, path)


class Hair:
    """Hair cards; a file holds nothing but cards and stands where the language wants the head."""

    reads = (".glb", ".obj", ".ply", ".stl")
    writes = reads

    def read(self, path: Path, tokenizer: Any) -> Signal:
        cards = hair_mesh.read_hair(path)
        report = tokenizer.canonical(cards)[1]
        changed = f"{report.points_dropped} points dropped, {report.cards_turned} cards turned around"
        return Signal(cards, 32 * sum(card.size for card in cards), notes=(f"{len(cards)} cards: {changed}",))

    def encode(self, tokenizer: Any, signal: Signal) -> Tensor:
        tokens: Tensor = tokenizer.encode([signal.value])
        return tokens

    def decode(self, tokenizer: Any, tokens: Tensor, side: Side) -> Any:
        return tokenizer.decode(tokens)[0]

    def loss(self, tokenizer: Any, signal: Signal, decoded: Any) -> Loss:
        """Bins are counted along each field's pieces, which differ in width."""
        before, after = (np.concatenate([np.asarray(card, np.float64) for card in cards])
                         for cards in (signal.value, decoded))  # fmt: skip
        places = [np.stack([_along(field.quantizer, points[:, i]) for i, field in enumerate(tokenizer.point.fields)], 1)
                  for points in (before, after)]  # fmt: skip
        bins = farthest(torch.from_numpy(places[0]), torch.from_numpy(places[1]))
        error = farthest(torch.from_numpy(before), torch.from_numpy(after))
        return Loss(bins, "bins", f"control points off by up to {bins:.3f} bins ({error:.2g} in the file's unit); "
                                  f"{len(after)} points of {len(before)}")  # fmt: skip

    def words(self, tokenizer: Any, tokens: Tensor) -> Iterator[str]:
        for i, card in enumerate(tokenizer.decode(tokens)[0]):
            for j, point in enumerate(card.tolist()):
                values = zip(tokenizer.point.fields, point, strict=True)
                yield f"card {i}, point {j}: " + " ".join(f"{field.name} {value:.4f}" for field, value in values)

    def write(self, path: Path, decoded: Any) -> None:
        hair_mesh.write_hair(path, decoded)


class Rigs:
    """Skeletons; names of joints and the skinned mesh are left out."""

    reads = (".glb", ".txt")
    writes = reads

    def read(self, path: Path, tokenizer: Any) -> Signal:
        rig, skin = rig_files.read_rig(path)
        low, high = self._quantizer(tokenizer).edges[:: len(self._quantizer(tokenizer).counts)]
        fitted, centre, scale = fit(rig, low, high)
        # ``fit`` puts ``centre`` into the middle of the range.
        side = {"centre": (centre - (low + high) / 2 * scale).tolist(), "scale": scale}
        note = "names of joints" + (" and the skinned mesh" if skin is not None else "") + " are not in the tokens"
        return Signal((fitted, rig), len(rig.joints) * 4 * 32, side, (note,))

    def encode(self, tokenizer: Any, signal: Signal) -> Tensor:
        tokens: Tensor = tokenizer.encode(signal.value[0])
        return tokens

    def decode(self, tokenizer: Any, tokens: Tensor, side: Side) -> Any:
        centre, scale = frame(side)
        rig = tokenizer.decode(tokens)[0]
        return replace(rig, joints=rig.joints * scale + centre.numpy())

    def loss(self, tokenizer: Any, signal: Signal, decoded: Any) -> Loss:
        rig: Rig = signal.value[1]
        error = farthest(torch.from_numpy(rig.joints), torch.from_numpy(decoded.joints))
        bins = error / frame(signal.side)[1] / _width(self._quantizer(tokenizer))
        return Loss(bins, "bins", f"joints off by up to {bins:.3f} bins ({error:.4g} in the file's unit); "
                                  f"{len(decoded.joints)} joints of {len(rig.joints)}")  # fmt: skip

    def words(self, tokenizer: Any, tokens: Tensor) -> Iterator[str]:
        quantizer = self._quantizer(tokenizer)
        if not hasattr(tokenizer, "bones"):  # a joint at a time
            rig = tokenizer.decode(tokens)[0]
            bins = quantizer.encode(torch.from_numpy(rig.joints)).tolist()
            for i, (parent, place, part) in enumerate(zip(rig.parents.tolist(), bins, rig.parts, strict=True)):
                hung = "root" if parent < 0 else f"parent {parent}"
                yield f"joint {i}: {hung}, at {' '.join(map(str, place))}" + (f", {part}" if part else "")
            return
        numbers: dict[tuple[int, ...], int] = {}
        for i, ends in enumerate(quantizer.encode(torch.from_numpy(tokenizer.bones(tokens)[0])).tolist()):
            parent, child = (numbers.setdefault(tuple(end), len(numbers)) for end in ends)
            yield f"bone {i}: parent {parent} at {' '.join(map(str, ends[0]))}, " \
                  f"joint {child} at {' '.join(map(str, ends[1]))}"

    def write(self, path: Path, decoded: Any) -> None:
        rig_files.write_rig(path, decoded)

    @staticmethod
    def _quantizer(tokenizer: Any) -> FieldQuantizer:
        field = tokenizer.bone.fields[0] if hasattr(tokenizer, "bone") else tokenizer
        found: FieldQuantizer = field.quantizer
        return found


def _used(mesh: meshes.Mesh) -> Any:
    return np.asarray(mesh.vertices)[np.unique(mesh.faces[mesh.faces >= 0])]


def _width(quantizer: FieldQuantizer) -> float:
    """Of a bin of a quantizer of one piece."""
    return (quantizer.edges[-1] - quantizer.edges[0]) / quantizer.size


def _along(quantizer: FieldQuantizer, values: Any) -> Any:
    """Values as places along the quantizer, counted in its bins."""
    return np.interp(values, quantizer.edges, np.cumsum((0, *quantizer.counts)))
