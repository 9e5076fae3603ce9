"""The one-token step of a next-token generator with shapes that stay the same, for compilers and captured graphs.

Knows: which calls are such steps, buffers that keep their addresses from call to call, and attention over a whole
bucket of slots under a mask. Everything else goes to the generator's own ``forward``. Does not know devices' kernels.

Not run on a GPU yet: on CPUs it is tested to agree with the plain step, eagerly and traced.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from girih.generators.conditioning import Condition
from girih.generators.core.attention import Stream
from girih.generators.core.cache import Cache
from girih.generators.core.masks import Mask, MayAttend, causal, padded_prefix
from girih.generators.next_token import NextTokenGenerator

BUCKET = 64  # slots: attention spans the next multiple, so a result of 256 tokens needs four graphs


@dataclass(frozen=True)
class Shown:
    """A mask as attention over one query sees it: bool [rows, 1, 1, keys]."""

    bias: Tensor


class Span:
    """The cache as a layer sees it in a step of static shape: one slot to write, the first ``keys`` slots to read.

    Same ``write`` as ``Cache``; the slot is a tensor, so one traced step serves every slot of a bucket.
    """

    def __init__(self, cache_keys: list[Tensor], cache_values: list[Tensor], owners: list[int], slot: Tensor,
                 keys: int) -> None:
        self.keys, self.values, self.owners, self.slot, self.end = cache_keys, cache_values, owners, slot, keys

    def write(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Put one slot's key and value [rows, kv_heads, 1, head_dim] in place, and return the first ``end`` slots."""
        keys, values = self.keys[self.owners[layer]], self.values[self.owners[layer]]
        keys.index_copy_(2, self.slot, key)
        values.index_copy_(2, self.slot, value)
        return keys[:, :, : self.end], values[:, :, : self.end]


class StaticStep:
    """Takes a generator's ``forward`` and ``new_cache``: steps of one token a row run with static shapes.

    Args:
        generator: whose calls to take.
        compiler: what turns the step into a faster one, ``torch.compile`` with its options for instance.

    Buffers of caches that a finished call leaves behind serve later calls, so graphs find them at the same addresses;
    calls that run at the same time get their own. Stale numbers in them are masked.
    """

    def __init__(self, generator: NextTokenGenerator, compiler: Callable[..., Any]) -> None:
        self.generator = generator
        self.plain_forward, self.plain_cache = generator.forward, generator.new_cache
        self.step = compiler(self.one_token)
        self.idle: dict[int, list[tuple[list[Tensor], list[Tensor]]]] = {}

    def new_cache(self, rows: int) -> Cache:
        """An empty cache whose slots fill whole buckets."""
        cache = self.plain_cache(0)
        slots = -(-cache.slots // BUCKET) * BUCKET
        idle = self.idle.setdefault(rows, [])
        if idle:
            keys, values = idle.pop()
        else:
            shape = (rows, *cache.keys[0].shape[1:2], slots, cache.keys[0].shape[3])
            keys, values = ([torch.zeros(shape, dtype=old.dtype, device=old.device) for old in buffers]
                            for buffers in (cache.keys, cache.values))
            for buffer in (*keys, *values):
                torch._dynamo.mark_static_address(buffer)
        cache.keys, cache.values, cache.lengths, cache.slots = keys, values, [0] * rows, slots
        weakref.finalize(cache, idle.append, (keys, values))
        return cache

    def forward(self, tokens: Tensor, condition: Condition, cache: Cache | None = None, steps: Tensor | None = None,
                may_attend: MayAttend | None = None) -> Tensor:
        """``NextTokenGenerator.forward``."""
        if cache is None or steps is not None or may_attend is not None or tokens.shape[1] != 1 or (
                not cache.uniform or cache.lengths[0] == 0 or cache.slots % BUCKET):
            return self.plain_forward(tokens, condition, cache, steps, may_attend)
        slot = cache.stage(1)[0]
        keys = -(-cache.end // BUCKET) * BUCKET
        if tokens.is_cuda:
            torch.compiler.cudagraph_mark_step_begin()
        features = self.step(tokens, slot, keys, condition.plan, condition.visible, condition.modulation,
                             cache.keys, cache.values, cache.owners)
        return features.clone()  # the next replay of a graph overwrites its output

    def one_token(self, tokens: Tensor, slot: Tensor, keys: int, plan: Tensor | None, visible: Tensor | None,
                  modulation: Any, cache_keys: list[Tensor], cache_values: list[Tensor], owners: list[int]) -> Tensor:
        """Features [rows, 1, dim] of tokens [rows, 1] at ``slot`` (LongTensor [1]) over the first ``keys`` slots."""
        generator = self.generator
        x = generator.embedding(tokens)
        if generator.positions is not None:
            x = x + generator.positions[slot]
        if plan is not None:
            x = x + plan[:, slot]
        rotary = (generator.rope_cos[slot], generator.rope_sin[slot]) if generator.rotary else None
        rule: MayAttend = causal
        queries = slot[None]
        if visible is not None:
            rule, queries = padded_prefix(visible), slot.expand(tokens.shape[0], 1)
        span = cast(Cache, Span(cache_keys, cache_values, owners, slot, keys))
        # Not Mask.bias: a cached property holds a lock in some Python versions, which cannot be traced.
        shown = cast(Mask, Shown(Mask(rule, queries, keys).dense()))
        return generator.core(x, Stream(shown, rotary, span), modulation)
