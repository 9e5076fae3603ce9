"""Positions, layers and configurations of the core: the facts their docstrings state."""

from __future__ import annotations

import pytest
import torch

from girih.generators.core.attention import CrossAttention, Stream
from girih.generators.core.layers import AdaLN, SwiGLU
from girih.generators.core.masks import Mask, visible_keys
from girih.generators.core.positions import rotary_table, rotate
from girih.generators.core.transformer import Transformer, TransformerConfig


@pytest.mark.parametrize("interleaved", [True, False])
def test_rotation_keeps_lengths_and_depends_on_distance_alone(interleaved):
    places = torch.tensor([[0], [3], [5], [8]])
    cos, sin = rotary_table(places, 8, 100.0)
    query, key = torch.randn(2, 1, 1, 1, 8)
    turned_query = rotate(query.expand(1, 1, 4, 8), cos, sin, interleaved)
    turned_key = rotate(key.expand(1, 1, 4, 8), cos, sin, interleaved)
    torch.testing.assert_close(turned_query.norm(dim=-1), query.norm(dim=-1).expand(1, 1, 4))
    products = (turned_query @ turned_key.mT)[0, 0]
    torch.testing.assert_close(products[1, 0], products[3, 2])  # both three apart
    torch.testing.assert_close(products[0, 1], products[2, 3])
    assert abs(products[1, 0] - products[0, 1]) > 1e-3


def test_each_axis_turns_its_own_half():
    cos, sin = rotary_table(torch.tensor([[2, 0], [0, 2], [2, 7]]), 8)
    assert torch.equal(cos[0, 2:], torch.ones(2)) and torch.equal(sin[1, :2], torch.zeros(2))
    assert torch.equal(cos[0, :2], cos[2, :2]) and torch.equal(cos[0, :2], cos[1, 2:])
    torch.testing.assert_close(cos[0, :2], torch.tensor([2.0, 2.0 * 10000**-0.5]).cos())


def test_modulation_starts_as_nothing():
    assert [part.mean().item() for part in AdaLN(4, 3, parts=2)(torch.randn(2, 3))] == [0, 1, 1, 0, 1, 1]
    assert len(AdaLN(4, 3, parts=1, gated=False)(torch.randn(2, 3))) == 2


def test_swiglu_is_its_formula():
    layer, x = SwiGLU(4, 6), torch.randn(3, 4)
    expected = (torch.nn.functional.silu(x @ layer.gate.weight.T) * (x @ layer.up.weight.T)) @ layer.down.weight.T
    torch.testing.assert_close(layer(x), expected)


def test_hidden_context_is_not_seen():
    layer = CrossAttention(8, 6, 2, 4)
    x, context = torch.randn(2, 3, 8), torch.randn(2, 5, 6)
    visible = torch.tensor([[True, True, False, False, True]]).expand(2, -1)
    mask = Mask(visible_keys(visible), torch.arange(3).expand(2, -1), 5)
    masked = layer(x, Stream(context=context, context_mask=mask))
    torch.testing.assert_close(masked, layer(x, Stream(context=context[:, [0, 1, 4]])))


def test_cross_attention_is_part_of_the_stack():
    core = Transformer(TransformerConfig(8, 2, 2, 16, context_dim=6))
    x, context = torch.randn(1, 3, 8), torch.randn(1, 5, 6)
    changed = core(x, Stream(context=context + 1)) - core(x, Stream(context=context))
    assert changed.abs().max() > 1e-4


@pytest.mark.parametrize(("sizes", "message"), [
    ({"dim": 10, "num_heads": 3}, "dim 10 is not divisible by num_heads 3"),
    ({"dim": 8, "num_heads": 4, "num_kv_heads": 3}, "num_heads 4 is not a multiple of num_kv_heads 3"),
    ({"dim": 8, "num_heads": 2, "feed_forward": "relu"}, "feed_forward 'relu' is not one of"),
    ({"dim": 8, "num_heads": 2, "norm": "batch"}, "norm 'batch' is not 'rms' or 'layer'"),
])
def test_sizes_that_do_not_fit_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        TransformerConfig(num_layers=1, feed_forward_dim=8, **sizes)


def test_a_head_too_narrow_for_its_axes_is_refused():
    with pytest.raises(ValueError, match="head_dim 6 is not divisible by 4"):
        rotary_table(torch.zeros(1, 2), 6)
