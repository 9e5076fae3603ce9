"""The phrase table that captions are written from: its form, and that no phrase names two concepts.

Knows the file as text; whether a drawing looks like its phrases is not something a test can tell.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import pytest

import girih
from girih.training.data.captions import read_phrases

TABLE = Path(girih.__file__).parent / "training" / "data" / "phrases.tsv"
LINES = TABLE.read_text("utf-8").split("\n")
ROWS = [line.split("\t") for line in LINES[1:] if line]
# Things people ask for first, and the near twins that only their phrases keep apart.
EVERYDAY = """
airplane; automobile; banana; basketball; bear; bicycle; birthday cake; cat; cat face; cow; cow face; dog;
dog face; elephant; fire; fish; flying saucer; ghost; green apple; guitar; hamburger; house; key; mobile phone; moai;
monkey; monkey face; mouse; mouse face; old key; pig; pig face; pizza; rabbit; rabbit face; racing car; red apple;
red heart; robot; rocket; star; sun; sun with face; telephone; tiger; tiger face; unicorn
"""
# Words that belong to the rest of a caption (style, background, size, mirroring), never to the description.
RESERVED = {"style", "background", "flat", "noto", "twemoji", "small", "flipped"}
FILLERS = set("a an the of with and in on for to that is it at by its".split())


def split(cell: str) -> list[str]:
    return cell.split("; ")


def words(text: str) -> set[str]:
    return set(re.findall(r"[a-z0-9']+", text.lower())) - FILLERS


def test_header_columns_and_unique_labels() -> None:
    assert LINES[0] == "label\tsynonyms\tphrases\theld_out"
    assert [row for row in ROWS if len(row) != 4] == []
    labels = [row[0] for row in ROWS]
    assert len(labels) == len(set(labels)) >= 343


def test_everyday_concepts_are_listed() -> None:
    wanted = {label.strip() for label in EVERYDAY.replace("\n", " ").split(";")}
    assert wanted - {row[0] for row in ROWS} == set()


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_row(row: list[str]) -> None:
    label, synonyms, phrases, held_out = row[0], split(row[1]), split(row[2]), row[3]
    assert 2 <= len(synonyms) <= 6
    assert 3 <= len(phrases) <= 6
    for text in [*synonyms, *phrases, held_out]:
        assert re.fullmatch(r"[a-z0-9']+( [a-z0-9']+)*", text), text
        assert not RESERVED & set(text.split()), text
    assert all(synonym.split()[0] not in {"a", "an", "the"} for synonym in synonyms)
    assert held_out not in phrases + synonyms
    assert words(held_out) & words(" ".join([label, *synonyms, *phrases])), "shares no word with its concept"


def test_no_phrase_or_synonym_names_two_concepts() -> None:
    owners: dict[str, set[str]] = defaultdict(set)
    for label, synonyms, phrases, held_out in ROWS:
        for text in [label.lower(), *split(synonyms), *split(phrases), held_out]:
            owners[re.sub(r"^(a|an|the) ", "", text)].add(label)
    assert {text: labels for text, labels in owners.items() if len(labels) > 1} == {}


def test_reader_keeps_every_row() -> None:
    table = read_phrases(TABLE)
    assert list(table) == [row[0] for row in ROWS]
    assert all(entry.held_out and len(entry.phrases) >= 3 for entry in table.values())
