"""Opens a foreign weights file safely, finds the state dict in it, and writes a converted folder whole.

Knows safetensors, torch files and the usual wrappings. Does not know whose model is inside.
"""

from __future__ import annotations

import pickle
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

WRAPPINGS = ("model", "module", "state_dict", "ema")


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Tensors by name from a ``.safetensors`` or torch file; a torch file may wrap them as ``{"model": ...}``,
    ``{"module": ...}``, ``{"state_dict": ...}`` or ``{"ema": ...}``, looked for in this order, or hold them bare.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a weights file, cut short, or a pickle that asks for more than tensors (it is not run).
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"weights file {path} does not exist")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path} is not a whole safetensors file: {error}") from error
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "weights_only" in str(error).lower():
            raise ValueError(f"{path} holds more than tensors (code or objects); such a file is not opened") from error
        raise ValueError(f"{path} is not a torch weights file, or is cut short") from error
    except (RuntimeError, EOFError, zipfile.BadZipFile, KeyError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a torch weights file, or is cut short") from error
    return unwrap(content, str(path))


def unwrap(content: Any, source: str) -> dict[str, Tensor]:
    """The state dict in what a torch file held; ``source`` names the file in errors."""
    if isinstance(content, Mapping):
        for name in WRAPPINGS:
            if isinstance(content.get(name), Mapping):
                content = content[name]
                break
    if not isinstance(content, Mapping):
        raise ValueError(f"{source} holds a {type(content).__name__}, not tensors by name")
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise ValueError(f"{source} holds no tensors by name (looked under {', '.join(WRAPPINGS)} and at the top)")
    return tensors


def match(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], source: str) -> None:
    """Refuse a state dict that does not fit a model's own: names the first tensor missing, left over or misshapen."""
    for name, tensor in expected.items():
        if name not in state:
            raise ValueError(f"{source} lacks tensor {name} of shape {list(tensor.shape)}")
        if state[name].shape != tensor.shape:
            raise ValueError(
                f"{source}: tensor {name} has shape {list(state[name].shape)}, the config asks for {list(tensor.shape)}"
            )
    for name in state:
        if name not in expected:
            raise ValueError(f"{source} has tensor {name} that the model has no place for")


@contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """A temporary folder beside ``path`` to write to; it takes that name when the block ends well, else it goes.

    Raises ValueError when ``path`` is a file or a folder that holds something.
    """
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ValueError(f"{path} exists already; choose a new or empty folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield part
        part.chmod(0o755)  # mkdtemp makes folders that only their owner opens
        part.replace(path)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
