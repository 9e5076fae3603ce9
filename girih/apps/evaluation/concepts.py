"""Which concepts a model is judged on, by rules that never look at a model.

Knows the listed concepts, the concepts that only stand in a gallery to be confused with, and the phrases asked for.
Does not know features, pipelines or scores.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import girih.training.data
from girih.training.data.captions import GROUPS, concept_list, read_phrases
from girih.training.data.compose import COLOURS, Item, Picture, is_held_out, scene
from girih.training.data.pictures import PictureSet

DISTRACTORS = 80
JUDGES = ("noto", "twemoji")  # styles of the judging gallery
# Near copies of each other, or of a listed concept: a hit among them says little.
_ALIKE = re.compile(r"clock|moon|globe|map|mail|letter|envelope|folder|heart|hand|button|square|circle|diamond", re.I)


def shuffled(items: list[str], salt: str) -> list[str]:
    """The items in an order that depends only on their own text and `salt`, so that adding one moves no other."""
    return sorted(items, key=lambda item: hashlib.sha256(f"{salt}|{item}".encode()).digest())


def listed(pictures: PictureSet) -> list[str]:
    """The listed concepts (concepts.tsv) that the set draws in each of its styles, in shuffled order.

    Raises ValueError when the set lacks a judging style or holds fewer than six of them.
    """
    if missing := [style for style in JUDGES if style not in pictures.styles]:
        raise ValueError(
            f"the picture set has no style {missing[0]!r}; the judging gallery needs {' and '.join(JUDGES)}"
        )
    table = Path(girih.training.data.__file__).with_name("concepts.tsv").read_text("utf-8")
    labels = [line.split("\t")[0] for line in table.splitlines()[1:]]
    found = [label for label in labels if len(pictures.of.get(label, ())) == len(pictures.styles)]
    if len(found) < 6:
        raise ValueError(f"the picture set draws {len(found)} of the {len(labels)} listed concepts; 6 are needed")
    return shuffled(found, "listed")


def gallery(pictures: PictureSet) -> list[str]:
    """The listed concepts and up to 80 more of the set: in every style, label of at most three words, no near copies,
    the first in shuffled order."""
    asked = listed(pictures)
    more = [label for label in concept_list(pictures, GROUPS)
            if label not in asked and len(label.split()) <= 3 and not _ALIKE.search(label)]  # fmt: skip
    return asked + shuffled(more, "distractor")[:DISTRACTORS]


def phrases(labels: list[str]) -> list[str]:
    """A phrase no model was trained on for each label; the label itself where the phrase table has none."""
    table = read_phrases()
    return [table[label].held_out if label in table and table[label].held_out else label.lower() for label in labels]


def held_out_combinations(pictures: PictureSet, n: int, colours: list[str]) -> list[tuple[str, str, str]]:
    """Up to `n` (concept, style, background) of listed concepts that are never trained together, evenly by colour."""
    found: list[list[tuple[str, str, str]]] = []
    for colour in colours:
        keys = [f"{label}|{style}" for label in listed(pictures) for style in pictures.styles
                if is_held_out(Picture((Item(pictures.of[label][style]),), colour), pictures)]  # fmt: skip
        found.append([(*key.split("|"), colour) for key in shuffled(keys, colour)])  # type: ignore[misc]
    return [column[i] for i in range(n) for column in found if i < len(column)][:n]


def held_out_pairs(pictures: PictureSet, n: int) -> list[tuple[str, str]]:
    """Up to `n` pairs of listed concepts that no training scene shows together. Faces are left out: they are drawn as
    one disc of the same colour, so that a half of a scene can hardly be told."""
    style = JUDGES[0]
    labels = [label for label in listed(pictures) if pictures.rows[pictures.of[label][style]].group in GROUPS[1:]]
    keys = []
    for i, first in enumerate(labels):
        for second in labels[i + 1 :]:
            rows = (pictures.of[first][style], pictures.of[second][style])
            if is_held_out(scene(rows, "left of"), pictures):
                keys.append(f"{first}|{second}")
    return [tuple(key.split("|")) for key in shuffled(keys, "pair")[:n]]  # type: ignore[misc]


def coloured() -> list[str]:
    """The names of the backgrounds other than white."""
    return [name for name in COLOURS if name != "white"]
