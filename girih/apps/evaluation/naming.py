"""Hit rates of real, reconstructed and generated pictures in two galleries.

"sheet": drawings at 64 px of every style, mean features; own style left out ("cross") or kept ("any"), against original
drawings and against the codec's reconstructions of them. "judge": original Noto and Twemoji drawings, mean and maximum
features at 224 px. Knows galleries and pictures. Does not know how pictures were asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from girih.apps.evaluation import concepts, features
from girih.apps.evaluation import pictures as through
from girih.apps.evaluation.galleries import Gallery, hits
from girih.training.data.compose import Item, Picture, render
from girih.training.data.pictures import PictureSet

Rates = dict[str, dict[str, float]]


class Judges:
    """The galleries of one picture set and one codec. Original and reconstructed features are cached on disk."""

    def __init__(self, pipe: Any, pictures: PictureSet, progress: through.Progress | None = None):
        self.pipe, self.pictures, self.progress = pipe, pictures, progress
        self.net = features.Lite0()
        self.labels = concepts.gallery(pictures)
        self._codec = through.fingerprint(pipe.codec)
        self.judge = self._originals(concepts.JUDGES, "mean+max")
        self.sheet = self._originals(pictures.styles, "mean")
        self.reconstructed = {"white": self._reconstructions("white")}

    def on(self, colour: str) -> Gallery:
        """Reconstructions of every drawing on a background colour, mean features; made when first asked for."""
        if colour not in self.reconstructed:
            self.reconstructed[colour] = self._reconstructions(colour)
        return self.reconstructed[colour]

    def drawings(self, labels: Sequence[str], styles: Sequence[str], colour: str = "white") -> np.ndarray:
        """uint8 [len(labels)*len(styles),3,S,S], label by label."""
        rows = [self.pictures.of[label][style] for label in labels for style in styles]
        return np.stack([render(Picture((Item(row),), colour), self.pictures) for row in rows])

    def see(self, images: np.ndarray, reading: str, job: str = "looking at pictures") -> np.ndarray:
        """Features of pictures."""
        report = self.progress
        return self.net(images, reading, (lambda done, total: report(job, done, total)) if report else None)

    def name_sheet(self, seen: np.ndarray, labels: Sequence[str], styles: Sequence[str]) -> Rates:
        """Hit rates in the sheet galleries of "mean" features of pictures with a known style."""
        found = {}
        for name, gallery in (("original", self.sheet), ("reconstruction", self.on("white"))):
            found[f"{name}, cross, nearest"] = hits(gallery.ranks(seen, labels, styles))
            found[f"{name}, cross, centroid"] = hits(gallery.ranks(seen, labels, styles, centroid=True))
            found[f"{name}, any, nearest"] = hits(gallery.ranks(seen, labels))
        return found

    def ceilings(self, labels: Sequence[str]) -> dict[str, Rates]:
        """Rates of the real drawings of `labels` and of their reconstructions, in every gallery.

        A real drawing finds itself when its own style is kept, so those rates are 1 and left out."""
        styles, judges = list(self.pictures.styles), list(concepts.JUDGES)
        of, style = [label for label in labels for _ in styles], styles * len(labels)
        real = self.name_sheet(self.sheet.rows(labels, styles), of, style)
        del real["original, any, nearest"]
        copies = self.name_sheet(self.on("white").rows(labels, styles), of, style)
        of, style = [label for label in labels for _ in judges], judges * len(labels)
        real["judge, cross"] = hits(self.judge.ranks(self.judge.rows(labels, judges), of, style))
        seen = self._gallery(judges, "mean+max", "white", self._copy, self._codec, labels).raw
        copies["judge, cross"] = hits(self.judge.ranks(seen, of, style))
        copies["judge, any"] = hits(self.judge.ranks(seen, of))
        return {"real": real, "reconstructed": copies}

    def _gallery(
        self, styles: Sequence[str], reading: str, colour: str, change: Any, salt: bytes, labels: Sequence[str]
    ) -> Gallery:
        images = self.drawings(labels, styles, colour)
        key = hashlib.sha256(images.tobytes()).digest() + salt + f"{reading} {images.shape}".encode()
        seen = features.cached(key, lambda: self.see(change(images), reading, f"gallery on {colour}"))
        return Gallery(seen, [label for label in labels for _ in styles], list(styles) * len(labels))

    def _originals(self, styles: Sequence[str], reading: str) -> Gallery:
        return self._gallery(styles, reading, "white", lambda images: images, b"original", self.labels)

    def _reconstructions(self, colour: str) -> Gallery:
        return self._gallery(self.pictures.styles, "mean", colour, self._copy, self._codec, self.labels)

    def _copy(self, images: np.ndarray) -> np.ndarray:
        return through.reconstruct(self.pipe, images)
