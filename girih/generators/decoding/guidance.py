"""Classifier-free guidance over a pair of rows that stay in lock step.

Knows how to mix logits (or what they are linear in) of a condition and of its absence (or its negative). Does not know
conditions.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class Guidance:
    """``uncond + scale * (cond - uncond)`` (Ho & Salimans 2022), rows ordered [conditional; unconditional].

    Attributes:
        scale: 1 at the start = no guidance: the second half of the rows does not exist. May be changed between steps.
        interval: last guided step, later ones use the conditional row alone; -1 = all (LlamaGen's ``cfg_interval``:
            counted after the first predicted token).
        paired: whether the second half of the rows exists; settled at the start.
    """

    scale: float = 1.0
    interval: int = -1
    paired: bool = field(init=False)

    def __post_init__(self) -> None:
        self.paired = self.scale != 1.0

    @property
    def amplification(self) -> float:
        """How many times larger ``mix`` makes an error of its inputs, at most."""
        return abs(self.scale) + abs(self.scale - 1) if self.paired else 1.0

    def mix(self, logits: Tensor, step: int) -> Tensor:
        """Logits or features [2 rows, V] -> [rows, V] for step ``step`` (0 = first predicted token); unpaired ones
        pass."""
        if not self.paired:
            return logits
        conditional, unconditional = logits.chunk(2)
        if self.interval >= 0 and step - 1 > self.interval:
            return conditional
        return unconditional + (conditional - unconditional) * self.scale
