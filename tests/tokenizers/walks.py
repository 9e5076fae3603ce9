"""Walks through a grammar for the tests of every language: uniform over what is allowed, and by a hostile model."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from girih.spec import Grammar
from girih.tokenizers.grammars import RecordGrammar

# How many walks a language takes: a few in every run, many behind the marker. ``@pytest.mark.parametrize(*WALKS)``.
WALKS = ("count", [500, pytest.param(10_000, marks=pytest.mark.slow)])


def walk(grammar: Grammar, rows: int, longest: int, seed: int = 0) -> Tensor:
    """Token sequences [rows, n] that end inside ``longest`` tokens, by three kinds of choosers, rows in turn.

    Uniform over the allowed tokens; always the likeliest of one fixed row of scores, so the same few tokens again and
    again; the same with low ids preferred, so that most end tokens come last. Asserts on the way that no mask is empty
    and that ``forced`` says what the mask says.
    """
    noise = torch.Generator().manual_seed(seed)
    size = grammar.vocab_size
    kind = torch.arange(rows)[:, None] % 3
    fixed = torch.randn(rows, size, generator=noise) * 20
    fixed = torch.where(kind == 2, fixed + torch.linspace(50, 0, size), fixed)
    state, taken = grammar.start(rows), []
    for _ in range(longest):
        if bool(grammar.done(state).all()):
            break
        allowed = grammar.mask(state)
        assert bool(allowed.any(-1).all()), "a row has no way on"
        forced = grammar.forced(state)
        assert torch.equal(forced >= 0, allowed.sum(-1) == 1)
        fresh = torch.rand(rows, size, generator=noise)
        scores = torch.where(kind == 0, fresh, fixed).masked_fill(~allowed, -torch.inf)
        tokens = scores.argmax(-1)
        assert bool(((forced < 0) | (forced == tokens)).all())
        taken.append(tokens)
        state = grammar.advance(state, tokens)
    assert bool(grammar.done(state).all()), f"not every row ended within {longest} tokens"
    return torch.stack(taken, 1)


def assert_the_end_is_near(grammar: RecordGrammar, steps: int, rows: int = 8, seed: int = 0) -> None:
    """From every state of a uniform walk of ``steps`` tokens the automaton's shortest way ends every row in time.

    So ``done`` is reachable from each state, and no rule closes or lengthens the way that ``limit`` counts on.
    """
    noise = torch.Generator().manual_seed(seed)
    cost = grammar.automaton.cost
    state = grammar.start(rows)
    for _ in range(steps):
        fork = state
        for _ in range(int(cost[fork["at"]].min(-1).values.max())):
            ways = cost[fork["at"]].long().masked_fill(~grammar.mask(fork), 2**15)
            fork = grammar.advance(fork, ways.argmin(-1))
        assert bool(grammar.done(fork).all()), "the shortest way does not lead to the end"
        allowed = grammar.mask(state)
        tokens = torch.rand(allowed.shape, generator=noise).masked_fill(~allowed, -1).argmax(-1)
        state = grammar.advance(state, tokens)
