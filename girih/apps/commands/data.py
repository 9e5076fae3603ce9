"""`girih data`: builds training data from public packages."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Build training data.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Build training data."""


@app.command()
def emoji(
    size: Annotated[int, typer.Option(help="Side of the pictures in pixels.")] = 64,
    out: Annotated[Path | None, typer.Option(help="Folder to build; by default data/emoji-SIZE.")] = None,
) -> None:
    """Draw the named emoji of several art styles, from npm packages with recorded checksums."""
    from girih.apps.commands.bars import bars
    from girih.training.data.emoji import build

    folder = out if out is not None else Path("data") / f"emoji-{size}"
    with bars() as progress:
        build(folder, size=size, progress=progress)
    typer.echo(f"{folder}: pictures.npy, index.jsonl, CREDITS.md, sources.json")


@app.command()
def actions(
    count: Annotated[int, typer.Option(help="Chunks to record.")] = 700,
    horizon: Annotated[int, typer.Option(help="Steps a chunk.")] = 16,
    seed: Annotated[int, typer.Option(help="Of the simulated scenes.")] = 0,
    out: Annotated[Path, typer.Option(help="FILE.npy or FILE.csv.")] = Path("data") / "actions.npy",
) -> None:
    """Record chunks of expert robot actions (reach, push, stack) from a scripted simulator."""
    from girih.training.data.actions import build

    if count < 1 or horizon < 1:
        raise ValueError(f"--count and --horizon must be at least 1, got {count} and {horizon}")
    out.parent.mkdir(parents=True, exist_ok=True)
    build(out, count, seed, horizon)
    typer.echo(f"{out}: {count} chunks of {horizon} steps x 4; {out.with_suffix('.md')}")
