"""A pipeline that draws at once, and a way to run the command line, for the tests of the apps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

import girih
from girih.apps.cli import main
from girih.names import unknown


@dataclass
class FakePipeline:
    """Keeps the contract of ImagePipeline: a picture is a function of its prompt, options and generator alone."""

    calls: list[dict[str, Any]] = field(default_factory=list)
    batch_matters: bool = False  # as in int8: a picture depends on what is drawn with it

    def set_progress_bar_config(self, **options: Any) -> None:
        pass

    def __call__(self, prompt: list[str], generator: list[torch.Generator], **options: Any) -> SimpleNamespace:
        self.calls.append({"prompt": prompt, **options})
        if options.get("style", "flat") not in ("flat", "noto"):
            raise unknown("style", options["style"], ["flat", "noto"])
        assert len(prompt) == len(generator)
        images = []
        for text, drawn in zip(prompt, generator, strict=True):
            shift = len(prompt) if self.batch_matters else 0
            shift += sum(map(ord, text + repr(sorted((k, v) for k, v in options.items() if not hasattr(v, "size")))))
            noise = torch.randint(0, 256, (16, 16, 3), generator=drawn)
            images.append(Image.fromarray(((noise + shift) % 256).to(torch.uint8).numpy()))
        return SimpleNamespace(images=images)


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch) -> FakePipeline:
    """What `girih.load` gives in this test, whatever model is asked for."""
    fake = FakePipeline()

    def optimize(pipe: FakePipeline, int8: bool = False) -> FakePipeline:
        pipe.batch_matters = int8
        return pipe

    monkeypatch.setitem(vars(girih), "load", lambda model, **options: fake)
    monkeypatch.setitem(vars(girih), "optimize", optimize)
    return fake


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command line in an empty folder: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def start(*words: str) -> tuple[int, str, str]:
        code = main(words)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return start
