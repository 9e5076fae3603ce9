"""The models that ship with the package: name -> folder.

Knows where shipped models lie: `assets/models` inside the installed package, else in the checkout. Does not load them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from girih.names import unknown

_PACKAGE = Path(__file__).parent
_PLACES = (_PACKAGE / "assets" / "models", _PACKAGE.parent / "assets" / "models")


@dataclass(frozen=True)
class ShippedModel:
    """What `girih models` says about one model."""

    name: str
    pipeline: str  # class name of the pipeline that runs it, or of the tokenizer that it is
    megabytes: float
    folder: Path


def config_file(folder: Path) -> Path | None:
    """What says which class a folder holds: of a pipeline, a model or a rule-based tokenizer; None in other folders."""
    names = ("model_index.json", "config.json", "scheduler_config.json")
    return next((folder / name for name in names if (folder / name).is_file()), None)


def models() -> dict[str, Path]:
    """Every shipped model: name -> folder, in the order of names."""
    found: dict[str, Path] = {}
    for place in _PLACES:
        for folder in sorted(place.glob("*/")):
            if config_file(folder) is not None:
                found.setdefault(folder.name, folder)
    return dict(sorted(found.items()))


def find(name: str) -> Path:
    """Folder of the shipped model `name`. Raises ValueError naming the nearest model where there is none."""
    shipped = models()
    if name not in shipped:
        raise unknown("model", name, shipped)
    return shipped[name]


def describe() -> list[ShippedModel]:
    """All shipped models with the pipeline that runs each and its size on disk in MB (10^6 bytes)."""
    described = []
    for name, folder in models().items():
        config = config_file(folder)
        index = json.loads(config.read_text(encoding="utf-8")) if config else {}
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        described.append(ShippedModel(name, index.get("_class_name", "unknown"), round(size / 1e6, 1), folder))
    return described
