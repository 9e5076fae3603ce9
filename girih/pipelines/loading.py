"""From a name to a pipeline: shipped model, folder or hub id.

Knows where models are found and which class a folder asks for. Does not know what pipelines do.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import ModelMixin
from packaging.version import Version
from safetensors import SafetensorError

import girih
from girih import catalog


def load(name: str | Path = "image", decoding: Any = None, dtype: torch.dtype = torch.float32,
         **components: Any) -> Any:
    """The pipeline (or the single model) that ``name`` stands for.

    Args:
        name: a shipped model, a folder, or a hub id ("owner/name"). A folder with one converted model gives that
            model; a generator alone comes as a pipeline that needs ``codec=`` to make pictures.
        decoding: name ("plain") or a decoding object that replaces the saved one.
        dtype: of the weights; shipped weights are stored in 16 bits and run in float32 unless asked otherwise. Its
            older name ``torch_dtype`` works too.
        components: pipeline components that replace the saved ones (``codec=...``).

    Raises:
        ValueError: unknown name (with the nearest one), no such folder, or a folder whose files do not fit together.
    """
    dtype = components.pop("torch_dtype", dtype)
    place = _find(str(name))
    try:
        if isinstance(place, str) or (place / "model_index.json").is_file():
            options = {"use_safetensors": True, **dtype_option(dtype), **components}
            pipe = _pipeline_class(place).from_pretrained(place, **options)
        else:
            model = _model(place, dtype)
            if not isinstance(model, girih.NextTokenGenerator):
                return model
            parts = {"codec": None, "text_encoder": None, "tokenizer": None, **components}
            pipe = girih.ImagePipeline(generator=model, decoding=girih.Autoregressive(), **parts)
    except (SafetensorError, json.JSONDecodeError, RuntimeError, OSError) as error:
        absent = "is no folder here, and as a hub id it " if isinstance(place, str) else ""
        raise ValueError(f"{name} {absent}cannot be loaded: {' '.join(str(error).split())}") from error
    if decoding is not None:
        pipe.decoding = pipe.find_decoding(decoding)
    return pipe


def dtype_option(dtype: torch.dtype) -> dict[str, torch.dtype]:
    """The keyword argument of ``from_pretrained`` for a dtype: its name changed with diffusers 0.40, the first version
    that warns of the old one."""
    return {"dtype" if Version(diffusers.__version__) >= Version("0.40") else "torch_dtype": dtype}


def _find(name: str) -> Path | str:
    """A folder, or a hub id. Raises ValueError for what can be neither."""
    path = Path(name)
    if path.is_dir():
        return path
    if path.exists():
        raise ValueError(f"{name} is a file: a model is a folder (`girih convert` makes one of a published checkpoint)")
    if "/" not in name and "\\" not in name:
        return catalog.find(name)
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name):
        raise ValueError(f"no such folder: {name}")
    return name


def _pipeline_class(place: str | Path) -> Any:
    if isinstance(place, Path):
        index = place / "model_index.json"
    else:
        from huggingface_hub import hf_hub_download

        index = Path(hf_hub_download(place, "model_index.json"))
    return _public(json.loads(index.read_text("utf-8")).get("_class_name", ""), place)


def _model(folder: Path, dtype: torch.dtype) -> Any:
    """One model, or a rule-based tokenizer, whose configuration diffusers keeps as a scheduler's."""
    config = catalog.config_file(folder)
    if config is None:
        raise ValueError(f"{folder} holds no model: neither model_index.json nor config.json is there")
    cls = _public(json.loads(config.read_text("utf-8")).get("_class_name", ""), folder)
    options = {"use_safetensors": True, **dtype_option(dtype)} if issubclass(cls, ModelMixin) else {}
    return cls.from_pretrained(folder, **options)


def _public(name: str, place: str | Path) -> Any:
    if name not in girih.__all__ or not isinstance(getattr(girih, name), type):
        raise ValueError(f"{place} asks for the class {name!r}, which girih does not have")
    return getattr(girih, name)
