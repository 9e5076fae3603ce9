"""Audio: codebook patterns, EnCodec, DAC, Fish-Speech's codec."""

from __future__ import annotations

import os
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

import girih
from girih.checkpoints import fish_speech
from girih.tokenizers import patterns
from girih.tokenizers.audio.grouped import StridedScalarQuantizer
from girih.tokenizers.audio.vocoder import WaveGenerator

from .case import Case, Family

# The peer's class -> our pattern of that kind.
PROVIDERS = {
    "ParallelPatternProvider": "parallel",
    "DelayedPatternProvider": "delay",
    "UnrolledPatternProvider": "unrolled",
    "CoarseFirstPattern": "coarse-first",
    "MusicLMPattern": "grouped",
}


def audiocraft_codebook_patterns(case: Case) -> dict[str, Tensor]:
    """Tables, masks, build, revert, and how logits line up, for each provider of the case. z: [B, K, T]."""
    arguments, z, out = case.description["constructor"], case.inputs["z"], {}
    nowhere = z.shape[1] * z.shape[2]
    special = int(case.description["tensors"]["z"]["what"].rpartition("= ")[2])
    for name, provider in arguments["providers"].items():
        table = patterns.pattern(PROVIDERS[provider["class"]], arguments["n_q"], arguments["T"], **provider["kwargs"])
        values, logits = table.build(z, special), case.inputs[f"{name}.logits"]
        lined_up = table.revert_logits(logits)
        out |= {
            f"{name}.layout": torch.tensor(table.table),
            f"{name}.values": values,
            f"{name}.indexes": table.indexes(),
            f"{name}.mask": table.indexes() < nowhere,
            f"{name}.valid_indexes": table.indexes(table.valid_steps),
            f"{name}.valid_mask": table.indexes(table.valid_steps) < nowhere,
            f"{name}.revert_indexes": table.places(),
            f"{name}.reverted": table.revert(values, special),
            f"{name}.reverted_logits": lined_up.nan_to_num(-777),
            f"{name}.reverted_logits_mask": ~lined_up[0, 0].isnan(),
        }
    return out


def _tokenizer(case: Case, codec: str) -> girih.AudioTokenizer:
    tokenizer = girih.AudioTokenizer(codec=codec, settings=case.description["constructor"])
    state = {f"coder.model.{name}": tensor for name, tensor in load_file(case.weights).items()}
    tokenizer.load_state_dict(state)
    return tokenizer.eval()


def encodec(case: Case) -> dict[str, Tensor]:
    """EnCodec: wave -> latents -> codes -> vectors -> wave at each bandwidth of the case."""
    tokenizer, wave = _tokenizer(case, "encodec"), case.inputs["wave"]
    out = {"encoder_output": tokenizer.features(wave)}
    for bandwidth in case.description["bandwidths"]:
        codes = tokenizer.encode(wave, tokenizer.codebooks_at(bandwidth))
        out |= {
            f"codes_bw{bandwidth}": codes[None],
            f"quantized_bw{bandwidth}": tokenizer.lookup(codes),
            f"wave_bw{bandwidth}": tokenizer.decode(codes, tokenizer.scales(wave)),
        }
    return out


def dac(case: Case) -> dict[str, Tensor]:
    """DAC: wave -> latents -> codes -> vectors -> wave, with all and with fewer codebooks, and its training loss."""
    # The record is bit for bit that of oneDNN's AVX2 kernels. This has its effect where no convolution ran before.
    os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")
    tokenizer, wave = _tokenizer(case, "dac"), case.inputs["wave"]
    codes, features = tokenizer.encode(wave), tokenizer.features(wave)
    out = {
        "encoder_output": features,
        "codes": codes,
        "quantized": tokenizer.lookup(codes),
        "projected_latents": tokenizer.coder.model.quantizer(features)[2],
        "wave_from_quantized": tokenizer(wave).sample,
        "wave_from_codes": tokenizer.decode(codes),
    }
    for name in case.description["tensors"]:
        kind, fewer, count = name.partition("_nq")
        if fewer:
            codes = tokenizer.encode(wave, int(count))
            out[name] = codes if kind == "codes" else tokenizer.lookup(codes)
    losses = tokenizer.train()(wave).losses
    return {**out, "loss": sum(losses.values()).reshape(1)}


def fish_gfsq(case: Case) -> dict[str, Tensor]:
    """Fish-Speech's grouped FSQ between strided stages, in the rounding of the library version of the case."""
    arguments = fish_speech.renamed(case.description["constructor"], fish_speech.QUANTIZER)
    version = tuple(int(part) for part in case.description["vector_quantize_pytorch"].split(".")[:2])
    rounding = "tanh" if version < (1, 15) else "symmetric"
    quantizer = StridedScalarQuantizer(**arguments, rounding=rounding).eval()
    quantizer.load_state_dict(load_file(case.weights))
    z = case.inputs["z"]
    codes = quantizer.encode(z)
    return {
        "latents": quantizer.latents(z),
        "codes": codes,
        "decoded": quantizer.decode(codes),
        "forward_z": quantizer(z),
        "quantized": quantizer.lookup(codes).mT,
    }


def fish_firefly_generator(case: Case) -> dict[str, Tensor]:
    """Fish-Speech's wave generator on given features."""
    generator = WaveGenerator(**fish_speech.renamed(case.description["constructor"], fish_speech.HEAD)).eval()
    generator.load_state_dict(fish_speech.fold_weight_norm(load_file(case.weights)))
    return {"y": generator(case.inputs["x"])}


def _exact(description: dict[str, Any], name: str) -> str:
    return "exact"


def _by_kind(description: dict[str, Any], name: str) -> str:
    """Codes exact, floats as the case says."""
    stated = description["tolerance"]
    return "exact" if name.startswith("codes") else f"atol {stated['floats']}"


FAMILIES = {
    "audiocraft_codebook_patterns": Family(audiocraft_codebook_patterns, inputs=("z", "*.logits"), tolerance=_exact),
    "encodec": Family(encodec, inputs=("wave",), tolerance=_by_kind),
    "dac": Family(dac, inputs=("wave",), tolerance=_by_kind, alone=True),
    "fish_gfsq": Family(fish_gfsq, inputs=("z",), tolerance=_by_kind),
    "fish_firefly_generator": Family(fish_firefly_generator, inputs=("x",), tolerance=_by_kind),
}
