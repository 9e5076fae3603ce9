"""`girih tokens` and `girih untokens`: any file as tokens, and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option


def tokens(
    file: Annotated[Path, Argument(help="A mesh, hair, rig, CAD program, scene, recording, picture, sound, text ...")],
    tokenizer: Annotated[str | None, Option(help="By name, or a saved one's folder; left out, by file type.")] = None,
    out: Annotated[Path | None, Option(help="Write the tokens: FILE.npz or FILE.json.")] = None,
    show: Annotated[bool, Option("--show", help="Print the sequence in words.")] = False,
    as_json: Annotated[bool, Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Turn a file into tokens, and say how many they are and what a round trip loses."""
    from girih.apps import tokens as files

    if out is not None:
        files.check_ending(out)
    made = files.encode(file, tokenizer)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        files.write_tokens(made, out)
    report = made.report
    if as_json:
        more = {"out": str(out)} if out is not None else {}
        typer.echo(json.dumps({**report, **more, **({"words": list(made.words())} if show else {})}))
        return
    for line in made.words() if show else ():
        typer.echo(line)
    size = " x ".join(map(str, report["spec"]))
    lines = {
        "tokenizer": f"{report['tokenizer']}, {report['vocabulary']} ids, made for {size} tokens",
        "tokens": f"{report['tokens']}, {report['bits']:.0f} bits",
        "ratio": f"{report['ratio']:.2f} times smaller than {report['raw_bits']} raw bits",
        "round trip": made.loss.text,
    }
    for name, text in [*lines.items(), *(("note", note) for note in report["notes"])]:
        typer.echo(f"{name:<11} {text}")
    if out is not None:
        typer.echo(f"{'written':<11} {out}")


def untokens(
    file: Annotated[Path, Argument(help="A token file: .npz or .json.")],
    out: Annotated[Path, Option(help="File to write; its ending names the format.")],
) -> None:
    """Turn a token file back into what it stands for."""
    from girih.apps import tokens as files

    out.parent.mkdir(parents=True, exist_ok=True)
    cls = files.decode(file, out)
    typer.echo(f"{out}  decoded by {cls}")
