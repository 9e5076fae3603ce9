"""`accelerate launch ... -m girih train`: two processes train one model on both their batches."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from girih.tokenizers.image import ImageTokenizer
from girih.training.recipe import load_recipe
from girih.training.tokenizer import TokenizerObjective
from girih.training.trainer import Trainer, TrainSettings
from tests.pipelines.tiny import BACKGROUNDS, STYLES, make_pipeline

SETTINGS = ["minutes=0", "steps=4", "batch_size=3", "warmup_steps=1", "log_every=1", "eval_every=4", "sample_every=9",
            "precision=fp32", "ema=0.0"]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "my"
    folder.mkdir()
    for i in range(24):
        Image.effect_noise((40, 40), 20 + 8 * i).convert("RGB").save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(f"a red apple in {STYLES[i % 3]} style")
    return folder


def launch(*words: str) -> str:
    """Standard output of `girih WORDS` in two processes."""
    start = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    here = os.pathsep.join(path for path in sys.path if path)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": here}
    run = subprocess.run([*start, "--main_process_port", "0", "-m", "girih", *words], capture_output=True, text=True,
                         env=environment, timeout=300)
    assert run.returncode == 0, run.stderr[-3000:]
    return run.stdout


def options(settings: list[str]) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]


def weights(folder: Path) -> Tensor:
    codec = ImageTokenizer.from_pretrained(folder / "codec").float()
    return torch.cat([value.flatten() for value in codec.state_dict().values()])


@pytest.mark.slow
def test_two_processes_train_the_codec_on_both_batches(pictures, tmp_path):
    make_pipeline().codec.save_pretrained(tmp_path / "codec")
    settings = [*SETTINGS, "size=32"]
    given = ["train", "tokenizer", "--data", str(pictures), "--init", str(tmp_path / "codec")]
    printed = launch(*given, "--out", str(tmp_path / "two"), *options(settings))
    assert printed.count("done at step 4") == 1 and len(printed.splitlines()) == 1
    lines = [json.loads(line) for line in (tmp_path / "two" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4]

    class Both(TokenizerObjective):
        """One process with the batches of two."""

        def batch(self, step: int, process: int, size: int) -> dict[str, Tensor]:
            parts = [super(Both, self).batch(step, which, size) for which in (0, 1)]
            return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    recipe = load_recipe("tokenizer", settings)
    recipe["data"]["folder"], recipe["init"] = str(pictures), str(tmp_path / "codec")
    for name, objective in (("joint", Both), ("one", TokenizerObjective)):
        Trainer(objective.from_recipe(recipe), TrainSettings(**recipe["train"]), tmp_path / name).fit()
    two, joint, one = (weights(tmp_path / name) for name in ("two", "joint", "one"))
    assert (two - joint).abs().mean() < 0.1 * (two - one).abs().mean()


@pytest.mark.slow
def test_two_processes_train_a_generator_and_go_on(pictures, tmp_path):
    make_pipeline(styles=STYLES, backgrounds=BACKGROUNDS).save_pretrained(tmp_path / "model")
    given = ["train", "image", "--data", str(pictures), "--init", str(tmp_path / "model"), "--out", str(tmp_path / "m")]
    assert "done at step 4" in launch(*given, *options(SETTINGS))
    assert "done at step 6" in launch(*given, *options([*SETTINGS, "steps=6"]), "--resume")
    lines = [json.loads(line) for line in (tmp_path / "m" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4, 5, 6]
    assert (tmp_path / "m" / "model_index.json").is_file()
