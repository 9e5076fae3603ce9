"""`girih image`: draws pictures from prompts, or draws a picture again from its own file."""

from __future__ import annotations

import json
import math
import sys
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

if TYPE_CHECKING:
    from girih.apps.drawing import Request


def image(
    context: typer.Context,
    prompts: Annotated[list[str] | None, Argument(help="What to draw; several prompts, several pictures.")] = None,
    n: Annotated[int, Option("--n", "-n", help="Pictures a prompt.")] = 1,
    seed: Annotated[int, Option(help="Picture i of a prompt is drawn with seed + i, i from 0.")] = 0,
    style: Annotated[str | None, Option(help="One of the model's styles; left out, the seed chooses.")] = None,
    model: Annotated[str, Option(help="A shipped model (see girih models), a folder, or a hub id.")] = "image",
    decoding: Annotated[str | None, Option(help="How tokens are chosen; left out, the model's own way.")] = None,
    negative: Annotated[str | None, Option(help="What not to draw.")] = None,
    guidance: Annotated[float | None, Option(help="How strictly to follow the prompt.")] = None,
    temperature: Annotated[float | None, Option(help="Low: likely pictures. High: more varied ones.")] = None,
    top_k: Annotated[int | None, Option(help="Choose among the k likeliest tokens.")] = None,
    top_p: Annotated[float | None, Option(help="Choose among the likeliest tokens of this total probability.")] = None,
    out: Annotated[str | None, Option(help="FILE.png (of several: a grid, and FILE-1.png ...), or a folder.")] = None,
    from_: Annotated[str | None, Option("--from", help="Draw this girih picture again; options given win.")] = None,
    image: Annotated[str | None, Option(help="A picture to start from.")] = None,
    mask: Annotated[str | None, Option(help="White where --image is to be redrawn.")] = None,
    strength: Annotated[float | None, Option(help="How much of --image to redraw, 0 to 1.")] = None,
    int8: Annotated[bool, Option("--int8", help="8-bit weights: faster on a CPU, other pictures.")] = False,
    as_json: Annotated[bool, Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Draw pictures from prompts.

    Every PNG holds what it was drawn from; girih image --from FILE.png draws it again.
    """
    from girih.apps.drawing import Request, draw, grid, read_request, save

    given = {**context.params, "prompts": tuple(prompts or ())}
    names = [field.name for field in fields(Request)]
    request = Request(**{name: given[name] for name in names})
    if from_ is not None:
        explicit = {name: given[name] for name in names if _on_command_line(context, name)}
        request = replace(read_request(from_), **explicit)
    request.check()
    plan = _Plan(request, out)
    started = time.perf_counter()
    pictures, lines = [], []
    for i, (single, picture) in enumerate(draw(request, quiet=as_json or not sys.stderr.isatty())):
        save(picture, single, plan.files[i])
        pictures.append(picture)
        lines.append({"file": str(plan.files[i]), "prompt": single.prompts[0], "seed": single.seed})
        if not as_json:
            typer.echo(f"{plan.files[i]}  {single.prompts[0]}, seed {single.seed}")
    if plan.grid is not None:
        save(grid(pictures, plan.columns), request, plan.grid)
        if not as_json:
            typer.echo(f"{plan.grid}  all {len(pictures)} pictures")
    if as_json:
        sheet = None if plan.grid is None else str(plan.grid)
        seconds = round(time.perf_counter() - started, 3)
        report: dict[str, Any] = {"model": request.model, "pictures": lines, "grid": sheet, "seconds": seconds}
        typer.echo(json.dumps(report, ensure_ascii=False))


def _on_command_line(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


class _Plan:
    """Where the pictures go: one file each, and a grid where there are several. Makes the folder.

    Raises ValueError for a file that is not a PNG, OSError where the folder cannot be made.
    """

    def __init__(self, request: Request, out: str | None):
        from girih.apps.drawing import slug

        singles = request.singles()
        target = Path(out if out is not None else ".")
        folder = out is None or out.endswith(("/", "\\")) or target.is_dir()
        several = len(singles) > 1
        # One prompt: about square. Several: a row each, unless there is one picture a prompt.
        one_row = len(request.prompts) == 1 or request.n == 1
        self.columns = math.ceil(math.sqrt(len(singles))) if one_row else request.n
        self.grid: Path | None = None
        if folder:
            self.files = _distinct([target / f"{slug(s.prompts[0])}-{s.seed}.png" for s in singles])
            if several:
                name = f"{slug(request.prompts[0])}-grid" if len(request.prompts) == 1 else "grid"
                self.grid = target / f"{name}.png"
            target.mkdir(parents=True, exist_ok=True)
            return
        if target.suffix.lower() != ".png":
            raise ValueError(f"--out writes PNG files: give FILE.png, or a folder ending in '/', not {out!r}")
        target.parent.mkdir(parents=True, exist_ok=True)
        self.files = [target]
        if several:
            self.grid = target
            self.files = [target.with_stem(f"{target.stem}-{i}") for i in range(1, len(singles) + 1)]


def _distinct(files: list[Path]) -> list[Path]:
    """The same files, the second of one name renamed, so that no picture replaces another of the same call."""
    seen: dict[Path, int] = {}
    result = []
    for file in files:
        seen[file] = seen.get(file, 0) + 1
        result.append(file if seen[file] == 1 else file.with_stem(f"{file.stem}-{seen[file]}"))
    return result
