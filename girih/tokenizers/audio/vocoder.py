"""Features to a wave by convolutions alone. Knows [B, D, frames] and [B, 1, samples]; does not know codes.

Source: HiFi-GAN (Kong et al. 2020, section 2.2) as in fishaudio/fish-speech v1.5.1 (Apache-2.0): causal, SiLU, and the
mean over kernel sizes. Weight norm is folded into plain weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from girih.tokenizers.audio.layers import CausalConv, CausalUpsample


class ResidualStack(nn.Module):
    """Pairs of dilated convolutions of one kernel size, each pair with its own skip."""

    def __init__(self, channels: int, kernel: int, dilations: Sequence[int]):
        super().__init__()
        self.convs1 = nn.ModuleList(CausalConv(channels, channels, kernel, dilation=d) for d in dilations)
        self.convs2 = nn.ModuleList(CausalConv(channels, channels, kernel, dilation=d) for d in dilations)

    def forward(self, x: Tensor) -> Tensor:
        for first, second in zip(self.convs1, self.convs2, strict=True):
            x = x + second(F.silu(first(F.silu(x))))
        return x


class ParallelStacks(nn.Module):
    """The mean of stacks of several kernel sizes."""

    def __init__(self, channels: int, kernels: Sequence[int], dilations: Sequence[Sequence[int]]):
        super().__init__()
        self.blocks = nn.ModuleList(ResidualStack(channels, k, d) for k, d in zip(kernels, dilations, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([block(x) for block in self.blocks]).mean(0)


class WaveGenerator(nn.Module):
    """Features ``[B, dim, frames]`` to waves ``[B, 1, frames * prod(rates)]`` in [-1, 1].

    Args:
        dim: channels of the features. channels: after the first convolution; each stage halves them.
        rates, rate_kernels: how many times each stage lengthens, and its kernel.
        kernels, dilations: of the residual stacks that stand side by side after each stage.
        pre_kernel, post_kernel: of the first and last convolution.
    """

    def __init__(
        self,
        dim: int = 512,
        channels: int = 512,
        rates: Sequence[int] = (8, 8, 2, 2, 2),
        rate_kernels: Sequence[int] = (16, 16, 4, 4, 4),
        kernels: Sequence[int] = (3, 7, 11),
        dilations: Sequence[Sequence[int]] = ((1, 3, 5), (1, 3, 5), (1, 3, 5)),
        pre_kernel: int = 13,
        post_kernel: int = 13,
    ):
        super().__init__()
        if len(rates) != len(rate_kernels) or len(kernels) != len(dilations) or channels % 2 ** len(rates):
            raise ValueError(
                f"rates {list(rates)}, rate_kernels {list(rate_kernels)}, kernels {list(kernels)}, dilations "
                f"{list(dilations)} and {channels} channels do not fit together"
            )
        self.hop_length = prod(rates)
        widths = [channels // 2**i for i in range(len(rates) + 1)]
        self.conv_pre = CausalConv(dim, channels, pre_kernel)
        self.ups = nn.ModuleList(
            CausalUpsample(widths[i], widths[i + 1], k, rate)
            for i, (rate, k) in enumerate(zip(rates, rate_kernels, strict=True))
        )
        self.resblocks = nn.ModuleList(ParallelStacks(width, kernels, dilations) for width in widths[1:])
        self.conv_post = CausalConv(widths[-1], 1, post_kernel)

    def forward(self, features: Tensor) -> Tensor:
        x = self.conv_pre(features)
        for up, stacks in zip(self.ups, self.resblocks, strict=True):
            x = stacks(up(F.silu(x)))
        return self.conv_post(F.silu(x)).tanh()
