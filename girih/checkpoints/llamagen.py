"""LlamaGen's published checkpoints (FoundationVision/LlamaGen, MIT) to our configs and state dicts.

Knows the peer's tensor names and what their shapes say. Does not know files (reading.py) or how the models compute.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from girih.checkpoints.reading import match, read_state_dict, whole_folder
from girih.tokenizers.image import ImageTokenizer, llamagen_config

# --- The VQ tokenizer -------------------------------------------------------------------------------------------------


def vq_config(state: Mapping[str, Tensor], source: str = "checkpoint", **known: Any) -> dict[str, Any]:
    """:class:`ImageTokenizer` config of a LlamaGen ``VQModel`` state dict.

    Widths, depths, codebook and latent sizes come from the tensors. ``known`` are arguments of
    :func:`girih.tokenizers.image.llamagen_config` that tensors cannot say (``codebook_l2_norm``, ``sample_size``,
    ``commit_loss_beta``, ``entropy_loss_ratio``); they also override what was read.

    Raises:
        ValueError: a tensor that names a size is missing, or the widths are not multiples of the first one.
    """

    def shape(name: str) -> torch.Size:
        if name not in state:
            raise ValueError(f"{source} lacks tensor {name}; it is no LlamaGen VQ tokenizer")
        return state[name].shape

    ch = shape("encoder.conv_in.weight")[0]
    config = {
        "ch": ch,
        "in_channels": shape("encoder.conv_in.weight")[1],
        "out_channels": shape("decoder.conv_out.weight")[0],
        "encoder_ch_mult": _multiples(_widths(state, "encoder"), ch, source),
        "decoder_ch_mult": _multiples(_widths(state, "decoder"), ch, source)[::-1],
        "num_res_blocks": _count(state, "encoder.conv_blocks.0.res"),
        "z_channels": shape("encoder.conv_out.weight")[0],
        "codebook_size": shape("quantize.embedding.weight")[0],
        "codebook_embed_dim": shape("quantize.embedding.weight")[1],
        "codebook_show_usage": "quantize.codebook_used" in state,
    }
    try:
        return llamagen_config(**{**config, **known})
    except TypeError as error:
        raise ValueError(f"LlamaGen VQ config: {error}") from error


def load_vq(path: str | Path, **known: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A published VQ file (``vq_ds16_c2i.pt`` and the like, or safetensors) as ``(config, state dict)`` that fit.

    ``known``: see :func:`vq_config`. Raises FileNotFoundError and ValueError with one line that names what is wrong.
    """
    state = read_state_dict(path)
    config = vq_config(state, str(path), **known)
    with torch.device("meta"):
        expected = ImageTokenizer.from_config(config).state_dict()
    match(state, expected, str(path))
    return config, state


def _widths(state: Mapping[str, Tensor], side: str) -> list[int]:
    """Output channels of each level's first block, in the order of the file."""
    levels = _count(state, f"{side}.conv_blocks")
    names = [f"{side}.conv_blocks.{level}.res.0.conv2.weight" for level in range(levels)]
    return [state[name].shape[0] for name in names if name in state]


def _multiples(widths: list[int], ch: int, source: str) -> list[int]:
    for width in widths:
        if width % ch:
            raise ValueError(f"{source}: level width {width} is not a multiple of the first width {ch}")
    return [width // ch for width in widths]


def _count(state: Mapping[str, Tensor], prefix: str) -> int:
    """Number of different indices that follow ``prefix.`` in the names."""
    return len({name[len(prefix) + 1 :].split(".")[0] for name in state if name.startswith(prefix + ".")})


def convert_vq(path: str | Path, out_dir: str | Path, known: Mapping[str, Any] | None = None) -> None:
    """Write a published VQ file as an :class:`ImageTokenizer` folder that ``girih.load`` reads.

    The folder appears whole or not at all. Raises ValueError for a bad file or an ``out_dir`` that holds something.
    """
    config, state = load_vq(path, **(known or {}))
    codec = ImageTokenizer.from_config(config)
    codec.load_state_dict(state)
    with whole_folder(out_dir) as part:
        codec.save_pretrained(part)
