"""Writes captions for composed scenes, and lists the concepts that captions are written for.

Knows the caption convention: description, "in {style} style", "on a {colour} background". The description names what
is drawn, with "small", "flipped" or a paint before it; so a picture is nearly a function of its full caption. Does not
know pixels, nor how captions become tokens (girih/tokenizers/text.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from girih.training.data.compose import SMALL, Picture, without_colour
from girih.training.data.pictures import PictureSet, Row

GROUPS = ("smileys", "nature", "food", "travel", "activities", "objects")
# Of the group "people", mostly near-identical persons, only these: parts of the body and signs of one hand.
BODY = (
    "waving hand", "OK hand", "victory hand", "crossed fingers", "thumbs up", "thumbs down", "raised fist",
    "clapping hands", "heart hands", "handshake", "folded hands", "writing hand", "nail polish", "flexed biceps",
    "leg", "foot", "ear", "nose", "brain", "tooth", "bone", "eyes", "eye", "tongue", "mouth",
)  # fmt: skip
# 24 clock faces differ by the angle of two thin hands: they would fill the vocabulary with one picture.
_CLOCK = re.compile(r"o.clock$|-thirty$")
# The longest description in words: with "in noto style on a blue background" a caption stays within 24 tokens.
MAX_WORDS = 16
TEMPLATES = (
    "a picture of {}", "an image of {}", "a drawing of {}", "an emoji of {}", "an icon of {}", "picture of {}",
    "draw {}", "draw me {}", "please draw {}", "show {}", "show me {}", "i want {}", "{} please", "{} emoji",
    "{} drawing", "{} icon",
)  # fmt: skip
BACKGROUNDS = ("on a {} background", "on {}", "with a {} background", "against a {} background")
RELATIONS = {
    "left of": ("left of", "to the left of", "on the left of"),
    "right of": ("right of", "to the right of", "on the right of"),
    "next to": ("next to", "beside", "and", "with"),
    "above": ("above", "over", "on top of"),
    "below": ("below", "under", "beneath"),
}
COUNTS = {"two": ("two", "2", "a pair of"), "three": ("three", "3")}
_IRREGULAR = {
    "mouse": "mice", "goose": "geese", "man": "men", "woman": "women", "child": "children", "person": "people",
    "tooth": "teeth", "foot": "feet", "leaf": "leaves", "knife": "knives", "wolf": "wolves", "ox": "oxen",
    "loaf": "loaves", "sheep": "sheep", "fish": "fish", "deer": "deer",
}  # fmt: skip
_PREPOSITIONS = {"of", "with", "in", "on", "at", "for", "and", "from", "to", "without", "over", "under"}


@dataclass(frozen=True)
class Phrases:
    """What people call a concept. `held_out` is for evaluation only and never part of a training caption."""

    synonyms: tuple[str, ...]
    phrases: tuple[str, ...]
    held_out: str


def read_phrases(path: Path | str | None = None) -> dict[str, Phrases]:
    """The phrase table by concept label; default: the table of this package.

    A tab-separated file with the columns label, synonyms, phrases (both ';'-separated) and held_out. A synonym or
    phrase that equals the held-out one is dropped. Raises ValueError naming the first line that does not fit.
    """
    path = Path(path) if path is not None else Path(__file__).with_name("phrases.tsv")
    lines = path.read_text("utf-8").splitlines()
    header = ["label", "synonyms", "phrases", "held_out"]
    if not lines or lines[0].split("\t") != header:
        raise ValueError(f"{path}: the first line must name the columns {', '.join(header)}")
    table: dict[str, Phrases] = {}
    for number, line in enumerate(lines[1:], 2):
        if not line.strip():
            continue
        cells = line.split("\t")
        if len(cells) != 4 or not cells[0].strip():
            raise ValueError(f"{path}, line {number}: {len(cells)} columns or no label; expected {len(header)} columns")
        held_out = _plain(cells[3])
        synonyms, phrases = (
            tuple(text for part in cell.split(";") if (text := _plain(part)) and text != held_out)
            for cell in cells[1:3]
        )
        table[cells[0].strip()] = Phrases(synonyms, phrases, held_out)
    return table


def concept_list(pictures: PictureSet, groups: Iterable[str] = GROUPS) -> list[str]:
    """Labels of `groups`, and of BODY, that are drawn in every style of the set, in its order; no clock faces."""
    wanted = set(groups)
    return [
        label
        for label, rows in pictures.of.items()
        if len(rows) == len(pictures.styles)
        and (pictures.rows[next(iter(rows.values()))].group in wanted or label in BODY)
        and not _CLOCK.search(label)
    ]


def caption(picture: Picture, pictures: PictureSet, phrases: dict[str, Phrases], rng: np.random.Generator) -> str:
    """A full caption of a scene in lower case, drawn anew at each call; now and then a word of the description is
    `<unk>`, so that a model learns to draw in spite of words it does not know.

    Raises ValueError for a background without a name.
    """
    if not isinstance(picture.background, str):
        raise ValueError(f"background {picture.background} has no name to write into a caption")
    rows = [pictures.rows[item.row] for item in picture.items]
    if picture.relation in COUNTS:
        number = _choose(rng, COUNTS[picture.relation], 0.7)
        text = f"{number} {plural(name(rows[0], phrases, rng))}"
    elif picture.relation is not None:
        first, second = (_article(name(row, phrases, rng), rng) for row in rows)
        text = f"{first} {_choose(rng, RELATIONS[picture.relation], 0.6)} {second}"
    else:
        text = _single(picture, rows[0], phrases, rng)
    if len(text.split()) > MAX_WORDS:  # only for very long names
        text = " ".join(text.split()[:MAX_WORDS])
    text = _with_unknown(text, rng)
    if rng.random() < 0.3:
        framed = TEMPLATES[rng.integers(len(TEMPLATES))].format(text)
        text = framed if len(framed.split()) <= MAX_WORDS else text
    endings = [f"in {rows[0].style} style", _choose(rng, BACKGROUNDS, 0.8).format(picture.background)]
    # A program that fills in what a prompt leaves open may add the style after the background.
    return " ".join([text, *(endings if rng.random() < 0.7 else endings[::-1])])


def full_caption(description: str, style: str, background: str, small: bool = False, flipped: bool = False) -> str:
    """The caption of a description in the convention's plain form, as a program writes it for a prompt."""
    words = _plain(description)
    if small or flipped:
        article, rest = _split_article(words)
        words = " ".join(w for w in (article, "small" if small else "", "flipped" if flipped else "", rest) if w)
    return f"{words} in {style} style on a {background} background"


def name(row: Row, phrases: dict[str, Phrases], rng: np.random.Generator) -> str:
    """A short noun phrase for a concept: its label (60 %) or a synonym."""
    entry = phrases.get(row.label)
    if entry is not None and entry.synonyms and rng.random() < 0.4:
        return _split_article(entry.synonyms[rng.integers(len(entry.synonyms))])[1]
    return _plain(row.label)


def plural(text: str) -> str:
    """Plural of a noun phrase by rule: its head is the last word before a preposition."""
    words = text.split()
    head = next((i - 1 for i, word in enumerate(words) if word in _PREPOSITIONS and i), len(words) - 1)
    word = words[head]
    if word in _IRREGULAR:
        words[head] = _IRREGULAR[word]
    elif re.search(r"(s|x|z|ch|sh|[td]o)$", word):
        words[head] = word if word.endswith("s") and not word.endswith(("ss", "us")) else word + "es"
    elif re.search(r"[^aeiou]y$", word):
        words[head] = word[:-1] + "ies"
    else:
        words[head] = word + "s"
    return " ".join(words)


def _single(picture: Picture, row: Row, phrases: dict[str, Phrases], rng: np.random.Generator) -> str:
    """The description of one drawing: label 40 %, label and tag 12 %, two tags 8 %, synonym 18 %, phrase 22 %."""
    item, label, entry = picture.items[0], _plain(row.label), phrases.get(row.label)
    known = set(label.split())
    tags = [tag for tag in map(_plain, row.tags) if tag and tag not in known]
    kind, text = rng.random(), label
    if item.paint:
        text = f"{item.paint} {without_colour(name(row, phrases, rng)) or without_colour(label)}"
    elif kind < 0.40:
        pass
    elif kind < 0.52 and tags:
        tag = tags[rng.integers(len(tags))]
        text = f"{tag} {label}" if rng.random() < 0.5 else f"{label} {tag}"
    elif kind < 0.60 and len(tags) > 1:
        text = " ".join(tags[i] for i in rng.choice(len(tags), 2, replace=False))
    elif kind < 0.78 and entry and entry.synonyms:
        text = entry.synonyms[rng.integers(len(entry.synonyms))]
    elif kind >= 0.78 and entry and entry.phrases:
        text = entry.phrases[rng.integers(len(entry.phrases))]
    article, text = _split_article(text)
    adjectives = []
    if item.scale == SMALL:
        adjectives.append(_choose(rng, ("small", "tiny", "little"), 0.7))
    if item.flip:
        adjectives.append(_choose(rng, ("flipped", "mirrored"), 0.8))
    text = " ".join([*adjectives, text])
    return _article(text, rng, 0.8 if article else 0.5)


def _plain(text: str) -> str:
    """Lower case, one space between words, typographic apostrophes made plain."""
    return " ".join(text.lower().replace("\u2019", "'").split())


def _split_article(text: str) -> tuple[str, str]:
    first, _, rest = text.partition(" ")
    return (first, rest) if first in ("a", "an", "the") and rest else ("", text)


def _article(text: str, rng: np.random.Generator, share: float = 0.6) -> str:
    """An article before a noun phrase in `share` of the calls."""
    if rng.random() >= share:
        return text
    return ("the " if rng.random() < 0.15 else "an " if text[:1] in "aeiou" else "a ") + text


def _choose(rng: np.random.Generator, options: tuple[str, ...], first: float) -> str:
    """The first option with probability `first`, else one of the others."""
    return options[0] if len(options) == 1 or rng.random() < first else options[rng.integers(1, len(options))]


def _with_unknown(text: str, rng: np.random.Generator) -> str:
    """In 10 % one of three or more words becomes <unk>; in 10 % an <unk> is put in."""
    words = text.split()
    if len(words) > 2 and rng.random() < 0.1:
        words[rng.integers(len(words))] = "<unk>"
    if rng.random() < 0.1:
        words.insert(int(rng.integers(len(words) + 1)), "<unk>")
    return " ".join(words)
