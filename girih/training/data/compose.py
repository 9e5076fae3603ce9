"""Composes training pictures from cut-out drawings: backgrounds, sizes, mirror images, pairs and small counts.

Knows what a scene is, how it is drawn, how scenes are sampled, and which of them are never trained on. Does not know
words (captions.py) or where the drawings come from (emoji.py, pictures.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from girih.training.data.paint import PAINTS, can_paint, main_hue, paint
from girih.training.data.pictures import PictureSet

# The named plain backgrounds, sRGB.
COLOURS: dict[str, tuple[int, int, int]] = {
    "white": (255, 255, 255),
    "blue": (66, 133, 244),
    "green": (67, 160, 71),
    "yellow": (253, 216, 53),
    "pink": (244, 143, 177),
    "purple": (142, 68, 190),
    "red": (229, 57, 53),
    "grey": (158, 158, 158),
    "black": (20, 20, 20),
}
SMALL = 0.625  # of the picture's side; at 128 px an 80 px object whose edges fall on 8 px token borders
HALF = 0.5  # objects of a scene: two fill the width, and a token grid of 16 x 16 cuts none of them
# Where the objects of a relation stand, as (x, y) of their centres; the first named object first.
PLACES: dict[str, tuple[tuple[float, float], ...]] = {
    "left of": ((0.25, 0.5), (0.75, 0.5)),
    "right of": ((0.75, 0.5), (0.25, 0.5)),
    "next to": ((0.25, 0.5), (0.75, 0.5)),
    "above": ((0.5, 0.25), (0.5, 0.75)),
    "below": ((0.5, 0.75), (0.5, 0.25)),
    "two": ((0.25, 0.5), (0.75, 0.5)),
    "three": ((0.5, 0.25), (0.25, 0.75), (0.75, 0.75)),
}
PAIRS = ("left of", "right of", "next to", "above", "below")
COUNTS = ("two", "three")
# Share of each kind of picture in generator training.
MIX: dict[str, float] = {"single": 0.62, "small": 0.07, "flipped": 0.09, "painted": 0.05, "pair": 0.12, "count": 0.05}


@dataclass(frozen=True)
class Item:
    """One drawing in a picture: row of the set, mirrored or not, side and centre as shares of the picture's side,
    and the paint (a name of paint.PAINTS) it is repainted in, if any."""

    row: int
    flip: bool = False
    scale: float = 1.0
    centre: tuple[float, float] = (0.5, 0.5)
    paint: str | None = None


@dataclass(frozen=True)
class Picture:
    """A scene: drawings on a plain background (a name of COLOURS, or sRGB 0-255); `relation` is a key of PLACES for
    pairs and counts, None for one drawing."""

    items: tuple[Item, ...]
    background: str | tuple[int, int, int] = "white"
    relation: str | None = None


def render(picture: Picture, pictures: PictureSet) -> np.ndarray:
    """uint8 [3,S,S] RGB of a scene; later items cover earlier ones. A drawing that reaches over the edge is cut."""
    size = pictures.size
    colour = COLOURS[picture.background] if isinstance(picture.background, str) else picture.background
    canvas = np.empty((size, size, 3), np.uint16)
    canvas[:] = colour
    for item in picture.items:
        drawing = np.asarray(pictures.rgba[item.row])
        if item.paint:
            hue = main_hue(drawing)
            if hue is None:
                raise ValueError(f"{pictures.rows[item.row].label!r} has no main hue to paint {item.paint}")
            drawing = paint(drawing, hue, item.paint)
        side = round(size * item.scale)
        if side != size:
            # Pillow resizes RGBA with premultiplied alpha, so no fringe of hidden colours appears.
            drawing = np.asarray(Image.fromarray(drawing).resize((side, side), Image.Resampling.BICUBIC))
        if item.flip:
            drawing = drawing[:, ::-1]
        left, top = (round(size * c - side / 2) for c in item.centre)
        x0, y0, x1, y1 = max(0, left), max(0, top), min(size, left + side), min(size, top + side)
        if x0 >= x1 or y0 >= y1:
            raise ValueError(f"item centre {item.centre} puts the drawing outside the picture")
        source = drawing[y0 - top : y1 - top, x0 - left : x1 - left].astype(np.uint16)
        alpha, target = source[..., 3:], canvas[y0:y1, x0:x1]
        target[:] = (source[..., :3] * alpha + target * (255 - alpha) + 127) // 255
    return np.ascontiguousarray(canvas.astype(np.uint8).transpose(2, 0, 1))


def _share(*key: str) -> float:
    """A fixed number in [0,1) for a key; the same on every machine and in every run."""
    return int.from_bytes(hashlib.sha256("|".join(key).encode()).digest()[:6], "big") / 2**48


def is_held_out(picture: Picture, pictures: PictureSet) -> bool:
    """Whether a scene must never be trained on. Held out are 20 % of the (concept, style, background) triples on the
    eight coloured backgrounds, in whatever scene they appear; 20 % of the (concept, paint) pairs; 5 % of the
    unordered pairs of concepts. A picture on white is held out only by its paint or its pair of concepts."""
    rows = [pictures.rows[item.row] for item in picture.items]
    name = picture.background
    if isinstance(name, str) and name != "white" and any(_share(r.label, r.style, name) < 0.2 for r in rows):
        return True
    if any(item.paint and _share(row.label, "paint", item.paint) < 0.2
           for item, row in zip(picture.items, rows, strict=True)):  # fmt: skip
        return True
    labels = sorted({row.label for row in rows})
    return len(labels) == 2 and _share(*labels, "pair") < 0.05


def without_colour(label: str) -> str:
    """A label without the names of colours in it: "red apple" -> "apple"."""
    return " ".join(word for word in label.split() if word.lower() not in {*COLOURS, *PAINTS, "orange", "brown"})


class Sampler:
    """Draws random scenes of `concepts` (labels; default: all of the set) in `styles` (default: all).

    Every draw uses only the numpy Generator it is given, so a seed fixes the scenes. `mix`: weight of each kind
    (keys of MIX). Raises ValueError for unknown names, or when nothing of the set is left.
    """

    def __init__(
        self,
        pictures: PictureSet,
        concepts: Sequence[str] | None = None,
        styles: Sequence[str] | None = None,
        mix: dict[str, float] | None = None,
    ):
        self.pictures = pictures
        self.styles = tuple(styles) if styles is not None else pictures.styles
        if unknown := [style for style in self.styles if style not in pictures.styles]:
            raise ValueError(f"unknown style {unknown[0]!r}; this set has {', '.join(pictures.styles)}")
        labels = list(concepts) if concepts is not None else list(pictures.of)
        if unknown := [label for label in labels if label not in pictures.of]:
            raise ValueError(f"the picture set has no concept {unknown[0]!r}")
        self.rows = [pictures.of[label][s] for label in labels for s in self.styles if s in pictures.of[label]]
        if not self.rows:
            raise ValueError("no drawing of the set is left: check concepts and styles")
        self._by_style = {s: [r for r in self.rows if pictures.rows[r].style == s] for s in self.styles}
        mix = MIX if mix is None else mix
        if unknown := [kind for kind in mix if kind not in MIX]:
            raise ValueError(f"unknown kind of picture {unknown[0]!r}; known: {', '.join(MIX)}")
        weights = np.array([max(0.0, w) for w in mix.values()], float)
        if not weights.sum() > 0:
            raise ValueError("the mix of kinds has no positive weight")
        self._kinds, self._weights = list(mix), weights / weights.sum()
        self._flippable = [row for row in self.rows if self._can_flip(row)]
        self._paintable = self._find_paintable() if mix.get("painted", 0) > 0 else []

    def sample(self, rng: np.random.Generator) -> Picture:
        """A scene of a random kind, for generator training; never one that is held out."""
        while True:
            kind = self._kinds[rng.choice(len(self._kinds), p=self._weights)]
            picture = getattr(self, kind)(rng)
            if not is_held_out(picture, self.pictures):
                return picture

    def sample_held_out(self, rng: np.random.Generator, kind: str = "single") -> Picture:
        """A held-out scene of a kind, for evaluation."""
        for _ in range(10_000):
            picture = getattr(self, kind)(rng)
            if is_held_out(picture, self.pictures):
                return picture
        raise ValueError(f"no held-out picture of kind {kind!r} was found; the set is too small")

    def single(self, rng: np.random.Generator) -> Picture:
        """One whole drawing; white background in 40 %, else one of the eight colours. May be held out."""
        return Picture((Item(self._pick(rng, self.rows)),), self._background(rng))

    def small(self, rng: np.random.Generator) -> Picture:
        """One drawing at 0.625 of its size, in the middle."""
        return Picture((Item(self._pick(rng, self.rows), scale=SMALL),), self._background(rng))

    def flipped(self, rng: np.random.Generator) -> Picture:
        """One mirrored drawing; never a sign or a thing whose name says left or right."""
        rows = self._flippable
        return Picture((Item(self._pick(rng, rows), flip=True),), self._background(rng)) if rows else self.single(rng)

    def painted(self, rng: np.random.Generator) -> Picture:
        """One drawing of one hue in another colour; one in its own colours where the set has no such drawing."""
        if not self._paintable:
            return self.single(rng)
        row, colours = self._paintable[rng.integers(len(self._paintable))]
        return Picture((Item(row, paint=colours[rng.integers(len(colours))]),), self._background(rng))

    def pair(self, rng: np.random.Generator) -> Picture:
        """Two drawings of different concepts in one style, beside or over each other."""
        first = self._pick(rng, self.rows)
        label, style = self.pictures.rows[first].label, self.pictures.rows[first].style
        others = self._by_style[style]
        if len(others) < 2:
            return self.single(rng)
        second = first
        while self.pictures.rows[second].label == label:
            second = self._pick(rng, others)
        relation = PAIRS[rng.integers(len(PAIRS))]
        return scene((first, second), relation, self._background(rng))

    def count(self, rng: np.random.Generator) -> Picture:
        """The same drawing two or three times."""
        relation = COUNTS[rng.integers(len(COUNTS))]
        return scene((self._pick(rng, self.rows),) * len(PLACES[relation]), relation, self._background(rng))

    def _pick(self, rng: np.random.Generator, rows: Sequence[int]) -> int:
        return rows[int(rng.integers(len(rows)))]

    def _background(self, rng: np.random.Generator) -> str:
        names = list(COLOURS)
        return "white" if rng.random() < 0.4 else names[rng.integers(1, len(names))]

    def _can_flip(self, row: int) -> bool:
        entry = self.pictures.rows[row]
        return entry.group != "symbols" and not {"left", "right", "clockwise"} & set(entry.label.lower().split())

    def _find_paintable(self) -> list[tuple[int, list[str]]]:
        """Rows of one main hue with the paints that would change them. Creatures with a face stay as they are, and
        so does what would become another concept of the set ("red apple" -> "green apple")."""
        found = []
        for row in self.rows:
            entry = self.pictures.rows[row]
            if entry.group in ("smileys", "people", "symbols"):
                continue
            hue = main_hue(np.asarray(self.pictures.rgba[row]))
            if hue is None:
                continue
            bare = without_colour(entry.label)
            colours = [c for c in PAINTS if can_paint(hue, c) and f"{c} {bare}" not in self.pictures.of]
            if colours and bare:
                found.append((row, colours))
        return found


def scene(rows: Sequence[int], relation: str, background: str | tuple[int, int, int] = "white") -> Picture:
    """The scene of drawings `rows` in `relation` (a key of PLACES), in the order they are named."""
    if relation not in PLACES or len(rows) != len(PLACES[relation]):
        raise ValueError(f"relation {relation!r} with {len(rows)} drawings; known: {', '.join(PLACES)}")
    items = tuple(Item(row, scale=HALF, centre=c) for row, c in zip(rows, PLACES[relation], strict=True))
    return Picture(items, background, relation)
