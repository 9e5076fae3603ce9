"""`girih cad`: makes parts from descriptions and writes them as meshes, STEP files or pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

MESHES = (".glb", ".stl", ".obj", ".ply")
KINDS = (*MESHES, ".step", ".png")


def cad(
    prompts: Annotated[list[str], Argument(help="What to make, lengths in mm; several prompts, several parts.")],
    n: Annotated[int, Option("--n", "-n", help="Parts a prompt.")] = 1,
    seed: Annotated[int, Option(help="Part i of a prompt is made with seed + i, i from 0.")] = 0,
    model: Annotated[str, Option(help="A shipped model (see girih models), a folder, or a hub id.")] = "cad",
    decoding: Annotated[str | None, Option(help="How tokens are chosen; left out, the model's own way.")] = None,
    guidance: Annotated[float | None, Option(help="How strictly to follow the prompt.")] = None,
    temperature: Annotated[float | None, Option(help="0: always the likeliest part.")] = None,
    top_k: Annotated[int | None, Option(help="Choose among the k likeliest tokens.")] = None,
    top_p: Annotated[float | None, Option(help="Choose among the likeliest tokens of this total probability.")] = None,
    out: Annotated[str, Option(help=f"FILE ({', '.join(KINDS)}); of several parts FILE-1, FILE-2 ...")] = "part.glb",
    as_json: Annotated[bool, Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Make parts from descriptions, such as "a plate 60 by 40 mm, 5 thick, with four corner holes of 4 mm"."""
    target = Path(out)
    if target.suffix.lower() not in KINDS:
        raise ValueError(f"--out writes {', '.join(KINDS)}, not {out!r}")
    if n < 1:
        raise ValueError(f"--n must be at least 1, got {n}")
    if any(not prompt.strip() for prompt in prompts):
        raise ValueError("a prompt must not be empty")
    target.parent.mkdir(parents=True, exist_ok=True)

    import diffusers
    import torch

    import girih
    from girih.tokenizers.shape.part_facts import measure

    diffusers.utils.logging.disable_progress_bar()
    pipe = girih.load(model)
    if not isinstance(pipe, girih.CadPipeline):
        raise ValueError(f"{model} holds a {type(pipe).__name__}, which makes no parts")
    pipe.set_progress_bar_config(disable=True)
    options = {"decoding": decoding, "guidance_scale": guidance, "temperature": temperature, "top_k": top_k,
               "top_p": top_p}  # fmt: skip
    seeds = [seed + i for _ in prompts for i in range(n)]
    made = pipe(list(prompts), num_parts_per_prompt=n, generator=[torch.Generator().manual_seed(s) for s in seeds],
                **{name: value for name, value in options.items() if value is not None})  # fmt: skip
    lines = []
    for i, (program, mesh) in enumerate(zip(made.programs, made.meshes, strict=True)):
        file = target if len(seeds) == 1 else target.with_stem(f"{target.stem}-{i + 1}")
        write(program, mesh, file)
        kind, facts = measure(program)
        lines.append({"file": str(file), "prompt": prompts[i // n], "seed": seeds[i], "kind": kind, "facts": facts})
        if not as_json:
            said = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in facts.items())
            typer.echo(f"{file}  {kind}: {said}")
    if as_json:
        report: dict[str, Any] = {"model": model, "parts": lines}
        typer.echo(json.dumps(report, ensure_ascii=False))


def write(program: Any, mesh: Any, file: Path) -> None:
    """A part into a file of the kind that its name says, whole or not at all; in mm, GLB in metres."""
    from girih.files import whole

    kind = file.suffix.lower()
    with whole(file) as part:
        if kind == ".step":
            from girih.tokenizers.shape.cad_step import write_step

            write_step(program, part)
        elif kind == ".png":
            from girih.apps.rendering import render

            render(mesh).save(part, format="PNG")
        else:
            shown = mesh.copy()
            if kind == ".glb":
                shown.apply_scale(0.001)
            part.write_bytes(_bytes(shown.export(file_type=kind[1:])))


def _bytes(content: str | bytes) -> bytes:
    return content.encode() if isinstance(content, str) else content
