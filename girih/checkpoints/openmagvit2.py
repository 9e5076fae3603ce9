"""Open-MAGVIT2's published checkpoints (TencentARC/SEED-Voken, Apache-2.0) to our configs and state dicts.

Knows the peer's tensor names and what their shapes say. Does not know files (reading.py) or how the models compute.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from girih.checkpoints.reading import match, read_state_dict, whole_folder
from girih.names import unknown
from girih.tokenizers.lookup_free import LookupFreeTokenizer

# --- The lookup-free tokenizer ----------------------------------------------------------------------------------------

# What a caller may give because tensors cannot say it: our config's names.
UNSEEN = ("bits", "sample_size", "certainty_weight", "diversity_weight", "commit_weight")
SIDES = ("encoder.", "decoder.")


def vq_tensors(state: Mapping[str, Tensor], averaged: bool = True) -> dict[str, Tensor]:
    """The tokenizer's tensors under the peer's own names, out of a training checkpoint (stage 1 or 2).

    ``averaged``: take the moving averages (``model_ema.`` and the name without its dots) where the file has them.
    """
    inner = {name.removeprefix("first_stage_model."): tensor for name, tensor in state.items()}
    picked = {name: tensor for name, tensor in inner.items() if name.startswith(SIDES)}
    if averaged:
        picked = {name: inner.get("model_ema." + name.replace(".", ""), tensor) for name, tensor in picked.items()}
    return picked


def vq_config(tensors: Mapping[str, Tensor], source: str = "checkpoint", **known: Any) -> dict[str, Any]:
    """:class:`LookupFreeTokenizer` config of the tensors that :func:`vq_tensors` gives.

    Sizes come from the tensors. ``known``: ``bits`` of the sub-tokens (default [6, 12] for 18 bits, else one token),
    ``sample_size`` (default 256) and the loss weights of our config.

    Raises:
        ValueError: a tensor that names a size is missing, ``known`` has another name, or ``bits`` contradict the file.
    """
    if extra := sorted(set(known) - set(UNSEEN)):
        raise unknown("Open-MAGVIT2 setting", extra[0], UNSEEN)

    def shape(name: str) -> torch.Size:
        if name not in tensors:
            raise ValueError(f"{source} lacks tensor {name}; it is no Open-MAGVIT2 image tokenizer")
        return tensors[name].shape

    channels = shape("encoder.conv_out.weight")[0]
    bits = list(known.pop("bits", None) or ([6, 12] if channels == 18 else [channels]))
    if sum(bits) != channels:
        raise ValueError(f"{source} has {channels} bits a token, which sub-tokens of {bits} bits do not make")
    levels = _count(tensors, "encoder.down")
    return {
        "sample_size": 256,
        "in_channels": shape("encoder.conv_in.weight")[1],
        "out_channels": shape("decoder.conv_out.weight")[0],
        "stem_width": shape("encoder.conv_in.weight")[0],
        "encoder_widths": [shape(f"encoder.down.{i}.block.0.conv2.weight")[0] for i in range(levels)],
        "encoder_blocks": [_count(tensors, f"encoder.down.{i}.block") for i in range(levels)],
        "decoder_widths": [shape(f"decoder.up.{i}.block.0.conv2.weight")[0] for i in reversed(range(levels))],
        "decoder_blocks": [_count(tensors, f"decoder.up.{i}.block") for i in reversed(range(levels))],
        "middle_blocks": _count(tensors, "encoder.mid_block"),
        "norm_groups": 32,
        "norm_eps": 1e-6,
        "bits": bits,
        "bit_order": "little",
        **known,
    }


def vq_state(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The peer's tensors under our names, in float32, with three changes of form that leave every output as it is:

    convolutions without bias get one of zeros, the encoder's last 1x1 kernel stands in the middle of a 3x3 one, and
    the upsampler's channels are ordered as ``pixel_shuffle`` reads them (the peer's: row, column, channel).
    """
    levels = _count(tensors, "decoder.up")
    renamed = {}
    for name, tensor in tensors.items():
        ours = re.sub(r"\.(?:down|up)\.(\d+)\.(block)?", lambda m: f".conv_blocks.{m[1]}.{'res' if m[2] else ''}", name)
        ours = ours.replace(".mid_block.", ".mid.").replace(".upsample.conv1.", ".upsample.conv.")
        ours = re.sub(r"\.downsample\.(?=weight|bias)", ".downsample.conv.", ours)
        if found := re.match(r"decoder\.(conv_blocks|adaptive)\.(\d+)\.(.*)", ours):
            ours = f"decoder.{found[1]}.{levels - 1 - int(found[2])}.{found[3]}"
        tensor = tensor.float()
        if ".upsample." in ours:
            tensor = tensor.unflatten(0, (2, 2, -1)).movedim(2, 0).flatten(0, 2)
        if ours == "encoder.conv_out.weight":
            tensor = F.pad(tensor, (1, 1, 1, 1))
        renamed[ours] = tensor.contiguous()
    for name in list(renamed):
        if re.search(r"conv\w*\.weight$|nin_shortcut\.weight$", name):
            renamed.setdefault(name.removesuffix("weight") + "bias", renamed[name].new_zeros(len(renamed[name])))
    return renamed


def load_vq(path: str | Path, averaged: bool = True, **known: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A published checkpoint (``imagenet_256_L.ckpt`` and its kin, or safetensors): ``(config, state dict)`` that fit.

    ``averaged``: see :func:`vq_tensors`; ``known``: see :func:`vq_config`. Raises FileNotFoundError and ValueError with
    one line that names what is wrong.
    """
    tensors = vq_tensors(read_state_dict(path), averaged)
    config, renamed = vq_config(tensors, str(path), **known), vq_state(tensors)
    with torch.device("meta"):
        expected = LookupFreeTokenizer.from_config(config).state_dict()
    match(renamed, expected, str(path))
    return config, renamed


def convert_vq(path: str | Path, out_dir: str | Path, known: Mapping[str, Any] | None = None) -> None:
    """Write a published checkpoint's tokenizer as a :class:`LookupFreeTokenizer` folder that ``girih.load`` reads.

    The folder appears whole or not at all. Raises ValueError for a bad file or an ``out_dir`` that holds something.
    """
    config, state = load_vq(path, **(known or {}))
    codec = LookupFreeTokenizer.from_config(config)
    codec.load_state_dict(state)
    with whole_folder(out_dir) as part:
        codec.save_pretrained(part)


def _count(tensors: Mapping[str, Tensor], prefix: str) -> int:
    """Number of different indices that follow ``prefix.`` in the names."""
    return len({name[len(prefix) + 1 :].split(".")[0] for name in tensors if name.startswith(prefix + ".")})
