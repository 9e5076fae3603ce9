"""Seconds and peak memory of drawing one picture, in a process of its own: `python -m girih.apps.evaluation.cost
MODEL`.

Knows one model and the clock. Does not know quality.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path


def measure(model: str) -> dict[str, float]:
    """`load_seconds`, `first_seconds`, `seconds` (median of three later pictures) and `peak_mib` of a fresh process
    with one thread. Raises ValueError with the child's last line when it fails."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "girih.apps.evaluation.cost", model]
    child = subprocess.run(command, env=environment, capture_output=True, text=True)
    if child.returncode:
        raise ValueError(
            f"measuring the cost of a picture failed: {(child.stderr.strip() or 'no message').splitlines()[-1]}"
        )
    return json.loads(child.stdout.splitlines()[-1])


def main(model: str) -> None:
    """Draw with the model and print the numbers as one line of JSON."""
    start = time.perf_counter()
    import torch

    import girih

    torch.set_num_threads(1)
    pipe = girih.load(model)
    pipe.set_progress_bar_config(disable=True)
    loaded = time.perf_counter() - start
    times = []
    for seed in range(4):
        start = time.perf_counter()
        pipe(prompt="a red apple", generator=torch.Generator().manual_seed(seed))
        times.append(time.perf_counter() - start)
    numbers = {"load_seconds": loaded, "first_seconds": times[0], "seconds": sorted(times[1:])[1],
               "peak_mib": _peak_mebibytes()}  # fmt: skip
    print(json.dumps(numbers))


def _peak_mebibytes() -> float:
    """Most memory this program held. On Linux not ``ru_maxrss``: that starts at what the parent held when it forked."""
    status = Path("/proc/self/status")
    if status.is_file():
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status.read_text())[0]) / 2**10
    import resource

    unit = 2**20 if sys.platform == "darwin" else 2**10  # macOS counts bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


if __name__ == "__main__":
    main(sys.argv[1])
