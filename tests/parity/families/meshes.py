"""Mesh languages: MeshXL's triangles, BPT's patches and AMT's strips."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from girih.tokenizers.shape.compressed import AdjacentTokenizer, BlockPatchTokenizer, patches
from girih.tokenizers.shape.meshes import Mesh, normalize
from girih.tokenizers.shape.triangles import TriangleTokenizer

from .case import Case, Family


def meshxl_tokenizer(case: Case) -> dict[str, Tensor]:
    """MeshXL: normalise, quantise and lay out faces in the order they have; rows are padded to the faces given."""
    settings, raw, faces = case.description["args"], case.inputs["raw_vertices"], case.inputs["faces"]
    low, high = settings["continuous_range"]
    codec = TriangleTokenizer(settings["n_discrete_size"], high - low, faces.shape[1])
    vertices, codes = torch.full_like(raw, -1), torch.full((*faces.shape, 3), -1)
    ids = torch.full((len(faces), codec.spec.cells), codec.spec.pad)
    recon = torch.full(codes.shape, torch.nan)
    for i, (points, corners) in enumerate(zip(raw, faces, strict=True)):
        real = ~points.isnan().any(-1)
        corners = corners[(corners >= 0).all(-1)]
        vertices[i, real] = torch.from_numpy(normalize(points[real].numpy(), codec.config.extent))
        codes[i, : len(corners)] = codec.quantizer.encode(vertices[i])[corners]
        row = codec.pack(codes[i, : len(corners)])
        ids[i, : len(row)] = row
        (back,) = codec.unpack(row[None])
        recon[i, : len(back)] = codec.quantizer.decode(back)
    special = ids >= codec.config.bins
    return {
        "vertices": vertices, "codes": codes, "recon_faces": recon, "input_ids": ids,
        "input_ids_raw": torch.where(special, -1, ids), "attention_mask": (ids != codec.spec.pad).float(),
    }  # fmt: skip


def bpt_amt_tokens(case: Case) -> dict[str, Any]:
    """BPT and AMT on one mesh: canonical mesh, tokens without bos and eos, and the faces that they decode to."""
    mesh = Mesh(np.array(case.inputs["vertices"]), np.array(case.inputs["faces"]))
    settings = case.description["args"]["bpt"]
    blocked = BlockPatchTokenizer(settings["block_size"], settings["offset_size"], 2 * settings["scale"])
    canonical = blocked.canonicalize(mesh)
    centred = blocked.quantizer.decode(torch.from_numpy(canonical.bins), torch.float64).numpy()
    codes = blocked.pack(canonical.bins, patches(canonical.faces.tolist()))
    soup = blocked.corners(codes[1:-1])
    out: dict[str, Any] = {
        "bpt_vertices": centred[:, [2, 0, 1]], "bpt_faces": canonical.faces, "bpt_mesh_vertices": centred,
        "bpt_codes": codes[1:-1],
        "bpt_decoded": blocked.quantizer.decode(torch.from_numpy(soup), torch.float64).reshape(-1, 3),
    }  # fmt: skip
    settings = case.description["args"]["amt"]
    low, high = settings["range"]
    adjacent = AdjacentTokenizer(settings["bins"], high - low, offset=0.0)
    canonical = adjacent.canonicalize(mesh)
    body = adjacent.encode(mesh)[0, 1:-1]
    edges = adjacent.quantizer.decode(torch.from_numpy(canonical.bins), torch.float64)
    out |= {
        "amt_sorted_vertices": edges, "amt_sorted_faces": canonical.faces, "amt_seq": body - 3,
        "amt_type_ids": adjacent.slot_types(body),
        "amt_decoded": adjacent.quantizer.decode(adjacent.corners(body), torch.float64),
    }  # fmt: skip
    faces = len(canonical.faces)
    out["tokens_per_face"] = {"naive": 9, "bpt": (len(codes) - 2) / faces, "amt": len(body) / faces}
    return out


def _ids_or_coordinates(description: dict[str, Any], name: str) -> str:
    """case.json states "ids" and the coordinates apart."""
    stated = description["tolerance"]
    return f"atol {stated.get(name, stated.get('coords'))}" if name in _COORDINATES else "exact"


_COORDINATES = ("vertices", "recon_faces", "bpt_vertices", "bpt_mesh_vertices", "bpt_decoded", "amt_sorted_vertices",
                "amt_decoded", "tokens_per_face")  # fmt: skip

FAMILIES = {
    "meshxl_tokenizer": Family(meshxl_tokenizer, inputs=("raw_vertices", "faces"), tolerance=_ids_or_coordinates),
    "bpt_amt_tokens": Family(bpt_amt_tokens, inputs=("vertices", "faces"), tolerance=_ids_or_coordinates),
}
