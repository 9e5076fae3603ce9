"""Lets torchaudio import where its compiled part cannot be loaded, such as beside a CPU-only torch.

torchaudio's wheel on the package index is linked against CUDA. Beside a CPU-only torch `import torchaudio` raises
OSError, and transformers imports torchaudio wherever the package is found, so a broken torchaudio breaks transformers
and diffusers too. The failure comes from one sub-module alone, `torchaudio._extension`, of which the rest uses a
handful of names. `install()` puts a finder in front of the import system that watches for that one sub-module: if it
loads, nothing changes; if it does not, the names get pure-Python stand-ins and torchaudio goes on without its library.

Knows torchaudio's `_extension` (tried with 2.11). Imports nothing heavy, and does nothing until torchaudio is imported.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any, NoReturn

EXTENSION = "torchaudio._extension"


def install() -> None:
    """Watch for torchaudio's compiled part from now on. Calling it again changes nothing."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Finds `torchaudio._extension` where it is, and gives it a loader that survives a failure. Nothing else."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != EXTENSION:
            return None
        spec = PathFinder.find_spec(fullname, path)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(Loader):
    """Runs the real module; where that fails, fills it with what the rest of torchaudio asks of it."""

    def __init__(self, inner: Loader):
        self.inner = inner

    def exec_module(self, module: ModuleType) -> None:
        try:
            self.inner.exec_module(module)
        except (OSError, ImportError, RuntimeError) as error:  # not loadable; other build of torch; other CUDA
            logging.getLogger(__name__).info("torchaudio runs without its compiled library: %s", error)
            vars(module).update(
                _IS_TORCHAUDIO_EXT_AVAILABLE=False,  # filters use their Python loop
                _IS_ALIGN_AVAILABLE=False,
                _load_lib=lambda lib: False,
                _check_cuda_version=lambda: None,
                fail_if_no_align=_unavailable,
            )


def _unavailable(function: Callable[..., Any]) -> Callable[..., NoReturn]:
    """Decorator: a function that says what it lacks when called, not when imported."""

    def call(*args: Any, **kwargs: Any) -> NoReturn:
        raise RuntimeError(f"{function.__name__} needs torchaudio's compiled library, which does not load here")

    return call
