"""Plain data that tokenizers and generators share.

Knows: what tokens are (``TokenSpec``), factorised ids digit by digit, and in which order cells are predicted
(``Layout``). Does not know signals,
networks or files. Both sides import this file and never each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor


@dataclass(frozen=True)
class TokenSpec:
    """What a tokenizer's tokens are.

    Attributes:
        vocab_size: number of discrete values a cell can take; None for continuous tokens.
        shape: the grid of cells of one result, for example ``(h, w)``.
        levels: for factorised codes (FSQ), the number of values of each digit; first digit varies fastest, so that
            ``index = sum(digit[i] * prod(levels[:i]))``.
        bos, eos, pad: special ids of variable-length languages, None where there are none.
    """

    vocab_size: int | None
    shape: tuple[int, ...]
    levels: tuple[int, ...] | None = None
    bos: int | None = None
    eos: int | None = None
    pad: int | None = None

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
