"""Layers of the convolutional audio codecs: causal convolutions, ConvNeXt blocks. Knows feature maps [B, C, frames]."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class CausalConv(nn.Module):
    """1-d convolution that sees only the past; the end is padded with zeros to a whole step of ``stride``."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, dilation: int = 1, groups: int = 1
    ):
        super().__init__()
        self.past = (kernel - 1) * dilation + 1 - stride
        self.stride = stride
        self.conv = nn.Conv1d(in_channels, out_channels, kernel, stride, dilation=dilation, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (self.past, -x.shape[-1] % self.stride)))


class CausalUpsample(nn.Module):
    """Transposed 1-d convolution whose frame t reaches samples from t * ``stride`` on: ``stride`` times the length."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int):
        super().__init__()
        self.future = kernel - stride
        self.conv = nn.ConvTranspose1d(in_channels, out_channels, kernel, stride)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x[..., : x.shape[-1] - self.future]


class ConvNeXtBlock(nn.Module):
    """ConvNeXt (Liu et al. 2022) along time: depthwise causal convolution, norm, two products, a learned scale."""

    def __init__(self, dim: int, kernel: int = 7):
        super().__init__()
        self.dwconv = CausalConv(dim, dim, kernel, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.pwconv1 = nn.Linear(dim, 4 * dim)
        self.pwconv2 = nn.Linear(4 * dim, dim)
        self.gamma = nn.Parameter(torch.full((dim,), 1e-6))

    def forward(self, x: Tensor) -> Tensor:
        y = self.pwconv2(F.gelu(self.pwconv1(self.norm(self.dwconv(x).mT))))
        return x + (self.gamma * y).mT


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of [B, C, frames]."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.mT).mT
