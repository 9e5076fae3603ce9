"""Where a generator's training tokens and captions come from: emoji scenes, or a folder of captioned pictures.

Knows both kinds of data and encodes their pictures once with the codec. Does not know losses.
"""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from girih.files import whole
from girih.tokenizers.image import ImageTokenizer
from girih.training.data.compose import Picture, render
from girih.training.scenes import Scenes


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
        scenes: how many scenes are drawn (equal ones are encoded once).
        options: of :class:`Scenes`.
    """

    def __init__(self, folder: Path, codec: ImageTokenizer, scenes: int = 40_000, **options: Any) -> None:
        self.scenes = Scenes(folder, scenes, **options)
        pictures = self.scenes.pictures
        if pictures.size != codec.config.sample_size:
            raise ValueError(f"pictures of {pictures.size} px do not fit a codec of {codec.config.sample_size} px")
        self.styles, self.backgrounds = self.scenes.styles, self.scenes.backgrounds
        self.caption, self.texts = self.scenes.caption, self.scenes.texts
        unique: dict[Picture, int] = {}
        for scene in (*self.scenes.scenes, *self.scenes.held_out):
            unique.setdefault(scene, len(unique))
        encoded = self._encode(list(unique), folder, codec)
        self.tokens = encoded[[unique[scene] for scene in self.scenes.scenes]]
        away = encoded[[unique[scene] for scene in self.scenes.held_out]]
        self.held_out = list(zip(away, self.scenes.held_out_captions, strict=True))

    def _encode(self, scenes: list[Picture], folder: Path, codec: ImageTokenizer) -> np.ndarray:
        digest = hashlib.sha256("\n".join(map(repr, scenes)).encode())
        for name, weight in sorted(codec.state_dict().items()):
            digest.update(name.encode() + weight.float().cpu().numpy().tobytes())
        cache = folder / f"tokens-{digest.hexdigest()[:16]}.npy"
        if cache.is_file():
            return np.load(cache)
        tokens = []
        for first in range(0, len(scenes), 1024):
            made = [render(scene, self.scenes.pictures) for scene in scenes[first : first + 1024]]
            tokens.append(encode_all(codec, made))
        with whole(cache) as part, part.open("wb") as file:
            np.save(file, np.concatenate(tokens))
        return np.concatenate(tokens)


class FolderSource:
    """A folder of captioned pictures (see ``data.folder.ImageFolder``); one in twenty is held out."""

    def __init__(self, folder: Path, codec: ImageTokenizer) -> None:
        from girih.training.data.folder import ImageFolder

        images = ImageFolder(folder, codec.config.sample_size)
        if images.skipped:
            warnings.warn(f"{folder}: skipped {images.report()}", stacklevel=2)
        parts = [range(first, min(first + 1024, len(images))) for first in range(0, len(images), 1024)]
        tokens = np.concatenate([encode_all(codec, [images.load(i) for i in part]) for part in parts])
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
