"""What EfficientNet-Lite0 (ImageNet weights) sees in a picture, as unit-length vectors, cached on disk.

Knows the network, its readings of a picture and the cache. Does not know concepts, galleries or models.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from girih.training.losses import efficientnet_lite0

KEPT = 24  # cached galleries; older ones are removed
_BATCH = 8
READINGS = ("mean", "mean+max", "quarters")


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows scaled to length one; a row of zeros stays."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def cache_folder() -> Path:
    """The user's cache folder of this program."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "girih"


class Lite0:
    """EfficientNet-Lite0's last feature maps in three readings.

    "mean": the picture at 64 px, enlarged to 128 px, mean over positions [1280]. "mean+max": the picture at 224 px,
    mean and maximum over positions, each of length one, joined [2560]. "quarters": at 224 px, the mean of each quarter
    of the picture, joined and of length one [5120], so that a mirror image differs. All resizing is bicubic. Pixels
    enter as [-1,1], what the published Lite weights were trained with. Raises ValueError when the package is missing.
    """

    def __init__(self) -> None:
        self._net = efficientnet_lite0("evaluation")

    @torch.inference_mode()
    def __call__(
        self, images: np.ndarray, reading: str, progress: Callable[[int, int], None] | None = None
    ) -> np.ndarray:
        """float32 [n, width] of uint8 RGB pictures [n,3,S,S]."""
        rows = []
        for start in range(0, len(images), _BATCH):
            batch = torch.from_numpy(np.ascontiguousarray(images[start : start + _BATCH])).float() / 255
            if reading == "mean":
                maps = self._maps(_resize(_resize(batch, 64), 128))
                rows.append(maps.mean((2, 3)))
            elif reading == "mean+max":
                maps = self._maps(_resize(batch, 224))
                rows.append(torch.cat([F.normalize(maps.mean((2, 3))), F.normalize(maps.amax((2, 3)))], 1))
            elif reading == "quarters":
                quarters = F.adaptive_avg_pool2d(self._maps(_resize(batch, 224)), 2)
                rows.append(F.normalize(quarters.flatten(1)))
            else:
                raise ValueError(f"unknown reading {reading!r}; known: {', '.join(READINGS)}")
            if progress:
                progress(min(start + _BATCH, len(images)), len(images))
        return torch.cat(rows).numpy()

    def _maps(self, batch: Tensor) -> Tensor:
        return self._net.extract_features(batch * 2 - 1)  # type: ignore[operator]


def _resize(batch: Tensor, side: int) -> Tensor:
    if batch.shape[-1] == side:
        return batch
    return F.interpolate(batch, size=(side, side), mode="bicubic", antialias=True).clamp(0, 1)


def cached(key: bytes, compute: Callable[[], np.ndarray], folder: Path | None = None) -> np.ndarray:
    """The array for `key` (any bytes that say all that it depends on), computed once and kept as a file.

    Raises OSError when the cache folder cannot be written to.
    """
    from girih.files import whole

    folder = (folder or cache_folder()) / "features"
    path = folder / f"{hashlib.sha256(key).hexdigest()[:24]}.npz"
    if path.exists():
        path.touch()  # the oldest by use goes first
        with np.load(path) as stored:
            return stored["features"]
    value = compute()
    folder.mkdir(parents=True, exist_ok=True)
    with whole(path) as part, part.open("wb") as file:
        np.savez(file, features=value)
    for old in sorted(folder.glob("*.npz"), key=lambda p: p.stat().st_mtime)[:-KEPT]:
        old.unlink(missing_ok=True)
    return value
