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
from girih.generators.next_token import NextTokenGenerator
from girih.names import unknown
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


# --- The next-token generator -----------------------------------------------------------------------------------------

# Published models: (width, layers) -> query heads. All use rope base 10000 and norm epsilon 1e-5.
HEADS = {(768, 12): 12, (1024, 24): 16, (1280, 36): 20, (1536, 48): 24, (2560, 48): 40, (2048, 22): 32, (3200, 24): 32,
         (4096, 32): 32}  # fmt: skip
# File names end in the picture's side; the published generators stand on the 16-pixel tokenizer.
SIDES = {"256": 16, "384": 24, "512": 32}
# The peer's arguments that say nothing about inference.
TRAINING_ONLY = {
    "class_dropout_prob", "token_dropout_p", "attn_dropout_p", "resid_dropout_p", "ffn_dropout_p", "drop_path_rate",
    "initializer_range", "max_batch_size", "max_seq_len", "multiple_of", "ffn_dim_multiplier", "model_type",
}  # fmt: skip


def gpt_config(state: Mapping[str, Tensor], source: str = "checkpoint", **known: Any) -> dict[str, Any]:
    """:class:`NextTokenGenerator` config of a LlamaGen ``Transformer`` state dict.

    Widths, depths, vocabulary and kind of condition come from the tensors; heads, rope base, norm epsilon and grid from
    ``known`` (the peer's ``ModelArgs`` names), else from ``freqs_cis`` if the file holds it, else from the published
    models (heads by width and depth, grid by the file name).

    Raises:
        ValueError: a tensor is missing, ``known`` contradicts the tensors, or nothing tells heads or grid.
    """

    def shape(name: str) -> torch.Size:
        if name not in state:
            raise ValueError(f"{source} lacks tensor {name}; it is no LlamaGen generator")
        return state[name].shape

    vocab, dim = shape("tok_embeddings.weight")
    layers = _count(state, "layers")
    read: dict[str, Any] = {"dim": dim, "n_layer": layers, "vocab_size": vocab}
    by_class = "cls_embedding.embedding_table.weight" in state
    if by_class:
        read["num_classes"] = shape("cls_embedding.embedding_table.weight")[0] - 1
    else:
        read["caption_dim"] = shape("cls_embedding.cap_proj.fc1.weight")[1]
    names = {*read, *TRAINING_ONLY, "n_head", "n_kv_head", "rope_base", "norm_eps", "block_size", "cls_token_num",
             "num_classes", "caption_dim"}  # fmt: skip
    if extra := sorted(set(known) - names):
        raise unknown("LlamaGen setting", extra[0], names)
    for name, value in read.items():
        if known.get(name) not in (None, value):
            raise ValueError(f"{source}: the config says {name} {known[name]}, the tensors say {value}")
    rows = shape("cls_embedding.uncond_embedding")[0] if not by_class else 1
    tokens = known.get("cls_token_num") or rows
    table = state["freqs_cis"].shape if "freqs_cis" in state else None
    heads = known.get("n_head") or (dim // (2 * table[1]) if table else HEADS.get((dim, layers)))
    if heads is None:
        raise ValueError(f"{source}: no published model has width {dim} and {layers} layers; give n_head in the config")
    cells = known.get("block_size") or (table[0] - tokens if table else _cells(source))
    if cells is None or round(cells**0.5) ** 2 != cells:
        raise ValueError(f"{source}: the grid is not known ({cells} tokens); give block_size, a square, in the config")
    width = dim // heads
    kv_heads = (shape("layers.0.attention.wqkv.weight")[0] // width - heads) // 2
    if known.get("n_kv_head") not in (None, kv_heads):
        raise ValueError(f"{source}: the config says n_kv_head {known['n_kv_head']}, the tensors say {kv_heads}")
    condition = (
        {"kind": "class", "num_classes": read["num_classes"]}
        if by_class
        else {"kind": "features", "feature_dim": read["caption_dim"], "tokens": tokens}
    )
    return {
        "vocab_size": vocab,
        "shape": [round(cells**0.5)] * 2,
        "transformer": {
            "dim": dim,
            "num_layers": layers,
            "num_heads": heads,
            "num_kv_heads": kv_heads,
            "feed_forward_dim": shape("layers.0.feed_forward.w1.weight")[0],
            "norm_eps": known.get("norm_eps", 1e-5),
        },
        "condition": condition,
        "rope_base": known.get("rope_base", 10000),
        # The peer's condition rows have cos = sin = 0 in the rotary table; its weights were trained so.
        "rope_prefix": "zero",
    }


def gpt_state(state: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """The peer's tensors under our names; ``freqs_cis`` is dropped, null features cut to the prefix's length."""
    names = {
        "cls_embedding.embedding_table.weight": "conditioner.embedding.weight",
        "cls_embedding.cap_proj.fc1.weight": "conditioner.up.weight",
        "cls_embedding.cap_proj.fc2.weight": "conditioner.down.weight",
        "cls_embedding.uncond_embedding": "conditioner.null_features",
        "tok_embeddings.weight": "embedding.weight",
        "norm.weight": "core.norm.weight",
        "output.weight": "head.output.weight",
    }
    parts = {
        "attention.wqkv": "mixer.qkv",
        "attention.wo": "mixer.proj",
        "feed_forward.w1": "feed_forward.gate",
        "feed_forward.w3": "feed_forward.up",
        "feed_forward.w2": "feed_forward.down",
        "attention_norm": "mixer_norm",
        "ffn_norm": "feed_forward_norm",
    }
    for layer in range(config["transformer"]["num_layers"]):
        for theirs, ours in parts.items():
            names[f"layers.{layer}.{theirs}.weight"] = f"core.layers.{layer}.{ours}.weight"
    renamed = {names.get(name, name): tensor for name, tensor in state.items() if name != "freqs_cis"}
    if config["condition"]["kind"] == "features":
        null, tokens = renamed["conditioner.null_features"], config["condition"]["tokens"]
        renamed["conditioner.null_features"] = null[:tokens].contiguous()
    return renamed


def load_gpt(path: str | Path, **known: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A published generator file (``c2i_B_256.pt`` and the like, or safetensors) as ``(config, state dict)``, both
    checked to fit. ``known``: see :func:`gpt_config`. Raises FileNotFoundError and ValueError with one line."""
    state = read_state_dict(path)
    config = gpt_config(state, str(path), **known)
    renamed = gpt_state(state, config)
    with torch.device("meta"):
        expected = NextTokenGenerator.from_config(config).state_dict()
    match(renamed, expected, str(path))
    return config, renamed


def convert_gpt(path: str | Path, out_dir: str | Path, known: Mapping[str, Any] | None = None) -> None:
    """Write a published generator file as a :class:`NextTokenGenerator` folder that ``girih.load`` reads.

    The folder appears whole or not at all. Raises ValueError for a bad file or when ``out_dir`` is not empty.
    """
    config, state = load_gpt(path, **(known or {}))
    generator = NextTokenGenerator.from_config(config)
    generator.load_state_dict(state)
    with whole_folder(out_dir) as part:
        generator.save_pretrained(part, max_shard_size="5GB")


def _cells(source: str) -> int | None:
    """Tokens of a published file by the picture side in its name."""
    side = next((SIDES[part] for part in reversed(Path(source).stem.split("_")) if part in SIDES), None)
    return None if side is None else side**2
