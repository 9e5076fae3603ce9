"""Randomness as a pure function of (key, cell, visit, component).

Knows counters and hashes: a sample's draws do not depend on what else is in the batch, on the device or on how often
the model was asked. Does not know what is drawn.
"""

from __future__ import annotations

import torch
from torch import Tensor

_LOW = (1 << 63) - 1


def sample_keys(generators: list[torch.Generator | None], rows: int) -> Tensor:
    """A key for each sample: LongTensor [rows].

    With one generator, samples take its successive draws; with one a sample, each takes its own first draw. None draws
    from torch's global generator.
    """
    if len(generators) == 1:
        generators = generators * rows
    draws = [torch.randint(_LOW, (1,), generator=g, device=g.device if g else None).cpu() for g in generators]
    return torch.cat(draws)


def _mix(z: Tensor) -> Tensor:
    """The finaliser of splitmix64 (Steele, Lea & Flood 2014) on int64 with wrap-around; overwrites ``z``.

    In place because a vocabulary of noise for every token is large enough for fresh memory to cost more than the sums.
    """
    high = z >> 30
    z.bitwise_xor_(high.bitwise_and_((1 << 34) - 1)).mul_(-4658895280553007687)  # 0xBF58476D1CE4E5B9
    torch.bitwise_right_shift(z, 27, out=high)
    z.bitwise_xor_(high.bitwise_and_((1 << 37) - 1)).mul_(-7723592293110705685)  # 0x94D049BB133111EB
    torch.bitwise_right_shift(z, 31, out=high)
    return z.bitwise_xor_(high.bitwise_and_((1 << 33) - 1))


def uniform(keys: Tensor, cells: Tensor, size: int, visit: int = 0, component: int = 0) -> Tensor:
    """Uniform draws in (0, 1), float64 [rows, size].

    Args:
        keys: LongTensor [rows]; cells: LongTensor [rows], the cell each row draws for.
        size: draws for that cell (one a token value, for Gumbel noise).
        visit: how often the cell was drawn before, or the solver's step.
        component: tells apart draws for different uses.
    """
    use = torch.tensor((visit * 65_536 + component) * 4 + 2, device=keys.device)
    state = _mix(keys + _mix(cells * 4 + 1) + _mix(use))
    ids = torch.arange(size, device=keys.device, dtype=torch.int64)
    bits = _mix(state[:, None] + (ids + 1) * -7046029254386353131)  # the golden gamma, 0x9E3779B97F4A7C15
    return bits.bitwise_right_shift_(11).bitwise_and_((1 << 53) - 1).double().add_(0.5).mul_(2.0**-53)


def gumbel(keys: Tensor, cells: Tensor, size: int, visit: int = 0, component: int = 0) -> Tensor:
    """Standard Gumbel draws, float32 [rows, size]; argmax(logits + gumbel) samples softmax(logits)."""
    return uniform(keys, cells, size, visit, component).log_().neg_().log_().float().neg_()
