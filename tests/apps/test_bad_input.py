"""Bad input on the command line: one clear line, exit code 2, nothing half-written."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

import girih
from girih import catalog
from girih.apps import cli
from girih.apps.commands.convert import parse_config
from tests.apps.conftest import FakePipeline, Run

BAD = [
    (["image"], "give a prompt"),
    (["image", ""], "must not be empty"),
    (["image", "  "], "must not be empty"),
    (["image", "a cat", "--n", "0"], "--n must be at least 1, got 0"),
    (["image", "a cat", "--n", "two"], "--n"),
    (["image", "a cat", "--seed", "-1"], "--seed must be between 0"),
    (["image", "a cat", "--style", "flt"], "did you mean 'flat'"),
    (["image", "a cat", "--out", "x.jpg"], "'x.jpg'"),
    (["image", "a cat", "--out", "there/x.png"], "there"),
    (["image", "a cat", "--mask", "m.png"], "--image"),
    (["image", "a cat", "--image", "in.png"], "--mask FILE"),
    (["image", "a cat", "--image", "no.png", "--strength", "0.5"], "no.png: No such file"),
    (["image", "a cat", "--image", "there", "--strength", "0.5"], "there is not a picture"),
    (["image", "a cat", "--sed", "1"], "--seed"),
    (["image", "--from", "no.png"], "no.png: No such file"),
    (["image", "--from", "there"], "there is not a picture"),
    (["image", "--from", "cut.png"], "cut.png is damaged"),
    (["image", "--from", "in.png"], "in.png holds no girih record"),
    (["imge", "a cat"], "'image'"),
    (["train", "imag"], "unknown recipe 'imag'"),
    (["train", "no.toml"], "no.toml does not exist"),
    (["train", "tokenizer", "--set", "lr"], "key=value"),
    (["train", "tokenizer", "--data", "no/"], "--data no/ is not a folder"),
    (["train", "tokenizer", "--max-minutes", "0"], "--max-minutes must be above 0"),
    (["convert", "lamagen-vq", "a.pt", "b"], "'llamagen-vq'"),
    (["data", "emoji", "--size", "3"], "between 16 and 512"),
    (["data", "emoj"], "'emoji'"),
    (["eval", "image", "--n", "0"], "n must be at least 2, got 0"),
    (["eval", "imge"], "'image'"),
]


@pytest.mark.parametrize(("words", "says"), BAD, ids=[" ".join(words) for words, _ in BAD])
def test_bad_input_is_one_line_and_exit_code_2(
    run: Run, pipeline: FakePipeline, words: list[str], says: str
) -> None:
    Path("there").write_text("text")
    Image.new("RGB", (4, 4)).save("in.png")
    Image.effect_noise((64, 64), 50).save("cut.png")
    os.truncate("cut.png", 1000)
    code, out, err = run(*words)
    assert code == 2
    assert says in err
    assert err.startswith("girih: ") and err.count("\n") == 1, err
    assert sorted(os.listdir()) == ["cut.png", "in.png", "there"]


def test_an_unknown_model_names_the_nearest(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(vars(girih), "load", catalog.find)
    monkeypatch.setattr(catalog, "models", lambda: {"image": Path("image")})
    code, _, err = run("image", "a cat", "--model", "imagge")
    assert code == 2 and "did you mean 'image'" in err


def test_a_model_that_is_no_pipeline(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(vars(girih), "load", lambda model, **options: SimpleNamespace())
    code, _, err = run("image", "a cat", "--model", "codec/")
    assert code == 2 and "codec/ holds a SimpleNamespace alone" in err


def test_a_full_disk_leaves_nothing(run: Run, pipeline: FakePipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(self: Image.Image, file: Path, **options: Any) -> None:
        Path(file).write_bytes(b"half a picture")
        raise OSError(28, "No space left on device", str(file))

    monkeypatch.setattr(Image.Image, "save", write)
    code, _, err = run("image", "a cat", "--out", "x.png")
    assert code == 2 and "No space left on device" in err
    assert os.listdir() == []


def test_ctrl_c_while_drawing_leaves_no_partial_file(
    run: Run, pipeline: FakePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(self: Image.Image, file: Path, **options: Any) -> None:
        Path(file).write_bytes(b"half a picture")
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", write)
    code, out, err = run("image", "a cat", "--out", "x.png")
    assert code == 130
    assert "Traceback" not in err
    assert os.listdir() == []


def test_a_missing_extra_says_what_to_install(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(model: str, **options: Any) -> None:
        raise ModuleNotFoundError("No module named 'resvg_py'", name="resvg_py")

    monkeypatch.setitem(vars(girih), "load", load)
    code, _, err = run("image", "a cat")
    assert (code, err) == (2, "girih: this needs resvg_py, which is not installed: pip install 'girih[data]'\n")


def test_a_defect_is_one_line_and_exit_code_1(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(model: str, **options: Any) -> None:
        raise KeyError("weights")

    monkeypatch.setitem(vars(girih), "load", load)
    code, _, err = run("image", "a cat")
    assert code == 1 and err.count("\n") == 1 and "KeyError" in err
    code, _, err = run("image", "a cat", "--debug")
    assert code == 1 and "Traceback" in err


@pytest.mark.parametrize("text", ["{", "[1]", "3"])
def test_convert_config_must_be_an_object(text: str) -> None:
    with pytest.raises(ValueError, match="--config"):
        parse_config(text)


@pytest.mark.parametrize("damage", ['{"version": "1"', "[]", '{"version": "1", "torch": "2", "prompts": 3}'])
def test_a_damaged_record(run: Run, pipeline: FakePipeline, damage: str) -> None:
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    text.add_text("girih", damage)
    Image.new("RGB", (4, 4)).save("x.png", pnginfo=text)
    code, _, err = run("image", "--from", "x.png")
    assert code == 2 and "the girih record in x.png is damaged" in err


def test_a_newer_record_names_the_options_it_has(run: Run) -> None:
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    text.add_text("girih", '{"version": "9.0", "torch": "2", "prompts": ["x"], "wings": 2}')
    Image.new("RGB", (4, 4)).save("x.png", pnginfo=text)
    code, _, err = run("image", "--from", "x.png")
    assert code == 2 and "drawn by girih 9.0" in err and "wings" in err


def test_a_stopped_training_exits_with_130(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    report = {"step": 5, "minutes": 0.1, "interrupted": True, "out": "runs/x"}
    stopped = SimpleNamespace(train=lambda *words, **options: report)
    monkeypatch.setitem(__import__("sys").modules, "girih.training.recipe", stopped)
    monkeypatch.setattr("girih.training.recipe", stopped, raising=False)
    code, out, _ = run("train", "tokenizer")
    assert code == 130 and "--resume" in out


def test_the_command_line_restores_how_warnings_are_shown(run: Run) -> None:
    import warnings

    before = warnings.showwarning
    run("models")
    assert warnings.showwarning is before
    assert cli.main(["--help"]) == 0
