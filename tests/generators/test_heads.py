"""Heads: the joint law is the product of its digits, and the loss is the law's."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from girih.generators.heads import CategoricalHead, DigitEmbedding, FactorisedHead, make_head
from girih.spec import TokenSpec, digits

LEVELS = st.lists(st.integers(2, 5), min_size=1, max_size=4).map(tuple)


def size(levels: tuple[int, ...]) -> int:
    return int(torch.tensor(levels).prod())


@given(levels=LEVELS)
def test_the_joint_law_is_the_sum_of_its_digits(levels):
    head, features = FactorisedHead(6, levels), torch.randn(2, 3, 6)
    joint, parts = head.scores(features), head.digit_scores(features)
    values = digits(torch.arange(size(levels)), levels).unbind(-1)
    expected = sum(part[..., value] for part, value in zip(parts, values, strict=True))
    torch.testing.assert_close(joint, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(joint.exp().sum(-1), torch.ones(2, 3))


@pytest.mark.parametrize("head", [CategoricalHead(6, 24), FactorisedHead(6, (4, 3, 2))])
def test_the_loss_is_that_of_the_scores(head):
    features, targets = torch.randn(2, 5, 6), torch.randint(24, (2, 5))
    expected = -head.scores(features).log_softmax(-1).gather(-1, targets[..., None])[..., 0]
    torch.testing.assert_close(head.loss(features, targets), expected, atol=1e-5, rtol=0)
    assert head.to(torch.bfloat16).scores(features.bfloat16()).dtype == torch.float32


def test_an_embedding_is_the_sum_of_its_digits_vectors():
    embedding = DigitEmbedding(5, (4, 3, 2))
    token = torch.tensor(3 + 4 * 1 + 12 * 1)  # digits 3, 1, 1
    table = embedding.table.weight
    torch.testing.assert_close(embedding(token), table[3] + table[4 + 1] + table[7 + 1])
    assert "offsets" not in embedding.state_dict()


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="needs the tokenizer's levels"):
        make_head(TokenSpec(24, (2, 2)), 6, factorised=True)
    with pytest.raises(ValueError, match="no vocab_size"):
        make_head(TokenSpec(None, (2, 2)), 6, factorised=False)
