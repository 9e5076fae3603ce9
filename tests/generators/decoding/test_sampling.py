"""Filters are transformers', draws follow the law, and a choice that rounding could turn is reported."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from girih.generators.decoding.sampling import NEAR, Sampling, inverse_draw

ROWS, VALUES = 64, 24
SAMPLINGS = st.builds(
    Sampling, temperature=st.sampled_from([0.0, 0.2, 1.0, 1.7]), top_k=st.sampled_from([0, 1, 5, 24]),
    top_p=st.sampled_from([1.0, 0.9, 0.4]), min_p=st.sampled_from([0.0, 0.05, 0.5]))


@given(sampling=SAMPLINGS)
def test_filters_are_those_of_transformers(sampling):
    logits = torch.randn(ROWS, VALUES) * 3
    expected, ids = logits, torch.empty(ROWS, 0, dtype=torch.long)
    if sampling.temperature > 0:
        expected = TemperatureLogitsWarper(sampling.temperature)(ids, expected)
        for value, off, warper in ((sampling.top_k, 0, TopKLogitsWarper), (sampling.top_p, 1, TopPLogitsWarper),
                                   (sampling.min_p, 0, MinPLogitsWarper)):
            expected = expected if value == off else warper(value)(ids, expected)
    assert torch.equal(sampling.filter(logits), expected)


@given(sampling=SAMPLINGS)
def test_a_draw_is_among_what_is_kept(sampling):
    logits, keys = torch.randn(ROWS, VALUES) * 3, torch.arange(ROWS)
    values, _ = sampling.draw(logits, keys, keys * 0 + 3)
    assert sampling.filter(logits).gather(1, values[:, None]).isfinite().all()
    if sampling.temperature == 0 or sampling.top_k == 1:
        assert torch.equal(values, logits.argmax(-1))
    again, _ = sampling.draw(logits[5:9], keys[5:9], keys[5:9] * 0 + 3)
    assert torch.equal(again, values[5:9])


@pytest.mark.parametrize("draw", ["gumbel", "inverse"])
def test_draws_follow_the_law(draw):
    n, logits = 20_000, torch.tensor([0.3, -1.2, 2.0, 0.0, -0.4])
    keys, cells = torch.arange(n) * 31, torch.zeros(n, dtype=torch.long)
    rows = logits.expand(n, -1)
    values = inverse_draw(rows, keys, cells) if draw == "inverse" else Sampling().draw(rows, keys, cells)[0]
    expected = logits.softmax(-1) * n
    statistic = ((values.bincount(minlength=5) - expected) ** 2 / expected).sum()
    assert statistic < 20  # 4 degrees of freedom: exceeded once in 2,000


@settings(max_examples=60)
@given(sampling=SAMPLINGS, seed=st.integers(0, 10_000), tight=st.booleans(), amplification=st.sampled_from([1.0, 12.0]))
def test_rounding_never_turns_a_choice_that_is_not_reported(sampling, seed, tight, amplification):
    """The promise behind "same seed, same picture": noise of the size of rounding changes reported rows only."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(400, VALUES, generator=generator) * 2
    if tight:  # many values nearly alike, so that borders and winners really hang on rounding
        logits = (logits * 2).round() / 2 + torch.randn(logits.shape, generator=generator) * 3e-6
    noise = torch.randn(logits.shape, generator=generator).clamp(-3, 3) * 1e-6 * amplification
    keys = torch.arange(400) + seed
    values, undecided = sampling.draw(logits, keys, keys * 0, amplification)
    shaken, _ = sampling.draw(logits + noise, keys, keys * 0, amplification)
    assert torch.equal(values[~undecided], shaken[~undecided])


def one(sampling: Sampling, logits: list[float], noise: list[float] | None = None) -> bool:
    row = torch.tensor([logits])
    filtered = sampling.filter(row)
    return bool(sampling.undecided(row, filtered, torch.zeros_like(row) if noise is None else torch.tensor([noise])))


def test_only_choices_that_hang_on_little_are_reported():
    assert one(Sampling(temperature=0), [1.0, 1.0 + NEAR / 2, 0.0])
    assert not one(Sampling(temperature=0), [1.0, 1.0 + NEAR * 2, 0.0])
    close = [1.0, 0.5, 0.5 + NEAR / 2, 0.0]  # values 1 and 2 stand at the border of the two best
    assert not one(Sampling(top_k=2), close)  # but the first wins by far
    assert one(Sampling(top_k=2), close, [0.0, 0.0, 3.0, 0.0])  # the kept one at the border wins
    assert one(Sampling(top_k=2), close, [0.0, 3.0, 0.0, 0.0])  # the one left out would win
    assert not one(Sampling(top_k=2), [1.0, 0.5, 0.0, -1.0], [0.0, 3.0, 0.0, 0.0])  # a border with a gap
    assert not one(Sampling(), [1.0, 0.0])
    assert not one(Sampling(), [1.0])


def test_few_rows_are_reported():
    keys = torch.arange(5000)
    _, undecided = Sampling(top_k=12, temperature=0.8).draw(torch.randn(5000, VALUES) * 2, keys, keys)
    assert undecided.float().mean() < 0.005


def test_a_threshold_that_is_a_probability_is_a_border_across_a_gap():
    """min_p keeps what is half as likely as the best; a value exactly there may fall out, whatever comes next."""
    border = [0.0, float(torch.log(torch.tensor(0.5))), -9.0]
    assert one(Sampling(min_p=0.5), border, [0.0, 3.0, 0.0])


def test_a_low_temperature_enlarges_errors():
    logits = [1.0, 1.0 - NEAR / 2]
    assert one(Sampling(temperature=0.01), logits) and not one(Sampling(temperature=0.01), [1.0, 1.0 - NEAR * 2])


@pytest.mark.parametrize(("options", "message"), [
    ({"temperature": -0.1}, "temperature must be at least 0, got -0.1"),
    ({"temperature": float("nan")}, "temperature must be at least 0, got nan"),
    ({"top_k": -1}, "top_k must be a whole number of at least 0, got -1"),
    ({"top_k": 1.5}, "top_k must be a whole number"),
    ({"top_p": 0.0}, "top_p must be above 0 and at most 1, got 0.0"),
    ({"top_p": 1.1}, "top_p must be above 0"),
    ({"min_p": 1.0}, "min_p must be at least 0 and below 1"),
])
def test_values_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**options)
