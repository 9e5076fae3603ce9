"""Shows and records a training: a live line in a terminal, plain lines elsewhere, JSONL, TensorBoard if installed.

Knows numbers and names. Does not know what is trained.
"""

from __future__ import annotations

import json
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import rich.progress
from rich.console import Console
from torch import Tensor

if TYPE_CHECKING:
    from girih.training.trainer import TrainSettings

COLUMNS = ("{task.description}", "{task.fields[text]}")
QUIET_SECONDS = 30.0  # between plain lines where there is no terminal


class Progress:
    """Context of one run. Only the main process shows and writes anything."""

    def __init__(self, settings: TrainSettings, out: Path, main: bool):
        self.settings, self.out, self.main = settings, out, main
        self.console = Console(stderr=True)
        self.bar: rich.progress.Progress | None = None
        self.board: Any = None
        self._seen, self._since, self._shown = 0, time.monotonic(), float("-inf")

    def __enter__(self) -> Progress:
        if not self.main:
            return self
        self._file = (self.out / "metrics.jsonl").open("a", encoding="utf-8")
        if find_spec("tensorboard"):
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(self.out / "tensorboard"))
        if self.console.is_terminal:
            self.bar = rich.progress.Progress(
                COLUMNS[0],
                rich.progress.BarColumn(),
                rich.progress.TaskProgressColumn(),
                rich.progress.TimeRemainingColumn(),
                COLUMNS[1],
                console=self.console,
            )
            self.task = self.bar.add_task("training", total=1.0, text="")
            self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.main:
            return
        if self.bar:
            self.bar.stop()
        self._file.close()
        if self.board:
            self.board.close()

    def step(self, step: int, elapsed: float, examples: int, values: dict[str, Tensor | float]) -> None:
        """One step is done: ``examples`` in all processes; ``values`` are read (and waited for) only when shown."""
        self._seen += examples
        if not self.main or step % self.settings.log_every:
            return
        now = time.monotonic()
        numbers = {name: float(value) for name, value in values.items()}
        numbers["per_second"] = self._seen / max(now - self._since, 1e-9)
        self._seen, self._since = 0, now
        self._write(step, elapsed, numbers)
        done = step / self.settings.steps if self.settings.steps else elapsed / 60 / self.settings.minutes
        left = elapsed * (1 - done) / max(done, 1e-9)
        text = f"step {step}  loss {numbers['loss']:.4f}  {numbers['per_second']:.0f}/s"
        if self.bar:
            self.bar.update(self.task, completed=done, text=text)
        elif now - self._shown > QUIET_SECONDS:
            self._shown = now
            print(f"{text}  {elapsed / 60:.1f} min, {max(left, 0) / 60:.1f} min left", file=sys.stderr, flush=True)

    def report(self, step: int, elapsed: float, values: dict[str, float]) -> None:
        """An evaluation is done."""
        self._write(step, elapsed, {f"eval/{name}": value for name, value in values.items()})
        text = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        self.console.print(f"step {step}  {text}", highlight=False, soft_wrap=True)
        self._seen, self._since = 0, time.monotonic()

    def _write(self, step: int, elapsed: float, values: dict[str, float]) -> None:
        line = {"step": step, "minutes": round(elapsed / 60, 4), **values}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        if self.board:
            for name, value in values.items():
                self.board.add_scalar(name, value, step)
