"""Multi-scale residual quantization: a feature map as a sum of token maps, coarse to fine.

Knows feature maps ``[B, C, P, P]`` and ids of all scales in a row, ``[B, L]``. Does not know pictures or generators.
Written out, because vector-quantize-pytorch's HierarchicalVQ resamples and shares convolutions by other rules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from girih.names import unknown
from girih.tokenizers.quantizers.codebooks import squared_distances
from girih.tokenizers.quantizers.quantized import Quantized, cells_last

Resize = Callable[[Tensor, int], Tensor]


def area(maps: Tensor, side: int) -> Tensor:
    """Mean over the area of each new cell."""
    return F.interpolate(maps, size=(side, side), mode="area")


def bicubic(maps: Tensor, side: int) -> Tensor:
    """Cubic interpolation (a = -0.75), corners not aligned, no antialiasing."""
    return F.interpolate(maps, size=(side, side), mode="bicubic")


def spectral(maps: Tensor, side: int) -> Tensor:
    """Keep (or pad to) the ``side`` lowest frequencies of each axis: ideal down- and upsampling, real and exact.

    Down after up is the identity; up after down is the low-pass projection.
    """
    now = maps.shape[-1]
    kept = min(now, side)
    change = fourier_basis(side, kept) @ fourier_basis(now, kept).T * (side / now) ** 0.5
    change = change.to(maps)
    return change @ maps @ change.T


def fourier_basis(points: int, count: int) -> Tensor:
    """The ``count`` lowest real Fourier functions at ``points`` places, as orthonormal columns, float64
    ``[points, count]``: constant, cosine and sine of each frequency, one cosine last where ``count`` is even."""
    at = torch.arange(points, dtype=torch.float64) * (2 * torch.pi / points)
    waves = [wave(at * (k / 2)) for k in range(2, count + 1, 2) for wave in (torch.cos, torch.sin)]
    return F.normalize(torch.stack([torch.ones_like(at), *waves][:count], -1), dim=0)


# How a scale is made from the full map, and the full map from a scale. "spectral" makes scales into bands of frequency
# (the order of NFIG; the square bands are our own construction).
RESAMPLERS: dict[str, tuple[Resize, Resize]] = {"area": (area, bicubic), "spectral": (spectral, spectral)}


def blend_of(scale: int, scales: int, blends: int) -> int:
    """Which of ``blends`` convolutions scale number ``scale`` uses: the one whose tick is nearest to
    ``scale / (scales - 1)``, the first on ties. VAR's ticks lie otherwise for exactly four."""
    margin = 1 / (3 if blends == 4 else 2) / blends
    ticks = np.linspace(margin, 1 - margin, blends)
    return int(np.argmin(np.abs(ticks - scale / max(scales - 1, 1))))


class MultiscaleQuantizer(nn.Module):
    """VAR's multi-scale residual quantizer (Tian et al. 2024, algorithms 1 and 2).

    For each side of ``scales``: shrink what is left to it, take the nearest code of one shared codebook, grow it back,
    blend it (``(1 - blend) h + blend conv(h)``), add it to the sum, take it from what is left. Tokens are ``[B, L]``:
    the maps of all scales in order, each row by row; leading scales alone are a coarser code of the same map.

    Args:
        scales: sides, rising; the last one is the side P of the map.
        blends: number of 3x3 convolutions shared by the scales, see :func:`blend_of`; 0 or ``blend`` 0: none.
        cosine: choose the code by angle instead of distance (its length still counts in the sum).
        resample: ``"area"`` (down; bicubic up) or ``"spectral"``.

    In training mode ``losses`` holds ``vq`` and ``commit`` (times ``commit_weight``): squared error of every partial
    sum against the map, the mean over the scales.

    Raises ValueError for scales that do not rise from at least 1, or an unknown resampler.
    """

    def __init__(
        self,
        scales: Sequence[int],
        vocab_size: int,
        dim: int,
        blends: int = 4,
        blend: float = 0.5,
        cosine: bool = False,
        commit_weight: float = 0.25,
        resample: str = "area",
    ):
        super().__init__()
        if not scales or scales[0] < 1 or any(b <= a for a, b in zip(scales, scales[1:], strict=False)):
            raise ValueError(f"scales must be sides that rise from at least 1, got {list(scales)}")
        if resample not in RESAMPLERS:
            raise unknown("resampler", resample, RESAMPLERS)
        self.scales, self.vocab_size, self.dim = tuple(int(side) for side in scales), vocab_size, dim
        self.cosine, self.commit_weight, self.blend = cosine, commit_weight, blend
        self.down, self.up = RESAMPLERS[resample]
        self.embedding = nn.Embedding(vocab_size, dim)
        nn.init.uniform_(self.embedding.weight, -1.0 / vocab_size, 1.0 / vocab_size)
        used = blends if blend else 0
        self.blends = nn.ModuleList(nn.Conv2d(dim, dim, 3, padding=1) for _ in range(used))
        self.ends = tuple(accumulate(side**2 for side in self.scales))

    def forward(self, features: Tensor) -> Quantized:
        if features.shape[-2:] != (self.scales[-1],) * 2:
            raise ValueError(f"the map must be {self.scales[-1]} cells high and wide, got {list(features.shape[-2:])}")
        real = features.float()
        rest, total = real.detach(), torch.zeros_like(real)
        tokens, commits, moves = [], [], []
        for number, side in enumerate(self.scales):
            small = rest if side == self.scales[-1] else self.down(rest, side)
            ids = self.nearest(small)
            grown = self.grow(ids, number)
            total, rest = total + grown, rest - grown.detach()
            tokens.append(ids.flatten(1))
            if self.training:
                commits.append(F.mse_loss(total.detach(), real))
                moves.append(F.mse_loss(total, real.detach()))
        losses = {}
        if self.training:
            losses = {"commit": self.commit_weight * torch.stack(commits).mean(), "vq": torch.stack(moves).mean()}
        carried = real + (total - real).detach()
        return Quantized(carried.to(features.dtype), torch.cat(tokens, 1), losses)

    def nearest(self, maps: Tensor) -> Tensor:
        """Features ``[B, dim, side, side]`` to ids of their nearest codes ``[B, side, side]``."""
        rows, codebook = cells_last(maps), self.embedding.weight.float()
        if self.cosine:
            ids = (F.normalize(rows, dim=-1) @ F.normalize(codebook, dim=-1).T).argmax(1)
        else:
            ids = squared_distances(rows, codebook).argmin(1)
        return ids.view(len(maps), *maps.shape[2:])

    def grow(self, ids: Tensor, number: int) -> Tensor:
        """Ids of scale ``number``, ``[B, side, side]``, to what they add to the map, ``[B, dim, P, P]``, float32."""
        grown = self.embedding(ids).float().movedim(-1, 1)
        if number < len(self.scales) - 1:
            grown = self.up(grown, self.scales[-1])
        if not self.blends:
            return grown
        conv = self.blends[blend_of(number, len(self.scales), len(self.blends))]
        return grown * (1 - self.blend) + conv(grown.to(conv.weight.dtype)).float() * self.blend

    def split(self, tokens: Tensor) -> list[Tensor]:
        """Ids ``[B, n]`` of leading scales to a map ``[B, side, side]`` for each. Raises ValueError for another n."""
        if tokens.ndim != 2 or tokens.shape[1] not in self.ends:
            raise ValueError(f"tokens must be [batch, n], n one of {list(self.ends)} (whole leading scales), "
                             f"got {list(tokens.shape)}")  # fmt: skip
        scales = self.scales[: self.ends.index(tokens.shape[1]) + 1]
        maps = tokens.split([side**2 for side in scales], dim=1)
        return [ids.unflatten(1, (side, side)) for ids, side in zip(maps, scales, strict=True)]

    def sums(self, tokens: Tensor) -> Iterator[Tensor]:
        """The map ``[B, dim, P, P]`` after each of the scales that ``tokens [B, n]`` holds: progressive previews."""
        total: Tensor | None = None
        for number, ids in enumerate(self.split(tokens)):
            grown = self.grow(ids, number)
            total = grown if total is None else total + grown
            yield total

    def lookup(self, tokens: Tensor) -> Tensor:
        """Ids ``[B, n]`` of leading scales to the sum of what they add, ``[B, dim, P, P]``, float32."""
        *_, total = self.sums(tokens)
        return total

    def inputs(self, tokens: Tensor) -> Tensor:
        """What a next-scale generator sees of ``tokens [B, n]``: for every scale but the first, up to the one after the
        last given, the sum so far shrunk to that scale's side. ``[B, cells of those scales, dim]``, row by row."""
        shrunk = [self.down(total, side) for side, total in zip(self.scales[1:], self.sums(tokens), strict=False)]
        if not shrunk:
            return self.embedding.weight.new_zeros(len(tokens), 0, self.dim)
        return torch.cat([maps.flatten(2).mT for maps in shrunk], 1)
