"""VAR's published checkpoints (FoundationVision/VAR, MIT) to our configs and state dicts.

Knows the peer's tensor names and what their shapes say. Does not know files (reading.py) or how the models compute.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from girih.checkpoints.reading import match, read_state_dict, whole_folder
from girih.names import unknown
from girih.tokenizers.multiscale import MultiscaleTokenizer

# --- The multi-scale VQ tokenizer -------------------------------------------------------------------------------------

PUBLISHED_SCALES = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)  # of the 256 px models
# The peer's arguments that a caller may give because tensors cannot say them.
UNSEEN = ("beta", "patch_nums", "quant_resi", "using_znorm")
# The peer's names, as patterns, to ours. Its levels count from the largest size, ours in the decoder from the smallest.
NAMES: list[tuple[str, str | Callable[[re.Match[str]], str]]] = [
    (r"^quantize\.quant_resi\.(?:qresi_ls\.(\d+)|qresi|(\d+))\.", lambda m: f"quantize.blends.{m[1] or m[2] or 0}."),
    (r"\.(?:down|up)\.(\d+)\.", r".conv_blocks.\1."),
    (r"(\.conv_blocks\.\d+)\.block\.", r"\1.res."),
    (r"\.mid\.block_1\.", ".mid.0."),
    (r"\.mid\.attn_1\.", ".mid.1."),
    (r"\.mid\.block_2\.", ".mid.2."),
]


def vq_config(state: Mapping[str, Tensor], source: str = "checkpoint", **known: Any) -> dict[str, Any]:
    """:class:`MultiscaleTokenizer` config of a VAR ``VQVAE`` state dict.

    Sizes come from the tensors. ``known``: the peer's ``beta``, ``quant_resi``, ``using_znorm`` and ``patch_nums``
    (default: the published 256 px schedule).

    Raises:
        ValueError: a tensor that names a size is missing, ``known`` has another name, or the schedule contradicts the
            number of scales in the file.
    """
    if extra := sorted(set(known) - set(UNSEEN)):
        raise unknown("VAR VQVAE setting", extra[0], UNSEEN)

    def shape(name: str) -> torch.Size:
        if name not in state:
            raise ValueError(f"{source} lacks tensor {name}; it is no VAR tokenizer")
        return state[name].shape

    levels = _count(state, "encoder.down")
    widths = [shape(f"encoder.down.{i}.block.0.conv2.weight")[0] for i in range(levels)]
    decoder = [shape(f"decoder.up.{i}.block.0.conv2.weight")[0] for i in reversed(range(levels))]
    scales = list(known.get("patch_nums") or PUBLISHED_SCALES)
    hits = state.get("quantize.ema_vocab_hit_SV")
    if hits is not None and len(hits) != len(scales):
        raise ValueError(f"{source} was trained with {len(hits)} scales; give patch_nums, its {len(hits)} sides")
    convs = [name for name in state if re.fullmatch(r"quantize\.quant_resi\..*weight", name)]
    codebook_size, z_channels = shape("quantize.embedding.weight")
    return {
        "sample_size": scales[-1] * 2 ** (levels - 1),
        "in_channels": shape("encoder.conv_in.weight")[1],
        "out_channels": shape("decoder.conv_out.weight")[0],
        "stem_width": shape("encoder.conv_in.weight")[0],
        "encoder_widths": widths,
        "encoder_blocks": [_count(state, f"encoder.down.{i}.block") for i in range(levels)],
        "decoder_widths": decoder,
        "decoder_blocks": [_count(state, f"decoder.up.{i}.block") for i in reversed(range(levels))],
        "norm_groups": 32,
        "norm_eps": 1e-6,
        "attention": "encoder.mid.attn_1.qkv.weight" in state,
        "z_channels": z_channels,
        "quant_kernel": shape("quant_conv.weight")[-1],
        "scales": scales,
        "codebook_size": codebook_size,
        "blends": len(convs),
        "blend": abs(known.get("quant_resi", 0.5)) if convs else 0.0,
        "cosine": known.get("using_znorm", False),
        "commit_weight": known.get("beta", 0.25),
    }


def vq_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The peer's tensors under our names, in float32. Fused attention projections are split; the usage statistic is
    dropped (it depends on the schedule and says nothing about inference)."""
    levels = _count(state, "decoder.up")
    renamed = {}
    for name, tensor in state.items():
        if name == "quantize.ema_vocab_hit_SV":
            continue
        ours = name
        for pattern, new in NAMES:
            ours = re.sub(pattern, new, ours)
        if found := re.match(r"decoder\.conv_blocks\.(\d+)\.(.*)", ours):
            ours = f"decoder.conv_blocks.{levels - 1 - int(found[1])}.{found[2]}"
        if ".qkv." in ours:
            for part, third in zip("qkv", tensor.float().chunk(3), strict=True):
                renamed[ours.replace(".qkv.", f".{part}.")] = third.contiguous()
        else:
            renamed[ours] = tensor.float()
    return renamed


def load_vq(path: str | Path, **known: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A published tokenizer file (``vae_ch160v4096z32.pth``, or safetensors) as ``(config, state dict)`` that fit.

    ``known``: see :func:`vq_config`. Raises FileNotFoundError and ValueError with one line that names what is wrong.
    """
    state = read_state_dict(path)
    config, renamed = vq_config(state, str(path), **known), vq_state(state)
    with torch.device("meta"):
        expected = MultiscaleTokenizer.from_config(config).state_dict()
    match(renamed, expected, str(path))
    return config, renamed


def convert_vq(path: str | Path, out_dir: str | Path, known: Mapping[str, Any] | None = None) -> None:
    """Write a published tokenizer file as a :class:`MultiscaleTokenizer` folder that ``girih.load`` reads.

    The folder appears whole or not at all. Raises ValueError for a bad file or an ``out_dir`` that holds something.
    """
    config, state = load_vq(path, **(known or {}))
    codec = MultiscaleTokenizer.from_config(config)
    codec.load_state_dict(state)
    with whole_folder(out_dir) as part:
        codec.save_pretrained(part)


def _count(state: Mapping[str, Tensor], prefix: str) -> int:
    """Number of different indices that follow ``prefix.`` in the names."""
    return len({name[len(prefix) + 1 :].split(".")[0] for name in state if name.startswith(prefix + ".")})
