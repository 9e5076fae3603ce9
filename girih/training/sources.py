"""Where a generator's training tokens and captions come from: emoji scenes, or a folder of captioned pictures.

Knows both kinds of data and encodes their pictures once with the codec. Does not know losses.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import torch

from girih.files import whole
from girih.tokenizers.image import ImageTokenizer
from girih.training.data.captions import caption, concept_list, full_caption, read_phrases
from girih.training.data.compose import COLOURS, MIX, SMALL, Picture, Sampler, render
from girih.training.data.pictures import PictureSet

CONCEPTS = Path(__file__).parent / "data" / "concepts.tsv"


def core_concepts() -> list[str]:
    """Labels of the concepts that every shipped image model knows (data/concepts.tsv)."""
    return [line.split("\t")[0] for line in CONCEPTS.read_text("utf-8").splitlines()[1:]]


@torch.no_grad()
def encode_all(codec: ImageTokenizer, pictures: list[np.ndarray]) -> np.ndarray:
    """uint8 pictures [3, S, S] -> int32 tokens [n, h, w]."""
    device, out = codec.device, []
    for first in range(0, len(pictures), 64):
        batch = torch.from_numpy(np.stack(pictures[first : first + 64])).to(device)
        out.append(codec.encode(batch.to(codec.dtype) / 127.5 - 1).int().cpu().numpy())
    return np.concatenate(out)


class EmojiSource:
    """Scenes of a picture set (``girih data emoji``), composed and encoded once and kept in a cache file.

    Args:
        folder: the picture set.
        codec: encodes the scenes.
        scenes: how many scenes are drawn from the mix (equal ones are encoded once).
        concepts: "core" (data/concepts.tsv) or "all" that stand in every style.
        mix: share of each kind of scene, see ``compose.MIX``.
        plain: share of captions of single drawings that are the label in the convention's plain form.
    """

    def __init__(self, folder: Path, codec: ImageTokenizer, scenes: int = 40_000, concepts: str = "core",
                 mix: dict[str, float] | None = None, plain: float = 0.5, seed: int = 0) -> None:
        self.plain = plain
        self.pictures = PictureSet(folder)
        if self.pictures.size != codec.config.sample_size:
            raise ValueError(f"pictures of {self.pictures.size} px do not fit a codec of {codec.config.sample_size} px")
        if concepts not in ("core", "all"):
            raise ValueError(f"concepts {concepts!r} is not 'core' or 'all'")
        complete = concept_list(self.pictures)
        known = set(self.pictures.of)
        self.concepts = complete if concepts == "all" else [c for c in core_concepts() if c in known]
        self.styles, self.backgrounds = self.pictures.styles, tuple(COLOURS)
        self.phrases = read_phrases()
        sampler = Sampler(self.pictures, self.concepts, mix=mix or MIX)
        rng = np.random.default_rng(seed)
        self.scenes = [sampler.sample(rng) for _ in range(scenes)]
        away = [sampler.sample_held_out(rng) for _ in range(256)]
        unique: dict[Picture, int] = {}
        for scene in (*self.scenes, *away):
            unique.setdefault(scene, len(unique))
        encoded = self._encode(list(unique), folder, codec)
        self.tokens = encoded[[unique[scene] for scene in self.scenes]]
        self.held_out = [(encoded[unique[s]], caption(s, self.pictures, self.phrases, rng)) for s in away]

    def _encode(self, scenes: list[Picture], folder: Path, codec: ImageTokenizer) -> np.ndarray:
        digest = hashlib.sha256("\n".join(map(repr, scenes)).encode())
        for name, weight in sorted(codec.state_dict().items()):
            digest.update(name.encode() + weight.float().cpu().numpy().tobytes())
        cache = folder / f"tokens-{digest.hexdigest()[:16]}.npy"
        if cache.is_file():
            return np.load(cache)
        tokens = []
        for first in range(0, len(scenes), 1024):
            tokens.append(encode_all(codec, [render(s, self.pictures) for s in scenes[first : first + 1024]]))
        with whole(cache) as part, part.open("wb") as file:
            np.save(file, np.concatenate(tokens))
        return np.concatenate(tokens)

    def caption(self, i: int, rng: np.random.Generator) -> str:
        scene = self.scenes[i]
        item = scene.items[0]
        if scene.relation is None and not item.paint and rng.random() < self.plain:
            row = self.pictures.rows[item.row]
            article = "a " if rng.random() < 0.7 else ""
            return full_caption(article + row.label, row.style, str(scene.background), item.scale == SMALL, item.flip)
        return caption(scene, self.pictures, self.phrases, rng)

    def texts(self) -> list[str]:
        rng = np.random.default_rng(1)
        drawn = [self.caption(i, rng) for i in range(len(self.scenes))]
        # Every word of the table, however rarely it is drawn.
        listed = [" ".join((label, *p.synonyms, *p.phrases)) for label, p in self.phrases.items() if label in
                  set(self.concepts)]
        tags = [json.dumps(row.tags) for row in self.pictures.rows if row.label in set(self.concepts)]
        return drawn + listed + tags


class FolderSource:
    """A folder of captioned pictures (see ``data.folder.ImageFolder``); one in twenty is held out."""

    def __init__(self, folder: Path, codec: ImageTokenizer) -> None:
        from girih.training.data.folder import ImageFolder

        images = ImageFolder(folder, codec.config.sample_size)
        tokens = encode_all(codec, [images.load(i) for i in range(len(images))])
        captions = [text for _, text in images.items]
        kept = [i for i in range(len(captions)) if i % 20 != 19]
        self.tokens, self._captions = tokens[kept], [captions[i] for i in kept]
        self.held_out = [(tokens[i], captions[i]) for i in range(len(captions)) if i % 20 == 19]
        self.styles: tuple[str, ...] = ()
        self.backgrounds: tuple[str, ...] = ()

    def caption(self, i: int, rng: np.random.Generator) -> str:
        return self._captions[i]

    def texts(self) -> list[str]:
        return self._captions
