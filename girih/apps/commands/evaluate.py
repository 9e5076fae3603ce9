"""`girih eval`: measures a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Option

app = typer.Typer(help="Measure a model.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Measure a model."""


@app.command()
def image(
    model: Annotated[str, Option(help="A shipped model or a folder.")] = "image",
    n: Annotated[int, Option("--n", "-n", help="Pictures drawn for each measure.")] = 100,
    data: Annotated[Path | None, Option(help="A picture set of the model's size; left out, the default one.")] = None,
    json_path: Annotated[Path | None, Option("--json", metavar="FILE", help="Write the numbers to FILE too.")] = None,
) -> None:
    """Codec error, concept hits, caption losses, seconds and memory of an image model."""
    from girih.apps.commands.bars import bars
    from girih.apps.evaluate import run

    with bars() as progress:
        run(model, n=n, json_path=json_path, data=data, progress=progress)


@app.command()
def cad(
    model: Annotated[str, Option(help="A shipped model or a folder.")] = "cad",
    n: Annotated[int, Option("--n", "-n", help="Held-out descriptions to make parts from.")] = 500,
    json_path: Annotated[Path | None, Option("--json", metavar="FILE", help="Write the numbers to FILE too.")] = None,
) -> None:
    """Valid solids, right kinds and stated dimensions of a text-to-CAD model."""
    from girih.apps.commands.bars import bars
    from girih.apps.evaluate import run_cad

    with bars() as progress:
        run_cad(model, n=n, json_path=json_path, progress=progress)
