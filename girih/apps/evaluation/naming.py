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
        self.judge = self._originals(concepts.JUDGES, "white", "mean+max")
        self.sheet = self._originals(pictures.styles, "white", "mean")
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
        styles = list(self.pictures.styles)
        real = self.drawings(labels, styles)
        copies = through.reconstruct(self.pipe, real)
        of, style = [label for label in labels for _ in styles], styles * len(labels)
        found: dict[str, Rates] = {}
        for name, images in (("real", real), ("reconstructed", copies)):
            rates = self.name_sheet(self.see(images, "mean"), of, style)
            seen = self.see(images, "mean+max")
            if name == "reconstructed":
                rates["judge, any"] = hits(self.judge.ranks(seen, of))
            else:
                rates = {key: value for key, value in rates.items() if key != "original, any, nearest"}
            rates["judge, cross"] = hits(self.judge.ranks(seen, of, style))
            found[name] = rates
        return found

    def _gallery(self, styles: Sequence[str], reading: str, colour: str, compute: Any, salt: bytes) -> Gallery:
        images = self.drawings(self.labels, styles, colour)
        key = hashlib.sha256(np.ascontiguousarray(images)).digest() + salt + f"{reading} {images.shape}".encode()
        seen = features.cached(key, lambda: self.see(compute(images), reading, f"gallery on {colour}"))
        return Gallery(seen, [label for label in self.labels for _ in styles], list(styles) * len(self.labels))

    def _originals(self, styles: Sequence[str], colour: str, reading: str) -> Gallery:
        return self._gallery(styles, reading, colour, lambda images: images, b"original")

    def _reconstructions(self, colour: str) -> Gallery:
        return self._gallery(
            self.pictures.styles, "mean", colour, lambda images: through.reconstruct(self.pipe, images), self._codec
        )
