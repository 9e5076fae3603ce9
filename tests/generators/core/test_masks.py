"""Each rule against a plain loop that says it in words, and both ways of using a rule against each other."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.attention.flex_attention import flex_attention

from girih.generators.core import masks
from girih.generators.core.attention import attend
from girih.generators.core.masks import Mask, MayAttend


def table(rule: MayAttend, rows: int, slots: int) -> list[list[list[bool]]]:
    return Mask(rule, torch.arange(slots).expand(rows, -1), slots).bias[:, 0].tolist()


def loop(says: Callable[[int, int, int], bool], rows: int, slots: int) -> list[list[list[bool]]]:
    return [[[bool(says(row, query, key)) for key in range(slots)] for query in range(slots)] for row in range(rows)]


def test_causal_and_full():
    assert table(masks.causal, 1, 6) == loop(lambda row, query, key: key <= query, 1, 6)
    assert table(masks.full, 1, 4) == loop(lambda row, query, key: True, 1, 4)


@given(prefix=st.integers(0, 7))
def test_prefix_bidirectional(prefix):
    def says(row: int, query: int, key: int) -> bool:
        return key < prefix or key <= query

    assert table(masks.prefix_bidirectional(prefix), 1, 7) == loop(says, 1, 7)


@given(visible=st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=1, max_size=3))
def test_padded_prefix(visible):
    def says(row: int, query: int, key: int) -> bool:
        if key == query:
            return True
        hidden = key < 4 and not visible[row][key]
        return key < query and not hidden

    rule = masks.padded_prefix(torch.tensor(visible))
    assert table(rule, len(visible), 7) == loop(says, len(visible), 7)


@given(visible=st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=1, max_size=3))
def test_visible_keys(visible):
    rule = masks.visible_keys(torch.tensor(visible))
    assert table(rule, len(visible), 5) == loop(lambda row, query, key: visible[row][key], len(visible), 5)


@given(lengths=st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_scale_causal(lengths):
    scale = [number for number, length in enumerate(lengths) for _ in range(length)]
    found = table(masks.scale_causal(lengths), 1, len(scale))
    assert found == loop(lambda row, query, key: scale[key] <= scale[query], 1, len(scale))


@given(data=st.data())
def test_tree(data):
    nodes = data.draw(st.integers(1, 6))
    parents = [data.draw(st.integers(-1, node - 1)) for node in range(nodes)]
    starts = data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=3))

    def line(node: int) -> set[int]:
        return set() if node < 0 else {node} | line(parents[node])

    rule = masks.tree(torch.tensor(parents), torch.tensor(starts))
    keys = max(starts) + nodes
    queries = torch.tensor(starts)[:, None] + torch.arange(nodes)
    found = Mask(rule, queries, keys).bias[:, 0].tolist()
    for row, start in enumerate(starts):
        for node in range(nodes):
            seen = {key for key in range(keys) if found[row][node][key]}
            assert seen == set(range(start)) | {start + other for other in line(node)}


RULES = {
    "causal": masks.causal,
    "prefix": masks.prefix_bidirectional(3),
    "padded": masks.padded_prefix(torch.tensor([[False, True, True], [True, True, True]])),
    "scales": masks.scale_causal([1, 3, 5]),
    "tree": masks.tree(torch.tensor([-1, 0, 0]), torch.tensor([6, 4])),
}


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_flex_attention_and_sdpa_agree(name, kv_heads):
    """The same Mask through the GPU's function (eager here) and the CPU's, grouped heads included."""
    staged = torch.tensor([6, 4])[:, None] + torch.arange(3)
    queries = staged if name == "tree" else torch.arange(9).expand(2, -1)
    mask = Mask(RULES[name], queries, 9)
    query = torch.randn(2, 4, queries.shape[1], 16)
    key, value = torch.randn(2, 2, kv_heads, 9, 16)
    flexed = flex_attention(query, key, value, block_mask=mask.block_mask, enable_gqa=kv_heads != 4)
    torch.testing.assert_close(flexed, attend(query, key, value, mask), atol=1e-5, rtol=1e-5)


def test_attention_against_its_formula():
    query, key, value = torch.randn(3, 2, 4, 5, 8)
    scores = (query @ key.mT / 8**0.5).masked_fill(torch.ones(5, 5).triu(1).bool(), -torch.inf)
    mask = Mask(masks.causal, torch.arange(5)[None], 5)
    torch.testing.assert_close(attend(query, key, value, mask), scores.softmax(-1) @ value, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(attend(query, key, value, None), (query @ key.mT / 8**0.5).softmax(-1) @ value,
                               atol=1e-5, rtol=1e-5)
