"""The trainer: exact resume, stopping, whole checkpoints, several processes, schedules and refusals."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch
from torch import nn

from girih.training.trainer import Objective, Trainer, TrainSettings, _rate


class Line(Objective):
    """Fits y = 3x - 1 with dropout (randomness inside a step) and a matrix for Muon."""

    def __init__(self, seconds=0.0):
        super().__init__()
        torch.manual_seed(1)
        self.net = nn.Sequential(nn.Linear(1, 16), nn.Dropout(0.2), nn.Linear(16, 1))
        self.seconds, self.exported = seconds, []

    def batch(self, step, process, size):
        time.sleep(self.seconds)
        generator = torch.Generator().manual_seed(self.seed * 1000 + step * 10 + process)
        x = torch.randn(size, 1, generator=generator)
        return {"x": x, "y": 3 * x - 1}

    def forward(self, batch):
        error = (self.net(batch["x"]) - batch["y"]).square().mean()
        return error, {"root": error.sqrt()}

    def evaluate(self):
        x = torch.linspace(-1, 1, 9)[:, None]
        return {"error": float((self.net(x) - (3 * x - 1)).square().mean())}

    def export(self, folder):
        self.exported.append(self.net[0].weight.clone())


SETTINGS = {"steps": 12, "batch_size": 4, "lr": 1e-2, "log_every": 1, "eval_every": 4, "sample_every": 100}


def losses(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


@pytest.mark.parametrize("options", [{}, {"muon": r"net\.2", "ema": 0.0}, {"precision": "bf16"}])
def test_resume_gives_the_losses_of_an_uninterrupted_run(tmp_path, options):
    settings = TrainSettings(**SETTINGS, **options)
    whole = Trainer(Line(), settings, tmp_path / "whole").fit()

    class Stops(Line):
        def batch(self, step, process, size):
            if step == 6:
                os.kill(os.getpid(), signal.SIGINT)
            return super().batch(step, process, size)

    half = Trainer(Stops(), settings, tmp_path / "halves").fit()
    assert half["interrupted"] and 6 <= half["step"] <= 7
    rest = Trainer(Line(), settings, tmp_path / "halves", resume=True).fit()
    assert losses(tmp_path / "halves") == losses(tmp_path / "whole") and len(losses(tmp_path / "whole")) == 12
    assert rest["error"] == whole["error"] and not rest["interrupted"]


def test_steps_after_the_checkpoint_are_logged_once(tmp_path):
    settings = TrainSettings(**SETTINGS)

    class Breaks(Line):
        def batch(self, step, process, size):
            if step == 6:  # after the checkpoint at 4
                raise RuntimeError("lost power")
            return super().batch(step, process, size)

    with pytest.raises(RuntimeError, match="lost power"):
        Trainer(Breaks(), settings, tmp_path).fit()
    Trainer(Line(), settings, tmp_path, resume=True).fit()
    steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps) and sorted(losses(tmp_path)) == list(range(1, 13))


def test_it_learns_and_averages_the_weights(tmp_path):
    line = Line()
    report = Trainer(line, TrainSettings(**{**SETTINGS, "steps": 150, "batch_size": 32}), tmp_path).fit()
    assert report["error"] < 0.5
    assert len(line.exported) == 38
    assert not torch.equal(line.exported[-1], line.net[0].weight)  # exports the average, trains on without it


def test_a_checkpoint_is_not_overwritten_without_resume(tmp_path):
    settings = TrainSettings(**SETTINGS)
    Trainer(Line(), settings, tmp_path).fit()
    with pytest.raises(ValueError, match="resume it, or choose another folder"):
        Trainer(Line(), settings, tmp_path)


def test_a_checkpoint_of_another_model_is_refused_in_one_line(tmp_path):
    settings = TrainSettings(**SETTINGS)
    Trainer(Line(), settings, tmp_path).fit()
    other = Line()
    other.net[0] = nn.Linear(1, 8)
    with pytest.raises(ValueError, match="other settings.*shape") as caught:
        Trainer(other, settings, tmp_path, resume=True)
    assert "\n" not in str(caught.value)


def test_a_failed_save_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    trainer = Trainer(Line(), TrainSettings(**SETTINGS), tmp_path)
    trainer.save()
    before = (tmp_path / "checkpoint.pt").read_bytes()

    def full(state, path):
        path.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="no space"):
        trainer.save()
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_run_measured_in_minutes_ends_in_time_and_goes_on_with_its_clock(tmp_path):
    settings = TrainSettings(minutes=0.02, batch_size=4, log_every=1, eval_every=0.005, sample_every=1)
    timer = threading.Timer(0.4, os.kill, (os.getpid(), signal.SIGTERM))
    trainer = Trainer(Line(seconds=0.01), settings, tmp_path)
    timer.start()
    half = trainer.fit()
    assert half["interrupted"] and 0.3 < half["minutes"] * 60 < 1
    again = Trainer(Line(seconds=0.01), settings, tmp_path, resume=True)
    assert again.elapsed == pytest.approx(half["minutes"] * 60)
    rest = again.fit()
    assert not rest["interrupted"] and 1.2 <= rest["minutes"] * 60 < 2


def test_the_learning_rate_warms_up_and_falls_to_its_floor():
    settings = TrainSettings(steps=100, warmup_steps=10, floor=0.1)
    rates = [_rate(step, step / 100, settings) for step in range(101)]
    assert rates[0] == pytest.approx(0.1, rel=0.01) and max(rates) == pytest.approx(rates[10], rel=0.03)
    assert all(a >= b for a, b in zip(rates[10:], rates[11:], strict=False)) and rates[100] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "either steps or minutes"),
        ({"minutes": 1.0}, "either steps or minutes"),
        ({"precision": "fp16"}, "precision 'fp16'"),
        ({"batch_size": 0}, "batch_size must be above 0"),
        ({"ema": 1.0}, "ema must be in"),
    ],
)
def test_settings_that_make_no_sense_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        TrainSettings(**{**SETTINGS, **change})


def test_muon_without_a_matrix_is_refused(tmp_path):
    with pytest.raises(ValueError, match="finds no two-dimensional weight"):
        Trainer(Line(), TrainSettings(**SETTINGS, muon="blocks"), tmp_path)


@pytest.mark.slow
def test_two_processes_train_one_model(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(
        "import sys\n"
        f"sys.path.insert(0, {os.path.dirname(__file__)!r})\n"
        "from test_trainer import SETTINGS, Line\n"
        "from girih.training.trainer import Trainer, TrainSettings\n"
        "trainer = Trainer(Line(), TrainSettings(**SETTINGS), sys.argv[1])\n"
        "assert trainer.accelerator.num_processes == 2\n"
        "report = trainer.fit()\n"
        "print('weight', trainer.objective.net[0].weight.sum().item(), flush=True)\n"
    )
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    here = os.pathsep.join(path for path in sys.path if path)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": here}
    command = [*launch, "--main_process_port", "0", str(script), str(tmp_path / "out")]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert run.returncode == 0, run.stderr[-2000:]
    weights = [line.split()[1] for line in run.stdout.splitlines() if line.startswith("weight")]
    assert len(weights) == 2 and weights[0] == weights[1]
    assert sorted(losses(tmp_path / "out")) == list(range(1, 13))
