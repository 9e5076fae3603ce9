"""The image tokenizer's training objective: reconstruct cut-out drawings on plain backgrounds.

Knows picture sets, the codec and which losses apply. Does not know the losses themselves (losses.py), the loop
(trainer.py) or generators.
The mix and the loss weights were measured on this kind of picture: the gradient term and the object weight together are
worth about 1 dB on object pixels at no cost.
"""

from __future__ import annotations

import hashlib
import inspect
import warnings
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from girih import catalog
from girih.tokenizers.image import ImageTokenizer
from girih.tokenizers.quantizers import codebook_use
from girih.training.data.compose import COLOURS, PLACES
from girih.training.data.folder import ImageFolder
from girih.training.data.pictures import PictureSet
from girih.training.losses import Adversary, LossWeights, PerceptualLoss, adaptive_weight, reconstruction_loss
from girih.training.trainer import Objective

HELD_OUT = 256  # pictures
MAX_FILE = 8_000_000  # bytes of an exported weights file


@dataclass
class Mix:
    """Share of each background and kind of picture in training; what is left of the backgrounds is random colours."""

    white: float = 0.4
    named: float = 0.5
    mirror: float = 0.5
    pairs: float = 0.1


def composite(rgba: Tensor, colours: Tensor) -> tuple[Tensor, Tensor]:
    """Drawings uint8 ``[B, S, S, 4]`` on plain colours ``[B, 3]`` (0-255): pictures ``[B, 3, S, S]`` in [-1, 1] and
    alpha ``[B, 1, S, S]`` in [0, 1]."""
    drawing = rgba.movedim(-1, 1).float() / 255
    alpha = drawing[:, 3:]
    picture = drawing[:, :3] * alpha + colours[:, :, None, None] / 255 * (1 - alpha)
    return picture * 2 - 1, alpha


def pair_up(rgba: Tensor, others: Tensor, places: tuple[tuple[float, float], ...]) -> Tensor:
    """Two drawings ``[S, S, 4]`` at half size, centred at ``places`` (x, y in shares of the side), on one canvas."""
    size = rgba.shape[0]
    canvas = torch.zeros_like(rgba)
    for drawing, (x, y) in zip((rgba, others), places, strict=True):
        colour, alpha = drawing[..., :3].float(), drawing[..., 3:].float()
        premultiplied = torch.cat([colour * alpha, alpha], -1).movedim(-1, 0)
        small = F.avg_pool2d(premultiplied, 2).movedim(0, -1)
        colour, alpha = small[..., :3] / small[..., 3:].clamp_min(1e-3), small[..., 3:]
        left, top = round(x * size - size / 4), round(y * size - size / 4)
        canvas[top : top + size // 2, left : left + size // 2] = torch.cat([colour, alpha], -1).round().to(torch.uint8)
    return canvas


@dataclass
class Drawings:
    """What is reconstructed: ``rgba`` uint8 ``[n, S, S, 4]`` and each picture's concept, held out as a whole."""

    rgba: np.ndarray
    concepts: list[str]

    @property
    def size(self) -> int:
        return self.rgba.shape[1]

    @classmethod
    def open(cls, folder: str | Path, size: int) -> Drawings:
        """A picture set folder, or any folder of pictures (captions play no part): then squares of ``size`` px, opaque,
        kept in memory."""
        if (Path(folder) / "pictures.npy").is_file():
            pictures = PictureSet(folder)
            return cls(pictures.rgba, [row.label for row in pictures.rows])
        found = ImageFolder(folder, size, captions=False)
        if found.skipped:
            warnings.warn(f"{folder}: skipped {found.report()}", stacklevel=2)
        rgba = np.full((len(found), size, size, 4), 255, np.uint8)
        for row in range(len(found)):
            rgba[row, ..., :3] = found.load(row).transpose(1, 2, 0)
        return cls(rgba, [path.relative_to(folder).as_posix() for path, _ in found.items])


def hold_out(concepts: list[str], count: int) -> tuple[list[int], list[int]]:
    """Rows of (training, held-out) pictures: about ``count`` of whole concepts, chosen by a hash of their name."""

    def order(row: int) -> tuple[bytes, int]:
        return hashlib.sha256(concepts[row].encode()).digest(), row

    rows = sorted(range(len(concepts)), key=order)
    while count < len(rows) and count and concepts[rows[count]] == concepts[rows[count - 1]]:
        count += 1
    return sorted(rows[count:]), sorted(rows[:count])


def open_codec(place: str | Path) -> ImageTokenizer:
    """The codec of a training's folder, of a pipeline (folder or shipped name), or a codec's own folder, in float32.

    Raises ValueError where there is none.
    """
    folder = Path(place) if Path(place).is_dir() else Path(catalog.find(str(place)))
    folder = folder / "codec" if (folder / "codec").is_dir() else folder
    if not (folder / "config.json").is_file():
        raise ValueError(f"{place} holds no trained tokenizer (`girih train tokenizer` makes one)")
    return ImageTokenizer.from_pretrained(folder, use_safetensors=True).float()


class TokenizerObjective(Objective):
    """Reconstruction of drawings by an :class:`ImageTokenizer`; ``export`` writes ``codec/`` in float16."""

    options = {
        "data": ("folder", "size"),
        "codec": tuple(inspect.signature(ImageTokenizer).parameters),
        "loss": tuple(field.name for field in fields(LossWeights)),
        "mix": tuple(field.name for field in fields(Mix)),
    }

    def __init__(self, codec: ImageTokenizer, pictures: Drawings, weights: LossWeights, mix: Mix):
        super().__init__()
        if pictures.size % codec.downscale:
            raise ValueError(f"pictures of {pictures.size} px do not divide into tokens of {codec.downscale} px")
        self.codec, self.weights, self.mix = codec, weights, mix
        self.adversary = Adversary() if weights.adversarial else None
        # In a list: not part of what is trained or saved.
        self._perceptual = [PerceptualLoss()] if weights.perceptual else []
        self.pictures = pictures
        self.training_rows, self.held_out = hold_out(pictures.concepts, min(HELD_OUT, len(pictures.rgba) // 5))
        if not self.training_rows or not self.held_out:
            raise ValueError(f"{len(pictures.rgba)} pictures are too few to hold some out")

    @classmethod
    def from_recipe(cls, recipe: dict[str, Any]) -> TokenizerObjective:
        """Sections ``[data] folder, size``, ``[codec]``, ``[loss]``, ``[mix]`` of a recipe. ``init``: a codec to start
        from, for pictures of any size; its widths and levels replace those of ``[codec]``."""
        pictures = Drawings.open(recipe["data"]["folder"], recipe["data"].get("size", 128))
        if recipe.get("init"):
            start = open_codec(recipe["init"])
            codec = ImageTokenizer.from_config({**start.config, "sample_size": pictures.size})
            codec.load_state_dict(start.state_dict())
        else:
            codec = ImageTokenizer(**{"sample_size": pictures.size, **recipe.get("codec", {})})
        return cls(codec, pictures, LossWeights(**recipe.get("loss", {})), Mix(**recipe.get("mix", {})))

    def batch(self, step: int, process: int, size: int) -> dict[str, Tensor]:
        random = np.random.default_rng((self.seed, step, process))
        rows = random.choice(self.training_rows, size)
        drawings = [self._drawing(int(row), random) for row in rows]
        colours = torch.tensor(np.stack([self._background(random) for _ in rows]), dtype=torch.float32)
        return {"rgba": torch.stack(drawings), "colours": colours}

    def _drawing(self, row: int, random: np.random.Generator) -> Tensor:
        drawing = torch.from_numpy(np.array(self.pictures.rgba[row]))
        if random.random() < self.mix.pairs:
            other = torch.from_numpy(np.array(self.pictures.rgba[random.choice(self.training_rows)]))
            drawing = pair_up(drawing, other, PLACES["left of" if random.random() < 0.5 else "above"])
        return drawing.flip(1) if random.random() < self.mix.mirror else drawing

    def _background(self, random: np.random.Generator) -> np.ndarray:
        draw = random.random()
        if draw < self.mix.white:
            return np.array((255, 255, 255))
        if draw < self.mix.white + self.mix.named:
            return np.array(list(COLOURS.values())[random.integers(len(COLOURS))])
        return random.integers(0, 256, 3)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        real, alpha = composite(batch["rgba"], batch["colours"])
        out = self.codec(real)
        made = out.sample.float()
        loss, parts = reconstruction_loss(made, real, alpha, self.weights)
        for perceptual in self._perceptual:
            parts["perceptual"] = perceptual.to(real.device)(made, real)
            loss = loss + self.weights.perceptual * parts["perceptual"]
        if self.adversary is not None:
            fooling, judging = self.adversary(made, real)
            scale = adaptive_weight(loss, fooling, self.codec.decoder.conv_out.weight)
            loss = loss + self.weights.adversarial * (scale * fooling + judging)
            parts |= {"adversarial": fooling, "discriminator": judging}
        for name, value in out.losses.items():
            loss = loss if name == "usage" else loss + value
        return loss, {**parts, **out.losses}

    def evaluate(self) -> dict[str, float]:
        """PSNR in dB of held-out drawings on white, over all pixels and those with alpha above 0.5; codebook use."""
        error, object_error, tokens = [], [], []
        for rows in _chunks(self.held_out, 32):
            real, alpha, out = self._reconstruct(rows)
            square = ((out.sample.float().clamp(-1, 1) - real) / 2).square()
            inside = (alpha > 0.5).float()
            error.append(square.mean((1, 2, 3)))
            object_error.append((square * inside).sum((1, 2, 3)) / (3 * inside.sum((1, 2, 3))).clamp_min(1))
            tokens.append(out.tokens.flatten().cpu())
        use = codebook_use(torch.cat(tokens), self.codec.quantize.vocab_size)
        return {
            "psnr": _decibel(torch.cat(error)),
            "psnr_object": _decibel(torch.cat(object_error)),
            "codes_used": float(use.used),
            "perplexity": use.perplexity,
            "top_code_share": use.top_share,
        }

    def samples(self) -> Image.Image:
        """Held-out drawings over their reconstructions, four double rows of 12."""
        picked = self.held_out[:: max(1, len(self.held_out) // 48)][:48]
        real, _, out = self._reconstruct(picked)
        strips = []
        for first in range(0, len(picked), 12):
            for pictures in (real, out.sample.float()):
                row = pictures[first : first + 12].clamp(-1, 1)
                strip = row.permute(2, 0, 3, 1).reshape(row.shape[2], -1, 3)
                strips.append(F.pad(strip, (0, 0, 0, 12 * row.shape[3] - strip.shape[1]), value=1.0))
        grid = (torch.cat(strips) * 127.5 + 127.5).round().to(torch.uint8)
        return Image.fromarray(grid.cpu().numpy())

    def export(self, folder: Path) -> None:
        codec = ImageTokenizer.from_config(self.codec.config)
        codec.load_state_dict(self.codec.state_dict())
        nn.Module.half(codec)  # diffusers' own `half` warns about an empty list of float32 modules
        codec.save_pretrained(folder / "codec", max_shard_size=MAX_FILE)

    def _reconstruct(self, rows: list[int]) -> tuple[Tensor, Tensor, Any]:
        device = self.codec.device
        rgba = torch.from_numpy(np.asarray(self.pictures.rgba[rows])).to(device)
        real, alpha = composite(rgba, torch.full((len(rows), 3), 255.0, device=device))
        return real, alpha, self.codec(real)


def _decibel(errors: Tensor) -> float:
    """PSNR of the mean squared error of all pictures together (peak 1)."""
    return float(-10 * torch.log10(errors.mean().clamp_min(1e-10)))


def _chunks(rows: list[int], size: int) -> list[list[int]]:
    return [rows[i : i + size] for i in range(0, len(rows), size)]


