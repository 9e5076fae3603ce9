"""Attention written out for training in bfloat16 is the attention of SDPA."""

import pytest
import torch

from girih.generators.core.attention import attend
from girih.generators.core.masks import Mask, causal


@pytest.mark.parametrize("n", [1, 7, 32])
def test_training_in_bfloat16_agrees_with_sdpa(n):
    mask = Mask(causal, torch.arange(n)[None], n)
    query, key, value = (torch.randn(2, 3, n, 16) for _ in range(3))
    leaves = [t.bfloat16().requires_grad_() for t in (query, key, value)]
    trained = attend(*leaves, mask)
    exact = [t.bfloat16().float().requires_grad_() for t in (query, key, value)]
    expected = attend(*exact, mask)
    torch.testing.assert_close(trained.float(), expected, atol=0.03, rtol=0.03)
    weight = torch.randn(expected.shape)
    (trained.float() * weight).sum().backward()
    (expected * weight).sum().backward()
    for got, wanted in zip(leaves, exact, strict=True):
        torch.testing.assert_close(got.grad.float(), wanted.grad, atol=0.06, rtol=0.06)
