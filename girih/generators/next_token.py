"""The next-token generator: a causal transformer over [prefix, tokens in a fixed order].

Knows token ids, their order and a condition. Does not know pixels, prompts or how values are chosen. LlamaGen's class
and text models (Sun et al. 2024) and girih's own plan-conditioned model are configurations of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from girih.generators.conditioning import (
    ClassConditioner,
    Condition,
    FeatureConditioner,
    PlanConditioner,
    WordConditioner,
)
from girih.generators.core.attention import Stream
from girih.generators.core.cache import Cache
from girih.generators.core.masks import Mask, MayAttend, causal, padded_prefix
from girih.generators.core.positions import rotary_table
from girih.generators.core.transformer import Transformer, TransformerConfig
from girih.generators.heads import make_head
from girih.spec import Layout, TokenSpec

CONDITIONERS = {"class": ClassConditioner, "features": FeatureConditioner, "words": WordConditioner,
                "plan": PlanConditioner}


class NextTokenGenerator(ModelMixin, ConfigMixin):
    """Predicts the cells of a grid one after another.

    The sequence has T prefix slots (T = 1 for classes and plans) and then the tokens; the features of slot T - 1 + k
    predict the token of step k.

    Args:
        vocab_size, levels: of the tokens, see ``TokenSpec``.
        shape: grid of cells, for example (16, 16); order: cells by step, None = raster.
        transformer: arguments of ``TransformerConfig``.
        condition: ``{"kind": "class", "num_classes"}``, ``{"kind": "features", "feature_dim", "tokens"}``,
            ``{"kind": "words", "vocab_size", "tokens"}`` or ``{"kind": "plan", "vector_dim", "plan_dim", "hidden"}``.
        factorised: head and embedding by FSQ digit instead of the joint vocabulary.
        rope_base: base of rotary positions over the grid's axes; None = none.
        rope_prefix: rotation of the prefix slots: "zero" multiplies their queries and keys by 0 as LlamaGen's code
            does (its weights depend on it), "identity" leaves them.
        learned_positions: a learned vector a slot.

    Raises:
        ValueError: for unknown kinds and sizes that do not fit.
    """

    @register_to_config
    def __init__(self, vocab_size: int, shape: Sequence[int], transformer: dict[str, Any], condition: dict[str, Any],
                 levels: Sequence[int] | None = None, order: Sequence[int] | None = None, factorised: bool = False,
                 rope_base: float | None = None, rope_prefix: str = "identity",
                 learned_positions: bool = False) -> None:
        super().__init__()
        if rope_prefix not in ("zero", "identity"):
            raise ValueError(f"rope_prefix {rope_prefix!r} is not 'zero' or 'identity'")
        self.spec = TokenSpec(vocab_size, tuple(shape), None if levels is None else tuple(levels))
        self.layout = Layout(tuple(shape), tuple(order)) if order else Layout.raster(*shape)
        sizes = dict(condition)
        kind = sizes.pop("kind")
        if kind not in CONDITIONERS:
            raise ValueError(f"condition kind {kind!r} is not one of {sorted(CONDITIONERS)}")
        if kind == "plan":
            sizes["positions"] = len(self.layout)
            transformer = {**transformer, "condition_dim": sizes["vector_dim"]}
        parts = TransformerConfig(**transformer)
        self.prefix = sizes.get("tokens", 1)
        slots = self.prefix - 1 + len(self.layout)
        self.conditioner = CONDITIONERS[kind](parts.dim, **sizes)
        self.embedding, self.head = make_head(self.spec, parts.dim, factorised)
        self.plan_head = make_head(self.spec, parts.dim, factorised)[1] if kind == "plan" else None
        self.core = Transformer(parts)
        self.positions = nn.Parameter(torch.randn(slots, parts.dim) * 0.02) if learned_positions else None
        if rope_base is not None:
            cos, sin = rotary_table(self.layout.coordinates(), parts.head_width, rope_base)
            head = torch.zeros(self.prefix, cos.shape[1])
            self.register_buffer("rope_cos", torch.cat((head + (rope_prefix == "identity"), cos)), persistent=False)
            self.register_buffer("rope_sin", torch.cat((head, sin)), persistent=False)
        self.rotary = rope_base is not None
        for module in (*self.embedding.modules(), *self.head.modules()):
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=0.02)

    def condition(self, *inputs: Tensor | None) -> Condition:
        """What the conditioner's inputs do to a call: computed once, then passed to every ``forward``."""
        condition = self.conditioner(*inputs)
        if isinstance(self.conditioner, PlanConditioner):
            vector = inputs[0].to(self.conditioner.start.dtype)  # type: ignore[union-attr]
            return Condition(condition.prefix, None, condition.plan, self.core.modulations(vector))
        return condition

    def new_cache(self, rows: int) -> Cache:
        """An empty cache for ``rows`` rows of a whole result."""
        return self.core.new_cache(rows, self.prefix + len(self.layout))

    def forward(self, tokens: Tensor, condition: Condition, cache: Cache | None = None,
                steps: Tensor | None = None, may_attend: MayAttend | None = None) -> Tensor:
        """Features that predict what follows each slot.

        Args:
            tokens: LongTensor [rows, n] in step order (n may be 0 at the start).
            condition: from ``condition``, same rows.
            cache: None for a whole sequence from its beginning. Else the tokens are staged behind the committed
                slots, the prefix before them while the cache is empty; the caller commits or discards.
            steps: LongTensor [rows, n], the step each token belongs to; None = they follow one another. Only with a
                cache that holds the prefix (draft trees, where siblings share a step).
            may_attend: rule over slots; None = causal.

        Returns:
            [rows, n (+ T when the prefix is part of this pass), dim].
        """
        x = self.embedding(tokens)
        begins = cache is None or max(cache.lengths) == 0
        if begins:
            x = torch.cat((condition.prefix.to(x.dtype), x), dim=1)
        n = x.shape[1]
        slots = torch.arange(n, device=x.device)[None] if cache is None else cache.stage(n)
        places = slots if steps is None else steps + self.prefix
        if self.positions is not None:
            x = x + self.positions[places]
        if condition.plan is not None:
            rows = torch.arange(x.shape[0], device=x.device)[:, None]
            x = x + (condition.plan[rows, places] if places.shape[0] > 1 else condition.plan[:, places[0]])
        rotary = None
        if self.rotary:
            cos, sin = self.rope_cos[places], self.rope_sin[places]
            rotary = (cos[0], sin[0]) if places.shape[0] == 1 else (cos[:, None], sin[:, None])
        keys = n if cache is None else cache.end
        mask = None
        if may_attend is None and condition.visible is not None:
            may_attend = padded_prefix(condition.visible)
            slots = slots.expand(x.shape[0], -1)
        if may_attend is not None or n > 1 or not (cache is None or cache.uniform):
            mask = Mask(may_attend or causal, slots, keys)
        return self.core(x, Stream(mask, rotary, cache), condition.modulation)

    def logits(self, tokens: Tensor, condition: Condition) -> Tensor:
        """Teacher-forced float32 logits [rows, n + 1, vocab]: entry k scores step k given ``tokens[:, :k]``."""
        return self.head.scores(self.forward(tokens, condition)[:, self.prefix - 1 :])

    def nats(self, tokens: Tensor, condition: Condition, inputs: Tensor | None = None) -> Tensor:
        """Cross-entropy of each step, float32 [rows, N], for tokens [rows, N] in step order.

        Args:
            inputs: what the model sees as history in place of ``tokens`` (corrupted, say); the targets stay.
        """
        history = (tokens if inputs is None else inputs)[:, :-1]
        return self.head.loss(self.forward(history, condition)[:, self.prefix - 1 :], tokens)

    def plan_nats(self, tokens: Tensor, condition: Condition) -> Tensor:
        """Cross-entropy of each step from the plan alone, float32 [rows, N]: no history at all.

        Raises:
            ValueError: for a model without a plan.
        """
        if self.plan_head is None or self.positions is None or condition.plan is None:
            raise ValueError("this generator has no plan with learned positions")
        return self.plan_head.loss(self.conditioner.norm(condition.plan + self.positions), tokens)
