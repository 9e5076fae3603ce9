"""iVideoGPT's published video tokenizer (thuml/iVideoGPT ``CompressiveVQModel``) as our config and state dict.

Knows the peer's tensor names and config keys. Does not know pixels. The tensors are named alike on both sides; sizes
are read from them, and only what they cannot say (groups of the norms, activation) comes from the config.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from girih.checkpoints.reading import match, read_state_dict, whole_folder
from girih.names import unknown
from girih.tokenizers.video import VideoTokenizer

# The peer's settings -> ours, of those that tensors do not tell or that are checked against them.
SETTINGS = {
    "in_channels": "in_channels", "out_channels": "out_channels", "block_out_channels": "widths",
    "layers_per_block": "num_blocks", "latent_channels": "latent_channels", "num_vq_embeddings": "context_codes",
    "num_dyn_embeddings": "dynamics_codes", "vq_embed_dim": "code_dim", "context_length": "context_frames",
    "resolution": "sample_size", "patch_size": "patch_size", "norm_num_groups": "norm_groups", "act_fn": "act_fn",
    "mid_block_add_attention": "attention", "max_att_resolution": "attention_size",
}  # fmt: skip
# Settings with one value that we know; another would be another model.
FIXED = {
    "down_block_types": "DownEncoderBlock2D", "up_block_types": "UpDecoderBlock2D", "norm_type": "group",
    "lookup_from_codebook": False, "force_upcast": False,
}  # fmt: skip
UNUSED = ("sample_size", "scaling_factor")  # the peer stores them and does not read them
UNSEEN = ("norm_groups", "act_fn", "attention_size")  # ours; tensors do not tell them, or not exactly


def tokenizer_config(state: Mapping[str, Tensor], source: str = "checkpoint", **known: Any) -> dict[str, Any]:
    """:class:`VideoTokenizer` config of a ``CompressiveVQModel`` state dict.

    ``known``: the peer's config, by its names; what the tensors say is checked against it.

    Raises:
        ValueError: a tensor that names a size is missing, or ``known`` contradicts the tensors.
    """
    read = _read_sizes(state, source)
    for name, value in known.items():
        if name in UNUSED or name.startswith("_"):
            continue
        if name in FIXED:
            values = value if isinstance(value, (list, tuple)) else [value]
            if any(one != FIXED[name] for one in values):
                raise ValueError(f"{source}: {name} {value} is not supported, only {FIXED[name]}")
            continue
        if name not in SETTINGS:
            raise unknown("iVideoGPT setting", name, [*SETTINGS, *FIXED])
        ours = SETTINGS[name]
        value = list(value) if isinstance(value, tuple) else value
        if ours in UNSEEN:
            read[ours] = value
        elif ours == "code_dim" and value is None:
            continue
        elif read[ours] != value:
            raise ValueError(f"{source}: the config says {name} {value}, the tensors say {read[ours]}")
    return read


def load_tokenizer(path: str | Path, **known: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A published tokenizer file (its folder's ``config.json`` is read too) as ``(config, state dict)`` that fit.

    ``known`` overrides the file's config. Raises FileNotFoundError and ValueError with one line.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "diffusion_pytorch_model.safetensors"
    state = read_state_dict(path)
    config = tokenizer_config(state, str(path), **{**_beside(path), **known})
    with torch.device("meta"):
        expected = VideoTokenizer.from_config(config).state_dict()
    match(state, expected, str(path))
    return config, state


def convert_tokenizer(path: str | Path, out_dir: str | Path, known: Mapping[str, Any] | None = None) -> None:
    """Write a published tokenizer as a :class:`VideoTokenizer` folder that ``girih.load`` reads; whole or not at all.

    Raises ValueError for a bad file or an ``out_dir`` that holds something.
    """
    config, state = load_tokenizer(path, **(known or {}))
    codec = VideoTokenizer.from_config(config)
    codec.load_state_dict(state)
    with whole_folder(out_dir) as part:
        codec.save_pretrained(part)


def _read_sizes(state: Mapping[str, Tensor], source: str) -> dict[str, Any]:
    def shape(name: str) -> torch.Size:
        if name not in state:
            raise ValueError(f"{source} lacks tensor {name}; it is no iVideoGPT tokenizer")
        return state[name].shape

    levels = _count(state, "encoder.down_blocks")
    widths = [shape(f"encoder.down_blocks.{level}.resnets.0.conv2.weight")[0] for level in range(levels)]
    latent = shape("encoder.conv_out.weight")[0]
    queries, keys = (shape(f"cond_decoder.cross_att_blocks.0.{side}_pos_emb")[0] for side in ("q", "kv"))
    side = math.isqrt(queries)
    return {
        "sample_size": side * 2 ** (levels - 1),
        "num_frames": max(16, keys // queries + 1),
        "context_frames": keys // queries,
        "in_channels": shape("encoder.conv_in.weight")[1],
        "out_channels": shape("decoder.conv_out.weight")[0],
        "widths": widths,
        "num_blocks": _count(state, "encoder.down_blocks.0.resnets"),
        "latent_channels": latent,
        "code_dim": shape("quant_conv.weight")[0],
        "context_codes": shape("quantize.embedding.weight")[0],
        "dynamics_codes": shape("dynamics_quantize.embedding.weight")[0],
        "patch_size": math.isqrt(shape("quant_linear.weight")[1] // latent),
        "attention": "encoder.mid_block.attentions.0.to_q.weight" in state,
        "attention_size": _attention_size(state, side, levels),
        "norm_groups": 32,  # this and the next: the peer's defaults
        "act_fn": "silu",
    }


def _attention_size(state: Mapping[str, Tensor], side: int, levels: int) -> int:
    """Side of the largest level that cross-attends, by the number of such levels in encoder and decoder."""
    encoder, decoder = (_count(state, f"cond_{part}.cross_att_blocks") for part in ("encoder", "decoder"))
    # Both count from the smallest side, which the encoder has twice; the decoder has the largest twice, and one
    # attention before its levels.
    sizes = [side * 2 ** max(encoder - 2, 0)] if encoder else [side - 1]
    return max(sizes + ([side * 2 ** min(decoder - 1, levels - 1)] if decoder > 1 else []))


def _beside(path: Path) -> dict[str, Any]:
    """The peer's config.json next to the weights, if there is one."""
    file = path.parent / "config.json"
    if not file.is_file():
        return {}
    try:
        return dict(json.loads(file.read_text("utf-8")))
    except ValueError as error:
        raise ValueError(f"{file} is not JSON: {error}") from error


def _count(state: Mapping[str, Tensor], prefix: str) -> int:
    """Number of different indices that follow ``prefix.`` in the names."""
    return len({name[len(prefix) + 1 :].split(".")[0] for name in state if name.startswith(prefix + ".")})
