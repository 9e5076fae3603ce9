"""The cache against a list of lists: staged slots are kept in part, thrown away, and rows are picked."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from girih.generators.core.cache import Cache

ROWS, HEADS, SLOTS, WIDTH = 3, 2, 12, 4


def stage(cache: Cache, n: int) -> tuple[Tensor, Tensor]:
    """Stage ``n`` slots with random content in every layer; returns the keys and values of layer 0."""
    cache.stage(n)
    first = None
    for layer in range(len(cache.owners)):
        pair = torch.randn(2, cache.rows, HEADS, n, WIDTH)
        cache.write(layer, *pair)
        first = pair if first is None else first
    return first[0], first[1]


def held(cache: Cache, row: int) -> Tensor:
    return cache.keys[0][row, :, : cache.lengths[row]]


@pytest.mark.parametrize(("dtype", "size"), [(torch.float32, 4), (torch.bfloat16, 2)])
@pytest.mark.parametrize("owners", [[0, 1, 2], [0, 0, 1, 1]])
def test_bytes_is_the_formula(dtype, size, owners):
    storages = len(set(owners))
    assert Cache(owners, 3, 2, 10, 8, dtype).bytes() == 2 * storages * 3 * 2 * 10 * 8 * size


def test_layers_with_one_owner_share_what_is_written():
    cache = Cache([0, 0], ROWS, HEADS, SLOTS, WIDTH)
    cache.stage(2)
    key, value = torch.randn(2, ROWS, HEADS, 2, WIDTH)
    cache.write(0, key, value)
    assert cache.keys[cache.owners[1]] is cache.keys[0] and torch.equal(cache.keys[0][:, :, :2], key)


@given(data=st.data())
def test_commits_and_discards_are_those_of_a_list(data):
    torch.manual_seed(data.draw(st.integers(0, 99)))
    cache = Cache([0, 1], ROWS, HEADS, SLOTS, WIDTH)
    model: list[list[Tensor]] = [[] for _ in range(ROWS)]
    for _ in range(data.draw(st.integers(1, 4))):
        room = SLOTS - max(cache.lengths)
        if room == 0:
            break
        n = data.draw(st.integers(1, min(4, room)))
        before = list(cache.lengths)
        key, _ = stage(cache, n)
        assert cache.staged == n and cache.end == max(before) + n
        choice = data.draw(st.sampled_from(["all", "some", "none"]))
        if choice == "all":
            cache.commit()
            kept = [list(range(n))] * ROWS
        elif choice == "none":
            cache.discard()
            kept = [[]] * ROWS
        else:
            kept = [sorted(data.draw(st.sets(st.integers(0, n - 1)))) for _ in range(ROWS)]
            cache.commit(torch.tensor([slots + [-1] * (n - len(slots)) for slots in kept]))
        for row, slots in enumerate(kept):
            model[row] += [key[row, :, slot] for slot in slots]
            assert cache.lengths[row] == len(model[row]) and cache.staged == 0
            if model[row]:
                assert torch.equal(held(cache, row), torch.stack(model[row], 1))


def test_slots_of_ragged_rows_follow_their_own_end():
    cache = Cache([0], ROWS, HEADS, SLOTS, WIDTH)
    assert cache.stage(3).tolist() == [[0, 1, 2]] and cache.uniform
    cache.commit(torch.tensor([[0, 1, 2], [0, -1, -1], [0, 2, -1]]))
    assert cache.lengths == [3, 1, 2] and not cache.uniform and cache.starts().tolist() == [3, 1, 2]
    assert cache.stage(2).tolist() == [[3, 4], [1, 2], [2, 3]]


def test_selected_rows_are_copies():
    cache = Cache([0, 1], ROWS, HEADS, SLOTS, WIDTH)
    key, _ = stage(cache, 3)
    cache.commit(torch.tensor([[0, 1, 2], [0, -1, -1], [0, 1, -1]]))
    fork = cache.select(torch.tensor([2, 0, 2]))
    assert fork.lengths == [2, 3, 2] and fork.bytes() == cache.bytes()
    assert torch.equal(held(fork, 0), key[2, :, :2]) and torch.equal(held(fork, 1), key[0])
    stage(fork, 2)
    fork.commit()
    assert cache.lengths == [3, 1, 2] and torch.equal(held(cache, 2), key[2, :, :2])


def test_too_many_slots_are_refused():
    cache = Cache([0], ROWS, HEADS, SLOTS, WIDTH)
    stage(cache, SLOTS - 1)
    cache.commit()
    with pytest.raises(ValueError, match="12 slots; 11 committed \\+ 2 staged"):
        cache.stage(2)
    cache.stage(1)
