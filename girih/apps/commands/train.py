"""`girih train`: trains from a recipe, on the default picture set or on one's own folder."""

from __future__ import annotations

import os
from typing import Annotated

import typer
from typer import Argument, Option


def train(
    recipe: Annotated[str, Argument(help="tokenizer, image, another shipped recipe, or a RECIPE.toml.")],
    data: Annotated[str | None, Option(help="Folder of pictures (a generator's: captioned), or a built set.")] = None,
    tokenizer: Annotated[str | None, Option(help="Folder of the trained image tokenizer.")] = None,
    init: Annotated[str | None, Option(help="Model to start from: a shipped name or a folder.")] = None,
    out: Annotated[str | None, Option(help="Folder for checkpoints, metrics, samples and the result.")] = None,
    max_minutes: Annotated[float | None, Option(help="Train for so many minutes.")] = None,
    resume: Annotated[bool, Option("--resume", help="Go on from the checkpoint in --out.")] = False,
    settings: Annotated[list[str] | None, Option("--set", metavar="KEY=VALUE", help="Change a recipe entry.")] = None,
) -> None:
    """Train a tokenizer or a generator from a recipe; with --init MODEL --set lora=8, only adapters of rank 8 on it.

    Ctrl-C ends training after the running step and keeps a checkpoint. Several processes: accelerate launch -m girih
    train ...
    """
    if max_minutes is not None and not max_minutes > 0:
        raise ValueError(f"--max-minutes must be above 0, got {max_minutes:g}")
    for option, folder in (("--data", data), ("--tokenizer", tokenizer)):
        if folder is not None and not os.path.isdir(folder):
            raise ValueError(f"{option} {folder} is not a folder")

    from girih.training import recipe as recipes

    report = recipes.train(
        recipe,
        data=data,
        tokenizer=tokenizer,
        init=init,
        out=out,
        max_minutes=max_minutes,
        resume=resume,
        settings=settings or [],
    )
    if os.environ.get("RANK", "0") == "0":  # one line, however many processes train
        state = "stopped; go on with --resume" if report["interrupted"] else "done"
        numbers = ", ".join(f"{name} {value:.4g}" for name, value in report.items() if isinstance(value, float))
        typer.echo(f"{report['out']}: {state} at step {report['step']}; {numbers}")
    if report["interrupted"]:
        raise typer.Exit(130)
