"""Small random generators of every kind, and conditions for them: what the law and the decodings are tried on.

Knows the configurations that differ in the core. Does not know trained weights.
"""

from __future__ import annotations

import torch
from torch import Tensor

from girih.generators.conditioning import ClassConditioner, Condition, FeatureConditioner, WordConditioner
from girih.generators.next_token import NextTokenGenerator

SHAPE = (3, 4)
CLASS = {"kind": "class", "num_classes": 5}
PLAN = {"kind": "plan", "vector_dim": 12, "plan_dim": 6, "hidden": 10}
WORDS = {"kind": "words", "vocab_size": 9, "tokens": 5}
FEATURES = {"kind": "features", "feature_dim": 10, "tokens": 4}
WIDE = {"dim": 32, "num_layers": 2, "num_heads": 4, "feed_forward_dim": 48}

CONFIGS: dict[str, dict] = {
    "plan, layer norm, gelu, biases": dict(
        vocab_size=30, levels=(5, 3, 2), factorised=True, condition=PLAN, learned_positions=True,
        transformer={**WIDE, "feed_forward": "gelu", "norm": "layer", "bias": True}),
    "llamagen class: 2-D rope, prefix turned to zero": dict(
        vocab_size=23, condition=CLASS, rope_base=10000.0, rope_prefix="zero", transformer=WIDE),
    "llamagen text: feature prefix with padding": dict(
        vocab_size=23, condition=FEATURES, rope_base=10000.0, rope_prefix="zero", transformer=WIDE),
    "words as a prefix, learned positions": dict(
        vocab_size=23, condition=WORDS, learned_positions=True, transformer=WIDE),
    "grouped heads": dict(
        vocab_size=23, condition=CLASS, rope_base=100.0, transformer={**WIDE, "num_kv_heads": 2}),
    "one key head, wide heads, normed queries": dict(
        vocab_size=23, condition=CLASS, rope_base=100.0,
        transformer={**WIDE, "num_kv_heads": 1, "head_dim": 12, "qk_norm": True}),
    "halved rope pairs, any order": dict(
        vocab_size=23, condition=CLASS, rope_base=100.0, order=[5, 0, 11, 3, 8, 1, 2, 10, 4, 7, 6, 9],
        transformer={**WIDE, "rope_interleaved": False}),
    "plan with rope, any order, grouped heads": dict(
        vocab_size=30, levels=(5, 3, 2), condition=PLAN, rope_base=50.0, order=[5, 0, 11, 3, 8, 1, 2, 10, 4, 7, 6, 9],
        transformer={**WIDE, "num_kv_heads": 2, "qk_norm": True}),
}


def make(name: str) -> NextTokenGenerator:
    """A generator with every parameter away from its starting point, so that no part is without effect."""
    torch.manual_seed(sum(map(ord, name)))
    model = NextTokenGenerator(shape=SHAPE, **CONFIGS[name]).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3 if parameter.ndim < 2 else parameter.shape[-1] ** -0.5)
    return model.requires_grad_(False)


def inputs(model: NextTokenGenerator, rows: int) -> tuple[Tensor, ...]:
    """Random conditioner inputs; features with a different number of hidden slots in each row."""
    conditioner = model.conditioner
    if isinstance(conditioner, ClassConditioner):
        return (torch.randperm(conditioner.num_classes)[:rows],)
    if isinstance(conditioner, FeatureConditioner):
        hidden = torch.arange(rows)[:, None] % conditioner.tokens
        features = torch.randn(rows, conditioner.tokens, conditioner.up.in_features)
        return features, torch.arange(conditioner.tokens) >= hidden
    if isinstance(conditioner, WordConditioner):
        padded = torch.arange(conditioner.tokens) >= conditioner.tokens - torch.arange(rows)[:, None] % 3
        return (torch.randint(1, 9, (rows, conditioner.tokens)).masked_fill(padded, 0),)
    return (torch.randn(rows, conditioner.vector_dim),)


def condition(model: NextTokenGenerator, rows: int, guided: bool = False) -> Condition:
    """A condition for ``rows`` rows; guided: their unconditional partners below them."""
    given = inputs(model, rows)
    if not guided:
        return model.condition(*given)
    if isinstance(model.conditioner, (ClassConditioner, FeatureConditioner, WordConditioner)):
        null = (model.conditioner.null(rows), *given[1:])
    else:
        null = (torch.randn(1, model.conditioner.vector_dim).expand(rows, -1),)
    return Condition.concat(model.condition(*given), model.condition(*null))
