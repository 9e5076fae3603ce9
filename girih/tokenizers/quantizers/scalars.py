"""Finite scalar quantization: each channel rounded to a few levels, alone or in groups on residuals.

Plain FSQ is vector-quantize-pytorch's. The grouped residual form is written out with two roundings by name, because
that library changed its formula between 1.14 and 1.32, and published weights exist for both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from vector_quantize_pytorch import FSQ

from girih.names import unknown
from girih.spec import digits, from_digits
from girih.tokenizers.quantizers.quantized import Quantized, cells_back


class FiniteScalarQuantizer(nn.Module):
    """Finite scalar quantization (Mentzer et al. 2023, section 3): tanh, then round each channel to its level count.

    Nothing is learned, so there is no codebook to collapse. Channel i takes values in [-1, 1] on ``levels[i]`` steps.
    """

    def __init__(self, levels: Sequence[int]):
        super().__init__()
        _check_levels(levels)
        self.levels = tuple(int(level) for level in levels)
        self.dim, self.vocab_size = len(self.levels), math.prod(self.levels)
        self.fsq = FSQ(list(self.levels), channel_first=True)

    def forward(self, features: Tensor) -> Quantized:
        # Rounding decides tokens: always in float32, whatever autocast or the weights are in.
        codes, tokens = self.fsq(features.float())
        return Quantized(codes.to(features.dtype), tokens.long())

    def lookup(self, tokens: Tensor) -> Tensor:
        """Ids ``[B, *cells]`` to code vectors ``[B, len(levels), *cells]``, float32."""
        half = torch.tensor([level // 2 for level in self.levels], device=tokens.device)
        return ((digits(tokens, self.levels) - half) / half).movedim(-1, 1)


class TanhRounding(nn.Module):
    """The formula of vector-quantize-pytorch 1.14 (fish-speech's published weights): tanh bound, then plain rounding.

    Its residual form bounds the input once more than plain FSQ does. Stage q works at scale ``(levels - 1)^-q``.
    """

    levels: Tensor

    def __init__(self, levels: Sequence[int]):
        super().__init__()
        self.register_buffer("levels", torch.tensor(levels, dtype=torch.float32), persistent=False)

    def scale(self, stage: int) -> Tensor:
        return (self.levels - 1) ** -stage

    def bound(self, x: Tensor) -> Tensor:
        half = (self.levels - 1) * (1 + 1e-3) / 2
        offset = torch.where(self.levels % 2 == 0, 0.5, 0.0)
        return torch.tanh(x + torch.atanh(offset / half)) * half - offset

    def prepare(self, x: Tensor) -> Tensor:
        return self.bound(x)

    def digits(self, x: Tensor) -> Tensor:
        return self.bound(x).round() + self.levels // 2

    def code(self, digits: Tensor) -> Tensor:
        return digits / (self.levels // 2) - 1


class SymmetricRounding(nn.Module):
    """The formula of vector-quantize-pytorch 1.32: codes symmetric about zero, a soft clamp of the input, then hard
    clamps (Parker et al. 2024, section 3.2). Stage q works at scale ``levels^-q``."""

    levels: Tensor

    def __init__(self, levels: Sequence[int]):
        super().__init__()
        self.register_buffer("levels", torch.tensor(levels, dtype=torch.float32), persistent=False)

    def scale(self, stage: int) -> Tensor:
        return self.levels**-stage

    def prepare(self, x: Tensor) -> Tensor:
        limit = 1 + 1 / (self.levels - 1)
        return torch.tanh(x / limit) * limit

    def digits(self, x: Tensor) -> Tensor:
        return ((self.levels - 1) * (x.clamp(-1, 1) + 1) / 2 + 0.5).floor()

    def code(self, digits: Tensor) -> Tensor:
        return 2 / (self.levels - 1) * digits - 1


ROUNDINGS: dict[str, type[TanhRounding] | type[SymmetricRounding]] = {
    "tanh": TanhRounding,
    "symmetric": SymmetricRounding,
}


class GroupedResidualScalarQuantizer(nn.Module):
    """Channels in ``groups``, each projected to ``len(levels)`` scalars that ``depth`` stages of finite scalar
    quantization take turns to refine (fish-speech v1.4's GFSQ has depth 1; HiFi-Codec for the grouping).

    Tokens are ``[B, groups * depth, *cells]``, group by group, coarse stage first. A group that has as many channels as
    levels is not projected.
    """

    def __init__(self, dim: int, levels: Sequence[int], groups: int = 1, depth: int = 1, rounding: str = "tanh"):
        super().__init__()
        _check_levels(levels)
        if dim % groups:
            raise ValueError(f"{dim} channels do not divide into {groups} groups")
        if rounding not in ROUNDINGS:
            raise unknown("rounding", rounding, ROUNDINGS)
        self.levels = tuple(int(level) for level in levels)
        self.dim, self.groups, self.depth, self.vocab_size = dim, groups, depth, math.prod(self.levels)
        self.rounding = ROUNDINGS[rounding](self.levels)
        width, scalars = dim // groups, len(self.levels)
        # The library's names, under which weights are published.
        self.rvqs = nn.ModuleList(
            nn.ModuleDict({"project_in": _project(width, scalars), "project_out": _project(scalars, width)})
            for _ in range(groups)
        )

    def forward(self, features: Tensor) -> Quantized:
        parts = features.movedim(1, -1).flatten(0, -2).chunk(self.groups, -1)
        made = [self._group(projections, part) for projections, part in zip(self.rvqs, parts, strict=True)]
        codes = torch.cat([code for code, _ in made], -1)
        tokens = torch.cat([ids for _, ids in made], -1)  # [B * cells, groups * depth]
        tokens = tokens.view(len(features), *features.shape[2:], -1).movedim(-1, 1)
        return Quantized(cells_back(codes, features), tokens)

    def _group(self, projections: Any, rows: Tensor) -> tuple[Tensor, Tensor]:
        rest = self.rounding.prepare(projections["project_in"](rows).float())  # rounding decides tokens
        total, tokens = torch.zeros_like(rest), []
        for stage in range(self.depth):
            scale = self.rounding.scale(stage)
            place = self.rounding.digits(rest / scale)
            code = self.rounding.code(place) * scale
            total, rest = total + code, rest - code
            tokens.append(from_digits(place, self.levels))
        # What the stages left over carries the gradient to what was quantized.
        carried = (total + (rest - rest.detach())).to(rows.dtype)
        return projections["project_out"](carried), torch.stack(tokens, -1)

    def lookup(self, tokens: Tensor) -> Tensor:
        """Ids ``[B, groups * depth, *cells]`` to code vectors ``[B, dim, *cells]``."""
        if tokens.shape[1] != self.groups * self.depth:
            raise ValueError(f"tokens must be [batch, {self.groups * self.depth} codebooks, ...], "
                             f"got {list(tokens.shape)}")  # fmt: skip
        code = self.rounding.code(digits(tokens.movedim(1, -1), self.levels).float())
        stages = code.unflatten(-2, (self.groups, self.depth))  # [B, *cells, groups, depth, scalars]
        scale = torch.stack([self.rounding.scale(stage) for stage in range(self.depth)])
        weight = next(self.parameters(), scale)
        parts = (stages * scale).sum(-2).to(weight.dtype).unbind(-2)
        outs: list[Any] = [projections["project_out"] for projections in cast(Any, self.rvqs)]
        grown = [out(part) for out, part in zip(outs, parts, strict=True)]
        return torch.cat(grown, -1).movedim(-1, 1)


def _project(width: int, target: int) -> nn.Module:
    return nn.Identity() if width == target else nn.Linear(width, target)


def _check_levels(levels: Sequence[int]) -> None:
    if not levels or min(levels) < 3:
        raise ValueError(f"levels must be a list of integers >= 3, got {list(levels)}")
