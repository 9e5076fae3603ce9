"""All of a running call.

Knows tokens so far, what is given, keys and progress. Decodings hold configuration only, so that one loaded model
serves many calls at a time.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from girih.generators.conditioning import Condition
from girih.generators.decoding.sampling import Sampling
from girih.spec import Grammar


@dataclass
class State:
    """One call's data; decodings write into it and yield it after each commit.

    Attributes:
        tokens: LongTensor [rows, steps], values by step; meaningful where ``known``.
        known: bool [rows, steps]; True from the start where a value is given (in-painting).
        keys: LongTensor [rows], one a sample, see ``noise``.
        condition: of the rows; with guidance [conditional; unconditional], twice the rows.
        sampling: how values are chosen.
        grammar: which token may come next, for languages; rows end where it says so, at different lengths. None: every
            sequence is valid and all rows fill all steps.
        done: bool [rows], the row has ended; what stands after its end is padding.
        canonical: in float32, settle near ties by a pass over the row alone, so that a result does not depend on its
            batch. Off where results are only promised for the same call (int8, bfloat16).
        step: number of steps every row has behind it.
        stats: counters of the call, by name.
    """

    tokens: Tensor
    known: Tensor
    keys: Tensor
    condition: Condition
    sampling: Sampling = field(default_factory=Sampling)
    grammar: Grammar | None = None
    canonical: bool = True
    step: int = 0
    stats: dict[str, int] = field(default_factory=lambda: {"target_calls": 0, "settled_alone": 0})
    done: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.done = torch.zeros(self.tokens.shape[0], dtype=torch.bool, device=self.tokens.device)

    @property
    def rows(self) -> int:
        return self.tokens.shape[0]
