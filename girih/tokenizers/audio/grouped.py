"""Grouped residual finite scalar quantization between strided stages: feature maps to codes and back.

Knows feature maps [B, D, frames] and codes [B, groups * depth, frames / shrink]. Does not know waves.

Source: fishaudio/fish-speech v1.5.1 (Apache-2.0), ``DownsampleFiniteScalarQuantize``. Its released weights were trained
with vector-quantize-pytorch 1.14.24, whose rounding is ``"tanh"`` here; the library's present rounding is
``"symmetric"``. The same weights and features give other codes under the other rounding. Made for inference: ``"tanh"``
has no straight-through gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from vector_quantize_pytorch import GroupedResidualFSQ

from girih.names import unknown
from girih.spec import digits, from_digits
from girih.tokenizers.audio.layers import CausalConv, CausalUpsample, ConvNeXtBlock


class TanhResidualFSQ(nn.Module):
    """Residual finite scalar quantization of one group, as vector-quantize-pytorch 1.14 computes it.

    ``bound(z) = tanh(z + shift) * half - offset`` acts on the input and again on each residual; a digit is the rounded
    bound, and stage r works at the scale ``(level - 1) ** -r``.
    """

    def __init__(self, dim: int, levels: Sequence[int], depth: int):
        super().__init__()
        self.levels, self.depth = tuple(levels), depth
        projected = dim != len(self.levels)
        self.project_in: nn.Module = nn.Linear(dim, len(self.levels)) if projected else nn.Identity()
        self.project_out: nn.Module = nn.Linear(len(self.levels), dim) if projected else nn.Identity()

    def encode(self, x: Tensor) -> Tensor:
        """Features ``[B, frames, dim]`` to codes ``[B, frames, depth]``. In float32: rounding decides."""
        level, half = self._steps(x.device)
        residual, codes = self._bound(self.project_in(x).float()), []
        for stage in range(self.depth):
            scale = (level - 1.0) ** -stage
            value = self._bound(residual / scale).round()
            codes.append(from_digits(value + half, self.levels))
            residual = residual - value / half * scale
        return torch.stack(codes, dim=-1)

    def lookup(self, codes: Tensor) -> Tensor:
        """Codes ``[B, frames, depth]`` to vectors ``[B, frames, dim]``."""
        level, half = self._steps(codes.device)
        stages = torch.arange(self.depth, device=codes.device)[:, None]
        values = (digits(codes, self.levels) - half) / half * (level - 1.0) ** -stages
        weight = next(self.project_out.parameters(), values)
        return self.project_out(values.sum(-2).to(weight.dtype))

    def _bound(self, z: Tensor) -> Tensor:
        level, _ = self._steps(z.device)
        half = (level - 1) * (1 + 1e-3) / 2
        offset = torch.where(level % 2 == 0, 0.5, 0.0)
        return (z + (offset / half).atanh()).tanh() * half - offset

    def _steps(self, device: torch.device) -> tuple[Tensor, Tensor]:
        level = torch.tensor(self.levels, device=device)
        return level, level // 2


class TanhGroupedFSQ(nn.Module):
    """:class:`TanhResidualFSQ` on each of ``groups`` equal parts of the channels."""

    def __init__(self, dim: int, levels: Sequence[int], depth: int, groups: int):
        super().__init__()
        self.rvqs: Any = nn.ModuleList(TanhResidualFSQ(dim // groups, levels, depth) for _ in range(groups))

    def encode(self, x: Tensor) -> Tensor:
        """Features ``[B, frames, dim]`` to codes ``[B, groups, frames, depth]``."""
        parts = x.chunk(len(self.rvqs), dim=-1)
        return torch.stack([one.encode(part) for one, part in zip(self.rvqs, parts, strict=True)], dim=1)

    def lookup(self, codes: Tensor) -> Tensor:
        """Codes ``[B, groups, frames, depth]`` to vectors ``[B, frames, dim]``."""
        return torch.cat([one.lookup(part) for one, part in zip(self.rvqs, codes.unbind(1), strict=True)], dim=-1)


class SymmetricGroupedFSQ(GroupedResidualFSQ):
    """The library's grouped residual FSQ in the call shape of :class:`TanhGroupedFSQ`."""

    def __init__(self, dim: int, levels: Sequence[int], depth: int, groups: int):
        super().__init__(dim=dim, levels=list(levels), num_quantizers=depth, groups=groups)

    def encode(self, x: Tensor) -> Tensor:
        return self(x)[1].movedim(0, 1).long()

    def lookup(self, codes: Tensor) -> Tensor:
        return self.get_output_from_indices(codes.movedim(1, 0))


ROUNDINGS: dict[str, type[TanhGroupedFSQ] | type[SymmetricGroupedFSQ]] = {
    "tanh": TanhGroupedFSQ,
    "symmetric": SymmetricGroupedFSQ,
}


class StridedScalarQuantizer(nn.Module):
    """Strided stages, grouped residual FSQ, transposed stages.

    Args:
        dim: channels of the feature map.
        levels, groups, depth: level counts of a code's digits; parts of the channels; residual stages of each part.
        factors: how many times each strided stage shortens.
        dims: channels after each strided stage; None = ``dim``.
        rounding: ``"tanh"`` or ``"symmetric"``, see the top of the file.

    Raises:
        ValueError: an unknown rounding, or sizes that do not fit.
    """

    def __init__(
        self,
        dim: int = 512,
        levels: Sequence[int] = (8, 5, 5, 5),
        groups: int = 8,
        depth: int = 1,
        factors: Sequence[int] = (2, 2),
        dims: Sequence[int] | None = None,
        rounding: str = "tanh",
    ):
        super().__init__()
        widths = [dim, *(dims or [dim] * len(factors))]
        if rounding not in ROUNDINGS:
            raise unknown("rounding", rounding, ROUNDINGS)
        if len(widths) != len(factors) + 1 or widths[-1] % groups:
            raise ValueError(f"widths {widths} do not fit {len(factors)} strided stages and {groups} groups")
        if min(levels, default=0) < 3 or depth < 1:
            raise ValueError(f"levels must be 3 or more and depth 1 or more, got {list(levels)} and {depth}")
        self.codebooks, self.vocab_size, self.shrink = groups * depth, prod(levels), prod(factors)
        self.depth = depth
        self.downsample = nn.Sequential(*(
            nn.Sequential(CausalConv(widths[i], widths[i + 1], factor, factor), ConvNeXtBlock(widths[i + 1]))
            for i, factor in enumerate(factors)
        ))  # fmt: skip
        self.upsample = nn.Sequential(*(
            nn.Sequential(CausalUpsample(widths[i + 1], widths[i], factor, factor), ConvNeXtBlock(widths[i]))
            for i, factor in reversed(list(enumerate(factors)))
        ))  # fmt: skip
        self.residual_fsq = ROUNDINGS[rounding](widths[-1], levels, depth, groups)

    def latents(self, features: Tensor) -> Tensor:
        """Features ``[B, D, frames]`` to what is quantized, ``[B, D', ceil(frames / shrink)]``."""
        return self.downsample(features)

    def encode(self, features: Tensor) -> Tensor:
        """Features ``[B, D, frames]`` to codes ``[B, groups * depth, ceil(frames / shrink)]``, int64."""
        return self.residual_fsq.encode(self.latents(features).mT).movedim(-1, 2).flatten(1, 2)

    def lookup(self, codes: Tensor) -> Tensor:
        """Codes ``[B, groups * depth, n]`` to code vectors ``[B, D', n]``."""
        return self.residual_fsq.lookup(codes.unflatten(1, (-1, self.depth)).movedim(2, -1)).mT

    def decode(self, codes: Tensor) -> Tensor:
        """Codes ``[B, groups * depth, n]`` to features ``[B, D, n * shrink]``."""
        return self.upsample(self.lookup(codes))

    def forward(self, features: Tensor) -> Tensor:
        """Features through the codes and back, the same length; what is too long is cut at both ends alike."""
        made = self.decode(self.encode(features))
        excess = made.shape[-1] - features.shape[-1]
        return made[..., (excess + 1) // 2 :][..., : features.shape[-1]]
