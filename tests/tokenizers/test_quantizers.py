"""Quantizers: digits are a bijection, codes come back from ids, training moves what it should."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from girih.spec import digits, from_digits
from girih.tokenizers.quantizers import (
    USAGE_WINDOW,
    CodebookQuantizer,
    FiniteScalarQuantizer,
    assignment_entropy,
)

LEVELS = st.lists(st.integers(3, 9), min_size=1, max_size=6)


@given(levels=LEVELS, seed=st.integers(0, 2**31))
def test_digits_and_ids_are_one_to_one(levels, seed):
    tokens = torch.randint(math.prod(levels), (3, 4), generator=torch.Generator().manual_seed(seed))
    split = digits(tokens, levels)
    assert (split >= 0).all() and (split < torch.tensor(levels)).all()
    assert torch.equal(from_digits(split, levels), tokens)


@given(levels=LEVELS, seed=st.integers(0, 2**31))
def test_fsq_lookup_gives_the_codes_of_its_ids(levels, seed):
    quantizer = FiniteScalarQuantizer(levels)
    features = torch.randn(2, len(levels), 3, 5, generator=torch.Generator().manual_seed(seed)) * 2
    quantized = quantizer(features)
    assert quantized.tokens.shape == (2, 3, 5) and quantized.tokens.max() < quantizer.vocab_size
    torch.testing.assert_close(quantizer.lookup(quantized.tokens), quantized.codes)


def test_fsq_ids_follow_the_stated_order():
    # Features far outside tanh's range: the first channel at its top level, the others at their bottom.
    features = torch.full((1, 3, 1, 1), -9.0)
    features[:, 0] = 9.0
    assert FiniteScalarQuantizer([7, 5, 3])(features).tokens.item() == 6
    features = -features
    assert FiniteScalarQuantizer([7, 5, 3])(features).tokens.item() == (5 - 1) * 7 + (3 - 1) * 35


def test_fsq_gives_the_same_ids_in_half_precision_of_the_same_features():
    features = torch.randn(1, 5, 8, 8).bfloat16()
    quantizer = FiniteScalarQuantizer([7, 5, 5, 5, 5])
    assert torch.equal(quantizer(features).tokens, quantizer(features.float()).tokens)


def test_fsq_passes_gradients_straight_through():
    features = torch.zeros(1, 2, 1, 1, requires_grad=True)
    FiniteScalarQuantizer([5, 5])(features).codes.sum().backward()
    assert features.grad is not None and (features.grad > 0.5).all()


@pytest.mark.parametrize("levels", [[], [2, 5]])
def test_fsq_refuses_levels_it_cannot_round_to(levels):
    with pytest.raises(ValueError, match="levels"):
        FiniteScalarQuantizer(levels)


@pytest.mark.parametrize("l2_norm", [True, False])
def test_codebook_picks_the_nearest_vector(l2_norm):
    torch.manual_seed(0)
    quantizer = CodebookQuantizer(16, 4, l2_norm=l2_norm).eval()
    features = torch.randn(2, 4, 3, 3)
    quantized = quantizer(features)
    flat = features.movedim(1, -1).reshape(-1, 4)
    if l2_norm:
        flat = flat / flat.norm(dim=1, keepdim=True)
    nearest = torch.cdist(flat.double(), quantizer.codebook().double()).argmin(1)
    assert torch.equal(quantized.tokens.flatten(), nearest)
    torch.testing.assert_close(quantizer.lookup(quantized.tokens), quantized.codes)
    assert quantized.losses == {}


def test_codebook_losses_move_codes_and_features_apart():
    torch.manual_seed(0)
    quantizer = CodebookQuantizer(8, 4, commit_weight=0.5)
    features = torch.randn(1, 4, 2, 2, requires_grad=True)
    losses = quantizer(features).losses
    assert losses["commit"].item() == pytest.approx(0.5 * losses["vq"].item())
    losses["vq"].backward()
    assert features.grad is None and quantizer.embedding.weight.grad.abs().sum() > 0


def test_codebook_usage_counts_the_last_ids_and_runs_in_training_on_cpu():
    quantizer = CodebookQuantizer(8, 4)
    quantizer.codebook_used.fill_(3)
    for _ in range(2):
        quantized = quantizer(torch.randn(1, 4, 4, 4))
    recent = quantizer.codebook_used[-16:].long()
    assert torch.equal(recent, quantized.tokens.flatten())
    assert quantized.losses["usage"].item() == pytest.approx(len(quantizer.codebook_used.unique()) / 8)
    assert quantizer.codebook_used.shape == (USAGE_WINDOW,)


def test_assignment_entropy_is_lowest_for_sure_and_even_assignments():
    even = torch.eye(4)
    assert assignment_entropy(even).item() == pytest.approx(-math.log(4), abs=1e-3)
    assert assignment_entropy(torch.zeros(4, 4)).item() == pytest.approx(0, abs=1e-3)
    collapsed = torch.eye(4)[:1].repeat(4, 1)
    assert assignment_entropy(collapsed).item() == pytest.approx(0, abs=1e-3)
