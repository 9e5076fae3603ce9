"""Quantizers: digits are a bijection, codes come back from ids, training moves what it should."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from vector_quantize_pytorch import LFQ, GroupedResidualFSQ

from girih.spec import digits, from_digits
from girih.tokenizers.quantizers import (
    USAGE_WINDOW,
    AveragingCodebookQuantizer,
    CodebookQuantizer,
    FiniteScalarQuantizer,
    GroupedResidualScalarQuantizer,
    ResidualCodebookQuantizer,
    SignQuantizer,
    assignment_entropy,
    codebook_use,
)
from girih.tokenizers.quantizers.bits import entropy_of_mean

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


def random(*shape, seed=0, scale=1.0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale


# --- How codes are used -----------------------------------------------------------------------------------------------


@given(counts=st.lists(st.integers(1, 50), min_size=1, max_size=20))
def test_codebook_use_is_what_the_counts_say(counts):
    tokens = torch.repeat_interleave(torch.arange(len(counts)) * 3, torch.tensor(counts))
    use = codebook_use(tokens[torch.randperm(len(tokens))].reshape(1, -1), 100)
    share = [count / sum(counts) for count in counts]
    assert use.used == len(counts) and use.share_used == pytest.approx(len(counts) / 100)
    assert use.top_share == pytest.approx(max(share))
    assert use.perplexity == pytest.approx(math.prod(p**-p for p in share))


def test_codebook_use_counts_huge_vocabularies_and_refuses_other_ids():
    use = codebook_use(torch.tensor([2**40, 2**40, 5, 7]), 2**41)
    assert use.used == 3 and use.top_share == 0.5
    with pytest.raises(ValueError, match=r"in \[0, 7\], got 0 to 8"):
        codebook_use(torch.tensor([0, 8]), 8)
    with pytest.raises(ValueError, match="no tokens"):
        codebook_use(torch.zeros(0, dtype=torch.long), 8)


# --- Moving averages and residuals ------------------------------------------------------------------------------------


@pytest.mark.parametrize("l2_norm", [False, True])
def test_averaging_codebook_picks_the_nearest_and_follows_the_data(l2_norm):
    torch.manual_seed(0)
    quantizer = AveragingCodebookQuantizer(16, 4, l2_norm=l2_norm, decay=0.5, dead_below=0.5)
    features = random(4, 4, 6, 6) * 0.3 + 1
    target = F.normalize(features, dim=1) if l2_norm else features
    before = F.mse_loss(quantizer.eval()(features).codes, target)
    for _ in range(8):
        assert quantizer.train()(features).losses.keys() == {"commit"}
    quantized = quantizer.eval()(features)
    assert F.mse_loss(quantized.codes, target) < 0.5 * before
    flat = target.movedim(1, -1).reshape(-1, 4)
    assert torch.equal(quantized.tokens.flatten(), torch.cdist(flat, quantizer.vq.codebook).argmin(1))
    torch.testing.assert_close(quantizer.lookup(quantized.tokens), quantized.codes)
    assert quantized.tokens.shape == (4, 6, 6) and quantized.losses == {}


def test_averaging_codebook_passes_gradients_straight_through():
    features = random(1, 4, 2, 2).requires_grad_()
    AveragingCodebookQuantizer(8, 4, commit_weight=0.0).train()(features).codes.sum().backward()
    torch.testing.assert_close(features.grad, torch.ones_like(features))


@pytest.mark.parametrize("cells", [(12,), (5, 6), (2, 3, 4)])
def test_residual_codebooks_decode_any_prefix_better_the_longer(cells):
    torch.manual_seed(0)
    quantizer = ResidualCodebookQuantizer(16, 4, depth=4, decay=0.5, kmeans_init=True)
    features = random(8, 4, *cells)
    for _ in range(4):
        quantizer.train()(features)
    quantized = quantizer.eval()(features)
    assert quantized.tokens.shape == (8, 4, *cells)
    torch.testing.assert_close(quantizer.lookup(quantized.tokens), quantized.codes)
    errors = [F.mse_loss(quantizer.lookup(quantized.tokens[:, :depth]), features).item() for depth in range(1, 5)]
    assert all(later < 0.9 * earlier for earlier, later in itertools.pairwise(errors))
    with pytest.raises(ValueError, match="1 to 4 codebooks"):
        quantizer.lookup(torch.zeros(1, 5, *cells, dtype=torch.long))


# --- Grouped residual scalars -----------------------------------------------------------------------------------------


@given(levels=st.lists(st.integers(3, 8), min_size=1, max_size=4), groups=st.integers(1, 3), depth=st.integers(1, 3),
       project=st.booleans(), seed=st.integers(0, 2**31))  # fmt: skip
def test_symmetric_grouped_residual_scalars_are_the_librarys(levels, groups, depth, project, seed):
    torch.manual_seed(seed)
    dim = groups * (len(levels) + 2 if project else len(levels))
    library = GroupedResidualFSQ(dim=dim, groups=groups, levels=levels, num_quantizers=depth)
    ours = GroupedResidualScalarQuantizer(dim, levels, groups, depth, rounding="symmetric")
    if project:
        for group, part in enumerate(library.rvqs):
            ours.rvqs[group].load_state_dict(part.state_dict())
    features = torch.randn(2, dim, 7) * 2
    codes, indices = library(features.mT)[:2]
    quantized = ours(features)
    expected = indices.permute(1, 0, 3, 2).flatten(1, 2)  # [groups, B, n, depth] to [B, groups * depth, n]
    same = (quantized.tokens == expected).all(1)
    assert same.float().mean() > 0.9  # a value on a border may go either way
    torch.testing.assert_close(quantized.codes.movedim(1, -1)[same], codes[same], atol=1e-5, rtol=1e-5)


@given(levels=LEVELS, groups=st.integers(1, 3), depth=st.integers(1, 3),
       rounding=st.sampled_from(["tanh", "symmetric"]), seed=st.integers(0, 2**31))  # fmt: skip
def test_grouped_residual_scalars_lookup_gives_the_codes(levels, groups, depth, rounding, seed):
    quantizer = GroupedResidualScalarQuantizer(groups * len(levels), levels, groups, depth, rounding)
    quantized = quantizer(random(2, groups * len(levels), 3, 4, seed=seed, scale=3.0))
    assert quantized.tokens.shape == (2, groups * depth, 3, 4)
    assert 0 <= quantized.tokens.min() and quantized.tokens.max() < quantizer.vocab_size
    torch.testing.assert_close(quantizer.lookup(quantized.tokens), quantized.codes, atol=1e-5, rtol=1e-5)


@given(level=st.integers(3, 9), depth=st.integers(1, 4), seed=st.integers(0, 2**31))
def test_each_symmetric_stage_divides_the_error_bound_by_the_levels(level, depth, seed):
    quantizer = GroupedResidualScalarQuantizer(3, [level] * 3, depth=depth, rounding="symmetric")
    features = random(2, 3, 50, seed=seed, scale=3.0)
    seen = quantizer.rounding.prepare(features.movedim(1, -1)).movedim(-1, 1)
    error = (quantizer(features).codes - seen).abs().max()
    assert error <= level ** (1 - depth) / (level - 1) + 1e-5


def test_tanh_rounding_is_plain_fsq_of_the_bounded_input():
    # What tells the two versions of the library apart: the older residual form bounds twice.
    quantizer = GroupedResidualScalarQuantizer(4, [8, 5, 5, 5], rounding="tanh")
    features = random(2, 4, 3, 3, scale=2.0)
    bounded = quantizer.rounding.bound(features.movedim(1, -1)).movedim(-1, 1)
    plain = FiniteScalarQuantizer([8, 5, 5, 5])(bounded)
    assert torch.equal(quantizer(features).tokens[:, 0], plain.tokens)
    torch.testing.assert_close(quantizer(features).codes, plain.codes)


def test_grouped_residual_scalars_run_in_half_precision():
    quantizer = GroupedResidualScalarQuantizer(16, [8, 5, 5, 5], groups=2, depth=2).bfloat16()
    quantized = quantizer(random(1, 16, 9).bfloat16())
    assert quantized.codes.dtype == torch.bfloat16
    torch.testing.assert_close(quantizer.lookup(quantized.tokens), quantized.codes, atol=0.05, rtol=0.05)


def test_grouped_residual_scalars_pass_gradients_and_refuse_what_does_not_fit():
    features = torch.zeros(1, 2, 3, requires_grad=True)
    GroupedResidualScalarQuantizer(2, [5, 5])(features).codes.sum().backward()
    assert features.grad is not None and (features.grad > 0.5).all()
    with pytest.raises(ValueError, match="7 channels do not divide into 2 groups"):
        GroupedResidualScalarQuantizer(7, [5, 5], groups=2)
    with pytest.raises(ValueError, match="unknown rounding 'tan'"):
        GroupedResidualScalarQuantizer(2, [5, 5], rounding="tan")
    with pytest.raises(ValueError, match="2 codebooks"):
        GroupedResidualScalarQuantizer(4, [5, 5], groups=2).lookup(torch.zeros(1, 3, 4, dtype=torch.long))


# --- Signs ------------------------------------------------------------------------------------------------------------

ORDERS = st.sampled_from(["little", "big"])


@given(dim=st.integers(1, 62), order=ORDERS, seed=st.integers(0, 2**31))
def test_signs_and_ids_are_one_to_one(dim, order, seed):
    quantizer = SignQuantizer(dim, order, entropy_groups=-(-dim // 20))
    codes = torch.where(random(2, dim, 3, seed=seed) > 0, 1.0, -1.0)
    tokens = quantizer(codes).tokens
    assert tokens.min() >= 0 and tokens.max() < quantizer.vocab_size
    assert torch.equal(quantizer.lookup(tokens), codes)
    assert torch.equal(quantizer(quantizer.lookup(tokens)).tokens, tokens)


def test_bit_order_says_which_channel_counts_most_and_zero_is_minus_one():
    features = torch.tensor([0.5, -1.0, 0.0, -0.1]).view(1, 4, 1)
    assert SignQuantizer(4, "little")(features).tokens.item() == 1
    assert SignQuantizer(4, "big")(features).tokens.item() == 8
    assert SignQuantizer(4)(features).codes.flatten().tolist() == [1, -1, -1, -1]


@pytest.mark.parametrize("spherical", [False, True])
def test_signs_are_those_of_the_library(spherical):
    features = random(2, 6, 4, 5)
    library = LFQ(dim=6, codebook_size=64, spherical=spherical).eval()
    codes, indices, _ = library(features)
    quantized = SignQuantizer(6, "big", spherical=spherical).eval()(features)
    assert torch.equal(quantized.tokens, indices)
    torch.testing.assert_close(quantized.codes, codes, atol=1e-5, rtol=1e-5)
    if spherical:
        torch.testing.assert_close(quantized.codes.norm(dim=1), torch.ones(2, 4, 5))


@given(dim=st.integers(1, 7), spherical=st.booleans(), scale=st.sampled_from([1e-3, 0.02, 1.0]),
       seed=st.integers(0, 2**31))  # fmt: skip
def test_factorised_entropies_are_those_of_the_enumerated_codebook(dim, spherical, scale, seed):
    quantizer = SignQuantizer(dim, spherical=spherical)
    features = random(2, dim, 5, seed=seed, scale=scale).double()
    every = quantizer.lookup(torch.arange(2**dim)[None])[0].T.double()
    rows = features.movedim(1, -1).reshape(-1, dim)
    rows = F.normalize(rows, dim=-1) if spherical else rows
    chances = (2 * rows @ every.T / quantizer.temperature).softmax(-1)
    certainty = torch.special.entr(chances).sum(-1).mean()
    mean = chances.mean(0)
    diversity = -(mean * (mean + 1e-5).log()).sum()
    made = quantizer.entropies(features)
    torch.testing.assert_close(made[0].double(), certainty, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(made[1].double(), diversity, atol=1e-4, rtol=1e-4)


@given(groups=st.integers(2, 8), seed=st.integers(0, 2**31))
def test_entropy_in_groups_is_an_upper_bound(groups, seed):
    features = random(1, 8, 20, seed=seed, scale=0.02)
    exact, bound = (SignQuantizer(8, entropy_groups=n).entropies(features)[1] for n in (1, groups))
    assert bound >= exact - 1e-3  # the 1e-5 in the logarithm moves both a little


def test_eighteen_bits_train_without_a_table_of_tokens_by_codes():
    features = random(2, 18, 32, 32, scale=0.05).requires_grad_()
    losses = SignQuantizer(18).train()(features).losses
    losses["entropy"].backward()
    assert torch.isfinite(features.grad).all() and features.grad.abs().sum() > 0
    assert entropy_of_mean(torch.full((3, 16), 0.5)).item() == pytest.approx(16 * math.log(2), abs=1)


def test_entropy_is_finite_where_a_sign_is_sure():
    features = torch.tensor([[-1e4, 1e4, 0.0]]).T[None].requires_grad_()
    certainty, _ = SignQuantizer(3).entropies(features)
    certainty.backward()
    assert torch.isfinite(certainty) and torch.isfinite(features.grad).all()


def test_sign_losses_and_straight_through_gradient():
    features = random(1, 4, 6).requires_grad_()
    quantized = SignQuantizer(4, commit_weight=0.5).train()(features)
    assert quantized.losses["commit"].item() == pytest.approx(
        0.5 * F.mse_loss(features, features.sign()).item(), rel=1e-5
    )
    quantized.codes.sum().backward()
    torch.testing.assert_close(features.grad, torch.ones_like(features))


def test_sign_quantizer_refuses_what_an_id_cannot_hold():
    with pytest.raises(ValueError, match="unknown bit order 'lsb'"):
        SignQuantizer(4, "lsb")
    with pytest.raises(ValueError, match="1 to 62 bits, got 63"):
        SignQuantizer(63)
    with pytest.raises(ValueError, match="36 bits in 1 entropy groups"):
        SignQuantizer(36)
