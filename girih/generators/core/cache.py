"""Keys and values of one call.

Knows: per-layer buffers, which slots are committed in each row, and a staged tail that is committed in part or thrown
away. Does not know layers, masks or what a slot means. One tensor a layer: a single stacked tensor makes a compiled
step copy the whole cache.
"""

from __future__ import annotations

import torch
from torch import Tensor


class Cache:
    """Attention state owned by a call.

    Writing happens in two steps. ``stage(n)`` opens ``n`` slots behind each row's committed ones, every layer writes
    there with ``write``, and ``commit`` keeps chosen staged slots, per row, or ``discard`` keeps none. Rows may have
    different committed lengths.

    Args:
        owners: for each layer, the index of the storage it reads and writes (MLKV, CLA); default: one storage a layer.
        rows, kv_heads, slots, head_dim: sizes of each buffer [rows, kv_heads, slots, head_dim].

    Raises:
        ValueError: when more slots are staged than the cache has.
    """

    def __init__(self, owners: list[int], rows: int, kv_heads: int, slots: int, head_dim: int,
                 dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> None:
        shape = (rows, kv_heads, slots, head_dim)
        self.owners = owners
        self.slots = slots
        self.keys = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(max(owners) + 1)]
        self.values = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(max(owners) + 1)]
        self.lengths = [0] * rows  # host numbers: reading them never waits for the device
        self.staged = 0

    @property
    def rows(self) -> int:
        return len(self.lengths)

    @property
    def uniform(self) -> bool:
        """All rows have the same committed length."""
        return min(self.lengths) == max(self.lengths)

    @property
    def end(self) -> int:
        """One past the last slot in use, staged ones included: what attention must span."""
        return max(self.lengths) + self.staged

    def bytes(self) -> int:
        """Exact bytes held: 2 x storages x rows x kv_heads x slots x head_dim x element size."""
        return sum(t.numel() * t.element_size() for t in (*self.keys, *self.values))

    def starts(self) -> Tensor:
        """LongTensor [rows]: committed length of each row, the slot of the first staged one."""
        return torch.tensor(self.lengths, device=self.keys[0].device)

    def stage(self, n: int) -> Tensor:
        """Open ``n`` slots in each row. Returns their slot numbers, LongTensor [rows, n] ([1, n] if uniform)."""
        if max(self.lengths) + n > self.slots:
            raise ValueError(f"cache has {self.slots} slots; {max(self.lengths)} committed + {n} staged do not fit")
        self.staged = n
        starts = self.starts()[:1] if self.uniform else self.starts()
        return starts[:, None] + torch.arange(n, device=starts.device)

    def write(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Put the staged keys and values [rows, kv_heads, n, head_dim] of a layer in place.

        Returns views of all slots in use, [rows, kv_heads, end, head_dim]. Slots that a shorter row does not use hold
        stale numbers and must be masked.
        """
        keys, values = self.keys[self.owners[layer]], self.values[self.owners[layer]]
        if self.uniform:
            start = self.lengths[0]
            keys[:, :, start : start + self.staged] = key
            values[:, :, start : start + self.staged] = value
        else:
            slots = self.starts()[:, None] + torch.arange(self.staged, device=keys.device)
            rows = torch.arange(self.rows, device=keys.device)[:, None]
            keys[rows, :, slots] = key.transpose(1, 2)
            values[rows, :, slots] = value.transpose(1, 2)
        return keys[:, :, : self.end], values[:, :, : self.end]

    def commit(self, keep: Tensor | None = None) -> None:
        """Keep staged slots.

        Args:
            keep: LongTensor [rows, m], the staged slots (0-based) of each row to keep, in order, padded at the end
                with -1; None keeps all.
        """
        if keep is None:
            self.lengths = [length + self.staged for length in self.lengths]
        else:
            for row, chosen in enumerate(keep.tolist()):
                chosen = [slot for slot in chosen if slot >= 0]
                start = self.lengths[row]
                if chosen != list(range(len(chosen))):
                    source = torch.tensor(chosen, device=keep.device) + start
                    for buffer in (*self.keys, *self.values):
                        buffer[row, :, start : start + len(chosen)] = buffer[row].index_select(1, source)
                self.lengths[row] += len(chosen)
        self.staged = 0

    def discard(self) -> None:
        """Keep none of the staged slots."""
        self.staged = 0

    def select(self, rows: Tensor) -> Cache:
        """A new cache with the given rows (LongTensor), repeated or reordered as asked."""
        chosen = Cache.__new__(Cache)
        chosen.owners, chosen.slots, chosen.staged = self.owners, self.slots, 0
        chosen.keys = [buffer.index_select(0, rows) for buffer in self.keys]
        chosen.values = [buffer.index_select(0, rows) for buffer in self.values]
        chosen.lengths = [self.lengths[row] for row in rows.tolist()]
        return chosen
