"""What `girih tokens` knows of each kind of file: how it is read, encoded, measured, said in words and written.

A modality is an object with the methods of ``Modality``; shapes.py, programs.py and signals.py hold them.
Does not know which tokenizer is meant (choice.py) or how tokens are stored (apps/tokens.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

Side = dict[str, Any]


@dataclass(frozen=True)
class Signal:
    """What a file holds.

    Attributes:
        value: as the modality's tokenizers take it. bits: of the raw signal, uncompressed.
        side: plain data that the tokens do not say and a file needs (where a mesh stood, the size of a picture).
        notes: what reading or encoding changes, one line each.
    """

    value: Any
    bits: int
    side: Side = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Loss:
    """What a round trip costs: ``value`` in ``unit`` (None: it lost nothing), and ``text`` for a reader."""

    value: float | None
    unit: str
    text: str


class Modality(Protocol):
    """How one kind of file is handled; every method works with a tokenizer of its kind."""

    @property
    def reads(self) -> tuple[str, ...]:
        """Endings of the files that it reads."""

    @property
    def writes(self) -> tuple[str, ...]:
        """Endings of the files that it writes."""

    def read(self, path: Path, tokenizer: Any) -> Signal:
        """The file. Raises ValueError or OSError in one line."""

    def encode(self, tokenizer: Any, signal: Signal) -> Tensor:
        """Token ids, the rows of a batch first."""

    def decode(self, tokenizer: Any, tokens: Tensor, side: Side) -> Any:
        """What the file held, in the file's frame. Raises ValueError for tokens or side values that do not fit."""

    def loss(self, tokenizer: Any, signal: Signal, decoded: Any) -> Loss:
        """How far ``decode`` came from ``signal``."""

    def words(self, tokenizer: Any, tokens: Tensor) -> Iterable[str]:
        """The sequence in words, a line at a time."""

    def write(self, path: Path, decoded: Any) -> None:
        """What ``decode`` gave, into a file, whole or not at all."""


def frame(side: Side) -> tuple[Tensor, float]:
    """(centre [3], scale) of side values: file = tokens' frame * scale + centre. Raises ValueError for others."""
    centre, scale = side.get("centre"), side.get("scale")
    numbers = [n for n in (*(centre if isinstance(centre, list) else []), scale) if type(n) in (int, float)]
    if len(numbers) != 4 or not all(abs(n) < 1e30 for n in numbers) or not numbers[3] > 0:
        raise ValueError(f"the file's frame must be a centre of 3 numbers and a scale > 0, got {centre} and {scale}")
    return torch.tensor(numbers[:3], dtype=torch.float64), float(numbers[3])


def whole_number(side: Side, name: str, most: int) -> int:
    """A count among side values. Raises ValueError unless it is 1 .. ``most``."""
    value = side.get(name)
    if type(value) is not int or not 1 <= value <= most:
        raise ValueError(f"{name} of the token file must be a whole number in 1 .. {most}, got {value!r}")
    return value


def farthest(points: Tensor, others: Tensor) -> float:
    """The largest distance (of one coordinate) from any of ``points`` [n, d] to the nearest of ``others`` [m, d]."""
    parts = (torch.cdist(part, others, p=float("inf")).amin(1) for part in points.split(1024))
    return float(torch.cat(list(parts)).max())


def decibels(before: Tensor, after: Tensor, power: float, name: str) -> Loss:
    """The error as a ratio to ``power``; ``name``: PSNR, SNR."""
    noise = float((before.double() - after.double()).square().mean())
    if noise == 0:
        return Loss(None, "dB", "exact")
    value = 10 * torch.tensor(max(power, 1e-30) / noise, dtype=torch.float64).log10().item()
    return Loss(value, "dB", f"{value:.1f} dB {name}")


def modality(name: str) -> Modality:
    """The modality ``name``: one of those of ``choice.TOKENIZERS``."""
    from girih.apps.modalities import programs, shapes, signals

    found: dict[str, Modality] = {
        "mesh": shapes.Meshes(), "hair": shapes.Hair(), "rig": shapes.Rigs(), "cad": programs.Cad(),
        "scene": programs.Scenes(), "text": programs.Texts(), "actions": signals.Actions(),
        "picture": signals.Pictures(), "sound": signals.Sounds(), "video": signals.Videos(),
    }  # fmt: skip
    return found[name]
