"""Keyed noise is pure, uniform and independent of its company."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from girih.generators.decoding.noise import gumbel, sample_keys, uniform

KEY = st.integers(0, 2**63 - 2)


def chi_square(counts: torch.Tensor, expected: torch.Tensor) -> float:
    """In standard deviations above its mean (degrees of freedom = bins - 1)."""
    freedom = len(counts) - 1
    return float(((counts - expected) ** 2 / expected).sum() - freedom) / (2 * freedom) ** 0.5


@given(keys=st.lists(KEY, min_size=1, max_size=5), cell=st.integers(0, 9999), row=st.integers(0, 4))
def test_a_row_does_not_depend_on_its_company(keys, cell, row):
    row %= len(keys)
    cells = torch.arange(len(keys)) + cell
    together = uniform(torch.tensor(keys), cells, 16, visit=2, component=1)
    alone = uniform(torch.tensor(keys[row : row + 1]), cells[row : row + 1], 16, visit=2, component=1)
    assert torch.equal(together[row], alone[0]) and 0 < together.min() and together.max() < 1
    longer = uniform(torch.tensor(keys), cells, 40, visit=2, component=1)
    assert torch.equal(longer[:, :16], together)


@given(key=KEY, cell=st.integers(0, 9999))
def test_every_coordinate_matters(key, cell):
    def draw(key: int, cell: int, **which: int) -> torch.Tensor:
        return uniform(torch.tensor([key]), torch.tensor([cell]), 4, **which)

    base = draw(key, cell)
    others = [draw(key + 1, cell), draw(key, cell + 1), draw(key, cell, visit=1), draw(key, cell, component=1)]
    assert torch.equal(base, draw(key, cell))
    assert all(not torch.equal(base, other) for other in others)


@pytest.mark.parametrize("varied", ["key", "cell", "value"])
def test_uniform_along_every_coordinate(varied):
    n, bins = 20_000, 50
    many, one = torch.arange(n), torch.full((n,), 7)
    if varied == "value":
        draws = uniform(torch.tensor([3]), torch.tensor([5]), n)[0]
    else:
        draws = uniform(many if varied == "key" else one, many if varied == "cell" else one, 1)[:, 0]
    counts = torch.histc(draws.float(), bins, 0, 1)
    assert chi_square(counts, torch.full((bins,), n / bins)) < 5
    pairs = torch.histc((draws[:-1] * 8).floor() * 8 + (draws[1:] * 8).floor(), 64, 0, 64)  # neighbours, jointly
    assert chi_square(pairs.double(), torch.full((64,), (n - 1) / 64).double()) < 5


def test_gumbel_argmax_samples_the_softmax():
    n, logits = 20_000, torch.tensor([0.3, -1.2, 2.0, 0.0, -0.4])
    drawn = (logits + gumbel(torch.arange(n) * 977, torch.zeros(n, dtype=torch.long), 5)).argmax(-1)
    assert chi_square(drawn.bincount(minlength=5), logits.softmax(-1) * n) < 5


def test_keys_are_successive_draws_of_one_generator_or_the_first_of_each():
    def seeded(seed: int) -> torch.Generator:
        return torch.Generator().manual_seed(seed)

    one = sample_keys([seeded(4)], 3)
    assert len(set(one.tolist())) == 3 and torch.equal(sample_keys([seeded(4)], 3), one)
    each = sample_keys([seeded(4), seeded(5), seeded(4)], 3)
    assert each[0] == each[2] == one[0] and each[1] != each[0]
    torch.manual_seed(9)
    first = sample_keys([None], 2)
    torch.manual_seed(9)
    assert torch.equal(sample_keys([None], 2), first)
