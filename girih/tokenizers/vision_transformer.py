"""Two small transformers over patches: one that reads a picture into ordered tokens, one that denoises under tokens.

Knows patches, positions and attention masks. Does not know diffusion schedules or files. Parameter names of blocks are
those that vision transformers are published under.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from diffusers.models.embeddings import get_2d_sincos_pos_embed
from torch import Tensor, nn


class Attention(nn.Module):
    """Self-attention of x ``[B, n, dim]``; ``mask [n, n]``, True where a query (row) may see a key (column)."""

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"width {dim} is not divisible by {num_heads} heads")
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        query, key, value = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """``fc2(gelu(fc1 x))``; ``approximate``: "none" or "tanh"."""

    def __init__(self, dim: int, hidden: int, approximate: str):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.approximate = approximate

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate=self.approximate))


class Block(nn.Module):
    """Pre-norm layer of a vision transformer (Dosovitskiy et al. 2020)."""

    def __init__(self, dim: int, num_heads: int, hidden: int):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.attn, self.mlp = Attention(dim, num_heads), MLP(dim, hidden, "none")

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x), mask)
        return x + self.mlp(self.norm2(x))


class ModulatedBlock(nn.Module):
    """Layer whose norms a vector shifts and scales and whose branches it gates, at first with 0 (DiT's adaLN-zero)."""

    def __init__(self, dim: int, num_heads: int, hidden: int):
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=1e-6, elementwise_affine=False)
        self.attn, self.mlp = Attention(dim, num_heads), MLP(dim, hidden, "tanh")
        self.modulation = _zero(nn.Linear(dim, 6 * dim))

    def forward(self, x: Tensor, vector: Tensor) -> Tensor:
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = self.modulation(F.silu(vector))[:, None].chunk(6, -1)
        x = x + gate * self.attn(self.norm(x) * (1 + scale) + shift)
        return x + mlp_gate * self.mlp(self.norm(x) * (1 + mlp_scale) + mlp_shift)


class SlotEncoder(nn.Module):
    """Pictures ``[B, C, S, S]`` to ``num_slots`` features ``[B, num_slots, dim]``, slot i blind to the later ones.

    The sequence is a class token, the patches and the learned slots, all with learned positions. Class token and
    patches see each other; slot i sees them and slots 0 to i. So slot i is the same however many slots follow it.
    """

    def __init__(
        self,
        size: int,
        patch: int,
        in_channels: int,
        dim: int,
        num_layers: int,
        num_heads: int,
        hidden: int,
        num_slots: int,
    ):
        super().__init__()
        if size % patch:
            raise ValueError(f"a picture of {size} px does not divide into patches of {patch} px")
        seen = 1 + (size // patch) ** 2
        self.num_slots = num_slots
        self.patch_embed = nn.Conv2d(in_channels, dim, patch, stride=patch)
        self.cls_token = nn.Parameter(torch.randn(1, 1, dim) * 1e-6)
        self.slot_embed = nn.Parameter(torch.randn(1, num_slots, dim) * 0.02)
        self.pos_embed = nn.Parameter(torch.randn(1, seen + num_slots, dim) * 0.02)
        self.blocks = nn.ModuleList(Block(dim, num_heads, hidden) for _ in range(num_layers))
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def mask(self, device: torch.device) -> Tensor:
        """bool ``[n, n]``: who (row) may see whom (column)."""
        length = self.pos_embed.shape[1]
        at = torch.arange(length, device=device)
        return (at < length - self.num_slots) | (at[:, None] >= at)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patch_embed(images).flatten(2).mT
        parts = [part.expand(len(images), -1, -1) for part in (self.cls_token, patches, self.slot_embed)]
        x = torch.cat(parts, 1) + self.pos_embed
        mask = self.mask(x.device)
        for block in self.blocks:
            x = block(x, mask)
        return self.norm(x[:, -self.num_slots :])


class ConditionedDenoiser(nn.Module):
    """A diffusion transformer (Peebles & Xie 2022) that attends to tokens: noisy ``[B, C, s, s]``, times ``[B]`` and
    tokens ``[B, n, token_dim]`` to ``[B, 2 C, s, s]`` (noise, place of the variance).

    Tokens stand behind the patches, without positions; the time alone modulates. Tokens that are not kept are replaced
    by the learned null token of the same place.
    """

    def __init__(
        self,
        size: int,
        patch: int,
        channels: int,
        dim: int,
        num_layers: int,
        num_heads: int,
        hidden: int,
        num_tokens: int,
        token_dim: int,
    ):
        super().__init__()
        if size % patch:
            raise ValueError(f"a latent map of {size} cells does not divide into patches of {patch} cells")
        self.side, self.patch, self.channels = size // patch, patch, channels
        self.patch_embed = nn.Conv2d(channels, dim, patch, stride=patch)
        self.pos_embed: Tensor
        self.register_buffer("pos_embed", patch_positions(dim, self.side))
        self.time_embed = nn.Sequential(nn.Linear(256, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.token_embed = nn.Linear(token_dim, dim)
        self.null_tokens = nn.Parameter(torch.randn(1, num_tokens, token_dim) * 0.02)
        self.blocks = nn.ModuleList(ModulatedBlock(dim, num_heads, hidden) for _ in range(num_layers))
        self.norm = nn.LayerNorm(dim, eps=1e-6, elementwise_affine=False)
        self.modulation = _zero(nn.Linear(dim, 2 * dim))
        self.output = _zero(nn.Linear(dim, patch * patch * 2 * channels))

    def forward(self, noisy: Tensor, times: Tensor, tokens: Tensor, keep: Tensor | None = None) -> Tensor:
        """``keep``: bool ``[B, n]``; None keeps all."""
        if keep is not None:
            tokens = torch.where(keep[..., None], tokens, self.null_tokens)
        vector = self.time_embed(time_features(times).to(noisy.dtype))
        patches = self.patch_embed(noisy).flatten(2).mT + self.pos_embed
        x = torch.cat([patches, self.token_embed(tokens)], 1)
        for block in self.blocks:
            x = block(x, vector)
        shift, scale = self.modulation(F.silu(vector))[:, None].chunk(2, -1)
        x = self.output(self.norm(x[:, : patches.shape[1]]) * (1 + scale) + shift)
        pixels = x.view(len(x), self.side, self.side, self.patch, self.patch, 2 * self.channels)
        return pixels.permute(0, 5, 1, 3, 2, 4).reshape(len(x), 2 * self.channels, *noisy.shape[2:])


def time_features(times: Tensor) -> Tensor:
    """Times ``[B]`` to 128 cosines and 128 sines of them, float32 ``[B, 256]``."""
    rates = torch.exp(torch.arange(128, device=times.device) * (-math.log(10000) / 128))
    angles = times.float()[:, None] * rates
    return torch.cat([angles.cos(), angles.sin()], -1)


def patch_positions(dim: int, side: int) -> Tensor:
    """Fixed sine and cosine positions of ``side * side`` patches, float32 ``[1, side * side, dim]``."""
    return get_2d_sincos_pos_embed(dim, side, output_type="pt").float().reshape(1, side * side, dim)


def _zero(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
