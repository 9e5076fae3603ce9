"""Codebook patterns: the tables of the papers, and the law that no pattern loses or doubles a cell."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from girih.spec import CodebookPattern
from girih.tokenizers import patterns

# Entry = the step that generates the cell, codebook by codebook, for 4 codebooks and 6 frames.
TABLES = {
    "parallel": ({}, ["1 2 3 4 5 6"] * 4),
    "delay": ({}, ["1 2 3 4 5 6", "2 3 4 5 6 7", "3 4 5 6 7 8", "4 5 6 7 8 9"]),
    "flat": ({}, ["1 5 9 13 17 21", "2 6 10 14 18 22", "3 7 11 15 19 23", "4 8 12 16 20 24"]),
    "stack": ({}, ["1 5 9 13 17 21", "2 6 10 14 18 22", "3 7 11 15 19 23", "4 8 12 16 20 24"]),
    "coarse-first": ({}, ["1 2 3 4 5 6", *["7 8 9 10 11 12"] * 3]),
    "unrolled": ({"flattening": [0, 1, 1, 1]}, ["1 3 5 7 9 11", *["2 4 6 8 10 12"] * 3]),
    "grouped": (
        {"group_by": 2},
        ["1 3 5 7 9 11", "2 4 6 8 10 12", "13 15 17 19 21 23", "14 16 18 20 22 24"],
    ),
    "stack-and-delay": (
        {"order": [0, 2, 4, 1, 3, 5]},
        ["1 4 2 5 3 6", "2 5 3 6 4 7", "3 6 4 7 5 8", "4 7 5 8 6 9"],
    ),
}


def steps_of(pattern):
    """[codebooks][frames]: the step of each cell."""
    return [
        [next(s for s, row in enumerate(pattern.table) if row[q] == t) for t in range(pattern.frames)]
        for q in range(pattern.codebooks)
    ]


@pytest.mark.parametrize("name", TABLES)
def test_tables_of_the_papers(name):
    options, rows = TABLES[name]
    assert steps_of(patterns.pattern(name, 4, 6, **options)) == [[int(n) for n in row.split()] for row in rows]


def test_more_tables():
    late = patterns.coarse_first(4, 6, [0, 1, 2])
    assert steps_of(late)[3] == [9, 10, 11, 12, 13, 14] and late.steps == 15
    third = patterns.stack_and_delay(4, 6, [0, 3, 1, 4, 2, 5])
    assert steps_of(third)[0] == [1, 3, 5, 2, 4, 6] and third.steps == 10
    assert steps_of(patterns.stack_and_delay(4, 6, range(6))) == steps_of(patterns.delay(4, 6))


def test_frame_order_keeps_neighbours_apart_where_it_can():
    assert [patterns.separation(patterns.strided(n, 4)) for n in (8, 13, 16, 17, 24, 50)] == [2, 3, 4, 4, 6, 12]
    assert patterns.separation(patterns.strided(6, 2)) == patterns.separation(patterns.strided(6, 3)) == 2
    assert patterns.frame_order(4, 16) == [0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15]
    assert patterns.frame_order(4, 6) == list(range(6))


@st.composite
def any_pattern(draw):
    codebooks, frames = draw(st.integers(1, 6)), draw(st.integers(1, 12))
    rising = st.lists(st.integers(0, 5), min_size=codebooks, max_size=codebooks).map(sorted)
    name = draw(st.sampled_from(sorted(patterns.PATTERNS)))
    options = {}
    if name == "delay":
        options = {
            "delays": draw(rising),
            "flatten_first": draw(st.integers(0, 14)),
            "empty_initial": draw(st.integers(-1, 3)),
        }
    elif name == "unrolled":
        inner = draw(rising)
        late = sorted(draw(st.lists(st.integers(0, 4), min_size=6, max_size=6)))  # of each inner step
        options = {"flattening": inner, "delays": [late[i] for i in inner]}
    elif name == "coarse-first":
        options = {"delays": draw(rising)[1:]}
    elif name == "grouped":
        options = {"group_by": draw(st.sampled_from([n for n in range(1, codebooks + 1) if codebooks % n == 0]))}
    elif name == "stack-and-delay":
        options = {"order": draw(st.none() | st.permutations(range(frames)))}
    return patterns.pattern(name, codebooks, frames, **options)


@given(any_pattern(), st.integers(1, 3))
def test_build_then_revert_is_the_identity_and_no_cell_is_lost_or_doubled(pattern, batch):
    cells = pattern.codebooks * pattern.frames
    codes = torch.arange(batch * cells).view(batch, pattern.codebooks, pattern.frames)
    values = pattern.build(codes, -7)
    assert values.shape == (batch, pattern.codebooks, pattern.steps)
    assert torch.equal(pattern.revert(values, -9), codes)
    assert torch.equal(values[values != -7].sort().values, codes.flatten())
    assert sorted(pattern.layout().order) == list(range(cells)) and sum(pattern.groups()) == cells
    steps = pattern.layout().to_steps(codes)
    assert torch.equal(steps, values.mT.flatten(1)[values.mT.flatten(1) != -7].view(batch, cells))


@given(any_pattern())
def test_logits_line_up_with_the_codes_they_predict(pattern):
    """A model that always says what comes next."""
    codes = torch.arange(pattern.codebooks * pattern.frames).view(1, pattern.codebooks, pattern.frames)
    started = max(pattern.table[0]) < 0
    values = pattern.build(codes, -1).float()
    logits = values.roll(-1, -1) if started else values
    assert torch.equal(pattern.revert_logits(logits[:, None])[:, 0], codes.float())


@given(any_pattern())
def test_the_valid_part_reverts_to_codes_or_the_filler(pattern):
    codes = torch.arange(pattern.codebooks * pattern.frames).view(1, pattern.codebooks, pattern.frames)
    valid = pattern.build(codes, -1, pattern.valid_steps)
    assert valid.shape[-1] == pattern.valid_steps <= pattern.steps
    back = pattern.revert(valid, -9)
    assert torch.equal(back[back != -9], codes[back != -9])
    lined = pattern.revert_logits(valid[:, None].float())
    assert int(lined.isnan().sum()) >= int((back == -9).sum()) if max(pattern.table[0]) < 0 else True


@pytest.mark.parametrize(
    ("table", "frames", "message"),
    [
        (((0, 0), (1, -1)), 2, "exactly once"),
        (((0, 0), (1, 1), (1, -1)), 2, "exactly once"),
        (((1, 0), (0, 1)), 2, "order of time"),
        (((0, 0), (1,)), 2, "equal length"),
        ((), 1, "equal length"),
    ],
)
def test_wrong_tables_are_refused(table, frames, message):
    with pytest.raises(ValueError, match=message):
        CodebookPattern(table, frames)


def test_permuted_frames_need_to_be_said():
    assert CodebookPattern(((1, 0), (0, 1)), 2, ordered=False).codebooks == 2


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("delays", {}, "did you mean 'delay'"),
        ("delay", {"delays": [1, 0, 2, 3]}, "do not fall"),
        ("delay", {"delays": [0, 1]}, "4 numbers"),
        ("delay", {"delay": [0, 1]}, "unexpected keyword"),
        ("unrolled", {"flattening": [0, 1, 1, 1], "delays": [0, 1, 2, 2]}, "share a delay"),
        ("grouped", {"group_by": 3}, "do not divide"),
        ("stack-and-delay", {"order": [0, 0, 1]}, "exactly once"),
    ],
)
def test_bad_patterns_are_one_clear_line(name, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        patterns.pattern(name, 4, 6, **options)
    assert "\n" not in str(caught.value)


def test_sizes_and_codes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        patterns.pattern("delay", 0, 4)
    with pytest.raises(ValueError, match=r"\[batch, 2, 3\]"):
        patterns.delay(2, 3).build(torch.zeros(1, 2, 4, dtype=torch.long), 0)
