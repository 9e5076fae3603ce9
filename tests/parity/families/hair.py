"""CHARM: hair cards in canonical order, their bins, their meshes and the inverse."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from girih.tokenizers.shape.hair import HairTokenizer, order_cards
from girih.tokenizers.shape.hair_mesh import card_mesh, card_normals, read_cards

from .case import Case, Family


def charm_hair(case: Case) -> dict[str, Any]:
    """Order, bins, dequantised values, meshes (with the peer's inner caps and signs of normals), inverse."""
    args = case.description["args"]
    tokenizer = HairTokenizer(bins=args["bins"], min_points=args["min_points"])
    cards = [np.array(hair["seq"], dtype=np.float32) for hair in case.inputs["model"]]
    # What the peer orders and quantises is float32.
    ordered = [cards[i][::-1].copy() if turn else cards[i] for i, turn in order_cards(cards)]
    bins = [tokenizer.point.to_bins(tokenizer.point.encode(torch.from_numpy(card))) for card in ordered]
    dequantised = [tokenizer.point.decode(tokenizer.point.to_tokens(one)) for one in bins]
    smooth = args["smooth_lambda"]
    meshes = [_mesh(card.astype(np.float64), smooth) for card in ordered]
    inverse = [read_cards(mesh["vertices"], mesh["outer_faces"], smooth)[0] for mesh in meshes]
    return {
        "ordered": ordered,
        "bins": bins,
        "dequantised": dequantised,
        "mesh": meshes,
        "inverse": [{"shape": "square", "seq": card} for card in inverse],
    }


def _mesh(card: np.ndarray, smooth: float) -> dict[str, np.ndarray]:
    normals = card_normals(card, smooth)
    vertices, faces = card_mesh(card, smooth)
    # The peer leaves the first normal's sign to the eigenvalue routine; a turned diamond trades opposite corners.
    if normals[0] @ np.linalg.eigh(np.cov(card[:3, :3].T))[1][:, 0] < 0:
        normals, vertices = -normals, vertices.reshape(-1, 4, 3)[:, [2, 3, 0, 1]].reshape(-1, 3)
    rings = 4 * np.arange(1, len(card) - 1)[:, None, None]
    segments = faces[2:-2].reshape(-1, 8, 3)
    inner = np.concatenate([segments[:-1], np.array([[0, 1, 2], [0, 2, 3]]) + rings], axis=1).reshape(-1, 3)
    capped = np.concatenate([faces[:2], inner, segments[-1], faces[-2:]])
    return {"vertices": vertices, "faces": capped, "normals": normals, "outer_faces": faces}


def _tolerance(description: dict[str, Any], name: str) -> str:
    limits = {"mesh": "atol 1e-6", "ordered": "atol 1e-6"}  # stated in words: "up to the sign", or not at all
    stated = limits.get(name, description["tolerance"].get(name))
    return stated if isinstance(stated, str) else f"atol {stated}"


FAMILIES = {"charm_hair": Family(charm_hair, inputs=("model",), tolerance=_tolerance)}
