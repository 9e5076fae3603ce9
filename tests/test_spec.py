"""Layouts are permutations: to steps and back is where one was."""

from __future__ import annotations

from math import prod

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from girih.spec import Layout, TokenSpec, digits, from_digits


@given(order=st.permutations(range(12)), rows=st.integers(1, 3))
def test_steps_and_cells_are_inverse(order, rows):
    layout = Layout((3, 4), tuple(order))
    cells = torch.arange(rows * 12).reshape(rows, 3, 4)
    steps = layout.to_steps(cells)
    assert torch.equal(layout.to_cells(steps), cells)
    for step, cell in enumerate(order):
        assert torch.equal(steps[:, step], cells[:, cell // 4, cell % 4])
        assert layout.coordinates()[step].tolist() == [cell // 4, cell % 4]


def test_raster_is_row_by_row():
    layout = Layout.raster(2, 3)
    assert len(layout) == 6 and layout.coordinates().tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]
    assert Layout.raster(2, 2, 2).coordinates()[5].tolist() == [1, 0, 1]


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 1, 2, 2), (1, 2, 3, 4)])
def test_an_order_that_is_no_permutation_is_refused(order):
    with pytest.raises(ValueError, match=r"each of the 4 cells of \(2, 2\) exactly once"):
        Layout((2, 2), order)


def test_cells_of_a_spec():
    assert TokenSpec(10, (3, 4)).cells == 12 and TokenSpec(None, (5,)).cells == 5


@given(levels=st.lists(st.integers(2, 5), min_size=1, max_size=4))
def test_digits_count_with_the_first_level_fastest(levels):
    tokens = torch.arange(prod(levels))
    found = digits(tokens, levels)
    assert torch.equal(from_digits(found, levels), tokens)
    for token, row in enumerate(found.tolist()):
        for digit, count in zip(row, levels, strict=True):
            assert digit == token % count
            token //= count
        assert token == 0


def test_a_wrong_number_of_digits_is_refused():
    with pytest.raises(ValueError, match="3 digits a token do not fit the 2 levels"):
        from_digits(torch.zeros(1, 3), (4, 3))
