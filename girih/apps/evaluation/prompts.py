"""What a model makes of prompts: trained captions, unseen phrases, unseen combinations, scenes, many seeds.

Knows prompts, seeds and the judges. Does not know how a report is printed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from girih.apps.evaluation import codec, concepts
from girih.apps.evaluation import pictures as through
from girih.apps.evaluation.features import unit
from girih.apps.evaluation.galleries import hits
from girih.apps.evaluation.naming import Judges, Rates
from girih.training.data.captions import full_caption
from girih.training.data.compose import COLOURS, scene
from girih.training.data.compose import render as render_scene

HIT_COLOUR = "blue"  # the background whose reconstruction gallery names the held-out combinations


def trained(judges: Judges, n: int) -> tuple[Rates, dict[str, float]]:
    """Hit rates of `n` trained (concept, style) pairs on white, asked for by their full caption with seed i, and how
    close the pictures come to the nearest training drawing.

    `copies`: share of the pictures at least as close to a training drawing, less 1 dB, as the codec could bring it.
    """
    pictures, pipe = judges.pictures, judges.pipe
    labels = _cycle(concepts.listed(pictures), n)
    styles = [pictures.styles[i % len(pictures.styles)] for i in range(n)]
    captions = [full_caption(label, style, "white") for label, style in zip(labels, styles, strict=True)]
    images = through.draw(pipe, captions, range(n), judges.progress, "trained captions")
    rates = judges.name_sheet(judges.see(images, "mean"), labels, styles)
    rates["judge, any"] = hits(judges.judge.ranks(judges.see(images, "mean+max"), labels))

    known = judges.drawings(judges.labels, pictures.styles)
    names = [(label, style) for label in judges.labels for style in pictures.styles]
    nearest = [np.argmin([codec.squared_error(image, k).mean() for k in known]) for image in images]
    closest = [codec.psnr(codec.squared_error(image, known[k])) for image, k in zip(images, nearest, strict=True)]
    copies = through.reconstruct(pipe, known[nearest])
    limit = [codec.psnr(codec.squared_error(copy, known[k])) for copy, k in zip(copies, nearest, strict=True)]
    asked = [names[k] == pair for k, pair in zip(nearest, zip(labels, styles, strict=True), strict=True)]
    return rates, {
        "pictures": n,
        "nearest_psnr": float(np.median(closest)),
        "codec_psnr": float(np.median(limit)),
        "nearest_is_asked": float(np.mean(asked)),
        "copies": float(np.mean(np.array(closest) >= np.array(limit) - 1)),
    }


# (guidance scale, temperature, top-k) of the trade-off table.
SETTINGS = ((1.0, 0.3, 0), (1.0, 0.7, 0), (1.0, 1.0, 0), (1.0, 1.0, 8), (1.5, 0.3, 0), (1.5, 0.7, 0), (2.5, 0.3, 0),
            (2.5, 0.7, 0))  # fmt: skip


def phrased(judges: Judges, n: int, **options: Any) -> Rates:
    """Hit rates in the judging gallery of `n` pictures: picture i is the i-th listed concept, asked for by a phrase
    held out of training, no style named, seed i."""
    labels = _cycle(concepts.listed(judges.pictures), n)
    images = through.draw(judges.pipe, concepts.phrases(labels), range(n), judges.progress, "phrases", **options)
    return {"judge, any": hits(judges.judge.ranks(judges.see(images, "mean+max"), labels))}


def combinations(judges: Judges, n: int) -> dict[str, Any]:
    """`n` held-out (concept, style, blue) and up to `n` on the other colours: whether the background has the colour
    asked for (the named colour nearest to the median of the border), and for blue the hits among reconstructions on
    blue."""
    others = [colour for colour in concepts.coloured() if colour != HIT_COLOUR]
    asked = concepts.held_out_combinations(judges.pictures, n, [HIT_COLOUR])
    first = len(asked)
    if not first:
        raise ValueError(f"the picture set has no held-out combination on {HIT_COLOUR}")
    asked += concepts.held_out_combinations(judges.pictures, n, others)
    captions = [full_caption(*triple) for triple in asked]
    images = through.draw(judges.pipe, captions, range(len(asked)), judges.progress, "held-out combinations")
    palette = np.array(list(COLOURS.values()))
    distance = ((through.border_colour(images)[:, None] - palette) ** 2).sum(-1)
    right = [list(COLOURS)[k] == triple[2] for k, triple in zip(distance.argmin(1), asked, strict=True)]
    seen, labels = judges.see(images[:first], "mean"), [triple[0] for triple in asked[:first]]
    gallery = judges.on(HIT_COLOUR)
    return {
        "pictures": len(asked),
        "background_right": float(np.mean(right)),
        "reconstruction, any, nearest": hits(gallery.ranks(seen, labels)),
        "reconstruction, cross, centroid": hits(
            gallery.ranks(seen, labels, [t[1] for t in asked[:first]], centroid=True)
        ),
    }


def scenes(judges: Judges, n: int) -> dict[str, dict[str, dict[str, float]]]:
    """Shares of `n` scenes of two objects never shown together, "a fox left of a tree", whose two halves are both named
    right in the judging gallery (top1: both by their nearest concept; top5): real scenes, their reconstructions and
    generated ones. "halves" are padded to squares, so that an object is seen at half the gallery's size; "objects" are
    the squares of the halves that hold the object, at the gallery's proportions.
    """
    pictures = judges.pictures
    pairs = concepts.held_out_pairs(pictures, n)
    if not pairs:
        raise ValueError("the picture set has no held-out pair of concepts")
    prompts = [f"{article(a)} left of {article(b)}" for a, b in pairs]
    rows = [[pictures.of[label][concepts.JUDGES[i % 2]] for label in pair] for i, pair in enumerate(pairs)]
    real = np.stack([render_scene(scene(pair, "left of"), pictures) for pair in rows])
    drawn = through.draw(judges.pipe, prompts, range(len(prompts)), judges.progress, "scenes of two objects")
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, images in (
        ("real", real),
        ("reconstructed", through.reconstruct(judges.pipe, real)),
        ("generated", drawn),
    ):
        found[name] = {}
        for crop, cut in (("halves", padded_half), ("objects", object_square)):
            ranks = [
                judges.judge.ranks(judges.see(cut(images, side), "mean+max"), [pair[side] for pair in pairs])
                for side in (0, 1)
            ]
            found[name][crop] = hits(np.maximum(*ranks))
    return found


def padded_half(images: np.ndarray, side: int) -> np.ndarray:
    """The left (0) or right (1) half of pictures uint8 [n,3,S,S] in the middle of a square [n,3,S,S] of the
    background's colour."""
    size = images.shape[-1]
    width = size // 2
    square = np.empty_like(images)
    square[:] = through.border_colour(images).round().astype(np.uint8)[:, :, None, None]
    left = (size - width) // 2
    square[..., left : left + width] = _half(images, side)
    return square


def object_square(images: np.ndarray, side: int) -> np.ndarray:
    """The square [n,3,S/2,S/2] of a half of pictures that is centred on the rows that differ from the background: a
    model may place an object high or low."""
    size = images.shape[-1]
    width = size // 2
    squares = []
    for image, colour in zip(_half(images, side), through.border_colour(images), strict=True):
        rows = np.flatnonzero((np.abs(image - colour[:, None, None]).max(0) > 40).any(1))
        middle = (rows[0] + rows[-1] + 1) // 2 if len(rows) else size // 2
        top = int(np.clip(middle - width // 2, 0, size - width))
        squares.append(image[:, top : top + width])
    return np.stack(squares)


def _half(images: np.ndarray, side: int) -> np.ndarray:
    width = images.shape[-1] // 2
    return images[..., :width] if side == 0 else images[..., -width:]


def losses(judges: Judges, n: int) -> dict[str, dict[str, float]]:
    """Loss in nats per token under the right captions and under those of another picture, for trained pairs (on white)
    and for held-out combinations."""
    pictures = judges.pictures
    labels = _cycle(concepts.listed(pictures), n)
    known = [(label, pictures.styles[i % len(pictures.styles)], "white") for i, label in enumerate(labels)]
    new = concepts.held_out_combinations(pictures, n, concepts.coloured())
    found = {}
    for name, triples in (("trained", known), ("held_out", new)):
        images = np.concatenate([judges.drawings([label], [style], colour) for label, style, colour in triples])
        tokens, captions = through.encode(judges.pipe, images), [full_caption(*triple) for triple in triples]
        right, shuffled = _loss(judges.pipe, tokens, captions), _loss(judges.pipe, tokens, captions[1:] + captions[:1])
        found[name] = {"right": right, "shuffled": shuffled, "gap": shuffled - right, "pictures": len(triples)}
    return found


@torch.inference_mode()
def _loss(pipe: Any, tokens: torch.Tensor, captions: list[str]) -> float:
    parts = [pipe.caption_loss(tokens[i : i + 16], captions[i : i + 16]) for i in range(0, len(captions), 16)]
    return float(torch.cat(parts).mean())


@dataclass
class Ruler:
    """What "visibly different" means: cosine distance of the features of four quarters, relative to ``mean``, beyond
    ``threshold``; and the share of mirror images, and of the same concept in another style, that pass it."""

    mean: np.ndarray
    threshold: float
    mirrored_pass: float
    other_style_pass: float

    @classmethod
    def calibrated(cls, judges: Judges) -> Ruler:
        """On real drawings after the codec: 95 of 100 drawings moved by 1/32 of the side, which no viewer would call
        another picture, stay below the threshold. Of mirror images many are symmetric."""
        pictures, pipe = judges.pictures, judges.pipe
        plain = judges.drawings(concepts.listed(pictures)[:24], concepts.JUDGES)
        kinds = {"plain": plain, "mirrored": plain[..., ::-1], "moved": np.roll(plain, pictures.size // 32, axis=-1)}
        seen = {
            name: judges.see(through.reconstruct(pipe, images), "quarters", "calibrating diversity")
            for name, images in kinds.items()
        }
        mean = seen["plain"].mean(0)
        placed = {name: unit(rows - mean) for name, rows in seen.items()}
        moved, mirrored = (1 - (placed["plain"] * placed[kind]).sum(1) for kind in ("moved", "mirrored"))
        styles = 1 - (placed["plain"][::2] * placed["plain"][1::2]).sum(1)
        threshold = float(np.quantile(moved, 0.95))
        return cls(mean, threshold, float((mirrored > threshold).mean()), float((styles > threshold).mean()))


def diversity(
    judges: Judges, ruler: Ruler, prompt: str = "a cat", concept: str = "cat", seeds: int = 8, **options: Any
) -> dict[str, Any]:
    """How many of the pictures of one prompt, seeds 0..7, differ visibly, and how many are hits.

    Greedy: a picture is new when it differs visibly from every new one before it.
    """
    job = f"{seeds} seeds of {prompt!r}"
    images = through.draw(judges.pipe, [prompt] * seeds, range(seeds), judges.progress, job, **options)
    named = concept in judges.labels
    ranks = judges.judge.ranks(judges.see(images, "mean+max"), [concept] * seeds) if named else None
    return {
        "prompt": prompt,
        "seeds": seeds,
        "different": len(distinct(unit(judges.see(images, "quarters") - ruler.mean), ruler.threshold)),
        "threshold": ruler.threshold,
        "mirrored_pass": ruler.mirrored_pass,
        "other_style_pass": ruler.other_style_pass,
        "hits": hits(ranks) if ranks is not None else None,
    }


def tradeoff(judges: Judges, ruler: Ruler, n: int) -> list[dict[str, Any]]:
    """Hits of `n` held-out phrases and different pictures among eight seeds of one prompt, for each of ``SETTINGS``:
    what a model's defaults are chosen by."""
    rows = []
    for guidance_scale, temperature, top_k in SETTINGS:
        options: dict[str, Any] = {"guidance_scale": guidance_scale, "temperature": temperature, "top_k": top_k}
        many = diversity(judges, ruler, **options)
        rows.append({**options, "phrases": phrased(judges, n, **options)["judge, any"],
                     "different": many["different"], "hits": many["hits"]})  # fmt: skip
    return rows


def distinct(placed: np.ndarray, threshold: float) -> list[int]:
    """Greedily, the rows of unit vectors [n,d] farther than `threshold` (cosine distance) from all kept before."""
    kept: list[int] = []
    for i, row in enumerate(placed):
        if all(1 - row @ placed[j] > threshold for j in kept):
            kept.append(i)
    return kept


def article(label: str) -> str:
    """A label as a noun phrase: "an owl", "a fox"."""
    text = label.lower()
    return f"{'an' if text[0] in 'aeiou' else 'a'} {text}"


def _cycle(labels: list[str], n: int) -> list[str]:
    return [labels[i % len(labels)] for i in range(n)]
