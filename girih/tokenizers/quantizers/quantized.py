"""What every quantizer returns, and how codes are counted. Knows ids and code vectors; knows no quantizer.

A quantizer maps features ``[B, C, *cells]`` to ids. ``cells`` may be ``(h, w)``, ``(frames,)`` or ``(t, h, w)``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Quantized:
    """What a quantizer makes of features: ``codes [B, C, *cells]`` (straight-through); ``tokens``, int64, of shape
    ``[B, *cells]`` unless a quantizer says otherwise; the scalar ``losses`` / statistics it adds in training mode, by
    name."""

    codes: Tensor
    tokens: Tensor
    losses: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class CodebookUse:
    """How a set of ids uses its codebook.

    Attributes:
        used: number of different ids. share_used: that over the vocabulary size.
        perplexity: exp of the entropy of the ids; equals ``used`` when all are used evenly.
        top_share: share of the commonest id.
    """

    used: int
    share_used: float
    perplexity: float
    top_share: float


def codebook_use(tokens: Tensor, vocab_size: int) -> CodebookUse:
    """Count ids of any shape. Only ids that occur are kept, so a vocabulary of 2^18 or 2^36 costs nothing.

    Raises ValueError where there are no ids or where one lies outside ``[0, vocab_size)``.
    """
    if not tokens.numel():
        raise ValueError("there are no tokens to count")
    check_ids(tokens, vocab_size)
    counts = torch.unique(tokens.flatten().cpu(), return_counts=True)[1]
    share = counts.double() / counts.sum()
    perplexity = math.exp(float(-(share * share.log()).sum()))
    return CodebookUse(len(counts), len(counts) / vocab_size, perplexity, float(share.max()))


def check_ids(tokens: Tensor, vocab_size: int) -> None:
    """Refuse ids outside ``[0, vocab_size)`` with a ValueError that names them."""
    if tokens.is_floating_point():
        raise ValueError(f"token ids must be integers, got {tokens.dtype}")
    if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < vocab_size:
        wrong = [int(v) for v in tokens.aminmax()]
        raise ValueError(f"token ids must be in [0, {vocab_size - 1}], got {wrong[0]} to {wrong[1]}")


def cells_last(features: Tensor) -> Tensor:
    """Features ``[B, C, *cells]`` to float32 rows ``[B * cells, C]``: what decides an id is never in half precision."""
    return features.float().movedim(1, -1).flatten(0, -2)


def cells_back(rows: Tensor, like: Tensor) -> Tensor:
    """Rows ``[B * cells, C]`` to features of the cells and dtype of ``like [B, _, *cells]``."""
    return rows.view(len(like), *like.shape[2:], -1).movedim(-1, 1).to(like.dtype)
