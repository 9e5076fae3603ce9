"""Records and grammars: bins within their bound, tokens there and back, and masks that say what the states say."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from girih.tokenizers.grammars import Automaton, RecordGrammar, Tuples, accepts
from girih.tokenizers.records import Field, FieldQuantizer, Record, RecordSchema
from tests.tokenizers.walks import WALKS, assert_the_end_is_near, walk

# The peers' conventions: (quantizer, worst error in bins, as the specification table has it).
PEERS = {
    "meshxl": (FieldQuantizer(128), 0.5),
    "magicarticulate": (FieldQuantizer(128, (-0.5, 0.5), offset=0.0), 1.0),
    "unirig": (FieldQuantizer(256, shift=0.0), 1.0),
    "scenescript": (FieldQuantizer(100, (0.0, 5.0), shift=0.0, offset=0.0, rounding="floor"), 1.0),
    "deepcad": (FieldQuantizer(256, shift=0.0, offset=0.0), 1.0),
    "charm": (FieldQuantizer((96, 320, 96), (-0.501, -0.1, 0.1, 0.501)), 0.5),
}


def widths(quantizer: FieldQuantizer, values: torch.Tensor) -> torch.Tensor:
    """The width of the bin of each value."""
    piece = torch.bucketize(values, torch.tensor(quantizer.edges[1:-1], dtype=values.dtype), right=True)
    edges = torch.tensor(quantizer.edges, dtype=values.dtype)
    return ((edges[1:] - edges[:-1]) / torch.tensor(quantizer.counts))[piece]


@pytest.mark.parametrize("name", PEERS)
@given(part=st.lists(st.floats(0, 1), min_size=1, max_size=20))
@settings(max_examples=40, deadline=None)
def test_error_stays_within_the_stated_bound(name, part):
    quantizer, stated = PEERS[name]
    assert quantizer.bound == stated
    low, high = quantizer.edges[0], quantizer.edges[-1]
    values = (torch.tensor([0.0, 1.0, *part], dtype=torch.float64) * (high - low) + low).clamp(low, high)
    bins = quantizer.encode(values)
    assert 0 <= int(bins.min()) and int(bins.max()) < quantizer.size
    error = (quantizer.decode(bins, torch.float64) - values).abs() / widths(quantizer, values)
    assert float(error.max()) <= stated + 1e-9


@pytest.mark.parametrize("name", ["meshxl", "charm", "unirig", "deepcad"])
def test_decoded_bins_encode_to_themselves(name):
    quantizer = PEERS[name][0]
    bins = torch.arange(quantizer.size)
    again = quantizer.encode(quantizer.decode(bins, torch.float64))
    if name == "unirig":  # centres without a shift are ties: half to even moves every second bin up, which is the bias
        assert torch.equal(again, (bins + bins % 2).clamp(max=255))
    else:
        assert torch.equal(again, bins)


def test_rounding_flavours_part_at_ties():
    ties = torch.tensor([0.5, 1.5, 2.5])
    made = {name: FieldQuantizer(4, (0.0, 4.0), shift=0.0, rounding=name).encode(ties).tolist()
            for name in ("half-even", "half-up", "floor")}
    assert made == {"half-even": [0, 2, 2], "half-up": [1, 2, 3], "floor": [0, 1, 2]}


def test_inner_edge_belongs_to_the_upper_piece_and_outside_clips():
    quantizer = FieldQuantizer((2, 4), (0.0, 1.0, 2.0))
    values = torch.tensor([-9.0, 0.0, 0.999, 1.0, 2.0, 9.0])
    assert quantizer.encode(values).tolist() == [0, 0, 1, 2, 5, 5]
    assert quantizer.outside(values).tolist() == [True, False, False, False, False, True]


def test_integers_are_exact():
    whole = torch.arange(1000)
    quantizer = FieldQuantizer.integers(1000)
    assert torch.equal(quantizer.encode(whole), whole) and torch.equal(quantizer.decode(whole), whole.float())


@pytest.mark.parametrize("wrong, words", [
    (lambda: FieldQuantizer(128, rounding="up"), "unknown rounding 'up'"),
    (lambda: FieldQuantizer((4, 4), (0.0, 1.0)), "need 3 edges"),
    (lambda: FieldQuantizer(4, (1.0, 1.0)), "edges must rise"),
    (lambda: FieldQuantizer(4).encode(torch.tensor([0.0, math.nan])), "1 of 2 values are not finite"),
    (lambda: FieldQuantizer(4).decode(torch.tensor([4])), r"bins must be in 0 .. 3, got 4 to 4"),
    (lambda: Record("empty", ()), "has no slots"),
    (lambda: RecordSchema((Record("a", (9,)),), 5), "exceed the 5 ids"),
    (lambda: RecordSchema((Record("a", (1,)), Record("a", (2,))), 5), "different names"),
])  # fmt: skip
def test_what_makes_no_sense_is_refused_in_one_line(wrong, words):
    with pytest.raises(ValueError, match=words) as error:
        wrong()
    assert "\n" not in str(error.value)


DIGIT = FieldQuantizer.integers(4)
PAIR = Record("pair", (9, Field("a", DIGIT, 2), Field("b", DIGIT, 2)))
LONE = Record("lone", (Field("a", DIGIT, 2), 8))
SCHEMA = RecordSchema((PAIR, LONE), 10, bos=0, eos=1, pad=7)
AUTOMATON = Automaton(SCHEMA, {"start": {"pair": "one"}, "one": {"pair": "two", "lone": "one", "eos": "end"},
                               "two": {"lone": "one"}})  # fmt: skip
GRAMMAR = RecordGrammar(AUTOMATON, (Tuples(AUTOMATON, {"pair": ".nn"}, width=2, memory=16),), limit=40)


@given(values=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=9))
def test_records_there_and_back(values):
    bins = torch.tensor(values, dtype=torch.long).reshape(-1, 2)
    tokens = PAIR.to_tokens(bins)
    assert tokens.shape == (len(values), 3) and bool((tokens[:, 0] == 9).all())
    assert torch.equal(PAIR.to_bins(tokens), bins)
    assert torch.equal(PAIR.decode(PAIR.encode(bins.float())), bins.float())


def test_fields_of_different_quantizers_keep_their_columns():
    fine, coarse = FieldQuantizer(100), FieldQuantizer(10, (0.0, 10.0))
    record = Record("mixed", (Field("a", fine), 200, Field("b", coarse, 100), Field("c", fine)))
    values = torch.tensor([[0.25, 7.5, -0.75], [-1.0, 0.5, 0.99]])
    tokens = record.encode(values)
    assert tokens.tolist() == [[62, 200, 107, 12], [0, 200, 100, 99]]
    assert torch.allclose(record.decode(tokens), torch.tensor([[0.25, 7.5, -0.75], [-0.99, 0.5, 0.99]]))


def test_sequences_batch_and_come_apart():
    rows = SCHEMA.batch([SCHEMA.sequence(torch.tensor([9, 2, 3])), SCHEMA.sequence(torch.tensor([9, 2, 3, 5, 8]))])
    assert rows.tolist() == [[0, 9, 2, 3, 1, 7, 7], [0, 9, 2, 3, 5, 8, 1]]
    assert [body.tolist() for body in SCHEMA.bodies(rows)] == [[9, 2, 3], [9, 2, 3, 5, 8]]
    assert AUTOMATON.split(torch.tensor([9, 2, 3, 5, 8])) == [("pair", 0, 3), ("lone", 3, 5)]


@pytest.mark.parametrize("row, words", [
    ([9, 2, 3, 1], "row 0 does not begin with bos 0"),
    ([0, 9, 2, 3], "row 0 has no end token"),
    ([0, 9, 2, 3, 1, 4], "row 0 goes on after its end token at 4"),
    ([0, 9, 2, 3, 10], "tokens must be in 0 .. 9, got 0 to 10"),
])  # fmt: skip
def test_wrong_ends_are_named(row, words):
    with pytest.raises(ValueError, match=words):
        SCHEMA.bodies(torch.tensor([row]))


@pytest.mark.parametrize("body, words", [
    ([9, 2, 8], r"token 2 \(id 8\) may not come here; what may: b of pair"),
    ([9, 2], "stops after 2 tokens, before b of pair"),
    ([9, 2, 3, 9, 2, 4], "before a of lone"),
])  # fmt: skip
def test_a_body_that_does_not_fit_is_named(body, words):
    with pytest.raises(ValueError, match=words):
        AUTOMATON.split(torch.tensor(body))


def test_alike_beginnings_are_shared_and_ambiguous_ones_refused():
    line, arc = Record("line", (Field("x", DIGIT), 5)), Record("arc", (Field("x", DIGIT), Field("mid", DIGIT), 5))
    schema = RecordSchema((line, arc), 7, eos=6)
    automaton = Automaton(schema, {"start": {"line": "start", "arc": "start", "eos": "end"}})
    assert [name for name, *_ in automaton.split(torch.tensor([1, 5, 1, 2, 5]))] == ["line", "arc"]
    assert bool((automaton.here("line", 0) == automaton.here("arc", 0)).all())
    long = Record("long", (Field("x", DIGIT), 5, 5))
    with pytest.raises(ValueError, match="slot 1 of record 'long'"):
        Automaton(RecordSchema((line, long), 7, eos=6), {"start": {"line": "end", "long": "end"}})


@pytest.mark.parametrize("transitions, words", [
    ({"start": {"pair": "nowhere"}}, "leads to 'nowhere'"),
    ({"start": {"pear": "start"}}, "unknown record 'pear'; did you mean 'pair'"),
    ({"begin": {"pair": "end"}}, "no state 'start'"),
    ({"start": {"pair": "start"}}, "no way leads from state 'start' to the end"),
])  # fmt: skip
def test_transitions_that_lead_nowhere_are_refused(transitions, words):
    with pytest.raises(ValueError, match=words):
        Automaton(SCHEMA, transitions)


@pytest.mark.parametrize(*WALKS)
def test_walks_end_in_time_and_are_accepted(count):
    tokens = walk(GRAMMAR, count, longest=40)
    assert bool(accepts(GRAMMAR, tokens).all())
    for body in SCHEMA.bodies(tokens):
        records = AUTOMATON.split(body)
        pairs = [tuple(body[start + 1 : end].tolist()) for name, start, end in records if name == "pair"]
        assert records[0][0] == "pair" and len(set(pairs)) == len(pairs)
        names = [name for name, *_ in records]
        assert "pair pair pair" not in " ".join(names)


def test_the_end_is_near_from_everywhere():
    assert_the_end_is_near(RecordGrammar(AUTOMATON, GRAMMAR.rules), steps=20)


def test_a_grammar_refuses_what_breaks_a_state_a_rule_or_the_length():
    good = torch.tensor([[0, 9, 2, 3, 1, 7]])
    repeated = torch.tensor([[0, 9, 2, 3, 9, 2, 3, 5, 8, 1]])
    assert accepts(GRAMMAR, good).tolist() == [True]
    assert accepts(GRAMMAR, repeated).tolist() == [False]
    assert accepts(RecordGrammar(AUTOMATON), repeated).tolist() == [True]
    assert accepts(GRAMMAR, torch.tensor([[0, 9, 2, 3, 5, 1]])).tolist() == [False]
    assert accepts(GRAMMAR, good[:, :4]).tolist() == [False]  # not done
    with pytest.raises(ValueError, match="a limit of 4 tokens is below the shortest sequence, 5"):
        RecordGrammar(AUTOMATON, limit=4)


def test_states_are_values_that_survive_a_draft():
    state = GRAMMAR.start(2)
    kept = {name: value.clone() for name, value in state.items()}
    drafted = state
    for token in (0, 9, 2, 3, 1, 7):
        drafted = GRAMMAR.advance(drafted, torch.tensor([token, token]))
    assert bool(GRAMMAR.done(drafted).all()) and GRAMMAR.forced(drafted).tolist() == [7, 7]
    assert all(torch.equal(state[name], value) for name, value in kept.items())
    chosen = {name: value[torch.tensor([1, 0, 1])] for name, value in drafted.items()}
    assert GRAMMAR.mask(chosen).shape == (3, 10)


def test_known_tuples_are_the_only_ones_offered():
    """Bones: a parent is a joint seen before, a child is a new one; the tree grows by construction."""
    joint = tuple(Field(axis, DIGIT) for axis in "xyz")
    schema = RecordSchema((Record("root", joint * 2), Record("bone", joint * 2)), 5, eos=4)
    automaton = Automaton(schema, {"start": {"root": "more"}, "more": {"bone": "more", "eos": "end"}})
    rule = Tuples(automaton, {"root": "nnnnnn", "bone": "kkknnn"}, memory=64)
    tokens = walk(RecordGrammar(automaton, (rule,), limit=61), 60, longest=61)
    for body in schema.bodies(tokens):
        joints = [tuple(one) for one in body.reshape(-1, 3).tolist()]
        seen = joints[:1]
        for parent, child in zip(joints[::2], joints[1::2], strict=True):
            assert parent in seen and child not in seen
            seen.append(child)


@pytest.mark.parametrize("pattern", ["nn", "nnn.n", ".nk", "n.."])
def test_a_pattern_that_does_not_fit_is_refused(pattern):
    with pytest.raises(ValueError, match="pattern"):
        Tuples(AUTOMATON, {"pair": pattern}, width=2)


def test_tables_and_rules_move_to_a_device_together():
    moved = GRAMMAR.to("meta")  # a device without numbers: operations across devices fail, shapes are kept
    state = moved.advance(moved.start(3), torch.zeros(3, dtype=torch.long, device="meta"))
    assert {value.device.type for value in state.values()} == {"meta"}
    assert moved.mask(state).shape == (3, 10) and moved.mask(state).is_meta and moved.done(state).is_meta
    assert not GRAMMAR.mask(GRAMMAR.start(1)).is_meta


def test_an_empty_batch_is_refused():
    with pytest.raises(ValueError, match="nothing to put into a batch"):
        SCHEMA.batch([])
