"""From scores to a value: temperature, top-k, top-p, min-p, and draws by Gumbel noise or inverse distribution.

Knows logits and keyed noise. Does not know models or cells' neighbours. Filters are transformers' logits processors.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from girih.generators.decoding.noise import gumbel, uniform

NEAR = 1e-4  # scores closer than this may change places with the batch size, see ``undecided``


@dataclass(frozen=True)
class Sampling:
    """How a value is chosen from logits.

    Attributes:
        temperature: divides the logits; 0 = always the likeliest value.
        top_k: keep the k likeliest values; 0 = all.
        top_p: keep the likeliest values up to this total probability, in (0, 1].
        min_p: keep values at least this share as likely as the likeliest, in [0, 1).

    Raises:
        ValueError: naming a value out of its range.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    def __post_init__(self) -> None:
        if not self.temperature >= 0:
            raise ValueError(f"temperature must be at least 0, got {self.temperature}")
        if self.top_k < 0 or int(self.top_k) != self.top_k:
            raise ValueError(f"top_k must be a whole number of at least 0, got {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, got {self.top_p}")
        if not 0 <= self.min_p < 1:
            raise ValueError(f"min_p must be at least 0 and below 1, got {self.min_p}")

    def processors(self) -> LogitsProcessorList:
        """The filters in transformers' order: temperature, top-k, top-p, min-p."""
        chain = LogitsProcessorList()
        if self.temperature not in (0.0, 1.0):
            chain.append(TemperatureLogitsWarper(float(self.temperature)))
        if self.top_k:
            chain.append(TopKLogitsWarper(int(self.top_k)))
        if self.top_p < 1:
            chain.append(TopPLogitsWarper(self.top_p))
        if self.min_p > 0:
            chain.append(MinPLogitsWarper(self.min_p))
        return chain

    def filter(self, logits: Tensor) -> Tensor:
        """Logits [rows, V] with temperature applied and what is filtered out at -inf."""
        if self.temperature == 0:
            return logits
        return self.processors()(torch.empty(logits.shape[0], 0, dtype=torch.long), logits)

    def perturbed(self, logits: Tensor, keys: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
        """(filtered logits, noise) whose sum's argmax is the draw; noise is zero at temperature 0."""
        filtered = self.filter(logits)
        if self.temperature == 0:
            return filtered, torch.zeros_like(filtered)
        return filtered, gumbel(keys, cells, logits.shape[-1])

    def choose(self, logits: Tensor, keys: Tensor, cells: Tensor) -> Tensor:
        """Choose a value a row by Gumbel noise: LongTensor [rows]. Arguments as for ``draw``."""
        filtered, noise = self.perturbed(logits, keys, cells)
        return (filtered + noise).argmax(-1)

    def draw(self, logits: Tensor, keys: Tensor, cells: Tensor, amplification: float = 1.0) -> tuple[Tensor, Tensor]:
        """Choose as ``choose`` does, and say of each row whether rounding could have turned the choice.

        Args:
            logits: float32 [rows, V]; keys, cells: LongTensor [rows], see ``noise``.
            amplification: how many times the model's rounding errors were enlarged on the way (guidance does).

        Returns:
            (values LongTensor [rows], undecided bool [rows]).
        """
        filtered, noise = self.perturbed(logits, keys, cells)
        return (filtered + noise).argmax(-1), self.undecided(logits, filtered, noise, amplification)

    def undecided(self, logits: Tensor, filtered: Tensor, noise: Tensor, amplification: float = 1.0) -> Tensor:
        """bool [rows]: the choice hangs on differences that rounding could turn.

        Either the two best perturbed scores lie within ``NEAR`` (times what guidance and a low temperature enlarge
        errors by), or the border of a filter does and a value at that border is, or would be, the choice.
        """
        margin = NEAR * max(1.0, amplification) / min(1.0, self.temperature or 1.0)
        perturbed = filtered + noise
        best, winner = perturbed.max(-1, keepdim=True)
        second = perturbed.scatter(-1, winner, -torch.inf).amax(-1, keepdim=True)
        near = (best - second < margin)[:, 0]
        moving = self.top_p < 1 or self.min_p > 0  # the border is a probability, not a rank
        if self.temperature == 0 or not (moving or self.top_k):
            return near
        kept = filtered.isfinite()
        if not moving and bool(kept.all()):
            return near
        scores = logits / self.temperature
        lowest = torch.where(kept, scores, torch.inf).amin(-1, keepdim=True)
        highest = torch.where(kept, -torch.inf, scores).amax(-1, keepdim=True)
        # A border that is a probability can move by one value even across a gap; one of rank only within the margin.
        # More values than asked for are kept where several tie for the last rank.
        tied = (kept.sum(-1) > self.top_k) & (self.top_k > 0)
        fragile = (lowest - highest < margin)[:, 0] | moving | tied
        border = (scores >= highest - margin) & (scores <= lowest + margin)
        outsider = torch.where(border & ~kept, scores + noise, -torch.inf).amax(-1)
        chosen_at_border = border.gather(-1, winner)[:, 0]
        return near | fragile & (chosen_at_border | (outsider > best[:, 0] - margin))


def inverse_draw(logits: Tensor, keys: Tensor, cells: Tensor) -> Tensor:
    """Choose by one uniform number a row through the cumulative distribution: LongTensor [rows].

    One draw decides a value whatever the vocabulary's size; neighbouring values share noise, unlike with Gumbel.
    """
    cumulative = logits.double().softmax(-1).cumsum(-1)
    target = uniform(keys, cells, 1) * cumulative[:, -1:]
    return torch.searchsorted(cumulative, target)[:, 0].clamp(max=logits.shape[-1] - 1)
