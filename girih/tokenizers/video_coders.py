"""Encoders and decoders of the video tokenizer: diffusers' own, and twins of them that look at context frames.

Knows frames and feature maps, one level after another. Does not know tokens or sequences (video.py). Parameter names
are those of iVideoGPT's published checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.vae import Decoder, Encoder
from torch import Tensor, nn

HEADS, GROUPS = 4, 32  # of every cross-attention


class CrossAttention(nn.Module):
    """A feature map looks at those of the context frames: SiLU(x + attention), learned positions on both sides."""

    def __init__(self, channels: int, side: int, frames: int, dropout: float):
        super().__init__()
        self.att = nn.MultiheadAttention(channels, HEADS, dropout=dropout, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.kv_norm, self.q_norm = nn.GroupNorm(GROUPS, channels), nn.GroupNorm(GROUPS, channels)
        self.kv_pos_emb = nn.Parameter(torch.zeros(frames * side**2, channels))
        self.q_pos_emb = nn.Parameter(torch.zeros(side**2, channels))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """x ``[N, C, h, w]``, context ``[N, frames, C, h, w]``, whose frames share the norm's statistics."""
        query = self.q_norm(x).flatten(2).mT + self.q_pos_emb
        key = self.kv_norm(context.transpose(1, 2)).flatten(2).mT + self.kv_pos_emb
        mixed = self.dropout(self.att(query, key, key, need_weights=False)[0])
        return F.silu(x + mixed.mT.reshape(x.shape))


class ContextEncoder(Encoder):
    """diffusers' encoder that also gives the output of each level."""

    def forward(self, frames: Tensor) -> tuple[Tensor, list[Tensor]]:
        x, features = self.conv_in(frames), []
        for block in self.down_blocks:
            x = block(x)
            features.append(x)
        return self.conv_out(self.conv_act(self.conv_norm_out(self.mid_block(x)))), features


class ContextDecoder(Decoder):
    """diffusers' decoder that also gives the output of its middle and of each level."""

    def forward(self, latents: Tensor) -> tuple[Tensor, list[Tensor]]:
        features = [self.mid_block(self.conv_in(latents))]
        for block in self.up_blocks:
            features.append(block(features[-1]))
        return self.conv_out(self.conv_act(self.conv_norm_out(features[-1]))), features


class DynamicsEncoder(Encoder):
    """diffusers' encoder with a cross-attention after each level whose side is at most ``max_side``."""

    def __init__(self, side: int, max_side: int, frames: int, dropout: float, block_out_channels: Sequence[int],
                 **options: Any):
        super().__init__(block_out_channels=tuple(block_out_channels), mid_block_add_attention=True, **options)
        last = len(block_out_channels) - 1
        sides = [side // 2 ** min(level + 1, last) for level in range(last + 1)]
        self.cross_att_blocks = _attentions(block_out_channels, sides, max_side, frames, dropout)
        self.skipped = len(sides) - len(self.cross_att_blocks)

    def forward(self, frames: Tensor, context: Sequence[Tensor]) -> Tensor:
        x = self.conv_in(frames)
        for level, block in enumerate(self.down_blocks):
            x = block(x)
            if level >= self.skipped:
                x = self.cross_att_blocks[level - self.skipped](x, context[level])
        return self.conv_out(self.conv_act(self.conv_norm_out(self.mid_block(x))))


class DynamicsDecoder(Decoder):
    """diffusers' decoder with a cross-attention after its middle and after each level of side <= ``max_side``."""

    def __init__(self, side: int, max_side: int, frames: int, dropout: float, block_out_channels: Sequence[int],
                 **options: Any):
        super().__init__(block_out_channels=tuple(block_out_channels), mid_block_add_attention=True, **options)
        widths = list(reversed(block_out_channels))
        sides = [side * 2 ** min(level + 1, len(widths) - 1) for level in range(len(widths))]
        self.cross_att_blocks = nn.ModuleList([CrossAttention(widths[0], side, frames, dropout)])
        self.cross_att_blocks.extend(_attentions(widths, sides, max_side, frames, dropout))

    def forward(self, latents: Tensor, context: Sequence[Tensor]) -> Tensor:
        x = self.cross_att_blocks[0](self.mid_block(self.conv_in(latents)), context[0])
        for level, block in enumerate(self.up_blocks, 1):
            x = block(x)
            if level < len(self.cross_att_blocks):
                x = self.cross_att_blocks[level](x, context[level])
        return self.conv_out(self.conv_act(self.conv_norm_out(x)))


def _attentions(
    widths: Sequence[int], sides: Sequence[int], max_side: int, frames: int, dropout: float
) -> nn.ModuleList:
    levels = zip(widths, sides, strict=True)
    return nn.ModuleList([CrossAttention(width, side, frames, dropout) for width, side in levels if side <= max_side])
