"""Guidance: the formula, its interval, and what stays as it is."""

from __future__ import annotations

import pytest
import torch

from girih.generators.decoding.guidance import Guidance


def test_mix_is_the_formula():
    logits = torch.randn(6, 5)
    conditional, unconditional = logits[:3], logits[3:]
    for scale in (0.0, 0.5, 2.0, 7.5):
        expected = unconditional + scale * (conditional - unconditional)
        torch.testing.assert_close(Guidance(scale).mix(logits, 0), expected)
    assert torch.equal(Guidance().mix(logits, 0), logits) and not Guidance().paired


@pytest.mark.parametrize(("interval", "guided"), [(-1, [0, 1, 2, 3]), (0, [0, 1]), (2, [0, 1, 2, 3]), (1, [0, 1, 2])])
def test_after_the_interval_the_conditional_row_stands_alone(interval, guided):
    logits, guide = torch.randn(2, 5), Guidance(3.0, interval)
    assert [step for step in range(4) if not torch.equal(guide.mix(logits, step), logits[:1])] == guided


def test_the_scale_may_change_on_the_way():
    guide, logits = Guidance(3.0), torch.randn(2, 5)
    guide.scale = 1.0
    torch.testing.assert_close(guide.mix(logits, 4), logits[:1])  # the pair is still there
    assert guide.paired


@pytest.mark.parametrize("scale", [0.0, 0.5, 3.0])
def test_amplification_bounds_how_errors_grow(scale):
    logits, error = torch.randn(2, 500).double(), torch.randn(2, 500).double().clamp(-1, 1)
    guide = Guidance(scale)
    grown = guide.mix(logits + error, 0) - guide.mix(logits, 0)
    assert grown.abs().max() <= guide.amplification + 1e-9
    assert grown.abs().max() >= 0.5 * guide.amplification
