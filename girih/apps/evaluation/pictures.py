"""Pictures through a pipeline: drawn from prompts, or encoded and decoded.

Knows the pipeline's public calls and uint8 RGB pictures [n,3,S,S]. Does not know measures.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

Progress = Callable[[str, int, int], None]
_BATCH = 16


def draw(
    pipe: Any, prompts: Sequence[str], seeds: Sequence[int], progress: Progress | None = None, job: str = "drawing",
    **options: Any,
) -> np.ndarray:  # fmt: skip
    """uint8 [n,3,S,S]: prompt i drawn with seed i. `options` go to the pipeline (guidance_scale, temperature, ...)."""
    drawn = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # words a model does not know are the point of some prompts
        for start in range(0, len(prompts), _BATCH):
            stop = min(start + _BATCH, len(prompts))
            generators = [torch.Generator().manual_seed(seed) for seed in seeds[start:stop]]
            out = pipe(prompt=list(prompts[start:stop]), generator=generators, output_type="np", **options)
            drawn.append(np.asarray(out.images))
            if progress:
                progress(job, stop, len(prompts))
    pixels = (np.concatenate(drawn) * 255).round().clip(0, 255).astype(np.uint8)
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))


def to_float(images: np.ndarray) -> torch.Tensor:
    """float32 in [-1,1] of uint8 pictures."""
    return torch.from_numpy(np.ascontiguousarray(images)).float() / 127.5 - 1


@torch.inference_mode()
def encode(pipe: Any, images: np.ndarray) -> torch.Tensor:
    """Tokens [n,h,w] of uint8 pictures [n,3,S,S]."""
    return torch.cat([pipe.encode(to_float(images[i : i + _BATCH])) for i in range(0, len(images), _BATCH)])


@torch.inference_mode()
def decode(pipe: Any, tokens: torch.Tensor) -> np.ndarray:
    """uint8 pictures [n,3,S,S] of tokens [n,h,w]."""
    parts = [pipe.decode(tokens[i : i + _BATCH]).float().clamp(-1, 1) for i in range(0, len(tokens), _BATCH)]
    return ((torch.cat(parts) + 1) * 127.5).round().to(torch.uint8).cpu().numpy()


def reconstruct(pipe: Any, images: np.ndarray) -> np.ndarray:
    """uint8 pictures [n,3,S,S] after the codec."""
    return decode(pipe, encode(pipe, images))


def fingerprint(module: torch.nn.Module) -> bytes:
    """A hash of a module's configuration and weights."""
    digest = hashlib.sha256(repr(sorted(dict(getattr(module, "config", {})).items())).encode())
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.digest()


def border_colour(images: np.ndarray) -> np.ndarray:
    """Median colour [n,3] of the outermost pixels of uint8 pictures [n,3,S,S]."""
    edges = [images[:, :, 0], images[:, :, -1], images[:, :, :, 0], images[:, :, :, -1]]
    return np.median(np.concatenate(edges, axis=2), axis=2)
