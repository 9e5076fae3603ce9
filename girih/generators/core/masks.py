"""Who may attend to whom.

Knows: one kind of function, ``may_attend(row, query, key) -> bool tensor`` over sequence slots (three LongTensors that
broadcast), and the two ways the core uses it: a boolean SDPA bias and a FlexAttention block mask. Does not know
networks or caches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

MayAttend = Callable[[Tensor, Tensor, Tensor], Tensor]


def causal(row: Tensor, query: Tensor, key: Tensor) -> Tensor:
    """A slot sees itself and what stands before it."""
    return key <= query


def full(row: Tensor, query: Tensor, key: Tensor) -> Tensor:
    """Every slot sees every slot."""
    return (key >= 0) & (query >= 0)


def prefix_bidirectional(prefix: int) -> MayAttend:
    """The first ``prefix`` slots see each other both ways, the rest is causal (prefix language model)."""
    return lambda row, query, key: (key <= query) | (key < prefix)


def padded_prefix(visible: Tensor) -> MayAttend:
    """Causal over a prefix some of whose slots are padding: a hidden slot is seen by itself only.

    This is the mask of LlamaGen's text-to-image model: lower triangle, condition columns times the padding mask,
    diagonal forced to one.

    Args:
        visible: bool [rows, prefix].
    """
    prefix = visible.shape[1]

    def may_attend(row: Tensor, query: Tensor, key: Tensor) -> Tensor:
        shown = visible[row, key.clamp(max=prefix - 1)] | (key >= prefix)
        return (key <= query) & shown | (key == query)

    return may_attend


def visible_keys(visible: Tensor) -> MayAttend:
    """Both ways among the keys that are not padding (a text encoder). ``visible``: bool [rows, keys]."""
    return lambda row, query, key: visible[row, key] & (query >= 0)


def scale_causal(lengths: list[int]) -> MayAttend:
    """Slots come in scales of the given lengths; a slot sees its own scale and all coarser ones (VAR, section 3.2)."""
    scale = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))

    def may_attend(row: Tensor, query: Tensor, key: Tensor) -> Tensor:
        of = scale.to(key.device)
        return of[key] <= of[query]

    return may_attend


def tree(parents: Tensor, start: Tensor) -> MayAttend:
    """A draft tree staged behind committed slots: a node sees all committed slots, its ancestors and itself.

    Args:
        parents: LongTensor [nodes]; the parent of each node, -1 for a child of the last committed slot. Parents come
            before children.
        start: LongTensor [rows]; committed length of each row, the slot of node 0.
    """
    nodes = parents.shape[0]
    ancestor = torch.eye(nodes, dtype=torch.bool, device=parents.device)
    for node, parent in enumerate(parents.tolist()):
        if parent >= 0:
            ancestor[node] |= ancestor[parent]

    def may_attend(row: Tensor, query: Tensor, key: Tensor) -> Tensor:
        first = start[row]
        node, other = (query - first).clamp(0, nodes - 1), (key - first).clamp(0, nodes - 1)
        staged = (key >= first) & (key < first + nodes)
        return torch.where(staged, ancestor[node, other] & (query >= first), (key < first) & (key <= query))

    return may_attend


@dataclass(frozen=True)
class Mask:
    """A ``may_attend`` at the slots of one forward pass, turned once into what attention needs.

    Attributes:
        may_attend: the rule.
        queries: LongTensor [rows, n], the slot of each query (rows may be 1 for "all rows alike").
        keys: number of key slots.
    """

    may_attend: MayAttend
    queries: Tensor
    keys: int

    @cached_property
    def bias(self) -> Tensor:
        """``dense()``, worked out once for all layers."""
        return self.dense()

    def dense(self) -> Tensor:
        """bool [rows, 1, n, keys], True where attention is allowed (SDPA's boolean mask)."""
        rows = torch.arange(self.queries.shape[0], device=self.queries.device)[:, None, None]
        key = torch.arange(self.keys, device=self.queries.device)
        return self.may_attend(rows, self.queries[:, :, None], key)[:, None]

    @cached_property
    def block_mask(self) -> BlockMask:
        """The same rule for FlexAttention."""

        def mask_mod(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return self.may_attend(row, self.queries[row, query], key)

        rows, n = self.queries.shape
        return create_block_mask(mask_mod, rows, None, n, self.keys, device=self.queries.device)
