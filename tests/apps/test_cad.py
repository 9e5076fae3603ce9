"""`girih cad` and `girih eval cad` on a small model with random weights: files that open, one line for bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

import girih
from girih.apps.cli import main
from girih.tokenizers.text import train_text_tokenizer

trimesh = pytest.importorskip("trimesh")
pytest.importorskip("manifold3d")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    codec = girih.PartTokenizer()
    tokenizer = train_text_tokenizer(["a plate 60 by 40 mm with four corner holes", "a gear"], 100, max_length=40)
    generator = girih.NextTokenGenerator(
        vocab_size=codec.spec.vocab_size, shape=codec.spec.shape, learned_positions=True,
        transformer={"dim": 16, "num_layers": 1, "num_heads": 2, "feed_forward_dim": 16},
        condition={"kind": "words", "vocab_size": len(tokenizer), "tokens": 40})  # fmt: skip
    folder = tmp_path_factory.mktemp("cad")
    girih.CadPipeline(codec, generator, girih.Autoregressive(), tokenizer, {"temperature": 0.8}).save_pretrained(folder)
    return str(folder)


def test_files_open(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for kind in ("glb", "stl", "png"):
        assert main(["cad", "a plate 60 by 40 mm", "--model", model, "--out", str(tmp_path / f"p.{kind}")]) == 0
    solid = trimesh.load(tmp_path / "p.stl", force="mesh")
    solid.merge_vertices()
    assert solid.is_watertight and solid.volume > 0
    shown = trimesh.load(tmp_path / "p.glb", force="mesh")
    assert abs(shown.extents * 1000 - solid.extents).max() < 1e-3  # glTF's unit is the metre
    picture = Image.open(tmp_path / "p.png")
    assert picture.size == (512, 512) and len(picture.getcolors(1 << 20)) > 3
    assert "p.stl" in capsys.readouterr().out


def test_several_parts_have_their_own_seeds_and_files(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["cad", "a plate", "a gear", "--model", model, "--n", "2", "--seed", "5", "--json"]
    assert main([*words, "--out", str(tmp_path / "p.stl")]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [part["seed"] for part in report["parts"]] == [5, 6, 5, 6]
    assert sorted(file.name for file in tmp_path.iterdir()) == [f"p-{i}.stl" for i in (1, 2, 3, 4)]
    alone = ["cad", "a gear", "--model", model, "--seed", "6", "--out", str(tmp_path / "again.stl")]
    assert main(alone) == 0
    assert (tmp_path / "again.stl").read_bytes() == (tmp_path / "p-4.stl").read_bytes()


@pytest.mark.parametrize(("words", "message"), [
    (["a plate", "--out", "part.dwg"], "--out writes"),
    (["a plate", "--n", "0"], "--n must be at least 1, got 0"),
    (["  "], "must not be empty"),
    (["a plate", "--temperature", "-1"], "temperature must be at least 0"),
    (["a plate", "--decoding", "plane"], "plain"),
])  # fmt: skip
def test_bad_input_is_one_line(
    model: str, words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(["cad", *words, "--model", model]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and "\n" not in error
    assert not list(tmp_path.iterdir())


def test_evaluation_counts_what_was_asked_for(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "cad", "--model", model, "--n", "6", "--json", str(tmp_path / "r.json")]) == 0
    found = json.loads((tmp_path / "r.json").read_text())
    assert found["valid"] == 1.0 and found["parts"] == 6 and found["facts"] < 0.5
    assert "valid solids" in capsys.readouterr().out


def test_evaluation_of_the_parts_themselves_is_perfect() -> None:
    import numpy as np

    from girih.apps.evaluation import cad
    from girih.training.data.parts import sample

    rng = np.random.default_rng(1)
    parts = {part.text: part.program for part in (sample(rng, held_out=True) for _ in range(20))}

    class Perfect:
        def __call__(self, texts: list[str], **options: object) -> object:
            return type("Made", (), {"programs": [parts[text] for text in texts]})

    found = cad.measure(Perfect(), 20)
    assert (found["valid"], found["kind"], found["fact"], found["facts"]) == (1.0, 1.0, 1.0, 1.0)
