"""Rotary positions in one or more axes.

Knows: angles from coordinates and how to rotate queries and keys. Does not know which cell a slot holds: callers pass
coordinates.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rotary_table(coordinates: Tensor, head_dim: int, base: float = 10000.0) -> tuple[Tensor, Tensor]:
    """Cosines and sines for rotary positions, the head's pairs shared out evenly over the axes.

    With two axes this is LlamaGen's 2-D RoPE (FoundationVision/LlamaGen, ``precompute_freqs_cis_2d``): frequencies
    ``base ** (-2j / (head_dim / axes))``, first half of the pairs turned by the row, second half by the column.

    Args:
        coordinates: [n, axes] positions, integer or float.
        head_dim: width of a head; must be divisible by ``2 * axes``.
        base: the rotary base.

    Returns:
        cos and sin, each float32 [n, head_dim / 2].

    Raises:
        ValueError: if the head's width does not divide into pairs for every axis.
    """
    axes = coordinates.shape[-1]
    if head_dim % (2 * axes):
        raise ValueError(f"head_dim {head_dim} is not divisible by {2 * axes}, which rotary positions in {axes}-D need")
    width = head_dim // axes
    frequencies = base ** (-torch.arange(0, width, 2, device=coordinates.device, dtype=torch.float32) / width)
    angles = (coordinates.float()[..., None] * frequencies).flatten(-2)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool = True) -> Tensor:
    """Turn each pair of ``x`` [rows, heads, n, head_dim] by its angle.

    Args:
        cos, sin: [n, head_dim / 2], or [rows, 1, n, head_dim / 2] when rows stand at different positions.
        interleaved: pairs are neighbours (2i, 2i + 1), as in LlamaGen; False: pairs are (i, i + head_dim / 2).
    """
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    if interleaved:
        even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
        return torch.stack((even * cos - odd * sin, odd * cos + even * sin), dim=-1).flatten(-2)
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
