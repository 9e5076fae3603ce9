"""Described parts: texts say what the programs are, in many wordings, and held-out ones never appear in training."""

from __future__ import annotations

import re

import numpy as np
import pytest

from girih.tokenizers.shape.part_facts import KINDS, measure
from girih.tokenizers.shape.parts import PartTokenizer
from girih.training.data.part_words import NUMBER_WORDS
from girih.training.data.parts import MAX_WORDS, is_held_out, sample

PARTS = [sample(np.random.default_rng((7, i))) for i in range(2000)]
NUMBER = re.compile(r"\d+(?:\.5)?")
UNSAID = {"corner_holes": 4, "steps": None, "holes": None, "sides": None, "ring_holes": None, "row_holes": None,
          "port_holes": None}  # fmt: skip


def test_measured_parts_have_the_kind_and_every_stated_fact():
    for part in PARTS:
        kind, facts = measure(part.program)
        assert kind == part.kind, part.text
        assert {name: facts.get(name) for name in part.facts} == part.facts, part.text


def test_every_part_is_in_the_language():
    codec = PartTokenizer()
    programs = [part.program for part in PARTS[:500]]
    assert codec.decode(codec.encode(programs)) == programs


@pytest.mark.parametrize("kind", KINDS)
def test_every_family_in_many_wordings(kind):
    rng = np.random.default_rng(1)
    parts = [sample(rng, kind=kind) for _ in range(60)]
    assert {part.kind for part in parts} == {kind}
    shapes = {NUMBER.sub("#", part.text) for part in parts}
    assert len(shapes) > 40 and len({part.program for part in parts}) > 50


def test_stated_numbers_stand_in_the_text_and_no_others():
    for part in PARTS:
        words = part.text.replace(",", "").split()
        said = {float(word) for word in words if NUMBER.fullmatch(word)}
        said |= {float(NUMBER_WORDS.index(word)) for word in words if word in NUMBER_WORDS}
        lengths = {value for name, value in part.facts.items() if name not in UNSAID}
        assert lengths <= said, part
        counts = {value for name, value in part.facts.items() if name in UNSAID} | {1.0}
        assert said <= lengths | counts, part


def test_texts_are_lower_case_words_and_numbers():
    for part in PARTS:
        for word in re.sub(r"[,:]", "", part.text).split(" "):
            assert re.fullmatch(r"[a-z]+|\d+(\.5)?", word), part.text
        assert len(part.text.split()) <= MAX_WORDS
        assert not re.search(r"\d \d", part.text), part.text


def test_a_part_is_a_function_of_the_seed():
    assert sample(np.random.default_rng(5)) == sample(np.random.default_rng(5))
    assert sample(np.random.default_rng(5)) != sample(np.random.default_rng(6))


def test_held_out_parts_are_never_trained_on():
    rng = np.random.default_rng(2)
    held = [sample(rng, held_out=True) for _ in range(60)]
    assert all(is_held_out(part.kind, part.facts) for part in held)
    assert not any(is_held_out(part.kind, part.facts) for part in PARTS)
    stated = {(part.kind, tuple(part.facts.items())) for part in PARTS}
    assert not stated & {(part.kind, tuple(part.facts.items())) for part in held}
    assert len({part.kind for part in held}) > 7  # a share of every family


def test_the_split_is_fixed():
    """Changing it would mix what shipped weights were trained on with what they are measured on."""
    assert [d for d in range(20, 60) if is_held_out("washer", {"diameter": d, "holes": 1})] == [31]
    assert is_held_out("washer", {"holes": 1.0, "diameter": 31.0})  # in any order, whole or not
    held = sum(is_held_out("plate", {"width": w, "depth": d}) for w in range(20, 60) for d in range(20, 60))
    assert 0.03 < held / 1600 < 0.07
    assert not any(is_held_out(kind, {}) for kind in KINDS)


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="propeller"):
        sample(np.random.default_rng(0), kind="propeller")
