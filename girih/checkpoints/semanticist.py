"""Semanticist's published checkpoints (visual-gen/semanticist, MIT) to our configs and state dicts.

Knows the peer's tensor names and what their shapes say. Does not know files (reading.py) or how the models compute.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from girih.checkpoints.reading import match, read_state_dict, whole_folder
from girih.names import unknown
from girih.tokenizers.ordered import OrderedTokenizer
from girih.tokenizers.vision_transformer import patch_positions

# --- The ordered tokenizer --------------------------------------------------------------------------------------------

HEADS = {384: 6, 768: 12, 1024: 16, 1152: 16}  # width of a published transformer -> its heads
# What a caller may give because tensors cannot say it: our config's names, and `vae`, a folder with an AutoencoderKL.
UNSEEN = ("encoder_heads", "decoder_heads", "standardise", "steps", "guidance_scale", "vae")
# The peer's names, as patterns, to ours.
NAMES = [
    (r"^encoder2slot\.", "to_token."),
    (r"^encoder\.patch_embed\.proj\.", "encoder.patch_embed."),
    (r"^dit\.", "decoder."),
    (r"^decoder\.x_embedder\.proj\.", "decoder.patch_embed."),
    (r"^decoder\.t_embedder\.mlp\.", "decoder.time_embed."),
    (r"^decoder\.autoenc_cond_embedder\.", "decoder.token_embed."),
    (r"^decoder\.null_cond$", "decoder.null_tokens"),
    (r"^decoder\.final_layer\.linear\.", "decoder.output."),
    (r"^decoder\.final_layer\.adaLN_modulation\.1\.", "decoder.modulation."),
    (r"^(decoder\.blocks\.\d+)\.adaLN_modulation\.1\.", r"\1.modulation."),
]


def tokenizer_config(state: Mapping[str, Tensor], source: str = "checkpoint", **known: Any) -> dict[str, Any]:
    """:class:`OrderedTokenizer` config of a Semanticist tokenizer's tensors under their own names.

    Sizes come from the tensors, heads from the width unless ``known`` gives them. ``known["vae"]``: config of the
    autoencoder; without it the tokenizer encodes, but its decoder makes latents only.

    Raises:
        ValueError: a tensor that names a size is missing, ``known`` has another name, or nothing tells the heads.
    """
    if extra := sorted(set(known) - set(UNSEEN)):
        raise unknown("Semanticist setting", extra[0], UNSEEN)

    def shape(name: str) -> torch.Size:
        if name not in state:
            raise ValueError(f"{source} lacks tensor {name}; it is no Semanticist tokenizer")
        return state[name].shape

    def heads(side: str, width: int) -> int:
        count = known.get(f"{side}_heads") or HEADS.get(width)
        if count is None:
            raise ValueError(f"{source}: no published {side} has width {width}; give {side}_heads")
        return count

    encoder_dim, in_channels, patch, _ = shape("encoder.patch_embed.proj.weight")
    decoder_dim, latent_channels, decoder_patch, _ = shape("dit.x_embedder.proj.weight")
    count, token_dim = shape("dit.null_cond")[1:]
    side = round((shape("encoder.pos_embed")[1] - 1 - count) ** 0.5)
    # A file of trained tensors only has no fixed positions; then the autoencoder says how large its latents are.
    if "dit.pos_embed" in state:
        latent_size = round(shape("dit.pos_embed")[1] ** 0.5) * decoder_patch
    else:
        halvings = 4 if latent_channels == 16 else 3
        if known.get("vae"):
            halvings = len(known["vae"]["block_out_channels"]) - 1
        latent_size = side * patch // 2**halvings
    return {
        "sample_size": side * patch,
        "in_channels": in_channels,
        "patch_size": patch,
        "encoder_dim": encoder_dim,
        "encoder_layers": _count(state, "encoder.blocks"),
        "encoder_hidden": shape("encoder.blocks.0.mlp.fc1.weight")[0],
        "num_tokens": count,
        "token_dim": token_dim,
        "latent_channels": latent_channels,
        "latent_size": latent_size,
        "decoder_patch": decoder_patch,
        "decoder_dim": decoder_dim,
        "decoder_layers": _count(state, "dit.blocks"),
        "decoder_hidden": shape("dit.blocks.0.mlp.fc1.weight")[0],
        "shortest_prefix": 1,
        "steps": 250,
        "guidance_scale": 3.0,
        **known,
        "encoder_heads": heads("encoder", encoder_dim),
        "decoder_heads": heads("decoder", decoder_dim),
    }


def tokenizer_state(state: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """The peer's tensors under our names, in float32; fixed positions are added where the file leaves them out."""
    renamed = {}
    for name, tensor in state.items():
        if name == "nested_sampler.arange":  # 0, 1, 2, ...
            continue
        for pattern, new in NAMES:
            name = re.sub(pattern, new, name)
        renamed[name] = tensor.float()
    side = config["latent_size"] // config["decoder_patch"]
    renamed.setdefault("decoder.pos_embed", patch_positions(config["decoder_dim"], side))
    return renamed


def load_tokenizer(path: str | Path, **known: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A published tokenizer (``semanticist_tok_XL.pkl`` and its kin, or safetensors) as ``(config, state dict)``.

    ``known``: see :func:`tokenizer_config`; here ``vae`` is the folder of the diffusers ``AutoencoderKL`` that it was
    trained with, whose weights join the state dict. Raises FileNotFoundError and ValueError with one line.
    """
    state = {name.replace("_orig_mod.", ""): tensor for name, tensor in read_state_dict(path).items()}
    extra: dict[str, Tensor] = {}
    if known.get("vae") is not None:
        known["vae"], extra = _autoencoder(known["vae"])
    config = tokenizer_config(state, str(path), **known)
    renamed = {**tokenizer_state(state, config), **extra}
    with torch.device("meta"):
        expected = OrderedTokenizer.from_config(config).state_dict()
    match(renamed, expected, str(path))
    return config, renamed


def convert_tokenizer(path: str | Path, out_dir: str | Path, known: Mapping[str, Any] | None = None) -> None:
    """Write a published tokenizer as an :class:`OrderedTokenizer` folder that ``girih.load`` reads.

    The folder appears whole or not at all. Raises ValueError for a bad file or an ``out_dir`` that holds something.
    """
    config, state = load_tokenizer(path, **(known or {}))
    codec = OrderedTokenizer.from_config(config)
    codec.load_state_dict(state)
    with whole_folder(out_dir) as part:
        codec.save_pretrained(part, max_shard_size="5GB")


def _autoencoder(folder: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if not (Path(folder) / "config.json").is_file():
        raise ValueError(f"{folder} is no folder of a diffusers AutoencoderKL")
    vae = AutoencoderKL.from_pretrained(folder)
    config = {name: value for name, value in vae.config.items() if not name.startswith("_")}
    return config, {f"autoencoder.{name}": tensor for name, tensor in vae.state_dict().items()}


def _count(state: Mapping[str, Tensor], prefix: str) -> int:
    """Number of different indices that follow ``prefix.`` in the names."""
    return len({name[len(prefix) + 1 :].split(".")[0] for name in state if name.startswith(prefix + ".")})
