"""The command line as a program: help, models, and a real process stopped by Ctrl-C."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from girih import catalog
from tests.apps.conftest import Run

COMMANDS = ("image", "models", "train", "convert", "data", "eval")


def test_help_names_every_command(run: Run) -> None:
    code, out, _ = run("--help")
    assert code == 0
    assert all(command in out for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(run: Run, command: str) -> None:
    code, out, _ = run(command, "--help")
    assert code == 0 and "Usage: girih " + command in out


def test_models_as_json(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = [catalog.ShippedModel("image", "ImagePipeline", 30.1, Path("assets/models/image"))]
    monkeypatch.setattr(catalog, "describe", lambda: shipped)
    code, out, _ = run("models", "--json")
    assert code == 0
    expected = {"name": "image", "pipeline": "ImagePipeline", "megabytes": 30.1, "folder": "assets/models/image"}
    assert json.loads(out) == [expected]
    assert run("models")[1] == "image  ImagePipeline, 30.1 MB, assets/models/image\n"


def test_ctrl_c_ends_the_process_with_130_and_no_traceback(tmp_path: Path) -> None:
    code = (
        "import sys, time, girih\n"
        "def load(*words, **options):\n    print('loading', flush=True); time.sleep(60)\n"
        "girih.load = load\nfrom girih.apps.cli import main\nsys.exit(main(['image', 'a cat', '--out', 'x.png']))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "loading\n"
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_the_module_runs_as_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "girih", "imge"], capture_output=True, text=True)
    assert done.returncode == 2 and "Did you mean 'image'" in done.stderr
