"""From a name to a pipeline: shipped model, folder or hub id.

Knows where models are found and which class a folder asks for. Does not know what pipelines do.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import ModelMixin
from safetensors import SafetensorError

import girih
from girih import catalog


def load(name: str | Path = "image", decoding: Any = None, torch_dtype: torch.dtype = torch.float32,
         **components: Any) -> Any:
    """The pipeline (or the single model) that ``name`` stands for.

    Args:
        name: a shipped model, a folder, or a hub id ("owner/name"). A folder with one converted model gives that
            model; a generator alone comes as a pipeline that needs ``codec=`` to make pictures.
        decoding: name ("plain") or a decoding object that replaces the saved one.
        torch_dtype: of the weights; shipped weights are stored in 16 bits and run in float32 unless asked otherwise.
        components: pipeline components that replace the saved ones (``codec=...``).

    Raises:
        ValueError: unknown name (with the nearest one), or a folder whose files do not fit together.
    """
    place: str | Path = name
    if not Path(name).is_dir():
        if "/" not in str(name) or Path(name).exists():
            place = catalog.find(str(name))
    try:
        if not Path(place).is_dir() or (Path(place) / "model_index.json").is_file():
            pipe = _pipeline_class(place).from_pretrained(place, torch_dtype=torch_dtype, **components)
        else:
            model = _model(Path(place), torch_dtype)
            if not isinstance(model, girih.NextTokenGenerator):
                return model
            parts = {"codec": None, "text_encoder": None, "tokenizer": None, **components}
            pipe = girih.ImagePipeline(generator=model, decoding=girih.Autoregressive(), **parts)
    except (SafetensorError, json.JSONDecodeError, RuntimeError, OSError) as error:
        raise ValueError(f"{name} cannot be loaded: {' '.join(str(error).split())}") from error
    if decoding is not None:
        pipe.decoding = pipe.find_decoding(decoding)
    return pipe


def _pipeline_class(place: str | Path) -> Any:
    if Path(place).is_dir():
        index = Path(place) / "model_index.json"
    else:
        from huggingface_hub import hf_hub_download

        index = Path(hf_hub_download(str(place), "model_index.json"))
    return _public(json.loads(index.read_text("utf-8")).get("_class_name", ""), place)


def _model(folder: Path, torch_dtype: torch.dtype) -> ModelMixin:
    config = folder / "config.json"
    if not config.is_file():
        raise ValueError(f"{folder} holds no model: neither model_index.json nor config.json is there")
    cls = _public(json.loads(config.read_text("utf-8")).get("_class_name", ""), folder)
    return cls.from_pretrained(folder, torch_dtype=torch_dtype)


def _public(name: str, place: str | Path) -> Any:
    if name not in girih.__all__ or not isinstance(getattr(girih, name), type):
        raise ValueError(f"{place} asks for the class {name!r}, which girih does not have")
    return getattr(girih, name)


