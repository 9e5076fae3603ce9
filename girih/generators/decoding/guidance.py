"""Classifier-free guidance over a pair of rows that stay in lock step.

Knows how to mix logits of a condition and of its absence (or its negative). Does not know conditions.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Guidance:
    """``uncond + scale * (cond - uncond)`` (Ho & Salimans 2022), rows ordered [conditional; unconditional].

    Attributes:
        scale: 1 = no guidance: the second half of the rows does not exist.
        interval: last guided step, later ones use the conditional row alone; -1 = all (LlamaGen's ``cfg_interval``:
            counted after the first predicted token).
    """

    scale: float = 1.0
    interval: int = -1

    @property
    def paired(self) -> bool:
        return self.scale != 1.0

    def mix(self, logits: Tensor, step: int) -> Tensor:
        """Logits [2 rows, V] -> [rows, V] for step ``step`` (0 = first predicted token); unpaired ones pass."""
        if not self.paired:
            return logits
        conditional, unconditional = logits.chunk(2)
        if self.interval >= 0 and step - 1 > self.interval:
            return conditional
        return unconditional + (conditional - unconditional) * self.scale
