"""Decoding under a grammar: rows end at different lengths, stay inside the language, and do not depend on the batch."""

from __future__ import annotations

import pytest
import torch

from girih.generators.decoding.autoregressive import Autoregressive
from girih.generators.decoding.guidance import Guidance
from girih.generators.decoding.sampling import Sampling
from girih.generators.decoding.state import State
from girih.generators.next_token import NextTokenGenerator
from girih.tokenizers.grammars import Automaton, RecordGrammar, accepts
from girih.tokenizers.records import Field, FieldQuantizer, Record, RecordSchema

STEPS, PAD, BOS, EOS, MARK = 26, 8, 9, 10, 11


@pytest.fixture(scope="module")
def grammar() -> RecordGrammar:
    """bos, one or more of: mark mark bin bin; eos. Eight bins, and 26 tokens at most."""
    value = Field("value", FieldQuantizer(8))
    pair = Record("pair", (MARK, MARK, value, value))
    schema = RecordSchema((pair,), vocab_size=12, bos=BOS, eos=EOS, pad=PAD)
    automaton = Automaton(schema, {"start": {"pair": "more"}, "more": {"pair": "more", "eos": "end"}})
    return RecordGrammar(automaton, (), limit=STEPS)


@pytest.fixture(scope="module")
def generator() -> NextTokenGenerator:
    torch.manual_seed(0)
    model = NextTokenGenerator(
        12, (STEPS,), {"dim": 32, "num_layers": 2, "num_heads": 4, "feed_forward_dim": 48},
        {"kind": "class", "num_classes": 5}, rope_base=100.0).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3 if parameter.ndim < 2 else parameter.shape[-1] ** -0.5)
    return model.requires_grad_(False)


def run(generator, grammar, keys, scale=1.5, given=()):
    labels = keys % 5
    condition = generator.condition(torch.cat((labels, torch.full_like(labels, 5))))
    tokens = torch.full((len(keys), STEPS), PAD)
    known = torch.zeros_like(tokens, dtype=torch.bool)
    tokens[:, : len(given)], known[:, : len(given)] = torch.tensor(given, dtype=torch.long), True
    state = State(tokens, known, keys, condition, Sampling(), grammar=grammar)
    calls = sum(1 for _ in Autoregressive()({"generator": generator}, state, Guidance(scale)))
    return state, calls


def test_rows_end_at_different_lengths_inside_the_language(generator, grammar):
    state, _ = run(generator, grammar, torch.arange(32))
    assert bool(state.done.all()) and bool(state.known.all())
    assert accepts(grammar, state.tokens).all()
    lengths = (state.tokens == EOS).int().argmax(-1)
    assert len(set(lengths.tolist())) > 2
    for row, end in zip(state.tokens.tolist(), lengths.tolist(), strict=True):
        assert row[0] == BOS and row[end + 1 :] == [PAD] * (STEPS - end - 1)


def test_a_row_does_not_depend_on_its_batch(generator, grammar):
    keys = torch.arange(12) * 7
    together, _ = run(generator, grammar, keys)
    for i in range(0, 12, 5):
        alone, _ = run(generator, grammar, keys[i : i + 1])
        assert torch.equal(alone.tokens[0], together.tokens[i])


def test_what_the_grammar_forces_is_not_asked_for(generator, grammar):
    state, steps = run(generator, grammar, torch.tensor([3]))
    body = int((state.tokens[0] == EOS).int().argmax()) + 1
    assert steps == body
    # bos and the first pair's two marks are forced; later a pair's second mark is.
    assert state.stats["target_calls"] == body - 3 - (body - 2) // 4 + 1


def test_given_tokens_stay_and_are_read(generator, grammar):
    given = (BOS, MARK, MARK, 3, 4, MARK)
    state, _ = run(generator, grammar, torch.arange(6), given=given)
    assert state.tokens[:, : len(given)].tolist() == [list(given)] * 6
    assert accepts(grammar, state.tokens).all()
