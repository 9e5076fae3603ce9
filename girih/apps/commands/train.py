"""`girih train`: trains from a recipe, on the default picture set or on one's own folder."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

import girih
from girih.names import unknown

_RECIPES = Path(girih.__file__).parent / "training" / "recipes"


def train(
    recipe: Annotated[str, Argument(help="tokenizer, image, another shipped recipe, or a RECIPE.toml.")],
    data: Annotated[Path | None, Option(help="Folder of pictures with captions, or a built picture set.")] = None,
    tokenizer: Annotated[Path | None, Option(help="Folder of the trained image tokenizer.")] = None,
    out: Annotated[Path | None, Option(help="Folder for checkpoints, metrics, samples and the result.")] = None,
    max_minutes: Annotated[float | None, Option(help="Stop and save after so many minutes.")] = None,
    resume: Annotated[bool, Option("--resume", help="Go on from the newest checkpoint in --out.")] = False,
    init: Annotated[str | None, Option(help="Start from this model's weights: a shipped model or a folder.")] = None,
    set_: Annotated[list[str] | None, Option("--set", metavar="KEY=VALUE", help="Change a recipe entry.")] = None,
) -> None:
    """Train a tokenizer or a generator from a recipe."""
    path, overrides = find_recipe(recipe), dict(parse_setting(text) for text in set_ or [])
    if max_minutes is not None and not max_minutes > 0:
        raise ValueError(f"--max-minutes must be above 0, got {max_minutes:g}")
    for option, folder in (("--data", data), ("--tokenizer", tokenizer)):
        if folder is not None and not folder.is_dir():
            raise ValueError(f"{option} {folder} is not a folder")

    from girih.training.trainer import run

    run(
        path,
        data=data,
        tokenizer=tokenizer,
        out=out,
        max_minutes=max_minutes,
        resume=resume,
        init=init,
        overrides=overrides,
    )


def find_recipe(name: str) -> Path:
    """The recipe file: a path that ends in .toml, or a shipped name. Raises ValueError naming the nearest."""
    if name.endswith(".toml"):
        path = Path(name)
        if not path.is_file():
            raise ValueError(f"there is no recipe file {name}")
        return path
    shipped = {path.stem: path for path in _RECIPES.glob("*.toml")}
    if name not in shipped:
        raise unknown("recipe", name, shipped)
    return shipped[name]


def parse_setting(text: str) -> tuple[str, Any]:
    """`key=value` with the value read as TOML (a number, true, [1, 2], "x"), or as text where it is none."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    key, equals, value = text.partition("=")
    key, value = key.strip(), value.strip()
    if not equals or not key or not value:
        raise ValueError(f"--set takes KEY=VALUE, got {text!r}")
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value
