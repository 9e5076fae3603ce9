"""`girih models`: what ships with the package."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer


def models(as_json: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False) -> None:
    """List the shipped models."""
    from girih import catalog

    shipped = catalog.describe()
    if as_json:
        typer.echo(json.dumps([{**asdict(model), "folder": str(model.folder)} for model in shipped]))
        return
    for model in shipped:
        typer.echo(f"{model.name}  {model.pipeline}, {model.megabytes} MB, {model.folder}")
    if not shipped:
        typer.echo("no model ships with this installation: give --model FOLDER")
