"""The training loop, one for every objective: optimise, average, measure, save, go on after a stop.

Knows an :class:`Objective` and accelerate's processes. Does not know what is trained, on what data, or recipe files
(recipe.py).

Exact resume: a batch and all randomness of a step are functions of (seed, step, process), so a checkpoint holds only
weights, optimizer state, the average, the step and the time spent.
"""

from __future__ import annotations

import json
import math
import re
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import broadcast
from diffusers.training_utils import EMAModel
from PIL.Image import Image
from torch import Tensor, nn

from girih.files import whole
from girih.training.progress import Progress

CHECKPOINT, METRICS = "checkpoint.pt", "metrics.jsonl"
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Objective(nn.Module):
    """What is trained: its modules are this module's children, ``forward(batch)`` gives the loss.

    Being one module, it is wrapped for several processes as a whole, however many networks it holds.
    ``options``: what a recipe may say beyond what it does say, names by section ("" = outside of sections).
    """

    seed: int = 0
    options: dict[str, tuple[str, ...]] = {}

    def batch(self, step: int, process: int, size: int) -> Any:
        """``size`` examples for a step of a process, on the CPU; a pure function of its arguments and ``seed``."""
        raise ValueError(f"{type(self).__name__} has no data")

    def forward(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """The scalar loss to descend and named scalars to log."""
        raise ValueError(f"{type(self).__name__} has no loss")

    def evaluate(self) -> dict[str, float]:
        """Named numbers on held-out data; runs with averaged weights, in evaluation mode, without gradients."""
        return {}

    def samples(self) -> Image | None:
        """A picture that shows how far it is, if there is one to show; same state as :meth:`evaluate`."""
        return None

    def export(self, folder: Path) -> None:
        """Write the finished part for users under ``folder``; same state as :meth:`evaluate`."""


@dataclass
class TrainSettings:
    """How to train. ``steps`` or ``minutes`` (not both) ends the run; the cosine follows the share of it that is done.

    ``muon``: a regular expression; two-dimensional weights whose full name it finds use Muon, the rest AdamW
    ("" = none). ``muon_lr``: its own peak learning rate, 0 = ``lr``. ``floor``: last learning rate as a share of the
    peak. ``ema``: largest decay of the average of the weights, 0 = no average. ``precision``: "fp32" or "bf16"
    (autocast; also on CPUs). ``eval_every``, ``sample_every``: in steps, or in minutes when the run is measured in
    minutes. ``batch_size``: examples a process.
    """

    steps: int = 0
    minutes: float = 0.0
    batch_size: int = 16
    lr: float = 2e-3
    beta1: float = 0.9
    beta2: float = 0.95
    weight_decay: float = 0.01
    muon: str = ""
    muon_lr: float = 0.0
    warmup_steps: int = 50
    floor: float = 0.05
    clip: float = 1.0
    ema: float = 0.998
    precision: str = "fp32"
    log_every: int = 20
    eval_every: float = 1000
    sample_every: float = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.steps > 0) == (self.minutes > 0):
            raise ValueError(f"give either steps or minutes above 0, got steps {self.steps} and minutes {self.minutes}")
        if self.precision not in ("fp32", "bf16"):
            raise ValueError(f"precision {self.precision!r} is unknown; use fp32 or bf16")
        for name in ("batch_size", "log_every", "eval_every", "sample_every", "lr"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema must be in [0, 1), got {self.ema}")

    @classmethod
    def names(cls) -> tuple[str, ...]:
        return tuple(field.name for field in fields(cls))


class Trainer:
    """Trains an objective into a folder: ``checkpoint.pt``, ``metrics.jsonl``, ``samples/`` and what it exports."""

    def __init__(self, objective: Objective, settings: TrainSettings, out: Path | str, resume: bool = False):
        self.settings, self.out = settings, Path(out)
        # One loss may leave some weights of an objective unused (a dropped condition, say).
        unused = DistributedDataParallelKwargs(find_unused_parameters=True)
        # Said outright: accelerate sees several processes on a machine without an accelerator only when told.
        self.accelerator = Accelerator(cpu=not torch.accelerator.is_available(), kwargs_handlers=[unused])
        self.main = self.accelerator.is_main_process
        self.step, self.elapsed, self.interrupted = 0, 0.0, False
        self._stop = False
        checkpoint = self.out / CHECKPOINT
        if not resume and checkpoint.exists():
            raise ValueError(f"{self.out} holds a training already: resume it, or choose another folder")
        self.out.mkdir(parents=True, exist_ok=True)
        objective.seed = settings.seed
        self.objective = objective.to(self.accelerator.device)
        optimizers = _optimizers(self.objective, settings)
        self.model, *self.optimizers = self.accelerator.prepare(self.objective, *optimizers)
        self.trained = [p for p in self.objective.parameters() if p.requires_grad]
        self.ema = EMAModel(self.trained, decay=settings.ema, foreach=True) if settings.ema else None
        if resume and checkpoint.exists():
            self._load(checkpoint)

    def fit(self) -> dict[str, Any]:
        """Train to the end or a stop signal; returns the last evaluation and ``step``, ``minutes``, ``interrupted``."""
        settings = self.settings
        report: dict[str, float] = {}
        if self.main:
            _drop_later_metrics(self.out / METRICS, self.step)
        # On a CPU a second thread that calls torch makes OpenMP's threads sleep between operators: three times slower.
        loader = ThreadPoolExecutor(1) if self.accelerator.device.type != "cpu" else None
        ahead = self._ahead(loader)
        with _signals(self), Progress(settings, self.out, self.main) as progress:
            started = time.monotonic() - self.elapsed
            marks = {"eval": self._mark(settings.eval_every), "sample": self._mark(settings.sample_every)}
            self.model.train()
            while not self._finished():
                batch = ahead()
                logged = self._train_step(batch, self._done())
                self.step += 1
                ahead = self._ahead(loader)
                self.elapsed = time.monotonic() - started
                self._agree()
                progress.step(self.step, self.elapsed, settings.batch_size * self.accelerator.num_processes, logged)
                due = {name: self._mark(getattr(settings, f"{name}_every")) for name in marks}
                last = self._finished()
                if last or due["eval"] != marks["eval"] or due["sample"] != marks["sample"]:
                    paused = time.monotonic()
                    self.save()
                    if self.main and not self.interrupted:
                        evaluate, sample = (last or due[name] != marks[name] for name in ("eval", "sample"))
                        report = self._look(progress, evaluate, sample) or report
                    self.accelerator.wait_for_everyone()
                    started += time.monotonic() - paused  # looking is not training time
                marks = due
        if loader is not None:
            loader.shutdown(cancel_futures=True)
        return {**report, "step": self.step, "minutes": self.elapsed / 60, "interrupted": self.interrupted}

    def save(self) -> None:
        """Write the checkpoint, whole or not at all."""
        if not self.main:
            return
        state = {
            "step": self.step,
            "elapsed": self.elapsed,
            "objective": self.objective.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "ema": None if self.ema is None else self.ema.state_dict(),
        }
        with whole(self.out / CHECKPOINT) as part:
            torch.save(state, part)

    def _load(self, checkpoint: Path) -> None:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        try:
            self.objective.load_state_dict(state["objective"])
            for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(saved)
        except (RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[-1].strip()
            raise ValueError(f"{checkpoint} was made with other settings: {reason}") from error
        if self.ema is not None and state["ema"] is not None:
            self.ema.load_state_dict(state["ema"])
            self.ema.to(self.accelerator.device)
        self.step, self.elapsed = state["step"], state["elapsed"]

    def _ahead(self, loader: ThreadPoolExecutor | None) -> Callable[[], Any]:
        """How to get the next batch: with a loader it is made while the current step runs."""
        make = partial(self.objective.batch, self.step, self.accelerator.process_index, self.settings.batch_size)
        return make if loader is None else loader.submit(make).result

    def _train_step(self, batch: Any, done: float) -> dict[str, Tensor | float]:
        settings = self.settings
        torch.manual_seed(_seed_of(settings.seed, self.step, self.accelerator.process_index))
        rate = _rate(self.step, done, settings)
        for optimizer in self.optimizers:
            muon = isinstance(getattr(optimizer, "optimizer", optimizer), torch.optim.Muon)
            for group in optimizer.param_groups:
                group["lr"] = (settings.muon_lr if muon and settings.muon_lr else settings.lr) * rate
        with self._autocast():
            loss, metrics = self.model(_to(batch, self.accelerator.device))
        self.accelerator.backward(loss)
        norm = self.accelerator.clip_grad_norm_(self.trained, settings.clip)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.step(self.trained)
        scalars = {name: value.detach() for name, value in metrics.items()}
        return {"loss": loss.detach(), "lr": settings.lr * rate, "grad_norm": norm.detach(), **scalars}

    def _look(self, progress: Progress, evaluate: bool, sample: bool) -> dict[str, float]:
        report: dict[str, float] = {}
        with self._averaged(), torch.no_grad(), self._autocast():
            if evaluate:
                report = self.objective.evaluate()
                self.objective.export(self.out)
            picture = self.objective.samples() if sample else None
        if picture is not None:
            (self.out / "samples").mkdir(exist_ok=True)
            with whole(self.out / "samples" / f"{self.step:07d}.png") as part:
                picture.save(part, format="PNG")
        if report:
            progress.report(self.step, self.elapsed, report)
        return report

    def _autocast(self) -> torch.autocast:
        # Not accelerate's, which holds one precision a process: two trainings of one program may differ.
        kind = self.accelerator.device.type
        return torch.autocast(kind, torch.bfloat16, enabled=self.settings.precision == "bf16")

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        self.objective.eval()
        if self.ema is not None:
            self.ema.store(self.trained)
            self.ema.copy_to(self.trained)
        try:
            yield
        finally:
            if self.ema is not None:
                self.ema.restore(self.trained)
            self.objective.train()

    def _done(self) -> float:
        """Share of the run that is behind, 0 to 1."""
        settings = self.settings
        return self.step / settings.steps if settings.steps else min(1.0, self.elapsed / 60 / settings.minutes)

    def _finished(self) -> bool:
        return self.interrupted or self._done() >= 1.0

    def _mark(self, every: float) -> int:
        return int((self.step if self.settings.steps else self.elapsed / 60) / every)

    def _agree(self) -> None:
        """All processes take the first one's clock, and stop together when any was told to."""
        self.interrupted = self._stop
        if self.accelerator.num_processes > 1:
            state = torch.tensor([self.elapsed, float(self._stop)], device=self.accelerator.device, dtype=torch.float64)
            self.elapsed = float(broadcast(state)[0])
            self.interrupted = bool(self.accelerator.reduce(state[1:], "sum")[0] > 0)


def _optimizers(objective: Objective, settings: TrainSettings) -> list[torch.optim.Optimizer]:
    """AdamW (decay on weights of two or more dimensions only), after Muon where the settings name weights for it."""
    matrices: list[nn.Parameter] = []
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in objective.named_parameters():
        if not parameter.requires_grad:
            continue
        if settings.muon and parameter.ndim == 2 and re.search(settings.muon, name):
            matrices.append(parameter)
        else:
            (decayed if parameter.ndim > 1 else plain).append(parameter)
    if settings.muon and not matrices:
        raise ValueError(f"muon = {settings.muon!r} finds no two-dimensional weight")
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    adam = torch.optim.AdamW(groups, lr=settings.lr, betas=(settings.beta1, settings.beta2), fused=True)
    if not matrices:
        return [adam]
    decay = settings.weight_decay
    return [torch.optim.Muon(matrices, settings.lr, decay, ns_steps=4, adjust_lr_fn="match_rms_adamw"), adam]


def _rate(step: int, done: float, settings: TrainSettings) -> float:
    """Learning rate as a share of its peak: linear warm-up, then a cosine down to ``floor``."""
    warm = min(1.0, (step + 1) / max(1, settings.warmup_steps))
    return warm * (settings.floor + (1 - settings.floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


def _seed_of(seed: int, step: int, process: int) -> int:
    return (seed * 1_000_003 + step) * 1_009 + process


def _to(batch: Any, device: torch.device) -> Any:
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {name: _to(value, device) for name, value in batch.items()}
    if isinstance(batch, (list, tuple)):
        return type(batch)(_to(value, device) for value in batch)
    return batch


def _drop_later_metrics(path: Path, step: int) -> None:
    """A resumed run writes the steps after its checkpoint again: the old lines of those go."""
    if not path.exists():
        return
    kept = [line for line in path.read_text("utf-8").splitlines() if line and json.loads(line)["step"] <= step]
    with whole(path) as part:
        part.write_text("".join(line + "\n" for line in kept), "utf-8")


@contextmanager
def _signals(trainer: Trainer) -> Iterator[None]:
    """The first Ctrl-C (or TERM) ends training after the running step, with a checkpoint; the second ends at once."""

    def stop(number: int, frame: object) -> None:
        if trainer._stop:
            raise KeyboardInterrupt
        trainer._stop = True

    previous = {number: signal.signal(number, stop) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
