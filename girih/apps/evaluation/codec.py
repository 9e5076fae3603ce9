"""How well the image tokenizer keeps a picture, and how it uses its codes.

Knows pixels, alpha and token counts. Does not know concepts or prompts.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from girih.apps.evaluation import pictures as through
from girih.tokenizers.quantizers import codebook_use
from girih.training.data.compose import Item, Picture, render
from girih.training.data.pictures import PictureSet
from girih.training.tokenizer import HELD_OUT, hold_out


def psnr(error: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of squared errors on the 0-255 scale; capped at 99 dB for equal pictures."""
    mse = float(np.mean(error, dtype=np.float64))
    return 99.0 if mse == 0 else min(99.0, 10 * float(np.log10(255**2 / mse)))


def squared_error(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """float32 squared differences of uint8 pictures."""
    return (first.astype(np.float32) - second.astype(np.float32)) ** 2


def measure(pipe: Any, pictures: PictureSet) -> dict[str, float]:
    """PSNR over all and over object pixels (alpha above one half), the errors pooled over the drawings (about 256, on
    white) of concepts that the codec's training holds out; `psnr_mean` is the mean of each picture's own PSNR. Codes
    used, perplexity and share of the top code are over the same pictures. Raises ValueError for a set too small to hold
    out."""
    _, rows = hold_out([row.label for row in pictures.rows], min(HELD_OUT, len(pictures) // 5))
    if not rows:
        raise ValueError(f"a picture set of {len(pictures)} pictures is too small to hold some out")
    real = np.stack([render(Picture((Item(row),)), pictures) for row in rows])
    inside = np.stack([pictures.rgba[row, ..., 3] > 127 for row in rows])
    tokens = through.encode(pipe, real)
    error = squared_error(through.decode(pipe, tokens), real).mean(1)  # [n,S,S]
    vocabulary = int(pipe.codec.spec.vocab_size)
    use = codebook_use(tokens, vocabulary)
    return {
        "pictures": len(rows),
        "psnr": psnr(error),
        "psnr_object": psnr(error[inside]),
        "psnr_mean": float(np.mean([psnr(e) for e in error])),
        "tokens": int(tokens[0].numel()),
        "codes": vocabulary,
        "codes_used": use.used,
        "share_used": use.share_used,
        "perplexity": use.perplexity,
        "top_code_share": use.top_share,
    }
