"""Grouped residual finite scalar quantization between strided stages: feature maps to codes and back.

Knows feature maps [B, D, frames] and codes [B, groups * depth, frames / shrink]. Does not know waves.

Source: fishaudio/fish-speech v1.5.1 (Apache-2.0), ``DownsampleFiniteScalarQuantize``. Its released weights were trained
with vector-quantize-pytorch 1.14.24, whose rounding is ``"tanh"`` here; the library's present rounding is
``"symmetric"``. The same weights and features give other codes under the other rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from torch import Tensor, nn

from girih.tokenizers.audio.layers import CausalConv, CausalUpsample, ConvNeXtBlock
from girih.tokenizers.quantizers import GroupedResidualScalarQuantizer


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
        if len(widths) != len(factors) + 1 or widths[-1] % groups:
            raise ValueError(f"widths {widths} do not fit {len(factors)} strided stages and {groups} groups")
        if min(levels, default=0) < 3 or depth < 1:
            raise ValueError(f"levels must be 3 or more and depth 1 or more, got {list(levels)} and {depth}")
        self.codebooks, self.vocab_size, self.shrink = groups * depth, prod(levels), prod(factors)
        self.downsample = nn.Sequential(*(
            nn.Sequential(CausalConv(widths[i], widths[i + 1], factor, factor), ConvNeXtBlock(widths[i + 1]))
            for i, factor in enumerate(factors)
        ))  # fmt: skip
        self.upsample = nn.Sequential(*(
            nn.Sequential(CausalUpsample(widths[i + 1], widths[i], factor, factor), ConvNeXtBlock(widths[i]))
            for i, factor in reversed(list(enumerate(factors)))
        ))  # fmt: skip
        self.residual_fsq = GroupedResidualScalarQuantizer(widths[-1], levels, groups, depth, rounding)

    def latents(self, features: Tensor) -> Tensor:
        """Features ``[B, D, frames]`` to what is quantized, ``[B, D', ceil(frames / shrink)]``."""
        return self.downsample(features)

    def encode(self, features: Tensor) -> Tensor:
        """Features ``[B, D, frames]`` to codes ``[B, groups * depth, ceil(frames / shrink)]``, int64."""
        return self.residual_fsq(self.latents(features)).tokens

    def lookup(self, codes: Tensor) -> Tensor:
        """Codes ``[B, groups * depth, n]`` to code vectors ``[B, D', n]``."""
        return self.residual_fsq.lookup(codes)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes ``[B, groups * depth, n]`` to features ``[B, D, n * shrink]``."""
        return self.upsample(self.lookup(codes))

    def forward(self, features: Tensor) -> Tensor:
        """Features through the codes and back, the same length; what is too long is cut at both ends alike."""
        made = self.decode(self.encode(features))
        excess = made.shape[-1] - features.shape[-1]
        return made[..., (excess + 1) // 2 :][..., : features.shape[-1]]
