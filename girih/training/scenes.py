"""The default picture set as captioned scenes: which are drawn, what is said of them, and what each one names.

Knows scenes, captions and the slots a scene's names go into. Does not know pixels' tokens (sources.py) or losses.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from girih.training.data.captions import caption, concept_list, full_caption, read_phrases
from girih.training.data.compose import COLOURS, MIX, PAIRS, PLACES, SMALL, Sampler
from girih.training.data.paint import PAINTS
from girih.training.data.pictures import PictureSet

CONCEPTS = Path(__file__).parent / "data" / "concepts.tsv"


def core_concepts() -> list[str]:
    """Labels of the concepts that every shipped image model knows (data/concepts.tsv)."""
    return [line.split("\t")[0] for line in CONCEPTS.read_text("utf-8").splitlines()[1:]]


class Scenes:
    """Random scenes of a picture set (``girih data emoji``) with captions that are drawn anew at each call.

    Args:
        folder: the picture set.
        count: how many scenes are drawn from the mix.
        concepts: "core" (data/concepts.tsv) or "all" that stand in every style.
        mix: share of each kind of scene, see ``compose.MIX``.
        plain: share of captions of single drawings that are the label in the convention's plain form.
    """

    def __init__(self, folder: Path | str, count: int = 40_000, concepts: str = "core",
                 mix: dict[str, float] | None = None, plain: float = 0.5, seed: int = 0) -> None:
        self.plain = plain
        self.pictures = PictureSet(folder)
        if concepts not in ("core", "all"):
            raise ValueError(f"concepts {concepts!r} is not 'core' or 'all'")
        known = set(self.pictures.of)
        complete = concept_list(self.pictures)
        self.concepts = complete if concepts == "all" else [c for c in core_concepts() if c in known]
        self.styles, self.backgrounds = self.pictures.styles, tuple(COLOURS)
        self.phrases = read_phrases()
        sampler = Sampler(self.pictures, self.concepts, mix=mix or MIX)
        rng = np.random.default_rng(seed)
        self.scenes = [sampler.sample(rng) for _ in range(count)]
        self.held_out = [sampler.sample_held_out(rng) for _ in range(256)]
        self.held_out_captions = [caption(scene, self.pictures, self.phrases, rng) for scene in self.held_out]
        # What a scene can name, a slot each; index len(names) of a slot stands for nothing.
        self.slots: dict[str, dict[str, int]] = {
            slot: {name: i for i, name in enumerate(names)}
            for slot, names in {
                "thing": self.concepts, "second": self.concepts, "relation": PLACES, "background": COLOURS,
                "style": self.styles, "size": ("small",), "turn": ("flipped",), "paint": PAINTS,
            }.items()
        }  # fmt: skip

    def names(self, i: int) -> list[int]:
        """What scene i names: an index for each slot."""
        scene = self.scenes[i]
        item = scene.items[0]
        rows = [self.pictures.rows[item.row] for item in scene.items]
        said = {
            "thing": rows[0].label,
            "second": rows[1].label if scene.relation in PAIRS else None,
            "relation": scene.relation,
            "background": str(scene.background),
            "style": rows[0].style,
            "size": "small" if item.scale == SMALL else None,
            "turn": "flipped" if item.flip else None,
            "paint": item.paint,
        }
        return [len(names) if said[slot] is None else names[str(said[slot])] for slot, names in self.slots.items()]

    def caption(self, i: int, rng: np.random.Generator) -> str:
        """A training caption of scene i."""
        scene = self.scenes[i]
        item = scene.items[0]
        if scene.relation is None and not item.paint and rng.random() < self.plain:
            row = self.pictures.rows[item.row]
            article = "a " if rng.random() < 0.7 else ""
            return full_caption(article + row.label, row.style, str(scene.background), item.scale == SMALL, item.flip)
        return caption(scene, self.pictures, self.phrases, rng)

    def texts(self) -> list[str]:
        """Captions to build a vocabulary from, and every word of the phrase table and the tags, however rare."""
        rng = np.random.default_rng(1)
        wanted = set(self.concepts)
        drawn = [self.caption(i, rng) for i in range(len(self.scenes))]
        listed = [" ".join((label, *entry.synonyms, *entry.phrases))
                  for label, entry in self.phrases.items() if label in wanted]  # fmt: skip
        tags = [json.dumps(row.tags) for row in self.pictures.rows if row.label in wanted]
        return drawn + listed + tags
