"""What every benchmark measures with: clocks, interleaving, medians, memory bandwidth, tables and files.

Knows no models. Machines are shared and their load changes, so variants take turns in one process, CPU time is
counted beside wall time, and the load average is printed with the numbers.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from girih.files import whole


@dataclass(frozen=True)
class Cost:
    """Seconds of one run: on the wall, and of all this process's threads."""

    wall: float
    cpu: float


def interleave(variants: dict[str, Callable[[], Iterator[Any]]], repeats: int, turn: int = 16) -> dict[str, Cost]:
    """What a run of each variant costs: variants take turns of ``turn`` steps until all are through, ``repeats`` times.

    Each variant makes an iterator of the same number of steps; making it is not counted. Of every turn the median over
    the repeats counts, so a burst of other work spoils a turn, not a variant.
    """
    turns: dict[str, list[list[Cost]]] = {name: [] for name in variants}
    for _ in range(repeats):
        runs = {name: make() for name, make in variants.items()}
        costs: dict[str, list[Cost]] = {name: [] for name in variants}
        while runs:
            for name, run in list(runs.items()):
                wall, cpu, ended = time.perf_counter(), time.process_time(), False
                for _ in range(turn):
                    ended = next(run, run) is run
                    if ended:
                        break
                synchronize()
                costs[name].append(Cost(time.perf_counter() - wall, time.process_time() - cpu))
                if ended:
                    del runs[name]
        for name in variants:
            turns[name].append(costs[name])
    return {
        name: Cost(*(sum(median(getattr(cost, kind) for cost in same) for same in zip(*repeated, strict=True))
                     for kind in ("wall", "cpu")))
        for name, repeated in turns.items()
    }


def synchronize() -> None:
    """Wait until a GPU, if there is one, has done what it was asked."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def bandwidth(mebibytes: int = 256, rounds: int = 9, device: str = "cpu") -> float:
    """Bytes read in matrix-vector products, from memory and not from caches: a CPU-second, on a GPU a wall second."""
    rows = mebibytes * 2**20 // (4 * 4096)
    matrix, vector = torch.ones(rows, 4096, device=device), torch.ones(4096, device=device)
    clock = time.process_time if device == "cpu" else time.perf_counter
    times = []
    for _ in range(rounds):
        synchronize()
        start = clock()
        torch.mv(matrix, vector)
        synchronize()
        times.append(clock() - start)
    return matrix.numel() * 4 / min(times)  # the fastest round: a floor must not be raised by other work


def machine() -> dict[str, Any]:
    """What the numbers were taken on, load average included."""
    gpu = {"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}
    return {"python": platform.python_version(), "torch": torch.__version__, "processor": _processor(), **gpu,
            "cores": os.cpu_count(), "threads": torch.get_num_threads(),
            "load_average": [round(load, 2) for load in os.getloadavg()]}


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.is_file() else []
    simd = torch.backends.cpu.get_cpu_capability()
    return f"{names[0].partition(':')[2].strip() if names else platform.processor()} ({simd})"


def peak_mebibytes() -> float:
    """Most memory this process held so far."""
    unit = 2**20 if sys.platform == "darwin" else 2**10  # macOS counts bytes, Linux KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def table(rows: list[dict[str, Any]]) -> str:
    """Rows with the same keys as a Markdown table, numbers to three figures."""
    def text(value: Any) -> str:
        return f"{value:.3g}" if isinstance(value, float) and abs(value) < 1000 else (
            f"{value:.0f}" if isinstance(value, float) else str(value))

    cells = [list(rows[0]), *([text(value) for value in row.values()] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in cells]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def write_json(path: str | os.PathLike[str] | None, result: dict[str, Any]) -> None:
    """Write the result where asked, whole or not at all."""
    if path is not None:
        with whole(path) as part:
            part.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
