"""EnCodec and DAC checkpoints to our config and state dict: transformers' folders and the original files.

Knows the tensor names of transformers' ``EncodecModel`` and ``DacModel`` folders (``facebook/encodec_24khz``,
``descript/dac_44khz`` and kin), of facebookresearch/encodec and audiocraft files, and of
descriptinc/descript-audio-codec files. Does not know how the codecs compute.
The code of both is MIT; weights are licensed as their publishers say.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate import init_empty_weights
from torch import Tensor
from transformers import DacConfig, EncodecConfig

from girih.checkpoints.fish_speech import fold_weight_norm
from girih.checkpoints.reading import match, read_state_dict, whole_folder
from girih.names import unknown
from girih.tokenizers.audio import AudioTokenizer

CONFIGS = {"encodec": EncodecConfig, "dac": DacConfig}
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
RATES = {"16khz": 16000, "24khz": 24000, "44khz": 44100}  # parts of the names of published DAC files

Loaded = tuple[dict[str, Any], dict[str, Tensor]]


def load_folder(folder: str | Path) -> Loaded:
    """A transformers folder (``config.json`` and weights) as ``(config, state dict)`` that fit.

    Raises FileNotFoundError and ValueError with one line that names what is wrong.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} holds no config.json")
    try:
        values = json.loads((folder / "config.json").read_text("utf-8"))
        codec = values["model_type"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder}/config.json is no model config") from error
    if codec not in CONFIGS:
        raise unknown("audio codec", str(codec), CONFIGS)
    own = CONFIGS[codec].__annotations__
    settings = {name: value for name, value in values.items() if name in own}
    weights = next((folder / name for name in WEIGHTS if (folder / name).is_file()), folder / WEIGHTS[0])
    state = read_state_dict(weights)
    return _fitting(codec, settings, _encodec_names(state) if codec == "encodec" else state, str(weights))


def load_encodec(path: str | Path, settings: Mapping[str, Any] | None = None) -> Loaded:
    """An original EnCodec file (``encodec_24khz-d7cc33bc.th``; the codec inside audiocraft's
    ``compression_state_dict.bin``, saved alone) as ``(config, state dict)`` that fit. ``settings``: those of
    transformers' ``EncodecConfig``; by default the 24 kHz model."""
    state = {}
    for name, tensor in read_state_dict(path).items():
        name = re.sub(r"^(encoder|decoder)\.model\.", r"\1.layers.", name)
        name = re.sub(r"\.(conv|convtr)\.(conv|convtr)\.", ".conv.", name)
        name = re.sub(r"\.(conv|convtr)\.norm\.", ".norm.", name)
        name = re.sub(r"^quantizer\.vq\.layers\.(\d+)\._codebook\.", r"quantizer.layers.\1.codebook.", name)
        state[name] = tensor
    return _fitting("encodec", dict(settings or {}), _encodec_names(state), str(path))


def load_dac(path: str | Path, sampling_rate: int | None = None) -> Loaded:
    """An original DAC file (``weights_44khz_8kbps_0.0.1.pth``) as ``(config, state dict)`` that fit. Sizes come from
    the tensors, the sampling rate from the file's name where it is not given."""
    state, source = fold_weight_norm(read_state_dict(path)), str(path)
    sampling_rate = sampling_rate or next((rate for part, rate in RATES.items() if part in Path(path).name), None)
    if sampling_rate is None:
        raise ValueError(f"{source}: the sampling rate is not known; give it, or name the file as published")
    for name in ("encoder.block.0.weight", "decoder.model.0.weight", "quantizer.quantizers.0.codebook.weight"):
        if name not in state:
            raise ValueError(f"{source} lacks tensor {name}; it is no DAC codec")
    stages = sum(bool(re.fullmatch(r"encoder\.block\.\d+\.block\.4\.weight", name)) for name in state)
    size, dim = state["quantizer.quantizers.0.codebook.weight"].shape
    settings = {
        "sampling_rate": sampling_rate,
        "encoder_hidden_size": state["encoder.block.0.weight"].shape[0],
        "downsampling_ratios": [state[f"encoder.block.{i + 1}.block.4.weight"].shape[-1] // 2 for i in range(stages)],
        "decoder_hidden_size": state["decoder.model.0.weight"].shape[0],
        "n_codebooks": len({name.split(".")[2] for name in state if name.startswith("quantizer.quantizers.")}),
        "codebook_size": size,
        "codebook_dim": dim,
    }
    return _fitting("dac", settings, {_dac_name(name, stages): tensor for name, tensor in state.items()}, source)


def convert(loaded: Loaded, out_dir: str | Path) -> None:
    """Write what a loader gave as an :class:`AudioTokenizer` folder, whole or not at all."""
    config, state = loaded
    tokenizer = AudioTokenizer.from_config(config)
    tokenizer.load_state_dict(state)
    with whole_folder(out_dir) as part:
        tokenizer.save_pretrained(part)


def _encodec_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Older names of weight norm's two halves as torch names them now."""
    halves = {".weight_g": ".parametrizations.weight.original0", ".weight_v": ".parametrizations.weight.original1"}
    return {re.sub(r"\.weight_[gv]$", lambda old: halves[old[0]], name): tensor for name, tensor in state.items()}


def _dac_name(name: str, stages: int) -> str:
    """The original's position in nested sequences as transformers' name for the same layer."""
    # Encoder: convolution, stages, Snake, convolution. A stage: three residual units, Snake, strided convolution.
    # Decoder: the same, but a stage begins with Snake and transposed convolution.
    units = {"0": "snake1", "1": "conv1", "2": "snake2", "3": "conv2"}
    parts = name.split(".")
    if parts[0] not in ("encoder", "decoder"):
        return name
    side, place, rest = parts[0], int(parts[2]), parts[3:]
    ends = {0: "conv1", stages + 1: "snake1", stages + 2: "conv2"}
    if place in ends:
        return ".".join([side, ends[place], *rest])
    inner, rest = int(rest[1]), rest[2:]
    own = {3: "snake1", 4: "conv1"} if side == "encoder" else {0: "snake1", 1: "conv_t1"}
    if inner in own:
        return ".".join([side, "block", str(place - 1), own[inner], *rest])
    unit = inner + 1 if side == "encoder" else inner - 1
    return ".".join([side, "block", str(place - 1), f"res_unit{unit}", units[rest[1]], *rest[2:]])


def _fitting(codec: str, settings: dict[str, Any], state: Mapping[str, Tensor], source: str) -> Loaded:
    config = {"codec": codec, "settings": settings}
    state = {f"coder.model.{name}": tensor for name, tensor in state.items()}
    with init_empty_weights():
        expected = AudioTokenizer.from_config(config).state_dict()
    match(state, expected, source)
    return config, state
