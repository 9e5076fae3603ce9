"""From features to scores over token values, and the way back in: token embeddings.

Knows joint vocabularies and factorised ones (FSQ digits). Does not know how values are chosen. Scores are float32
whatever the model's dtype.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from girih.spec import TokenSpec, digits


class CategoricalHead(nn.Module):
    """One linear map to logits over the whole vocabulary."""

    def __init__(self, dim: int, vocab_size: int) -> None:
        super().__init__()
        self.output = nn.Linear(dim, vocab_size, bias=False)

    def scores(self, features: Tensor) -> Tensor:
        """[..., dim] -> float32 logits [..., vocab_size]."""
        return self.output(features).float()

    def loss(self, features: Tensor, targets: Tensor) -> Tensor:
        """Nats of each target: features [..., dim], targets [...] -> float32 [...]."""
        return -self.scores(features).log_softmax(-1).gather(-1, targets[..., None])[..., 0]


class FactorisedHead(nn.Module):
    """Logits of each FSQ digit, independent given the features; the joint law is their fixed outer sum.

    Training needs ``sum(levels)`` logits instead of ``prod(levels)``; sampling builds the joint ones, so every
    decoding sees an ordinary categorical distribution.
    """

    def __init__(self, dim: int, levels: tuple[int, ...]) -> None:
        super().__init__()
        self.levels = levels
        self.output = nn.Linear(dim, sum(levels))

    def digit_scores(self, features: Tensor) -> tuple[Tensor, ...]:
        """[..., dim] -> one float32 log-probability tensor [..., levels[i]] a digit."""
        split = self.output(features).float().split(self.levels, dim=-1)
        return tuple(logits.log_softmax(-1) for logits in split)

    def scores(self, features: Tensor) -> Tensor:
        """[..., dim] -> float32 joint log-probabilities [..., prod(levels)], first digit fastest."""
        first, *rest = self.digit_scores(features)
        joint = first
        for digit in rest:
            joint = (digit[..., :, None] + joint[..., None, :]).flatten(-2)
        return joint

    def loss(self, features: Tensor, targets: Tensor) -> Tensor:
        """Nats of each target: features [..., dim], targets [...] -> float32 [...]."""
        nats = torch.zeros(targets.shape, device=targets.device)
        for scores, digit in zip(self.digit_scores(features), digits(targets, self.levels).unbind(-1), strict=True):
            nats = nats - scores.gather(-1, digit[..., None])[..., 0]
        return nats


class DigitEmbedding(nn.Module):
    """Sum of one learned vector a digit: the input side of ``FactorisedHead``."""

    def __init__(self, dim: int, levels: tuple[int, ...]) -> None:
        super().__init__()
        self.levels = levels
        self.offsets: Tensor
        self.table = nn.Embedding(sum(levels), dim)
        offsets = torch.tensor([0, *levels[:-1]]).cumsum(0)
        self.register_buffer("offsets", offsets, persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """LongTensor [...] -> [..., dim]."""
        return F.embedding(digits(tokens, self.levels) + self.offsets, self.table.weight).sum(-2)


def make_head(spec: TokenSpec, dim: int, factorised: bool) -> tuple[nn.Module, CategoricalHead | FactorisedHead]:
    """(token embedding, head) for a vocabulary; factorised over ``spec.levels`` or joint.

    Raises:
        ValueError: factorised without levels, or a continuous spec.
    """
    if spec.vocab_size is None:
        raise ValueError("this generator predicts discrete tokens; the spec has no vocab_size")
    if not factorised:
        return nn.Embedding(spec.vocab_size, dim), CategoricalHead(dim, spec.vocab_size)
    if spec.levels is None:
        raise ValueError("a factorised head needs the tokenizer's levels; the spec has none")
    return DigitEmbedding(dim, spec.levels), FactorisedHead(dim, spec.levels)
