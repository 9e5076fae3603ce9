"""Fish-Speech's published audio codec to our config and state dict (fishaudio/fish-speech v1.5.1, code Apache-2.0).

Knows the peer's tensor and argument names. Does not know files (reading.py) or how the codec computes. The published
weights are CC-BY-NC-SA 4.0: users may load them, girih does not ship them. Later releases of the repository have
another codec under a research licence; they are not read here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor

from girih.checkpoints.reading import match, read_state_dict, whole_folder
from girih.names import unknown
from girih.tokenizers.audio import AudioTokenizer

# The peer's argument -> ours, for each part of its config file (firefly_gan_vq.yaml). None: said by other values.
SPECTROGRAM: dict[str, str | None] = {
    "sample_rate": "sampling_rate", "n_fft": "n_fft", "hop_length": "mel_hop", "n_mels": "bins", "win_length": None,
}  # fmt: skip
BACKBONE: dict[str, str | None] = {
    "depths": "depths", "dims": "widths", "kernel_size": "kernel", "input_channels": None, "drop_path_rate": None,
}  # fmt: skip
QUANTIZER: dict[str, str | None] = {
    "input_dim": "dim", "n_codebooks": "depth", "n_groups": "groups", "levels": "levels",
    "downsample_factor": "factors", "downsample_dims": "dims",
}  # fmt: skip
HEAD: dict[str, str | None] = {
    "num_mels": "dim", "upsample_initial_channel": "channels", "upsample_rates": "rates",
    "upsample_kernel_sizes": "rate_kernels", "resblock_kernel_sizes": "kernels",
    "resblock_dilation_sizes": "dilations", "pre_conv_kernel_size": "pre_kernel",
    "post_conv_kernel_size": "post_kernel", "hop_length": None,
}  # fmt: skip


def renamed(arguments: Mapping[str, Any], names: Mapping[str, str | None]) -> dict[str, Any]:
    """The peer's constructor arguments under our names. Raises ValueError for one it does not have."""
    for name in arguments:
        if name not in names:
            raise unknown("Fish-Speech setting", name, names)
    return {ours: arguments[name] for name, ours in names.items() if ours is not None and name in arguments}


def firefly_config(peer: Mapping[str, Any] | None = None, rounding: str = "tanh") -> dict[str, Any]:
    """:class:`AudioTokenizer` config of the codec: of the peer's own config (sections ``spec_transform``, ``backbone``,
    ``quantizer``, ``head``), by default the published one. ``rounding``: see ``grouped.py``; published weights need
    ``"tanh"``."""
    sections = {"spec_transform": SPECTROGRAM, "backbone": BACKBONE, "quantizer": QUANTIZER, "head": HEAD}
    given: dict[str, dict[str, Any]] = {section: {} for section in sections}
    for section, arguments in (peer or {}).items():
        if section == "_target_":
            continue
        if section not in sections or not isinstance(arguments, Mapping):
            raise unknown("section of a Fish-Speech codec config", section, sections)
        plain = {name: value for name, value in arguments.items() if name != "_target_"}
        given[section] = renamed(plain, sections[section])
    model = given["spec_transform"] | given["backbone"]
    model |= {"quantizer": {**given["quantizer"], "rounding": rounding}, "generator": given["head"]}
    return {"codec": "firefly", "settings": model}


def fold_weight_norm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weight-normalised tensors (``weight_g`` and ``weight_v``, or ``parametrizations.weight.original0`` and ``1``) as
    the plain weights ``g * v / |v|``; all others as they are. Raises ValueError where one of a pair is missing."""
    folded: dict[str, Tensor] = {}
    for name, tensor in state.items():
        stem, _, end = name.rpartition(".")
        if end in ("original0", "original1") and stem.endswith(".parametrizations.weight"):
            stem, halves = stem.removesuffix(".parametrizations.weight"), (stem + ".original0", stem + ".original1")
        elif end in ("weight_g", "weight_v"):
            halves = (stem + ".weight_g", stem + ".weight_v")
        else:
            folded[name] = tensor
            continue
        for half in halves:
            if half not in state:
                raise ValueError(f"tensor {name} lacks its other half {half}")
        folded[stem + ".weight"] = torch._weight_norm(state[halves[1]], state[halves[0]], 0)
    return folded


def load_firefly(
    path: str | Path, peer: Mapping[str, Any] | None = None, rounding: str = "tanh"
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The published file (``firefly-gan-vq-fsq-8x1024-21hz-generator.pth``, or safetensors) as ``(config, state dict)``
    that fit. Raises FileNotFoundError and ValueError with one line that names what is wrong."""
    state = fold_weight_norm(read_state_dict(path))
    # Training checkpoints hold the codec as "generator." beside its discriminators.
    if any(name.startswith("generator.") for name in state):
        state = {name.removeprefix("generator."): t for name, t in state.items() if name.startswith("generator.")}
    state = {f"coder.{name}": tensor for name, tensor in state.items()}
    config = firefly_config(peer, rounding)
    with init_empty_weights():
        expected = AudioTokenizer.from_config(config).state_dict()
    match(state, expected, str(path))
    return config, state


def convert_firefly(path: str | Path, out_dir: str | Path, peer: Mapping[str, Any] | None = None) -> None:
    """Write the published codec file as an :class:`AudioTokenizer` folder. The folder appears whole or not at all.

    Raises ValueError for a bad file or an ``out_dir`` that holds something.
    """
    config, state = load_firefly(path, peer)
    tokenizer = AudioTokenizer.from_config(config)
    tokenizer.load_state_dict(state)
    with whole_folder(out_dir) as part:
        tokenizer.save_pretrained(part)
