"""`girih eval`: measures a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from girih.files import whole

app = typer.Typer(help="Measure a model.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Measure a model."""


@app.command()
def image(
    model: Annotated[str, Option(help="A shipped model or a folder.")] = "image",
    n: Annotated[int, Option("--n", "-n", help="Pictures drawn for each measure.")] = 200,
    as_json: Annotated[Path | None, Option("--json", metavar="FILE", help="Write the numbers to FILE too.")] = None,
) -> None:
    """Codec error, concept hits, caption losses, seconds and memory of an image model."""
    if n < 1:
        raise ValueError(f"--n must be at least 1, got {n}")

    from girih.apps.evaluate import evaluate_image, table

    numbers = evaluate_image(model, n=n)
    typer.echo(table(numbers))
    if as_json is not None:
        with whole(as_json) as part:
            part.write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
