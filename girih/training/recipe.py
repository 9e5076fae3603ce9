"""Reads a recipe and trains it: TOML file -> objective + settings -> trainer.

Knows recipe files, their sections and the names of objectives. Does not know the loop or any loss.
"""

from __future__ import annotations

import copy
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from girih.names import unknown

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

RECIPES = Path(__file__).parent / "recipes"
SHORT_NAMES = {"tokenizer": "image-tokenizer", "text": "image-text"}
# Objectives by the name a recipe calls them; each class has from_recipe(recipe).
OBJECTIVES = {
    "tokenizer": ("girih.training.tokenizer", "TokenizerObjective"),
    "audio": ("girih.training.audio", "AudioObjective"),
    "text": ("girih.training.text", "TextObjective"),
    "generator": ("girih.training.generator", "GeneratorObjective"),
    "cad": ("girih.training.cad", "CadObjective"),
}


def load_recipe(name: str, settings: Sequence[str] = ()) -> dict[str, Any]:
    """A recipe of the package by name, or a ``.toml`` file; ``settings`` are ``section.key=value`` or ``key=value``.

    Values are read as TOML, or as plain text where they are no TOML. Raises ValueError for an unknown recipe or key.
    """
    path = Path(name)
    if path.suffix != ".toml":
        known = {file.stem: file for file in RECIPES.glob("*.toml")}
        stem = SHORT_NAMES.get(name, name)
        if stem not in known:
            raise unknown("recipe", name, [*known, *SHORT_NAMES])
        path = known[stem]
    if not path.is_file():
        raise ValueError(f"recipe {name} does not exist")
    try:
        recipe = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"recipe {path} is not valid TOML: {error}") from error
    for setting in settings:
        override(recipe, setting)
    return recipe


def override(recipe: dict[str, Any], setting: str) -> None:
    """Apply one ``[section.]key=value`` to a recipe; a key without section must be unique in it. Keys are those of the
    recipe, of ``[train]`` and what its objective names besides."""
    from girih.training.trainer import TrainSettings

    key, equals, text = setting.partition("=")
    if not equals or not key:
        raise ValueError(f"a setting is key=value, got {setting!r}")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    keys: dict[str, set[str]] = {"": set(), "train": set(TrainSettings.names())}
    for section, names in _objective(recipe).options.items():
        keys.setdefault(section, set()).update(names)
    for name, entry in recipe.items():
        section, names = (name, entry) if isinstance(entry, dict) else ("", (name,))
        keys.setdefault(section, set()).update(names)
    places = [f"{section}.{name}".lstrip(".") for section, names in keys.items() for name in names]
    matches = [place for place in places if place == key or place.rpartition(".")[2] == key]
    if not matches:
        raise unknown("setting", key, places)
    if len(matches) > 1:
        raise ValueError(f"setting {key!r} is in several sections; use one of {', '.join(sorted(matches))}")
    section, _, name = matches[0].rpartition(".")
    (recipe.setdefault(section, {}) if section else recipe)[name] = value


def _objective(recipe: dict[str, Any]) -> Any:
    """The class that a recipe trains. Raises ValueError for one that there is not."""
    name = str(recipe.get("objective", ""))
    if name not in OBJECTIVES:
        raise unknown("objective", name, OBJECTIVES)
    module, cls = OBJECTIVES[name]
    return getattr(importlib.import_module(module), cls)


def train(
    name: str,
    *,
    data: str | None = None,
    tokenizer: str | None = None,
    init: str | None = None,
    out: str | None = None,
    max_minutes: float | None = None,
    resume: bool = False,
    settings: Sequence[str] = (),
) -> dict[str, Any]:
    """Train a recipe; returns the last evaluation with ``step``, ``minutes``, ``interrupted`` and ``out``.

    ``data``, ``tokenizer``: folders that replace the recipe's. ``init``: a model to start from. ``max_minutes``
    replaces the recipe's length.
    Raises ValueError for whatever in the recipe, the settings or the folders cannot be used.
    """
    from girih.training.trainer import Trainer, TrainSettings

    recipe = copy.deepcopy(load_recipe(name, settings))
    if data is not None:
        recipe.setdefault("data", {})["folder"] = data
    if tokenizer is not None:
        recipe.setdefault("data", {})["tokenizer"] = tokenizer
    if init is not None:
        recipe["init"] = init
    if max_minutes is not None:
        recipe["train"] = _shortened(recipe.get("train", {}), max_minutes)
    if recipe.get("lora"):  # an adapter is no whole matrix, which is what Muon is for
        recipe["train"] = {**recipe.get("train", {}), "muon": ""}
    objective_class = _objective(recipe)
    folder = Path(out or recipe.get("out") or f"runs/{Path(name).stem}")
    try:
        options = TrainSettings(**recipe.get("train", {}))
        objective = objective_class.from_recipe(recipe)
    except TypeError as error:  # an unknown key of a section
        raise ValueError(f"recipe {name}: {error}") from error
    report = Trainer(objective, options, folder, resume).fit()
    return {**report, "out": str(folder)}


def _shortened(settings: dict[str, Any], minutes: float) -> dict[str, Any]:
    """The same schedule in so many minutes: evaluations and samples come at the same shares of the run."""
    length = settings.get("minutes") or settings.get("steps") or 1.0
    every: dict[str, Any] = {
        key: settings[key] * minutes / length for key in ("eval_every", "sample_every") if key in settings
    }
    return {**settings, **every, "minutes": minutes, "steps": 0}
