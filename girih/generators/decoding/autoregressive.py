"""Next-token decoding, one cell after another in the layout's order.

Knows the loop: ask for the next step, guide, choose, commit. Does not know prompts or pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from diffusers import ConfigMixin, SchedulerMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor

from girih.generators.conditioning import Condition
from girih.generators.decoding.guidance import Guidance
from girih.generators.decoding.sampling import Sampling
from girih.generators.decoding.state import State
from girih.generators.next_token import NextTokenGenerator


class Autoregressive(SchedulerMixin, ConfigMixin):
    """Draw each step from the model's law given all earlier steps.

    ``guidance_interval``: last guided step, -1 = all; see ``Guidance``.
    """

    @register_to_config
    def __init__(self, guidance_interval: int = -1) -> None:
        pass

    def __call__(self, models: Mapping[str, NextTokenGenerator], state: State, guide: Guidance) -> Iterator[State]:
        """Fill ``state`` step by step, yielding it after each; ``models`` needs "generator"."""
        generator = models["generator"]
        rows, steps = state.tokens.shape
        cache = generator.new_cache(state.condition.rows)
        cells = torch.tensor(generator.layout.order, device=state.tokens.device)
        tokens, fed = state.tokens, 0  # how many of them are in the cache
        for step in range(steps):
            if state.tokens is not tokens:  # replaced by a callback: the cache holds what no longer stands there
                tokens, fed, cache = state.tokens, 0, generator.new_cache(state.condition.rows)
            state.step = step + 1
            if bool(state.known[:, step].all()):
                yield state
                continue
            history = state.tokens[:, fed:step]
            features = generator(history.repeat(state.condition.rows // rows, 1), state.condition, cache)
            cache.commit()
            fed = step
            # Scores are linear in features up to a constant a row, so guiding features spares the head half its rows.
            logits = generator.head.scores(guide.mix(features[:, -1], step))
            cell = cells[step].expand(rows)
            state.stats["target_calls"] += 1
            if state.canonical:
                values, undecided = state.sampling.draw(logits, state.keys, cell, guide.amplification)
                for row in undecided.nonzero()[:, 0].tolist():
                    values[row] = settle(generator, state, guide, row, step, cell[:1])
                    state.stats["settled_alone"] += 1
            else:
                values = state.sampling.choose(logits, state.keys, cell)
            state.tokens[:, step] = torch.where(state.known[:, step], state.tokens[:, step], values)
            state.known[:, step] = True
            yield state


def settle(generator: NextTokenGenerator, state: State, guide: Guidance, row: int, step: int, cell: Tensor) -> Tensor:
    """The value of one row's step by one uncached pass over that row (and its guided partner) alone.

    Matrix products differ in the last bits with the number of rows; this pass always has the same shape for the same
    picture, so what it decides does not depend on the batch.
    """
    picked = torch.arange(row, state.condition.rows, state.rows, device=state.tokens.device)
    history = state.tokens[row : row + 1, :step].expand(len(picked), -1)
    features = generator(history, state.condition.select(picked))
    logits = generator.head.scores(guide.mix(features[:, -1], step))
    return state.sampling.choose(logits, state.keys[row : row + 1], cell)[0]


@torch.no_grad()
def greedy(generator: NextTokenGenerator, condition: Condition, guide: Guidance | None = None) -> Tensor:
    """The likeliest token of every step, LongTensor [rows, steps]; with guidance ``condition`` holds the pair."""
    guide = guide or Guidance()
    rows = condition.rows // (2 if guide.paired else 1)
    device = condition.prefix.device
    tokens = torch.zeros(rows, len(generator.layout), dtype=torch.long, device=device)
    known, keys = torch.zeros_like(tokens, dtype=torch.bool), torch.zeros(rows, dtype=torch.long, device=device)
    state = State(tokens, known, keys, condition, Sampling(temperature=0.0), canonical=False)
    for _ in Autoregressive()({"generator": generator}, state, guide):
        pass
    return state.tokens
