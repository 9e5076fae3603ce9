"""Plain data that tokenizers and generators share.

Knows: what tokens are (``TokenSpec``), which sequences of them a language allows (``Grammar``), factorised ids digit by
digit, and in which order cells are predicted (``Layout``, ``CodebookPattern``). Does not know signals, networks or
files. Both sides import this file and never each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Protocol

import torch
from torch import Tensor

# What a grammar remembers of its rows: tensors by name, each with the rows as first axis, so that
# ``{name: value[rows] for name, value in state.items()}`` selects, repeats or reorders rows.
GrammarState = dict[str, Tensor]


class Grammar(Protocol):
    """Which token may come next, for a batch of rows that end at different lengths.

    Incremental: a step costs the same at any length. Nothing is written in place, so a draft advances from a kept state
    and is dropped or kept at will. Masks go on draft and target alike, before top-p. A sequence holds bos, if the
    language has one, and its end token. Every sequence that runs from ``start`` to ``done`` inside the masks decodes to
    a valid asset. ``advance`` trusts its tokens; sequences from elsewhere are checked by
    ``girih.tokenizers.grammars.accepts``.
    """

    vocab_size: int

    def start(self, rows: int) -> GrammarState:
        """The state before the first token."""

    def mask(self, state: GrammarState) -> Tensor:
        """bool [rows, vocab_size]: what may come next. A row that is done takes only the padding token."""

    def advance(self, state: GrammarState, tokens: Tensor) -> GrammarState:
        """The state after one more token a row, LongTensor [rows]."""

    def forced(self, state: GrammarState) -> Tensor:
        """LongTensor [rows]: the only token that may come next, -1 where there are several. Spares asking the model."""

    def done(self, state: GrammarState) -> Tensor:
        """bool [rows]: the row has taken its end token."""

    def to(self, device: torch.device | str) -> Grammar:
        """The same grammar with its tables on ``device``."""


@dataclass(frozen=True)
class TokenSpec:
    """What a tokenizer's tokens are.

    Attributes:
        vocab_size: number of discrete values a cell can take; None for continuous tokens.
        shape: the grid of cells of one result, for example ``(h, w)``; of a language of variable length ``(n,)``, the
            most tokens that a sequence may have, bos and eos included.
        levels: for factorised codes (FSQ), the number of values of each digit; first digit varies fastest, so that
            ``index = sum(digit[i] * prod(levels[:i]))``.
        bos, eos, pad: special ids of variable-length languages, None where there are none.
        grammar: which sequences are valid; None where every one is.
    """

    vocab_size: int | None
    shape: tuple[int, ...]
    levels: tuple[int, ...] | None = None
    bos: int | None = None
    eos: int | None = None
    pad: int | None = None
    grammar: Grammar | None = field(default=None, compare=False, repr=False)

    @property
    def cells(self) -> int:
        """Number of cells of one result."""
        return prod(self.shape)


def digits(tokens: Tensor, levels: Sequence[int]) -> Tensor:
    """Token ids ``[...]`` to level digits ``[..., len(levels)]``: id = sum digit_i * prod(levels[:i])."""
    level = torch.as_tensor(tuple(levels), device=tokens.device)
    return tokens.unsqueeze(-1) // _strides(levels, tokens.device) % level


def from_digits(digits: Tensor, levels: Sequence[int]) -> Tensor:
    """Inverse of ``digits``: level digits ``[..., len(levels)]`` to token ids ``[...]`` (int64)."""
    if digits.shape[-1] != len(levels):
        raise ValueError(f"{digits.shape[-1]} digits a token do not fit the {len(levels)} levels {tuple(levels)}")
    return (digits.long() * _strides(levels, digits.device)).sum(-1)


def _strides(levels: Sequence[int], device: torch.device) -> Tensor:
    return torch.tensor([prod(levels[:i]) for i in range(len(levels))], device=device)


@dataclass(frozen=True)
class Layout:
    """Which cell is predicted when, and where it stands.

    Attributes:
        shape: the grid of cells.
        order: ``order[k]`` is the cell (raster index into ``shape``) predicted at step ``k``; every cell once.

    Raises:
        ValueError: if ``order`` is not a permutation of the cells.
    """

    shape: tuple[int, ...]
    order: tuple[int, ...]

    def __post_init__(self) -> None:
        if sorted(self.order) != list(range(prod(self.shape))):
            raise ValueError(f"order must name each of the {prod(self.shape)} cells of {self.shape} exactly once")

    @classmethod
    def raster(cls, *shape: int) -> Layout:
        """Row by row, first axis slowest."""
        return cls(tuple(shape), tuple(range(prod(shape))))

    def __len__(self) -> int:
        return len(self.order)

    def coordinates(self) -> Tensor:
        """LongTensor [steps, axes]: the grid coordinates of the cell of each step."""
        return torch.stack(torch.unravel_index(torch.tensor(self.order), self.shape), dim=-1)

    def to_steps(self, cells: Tensor) -> Tensor:
        """[rows, *shape] values by cell -> [rows, steps] values by step."""
        return cells.flatten(1)[:, list(self.order)]

    def to_cells(self, steps: Tensor) -> Tensor:
        """[rows, steps] values by step -> [rows, *shape] values by cell."""
        out = torch.empty_like(steps)
        out[:, list(self.order)] = steps
        return out.reshape(steps.shape[0], *self.shape)


@dataclass(frozen=True)
class CodebookPattern:
    """When the cells (codebook, frame) of K parallel token streams come: a table, and the gathers it stands for.

    Attributes:
        table: ``table[s][q]`` is the frame of codebook ``q`` at step ``s``, -1 for none. An empty first row is the
            start column. Frames from ``frames`` on are places past the end, which hold no code.
        frames: number of frames T of a result; every cell stands at exactly one step.
        ordered: each codebook's frames come in order of time. False for patterns that permute frames on purpose.

    Raises:
        ValueError: a cell is missing, stands twice, or stands out of order.

    The model's output at step s predicts the codes of step s + 1; ``revert_logits`` is where that shift is made
    (Copet et al. 2023, section 2.2; facebookresearch/audiocraft, ``codebooks_patterns``).
    """

    table: tuple[tuple[int, ...], ...]
    frames: int
    ordered: bool = True

    def __post_init__(self) -> None:
        widths = {len(row) for row in self.table}
        if len(widths) != 1 or 0 in widths or self.frames < 1:
            raise ValueError(f"a pattern needs rows of equal length and a frame, got {widths} and {self.frames} frames")
        for q, column in enumerate(zip(*self.table, strict=True)):
            seen = [frame for frame in column if 0 <= frame < self.frames]
            if sorted(seen) != list(range(self.frames)):
                raise ValueError(f"codebook {q} must hold each of the {self.frames} frames exactly once, got {seen}")
            if self.ordered and seen != sorted(seen):
                raise ValueError(f"codebook {q} does not hold its frames in order of time: {seen}")

    @property
    def steps(self) -> int:
        """Number of steps, start column included."""
        return len(self.table)

    @property
    def codebooks(self) -> int:
        return len(self.table[0])

    @property
    def valid_steps(self) -> int:
        """Steps before the tail in which fine codebooks run past the end; training may leave that tail out."""
        return self.steps - max(0, max(max(row) for row in self.table) + 1 - self.frames)

    def indexes(self, steps: int | None = None) -> Tensor:
        """LongTensor [codebooks, steps]: where each place takes its code from in ``codes.flatten(1)``; K * T = nowhere.
        ``steps``: only so many, ``valid_steps`` for instance."""
        table = torch.tensor(self.table[:steps]).T
        held = (table >= 0) & (table < self.frames)
        flat = torch.arange(self.codebooks)[:, None] * self.frames + table
        return flat.where(held, self.codebooks * self.frames)

    def places(self, steps: int | None = None, shift: int = 0) -> Tensor:
        """LongTensor [codebooks, frames]: where each cell stands in ``values.flatten(1)`` (K x ``steps``), moved
        ``shift`` steps to the left; K * ``steps`` = nowhere, for cells of steps left out."""
        indexes, steps = self.indexes(steps), self.steps if steps is None else min(steps, self.steps)
        places = torch.full((self.codebooks * self.frames + 1,), self.codebooks * steps)
        q, step = torch.nonzero(indexes < self.codebooks * self.frames, as_tuple=True)
        places[indexes[q, step]] = q * steps + step - shift
        return places[:-1].view(self.codebooks, self.frames)

    def build(self, codes: Tensor, special: int, steps: int | None = None) -> Tensor:
        """Codes ``[B, codebooks, frames]`` to what stands at each step, ``[B, codebooks, steps]``; ``special`` fills
        the places that hold no code."""
        if codes.shape[1:] != (self.codebooks, self.frames):
            raise ValueError(f"codes must be [batch, {self.codebooks}, {self.frames}], got {list(codes.shape)}")
        return _gather(codes.flatten(1), self.indexes(steps), special)

    def revert(self, values: Tensor, special: int) -> Tensor:
        """Inverse of ``build``: ``[B, codebooks, steps]`` to codes ``[B, codebooks, frames]``; cells whose steps are
        not there get ``special``."""
        return _gather(values.flatten(1), self.places(values.shape[-1]), special)

    def revert_logits(self, logits: Tensor) -> Tensor:
        """Logits by step ``[B, C, codebooks, steps]`` to ``[B, C, codebooks, frames]`` that line up with the codes;
        NaN where nothing predicts a cell."""
        shift = int(max(self.table[0]) < 0)  # what predicts a cell stands one step before it, at the start column first
        return _gather(logits.flatten(2), self.places(logits.shape[-1], shift), float("nan"))

    def layout(self) -> Layout:
        """The order of the cells of ``(codebooks, frames)``, step by step, coarse codebooks first in a step."""
        held = self.indexes().T.flatten()
        return Layout((self.codebooks, self.frames), tuple(held[held < self.codebooks * self.frames].tolist()))

    def groups(self) -> tuple[int, ...]:
        """How many cells are generated at once, for each step that generates any."""
        counts = (self.indexes() < self.codebooks * self.frames).sum(0).tolist()
        return tuple(count for count in counts if count)


def _gather(flat: Tensor, indexes: Tensor, fill: float) -> Tensor:
    """``flat [..., n]`` at ``indexes`` of any shape; index n gives ``fill``."""
    fill_column = torch.full_like(flat[..., :1], fill)
    return torch.cat([flat, fill_column], -1)[..., indexes.to(flat.device)]
