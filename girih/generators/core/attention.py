"""Attention, the mixer that looks back through keys and values.

Knows: projections, grouped heads, optional query/key norms, rotation, and a mixer's two call shapes: ``forward`` over
a whole sequence and ``step`` over the next slots given state. Does not know what the slots are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.flex_attention import flex_attention

from girih.generators.core.cache import Cache
from girih.generators.core.masks import Mask
from girih.generators.core.positions import rotate


@dataclass(frozen=True)
class Stream:
    """What all layers of one forward pass share.

    Attributes:
        mask: who may attend to whom; None: every query sees every key in use.
        rotary: cos and sin (see ``positions.rotate``), or None.
        cache: the call's cache, already staged, or None for the parallel form.
        context: [rows, tokens, width] for cross-attention, or None.
        context_mask: visibility of the context tokens, or None.
    """

    mask: Mask | None = None
    rotary: tuple[Tensor, Tensor] | None = None
    cache: Cache | None = None
    context: Tensor | None = None
    context_mask: Mask | None = None


_compiled_flex: Callable[..., Tensor] | None = None


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Mask | None) -> Tensor:
    """softmax(q k / sqrt(head_dim)) v with grouped heads: SDPA on CPU, FlexAttention for masked sequences on a GPU.

    Args:
        query: [rows, heads, n, head_dim]; key, value: [rows, kv_heads, keys, head_dim].
    """
    grouped = key.shape[1] != query.shape[1]
    if mask is None:
        return F.scaled_dot_product_attention(query, key, value, enable_gqa=grouped)
    if query.is_cuda and query.shape[2] > 1:
        global _compiled_flex
        if _compiled_flex is None:
            _compiled_flex = torch.compile(flex_attention, dynamic=True)
        return _compiled_flex(query, key, value, block_mask=mask.block_mask, enable_gqa=grouped)
    if query.requires_grad and query.dtype == torch.bfloat16 and query.device.type == "cpu" and not grouped:
        return _written_out(query, key, value, mask.bias)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask.bias, enable_gqa=grouped)


def _written_out(query: Tensor, key: Tensor, value: Tensor, visible: Tensor) -> Tensor:
    """The same as three operators. Training in bfloat16 on a CPU, SDPA's backward costs 1.6 times as much."""
    hidden = query.new_zeros(visible.shape).masked_fill_(~visible, float("-inf"))
    scores = query * query.shape[-1] ** -0.5 @ key.mT + hidden
    return scores.softmax(-1).to(value.dtype) @ value


class Attention(nn.Module):
    """Self-attention with grouped key/value heads.

    Args:
        dim: model width.
        num_heads, num_kv_heads: query heads and key/value heads; the first must be a multiple of the second.
        head_dim: width of a head.
        qk_norm: normalise queries and keys per head (RMSNorm) before rotation.
        interleaved: rotary pair convention, see ``positions.rotate``.
        bias: biases on the projections.
    """

    def __init__(self, dim: int, num_heads: int, num_kv_heads: int, head_dim: int, qk_norm: bool = False,
                 interleaved: bool = True, bias: bool = False) -> None:
        super().__init__()
        self.heads = (num_heads, num_kv_heads, num_kv_heads)
        self.head_dim = head_dim
        self.interleaved = interleaved
        self.qkv = nn.Linear(dim, sum(self.heads) * head_dim, bias=bias)
        self.proj = nn.Linear(num_heads * head_dim, dim, bias=bias)
        self.query_norm = nn.RMSNorm(head_dim, eps=1e-6) if qk_norm else nn.Identity()
        self.key_norm = nn.RMSNorm(head_dim, eps=1e-6) if qk_norm else nn.Identity()

    def project(self, x: Tensor, stream: Stream) -> tuple[Tensor, Tensor, Tensor]:
        """[rows, n, dim] -> rotated query, rotated key and value, each [rows, heads, n, head_dim]."""
        split = self.qkv(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
        if isinstance(self.query_norm, nn.Identity):
            both, value = split.split((self.heads[0] + self.heads[1], self.heads[2]), dim=1)
        else:
            query, key, value = split.split(self.heads, dim=1)
            both = torch.cat((self.query_norm(query), self.key_norm(key)), dim=1)
        if stream.rotary is not None:  # one rotation of both: a step's cost is its number of small operations
            both = rotate(both, *stream.rotary, interleaved=self.interleaved)
        return *both.split(self.heads[:2], dim=1), value

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """The parallel form: x [rows, n, dim] attends within itself."""
        query, key, value = self.project(x, stream)
        return self.proj(attend(query, key, value, stream.mask).transpose(1, 2).flatten(2))

    def step(self, x: Tensor, stream: Stream, cache: Cache, layer: int) -> Tensor:
        """The stateful form: x holds the staged slots; what they need of the past is in the cache."""
        query, key, value = self.project(x, stream)
        keys, values = cache.write(layer, key, value)
        return self.proj(attend(query, keys, values, stream.mask).transpose(1, 2).flatten(2))


class CrossAttention(nn.Module):
    """Attention from the sequence to a context of another width; the context has no cache because it does not grow."""

    def __init__(self, dim: int, context_dim: int, num_heads: int, head_dim: int, bias: bool = False) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(dim, num_heads * head_dim, bias=bias)
        self.key_value = nn.Linear(context_dim, 2 * num_heads * head_dim, bias=bias)
        self.proj = nn.Linear(num_heads * head_dim, dim, bias=bias)

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """x [rows, n, dim] reads ``stream.context`` [rows, tokens, context_dim]."""
        query = self.query(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        both = self.key_value(stream.context).unflatten(-1, (2 * self.num_heads, -1)).transpose(1, 2)
        key, value = both.chunk(2, dim=1)
        return self.proj(attend(query, key, value, stream.context_mask).transpose(1, 2).flatten(2))
