"""iVideoGPT: the context and dynamics tokenizer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import girih
from girih.checkpoints import ivideogpt

from .case import Case, Family


def ivideogpt_tokenizer(case: Case) -> dict[str, Any]:
    """Tokens, labels, latents, decoded clips (also of remapped tokens), and what a training step computes."""
    config, state = ivideogpt.load_tokenizer(case.weights, **case.description["args"])
    codec = girih.VideoTokenizer.from_config(config)
    codec.load_state_dict(state)  # stored as float16, computed in float32
    codec.eval()
    video = case.inputs["video"].float()
    tokens = codec.encode(video)
    context, dynamics = codec.latents(video)
    for quantizer in (codec.quantize, codec.dynamics_quantize):
        quantizer.train()  # their losses without the dropout of cross-attention
    trained = codec(video)
    first = codec.config["context_frames"]
    return {
        "ids": tokens,
        "labels": codec.labels(tokens),
        "ctx_latent": context,
        "dyn_latent": dynamics.mT,
        "recon": codec.decode(tokens),
        "recon_alt": codec.decode(_remapped(codec, tokens)),
        "train_recon": trained.sample[:, first:],
        "train_ctx_recon": trained.sample[:, :first],
        "commit": trained.losses["vq"] + trained.losses["commit"],
        "dyn_commit": trained.losses["dynamics_vq"] + trained.losses["dynamics_commit"],
    }


def _remapped(codec: girih.VideoTokenizer, tokens: Tensor) -> Tensor:
    """case.json's other tokens: context code c -> 7c + 3, dynamics id d -> 5d + 1, within their codebooks."""
    first, second = codec.config["context_codes"], codec.config["dynamics_codes"]
    context, dynamics = (7 * tokens + 3) % first, first + (5 * tokens + 1) % second
    return torch.where(tokens < first, context, torch.where(tokens < codec.start_context, dynamics, tokens))


def tolerance(description: dict[str, Any], name: str) -> str:
    """case.json states tolerances by kind: ids, latents, frames, losses. What was stored in half precision may also be
    off by half a step of it, which for large values is more than the stated atol."""
    if name in ("ids", "labels"):
        return "exact"
    kind = "latents" if "latent" in name else "frames" if "recon" in name else "losses"
    stored = description["tensors"][name]["dtype"]
    return description["tolerance"][kind] + (" rtol 4.9e-4" if stored == "float16" else "")


FAMILIES = {"ivideogpt-tokenizer": Family(ivideogpt_tokenizer, inputs=("video",), tolerance=tolerance)}
