"""`import girih` and `girih --help` stay quick: they import nothing heavy. Every public name is where it is said."""

import importlib
import subprocess
import sys

import pytest

import girih

HEAVY = ("torch", "transformers", "diffusers", "accelerate", "numpy", "PIL", "tokenizers", "torchaudio")


def loaded_after(code: str) -> set[str]:
    """Which heavy packages a fresh interpreter has imported after running `code`."""
    script = f"import sys\n{code}\nprint('LOADED', *[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.rpartition("LOADED")[2].split())


def test_the_measure_sees_a_heavy_import() -> None:
    assert "numpy" in loaded_after("import numpy")


def test_import_girih_imports_nothing_heavy() -> None:
    assert loaded_after("import girih; dir(girih)") == set()


@pytest.mark.parametrize(
    "words",
    ["--help", "models", *(f"{command} --help" for command in "image cad tokens train convert data eval".split())],
)
def test_help_imports_nothing_heavy(words: str) -> None:
    assert loaded_after(f"from girih.apps.cli import main; assert main({words.split()!r}) == 0") == set()


@pytest.mark.parametrize("name", sorted(girih._HOMES))
def test_public_name_is_where_the_table_says(name: str) -> None:
    value = getattr(girih, name)
    assert value is getattr(importlib.import_module(girih._HOMES[name]), name)
    assert name in dir(girih)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="ImagePipline"):
        girih.ImagePipline  # noqa: B018
