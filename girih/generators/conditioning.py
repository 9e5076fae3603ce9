"""From class labels, text features or words to what a generator is conditioned on.

Knows four conditioners, one call shape: inputs -> ``Condition``. Does not know prompts as strings (pipelines) nor the
sequence that follows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from girih.generators.core.attention import Stream
from girih.generators.core.masks import Mask, visible_keys
from girih.generators.core.transformer import Modulation, Transformer, TransformerConfig


@dataclass(frozen=True)
class Condition:
    """What a call is conditioned on, computed once a call; rows first everywhere.

    Attributes:
        prefix: [rows, T, dim] vectors that stand before the tokens, T >= 1.
        visible: bool [rows, T], False on padding; None when all are real.
        plan: [rows, T - 1 + N, dim] added to the input of each slot, or None.
        modulation: shift, scale and gate of every layer, or None.
    """

    prefix: Tensor
    visible: Tensor | None = None
    plan: Tensor | None = None
    modulation: Modulation | None = None

    @property
    def rows(self) -> int:
        return self.prefix.shape[0]

    def select(self, rows: Tensor) -> Condition:
        """The given rows (LongTensor), repeated or reordered as asked."""
        return self._map(lambda parts: parts[0][rows], self)

    @staticmethod
    def concat(*conditions: Condition) -> Condition:
        """Rows of several conditions below each other (the guided pair, for one)."""
        return conditions[0]._map(torch.cat, *conditions)

    @staticmethod
    def _map(fn: Callable[[list[Tensor]], Tensor], *conditions: Condition) -> Condition:
        first = conditions[0]

        def over(name: str) -> Tensor | None:
            return None if getattr(first, name) is None else fn([getattr(c, name) for c in conditions])

        modulation = first.modulation and [
            tuple(fn(list(parts)) for parts in zip(*layers, strict=True))
            for layers in zip(*(c.modulation or [] for c in conditions), strict=True)
        ]
        prefix = fn([c.prefix for c in conditions])
        return Condition(prefix, over("visible"), over("plan"), modulation)


class ClassConditioner(nn.Module):
    """A learned vector a class, one row more for "no class" (LlamaGen c2i, ``LabelEmbedder``)."""

    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.embedding = nn.Embedding(num_classes + 1, dim)

    def forward(self, labels: Tensor) -> Condition:
        """LongTensor [rows] in [0, num_classes], num_classes = none."""
        return Condition(self.embedding(labels)[:, None])

    def null(self, rows: int) -> Tensor:
        """Inputs that stand for no condition."""
        return torch.full((rows,), self.num_classes, device=self.embedding.weight.device)


class FeatureConditioner(nn.Module):
    """Pre-computed text features as a prefix, through a small MLP (LlamaGen t2i, ``CaptionEmbedder``).

    ``null_features`` is a buffer: the published weights hold it untrained, and guidance needs exactly it.
    """

    def __init__(self, dim: int, feature_dim: int, tokens: int) -> None:
        super().__init__()
        self.tokens = tokens
        self.null_features: Tensor
        self.up = nn.Linear(feature_dim, dim, bias=False)
        self.down = nn.Linear(dim, dim, bias=False)
        self.register_buffer("null_features", torch.randn(tokens, feature_dim) / feature_dim**0.5)

    def forward(self, features: Tensor, visible: Tensor | None = None) -> Condition:
        """features [rows, tokens, feature_dim], left-padded; visible bool [rows, tokens]."""
        prefix = self.down(F.gelu(self.up(features.to(self.up.weight.dtype)), approximate="tanh"))
        return Condition(prefix, None if visible is None else visible.bool())

    def null(self, rows: int) -> Tensor:
        """Inputs that stand for no condition."""
        return self.null_features.expand(rows, -1, -1)


class WordConditioner(nn.Module):
    """The words themselves as a prefix, an embedding each: for prompts whose every number and its place matter.

    Args:
        vocab_size: of the words' tokenizer; id 0 is padding.
        tokens: words a prompt may have.
    """

    def __init__(self, dim: int, vocab_size: int, tokens: int) -> None:
        super().__init__()
        self.tokens = tokens
        self.words = nn.Embedding(vocab_size, dim)
        nn.init.normal_(self.words.weight, std=0.02)

    def forward(self, input_ids: Tensor) -> Condition:
        """LongTensor [rows, tokens], 0 = padding."""
        return Condition(self.words(input_ids), input_ids != 0)

    def null(self, rows: int) -> Tensor:
        """Inputs that stand for no words: padding alone."""
        return torch.zeros(rows, self.tokens, dtype=torch.long, device=self.words.weight.device)


class PlanConditioner(nn.Module):
    """A text vector modulates every layer, and a *plan* made from it is added to the input of each position.

    The plan gives the text a direct way to every position: vector -> hidden -> (positions x plan_dim) -> dim. It is
    trained with its own token loss (``NextTokenGenerator.plan_nats``), see docs/design.md.
    """

    def __init__(self, dim: int, vector_dim: int, positions: int, plan_dim: int, hidden: int) -> None:
        super().__init__()
        self.vector_dim = vector_dim
        self.positions, self.plan_dim = positions, plan_dim
        self.start = nn.Parameter(torch.randn(dim) * 0.02)
        self.hidden = nn.Linear(vector_dim, hidden)
        self.spread = nn.Linear(hidden, positions * plan_dim)
        self.lift = nn.Linear(plan_dim, dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, vector: Tensor) -> Condition:
        """vector [rows, vector_dim]."""
        vector = vector.to(self.start.dtype)
        plan = self.spread(F.silu(self.hidden(vector))).unflatten(-1, (self.positions, self.plan_dim))
        return Condition(self.start.expand(vector.shape[0], 1, -1), plan=self.lift(plan))


class TextEncoder(ModelMixin, ConfigMixin):
    """Word ids to one vector: the sum of word embeddings and a small bidirectional transformer over them, normalised.

    The words' own sum comes first on purpose: with an MLP or the transformer in its way a short training hardly told
    concepts apart. The transformer starts at a tenth and adds word order.

    With ``slots`` the vector is what the words *name*: each slot is a softmax over so many learned names (the thing
    drawn, a second thing, their relation, the style ...), and the result is the sum of the chosen names' vectors,
    normalised. Trained to name (training/text.py), it gives a label, a synonym and a phrase nearly the same vector,
    so a generator need not learn wording from pictures.

    Args:
        vocab_size, max_length: of the tokenizer; id 0 is padding.
        dim: width of the words and of the result.
        num_layers, num_heads: of the transformer.
        slots: number of names of each slot, or None for the words' own vector.
    """

    @register_to_config
    def __init__(self, vocab_size: int, max_length: int = 24, dim: int = 256, num_layers: int = 1,
                 num_heads: int = 4, slots: list[int] | None = None) -> None:
        super().__init__()
        self.words = nn.Embedding(vocab_size, dim)
        self.places = nn.Parameter(torch.randn(max_length, dim) * 0.02)
        config = TransformerConfig(dim, num_layers, num_heads, 2 * dim, feed_forward="gelu", norm="layer", bias=True)
        self.context = Transformer(config)
        self.norm = nn.LayerNorm(dim)
        nn.init.constant_(self.context.norm.get_parameter("weight"), 0.1)
        if slots is not None:
            self.naming = nn.Linear(dim, sum(slots))
            self.names = nn.Linear(sum(slots), dim, bias=False)
            nn.init.normal_(self.names.weight)
            self.names_norm = nn.LayerNorm(dim)

    @torch.no_grad()
    def weigh(self, counts: Tensor, rare: float = 1e-2) -> None:
        """Start frequent words small: embedding i is scaled by ``rare / (rare + share of word i)`` (Arora et al. 2017,
        "A Simple but Tough-to-Beat Baseline for Sentence Embeddings"). ``counts``: [vocab_size], of training captions.
        """
        self.words.weight *= (rare / (rare + counts / counts.sum()))[:, None]

    def read(self, input_ids: Tensor) -> Tensor:
        """LongTensor [rows, words], 0 = padding, at least one real word a row -> the words' vector [rows, dim]."""
        real = input_ids != 0
        words = input_ids.shape[1]
        mask = Mask(visible_keys(real), torch.arange(words, device=real.device).expand(real.shape), words)
        embedded = self.words(input_ids)
        x = embedded + self.context(embedded + self.places[:words], Stream(mask=mask))
        return self.norm((x * real[..., None]).sum(1))

    def name(self, input_ids: Tensor) -> list[Tensor]:
        """Logits [rows, names] of each slot; only with ``slots``."""
        return list(self.naming(self.read(input_ids)).split(self.config.slots, -1))

    def forward(self, input_ids: Tensor) -> Tensor:
        """LongTensor [rows, words] as for :meth:`read` -> [rows, dim]."""
        if self.config.slots is None:
            return self.read(input_ids)
        named = torch.cat([logits.softmax(-1) for logits in self.name(input_ids)], -1)
        return self.names_norm(self.names(named))

    def freeze_reading(self) -> None:
        """Train no more how words are read, only the vectors of the names; nothing without ``slots``."""
        if self.config.slots is not None:
            self.requires_grad_(False)
            self.names.requires_grad_(True)
            self.names_norm.requires_grad_(True)
