"""Exact ties at a filter's border: no sort order, batch or place in it may decide them unnoticed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from girih.generators.decoding.autoregressive import Autoregressive
from girih.generators.decoding.guidance import Guidance
from girih.generators.decoding.sampling import Sampling
from girih.generators.decoding.state import State
from girih.generators.next_token import NextTokenGenerator

SEEDS = 200
# (logits, sampling): values 2 to 5 tie, and the border of what is kept runs through them.
AT_RANK = [3.0, 2.0, 1.0, 1.0, 1.0, 1.0, -4.0, -5.0], Sampling(top_k=4)
AT_SHARE = (torch.tensor([0.3, 0.2, 0.1, 0.1, 0.1, 0.1, 0.06, 0.04]).log().tolist(), Sampling(top_p=0.7))
ON_THE_LINE = (torch.tensor([0.5, 0.25, 0.125, 0.125]).log().tolist(), Sampling(top_p=0.75))
BORDERS = pytest.mark.parametrize(("logits", "sampling"), [AT_RANK, AT_SHARE, ON_THE_LINE],
                                  ids=["top-k rank", "top-p tie", "top-p sum"])


@BORDERS
@pytest.mark.parametrize("vocabulary", [8, 5000])  # sorting takes another way for long rows
def test_a_row_alone_and_in_a_batch_draws_the_same_or_says_so(logits, sampling, vocabulary):
    row = torch.full((vocabulary,), -60.0)
    row[torch.arange(len(logits)) * (vocabulary // 8)] = torch.tensor(logits)
    keys, cell = torch.arange(SEEDS) * 97, torch.zeros(SEEDS, dtype=torch.long)
    together, undecided = sampling.draw(row.expand(SEEDS, -1).contiguous(), keys, cell)
    alone = torch.cat([sampling.draw(row[None], keys[i : i + 1], cell[:1])[0] for i in range(SEEDS)])
    assert torch.equal(together[~undecided], alone[~undecided])
    assert 0 < int(undecided.sum()) < SEEDS


@BORDERS
def test_the_order_of_tied_values_decides_nothing_that_is_not_reported(logits, sampling):
    """The same scores with tied values in other places: what a sort puts first is another value each time."""
    keys, cell = torch.arange(SEEDS) * 97, torch.zeros(SEEDS, dtype=torch.long)
    row = torch.tensor(logits)
    noise = sampling.perturbed(row.expand(SEEDS, -1), keys, cell)[1]
    for order in (torch.arange(len(row)), torch.arange(len(row)).flip(0)):
        shuffled, shuffled_noise = row[order].expand(SEEDS, -1), noise[:, order]
        filtered = sampling.filter(shuffled)
        values = order[(filtered + shuffled_noise).argmax(-1)]
        undecided = sampling.undecided(shuffled, filtered, shuffled_noise)
        if torch.equal(order, torch.arange(len(row))):
            first, reported = values, undecided
    assert torch.equal(first[~(reported | undecided)], values[~(reported | undecided)])
    assert not bool((reported | undecided).all())


def twins() -> NextTokenGenerator:
    """Class-conditional; three values of each four have the same output weights, so that their scores tie exactly."""
    torch.manual_seed(3)
    generator = NextTokenGenerator(
        vocab_size=32, shape=(3, 3), condition={"kind": "class", "num_classes": 4}, rope_base=10000.0,
        transformer={"dim": 16, "num_layers": 2, "num_heads": 2, "feed_forward_dim": 24}).eval()
    weight = torch.randn(8, 1, 16).repeat(1, 4, 1)
    weight[:, 3] += 0.3 * torch.randn(8, 16)
    generator.head.output.weight.data = weight.flatten(0, 1)
    return generator


def draw(generator: NextTokenGenerator, rows: list[int], sampling: Sampling, scale: float) -> tuple[Tensor, int]:
    """Tokens of class ``row % 4`` and key ``row`` for each row, and how many choices were settled alone."""
    labels, keys = torch.tensor([row % 4 for row in rows]), torch.tensor([row * 1009 for row in rows])
    guide = Guidance(scale)
    classes = torch.cat((labels, torch.full_like(labels, 4))) if guide.paired else labels
    tokens = torch.zeros(len(rows), 9, dtype=torch.long)
    state = State(tokens, tokens > 0, keys, generator.condition(classes), sampling)
    for _ in Autoregressive()({"generator": generator}, state, guide):
        pass
    return state.tokens, state.stats["settled_alone"]


@torch.no_grad()
@pytest.mark.parametrize("scale", [1.0, 2.5])
@pytest.mark.parametrize("sampling", [Sampling(top_k=4), Sampling(top_k=7, temperature=2.0), Sampling(top_p=0.5),
                                      Sampling(top_k=11, top_p=0.8)])
def test_tokens_do_not_depend_on_the_batch_where_scores_tie(sampling, scale):
    generator = twins()
    rows = list(range(8))
    alone = torch.cat([draw(generator, [row], sampling, scale)[0] for row in rows])
    together, settled = draw(generator, rows, sampling, scale)
    assert settled > 0 and torch.equal(together, alone)
    for picked in ([7, 0, 3], [5, 5], [6, 1, 2, 4, 0]):
        assert torch.equal(draw(generator, picked, sampling, scale)[0], alone[picked])
