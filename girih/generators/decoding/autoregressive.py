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
        """Fill ``state`` step by step, yielding it after each; ``models`` needs "generator".

        Under ``state.grammar`` only allowed values are drawn, steps that leave no choice in any row are written without
        asking the model, and the call ends with the last row.
        """
        generator = models["generator"]
        rows, steps = state.tokens.shape
        cache = generator.new_cache(state.condition.rows)
        cells = torch.tensor(generator.layout.order, device=state.tokens.device)
        tokens, fed = state.tokens, 0  # how many of them are in the cache
        syntax = Syntax(state)
        for step in range(steps):
            if state.tokens is not tokens:  # replaced by a callback: the cache holds what no longer stands there
                tokens, fed, cache = state.tokens, 0, generator.new_cache(state.condition.rows)
                syntax = Syntax(state, step)
            state.step = step + 1
            settled, values = syntax.settled(step)
            if not bool(settled.all()):
                history = state.tokens[:, fed:step]
                features = generator(history.repeat(state.condition.rows // rows, 1), state.condition, cache)
                cache.commit()
                fed = step
                # Scores are linear in features up to a constant a row: guiding features spares the head half its rows.
                logits = syntax.restrict(generator.head.scores(guide.mix(features[:, -1], step)))
                cell = cells[step].expand(rows)
                state.stats["target_calls"] += 1
                if state.canonical:
                    drawn, undecided = state.sampling.draw(logits, state.keys, cell, guide.amplification)
                    for row in (undecided & ~settled).nonzero()[:, 0].tolist():
                        drawn[row] = settle(generator, state, guide, syntax, row, step, cell[:1])
                        state.stats["settled_alone"] += 1
                else:
                    drawn = state.sampling.choose(logits, state.keys, cell)
                values = torch.where(settled, values, drawn)
            state.tokens[:, step] = values
            state.known[:, step] = True
            syntax.advance(values)
            if bool(state.done.all()):
                state.known[:] = True  # the rest is padding
                yield state
                return
            yield state


class Syntax:
    """The grammar of a call beside its tokens: what is settled before a draw, what a draw may be, and who is done.

    Without a grammar only given values are settled and nobody is ever done.
    """

    def __init__(self, state: State, step: int = 0) -> None:
        """After the first ``step`` tokens of each row."""
        self.state, self.grammar = state, state.grammar
        if self.grammar is not None:
            self.memory = self.grammar.start(state.rows)
            self.allowed = self.grammar.mask(self.memory)
        for past in range(step):
            self.advance(state.tokens[:, past])

    def settled(self, step: int) -> tuple[Tensor, Tensor]:
        """(bool [rows], LongTensor [rows]): which rows' values need no draw at ``step``, and those values."""
        known, values = self.state.known[:, step], self.state.tokens[:, step]
        if self.grammar is None:
            return known, values
        # Grammar.forced, from the mask that a draw needs too.
        forced = self.allowed.sum(-1) == 1
        return known | forced, torch.where(known, values, self.allowed.int().argmax(-1))

    def restrict(self, logits: Tensor, row: int | None = None) -> Tensor:
        """Logits [rows, V] with what may not come at -inf; ``row``: they are of that row alone."""
        if self.grammar is None:
            return logits
        allowed = self.allowed if row is None else self.allowed[row : row + 1]
        return logits.masked_fill(~allowed, -torch.inf)

    def advance(self, values: Tensor) -> None:
        """One more token a row, LongTensor [rows]."""
        if self.grammar is not None:
            self.memory = self.grammar.advance(self.memory, values)
            self.allowed = self.grammar.mask(self.memory)
            self.state.done = self.grammar.done(self.memory)


def settle(generator: NextTokenGenerator, state: State, guide: Guidance, syntax: Syntax, row: int, step: int,
           cell: Tensor) -> Tensor:
    """The value of one row's step by one uncached pass over that row (and its guided partner) alone.

    Matrix products differ in the last bits with the number of rows; this pass always has the same shape for the same
    picture, so what it decides does not depend on the batch.
    """
    picked = torch.arange(row, state.condition.rows, state.rows, device=state.tokens.device)
    history = state.tokens[row : row + 1, :step].expand(len(picked), -1)
    features = generator(history, state.condition.select(picked))
    logits = syntax.restrict(generator.head.scores(guide.mix(features[:, -1], step)), row)
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
