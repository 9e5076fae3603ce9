"""Runs a recorded case of a published implementation through girih's public classes and checkpoint adapters.

    python tests/parity/run.py CASE_DIR [--out FILE]

Loads case.json, weights and inputs, computes the outputs from the inputs alone, compares each with what was recorded,
and prints the largest error of each. Exit code 0: all within the case's tolerance; 1: some are not; 2: a case it does
not know.
The folder's name begins with its family's name; the families are a table in families/.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
from families import FAMILIES, Case  # noqa: E402


@dataclass
class Comparison:
    """One output: largest absolute error, and whether it is within the tolerance."""

    name: str
    tolerance: str
    error: float
    holds: bool


def family_of(folder: Path) -> str | None:
    """The longest family name that the folder's name begins with."""
    fits = [name for name in FAMILIES if folder.name.startswith(name)]
    return max(fits, key=len) if fits else None


def compare(name: str, made: Any, recorded: Any, tolerance: str) -> Comparison:
    """``tolerance`` is "exact" or "atol X rtol Y" (either alone, in any order)."""
    limits = {kind: float(value) for kind, value in re.findall(r"(atol|rtol)\s+([\d.e+-]+)", tolerance)}
    if tolerance != "exact" and not limits:
        raise ValueError(f"tolerance {tolerance!r} of {name} is not understood")
    wrong = Comparison(name, tolerance, float("inf"), False)
    if isinstance(recorded, Tensor):
        made = torch.as_tensor(made)
        if made.numel() != recorded.numel():
            return wrong
        got, wanted = made.reshape(-1).double().numpy(), recorded.reshape(-1).double().numpy()
    else:
        numbers: tuple[list[float], list[float]] = [], []
        if not _gather(_plain(made), recorded, numbers):
            return wrong
        got, wanted = np.array(numbers[0], float), np.array(numbers[1], float)
    same = (got == wanted) | (np.isnan(got) & np.isnan(wanted))  # also infinities, and what pads ragged outputs
    difference = np.abs(got - wanted, where=~same, out=np.zeros_like(got))
    allowed = limits.get("atol", 0.0) + limits.get("rtol", 0.0) * np.abs(wanted)
    holds = bool(np.all(same | (difference <= allowed)))
    return Comparison(name, tolerance, float(difference.max()) if difference.size else 0.0, holds)


def _plain(value: Any) -> Any:
    """Tensors and arrays inside nested values as lists."""
    if isinstance(value, (Tensor, np.ndarray, np.generic)):
        return value.tolist()
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _gather(made: Any, recorded: Any, numbers: tuple[list[float], list[float]]) -> bool:
    """Whether two nested values have the same structure, words and None; their numbers are put aside in pairs."""
    if isinstance(recorded, dict):
        return (isinstance(made, dict) and made.keys() == recorded.keys()
                and all(_gather(made[key], value, numbers) for key, value in recorded.items()))  # fmt: skip
    if isinstance(recorded, list):
        return (isinstance(made, list) and len(made) == len(recorded)
                and all(_gather(a, b, numbers) for a, b in zip(made, recorded, strict=True)))  # fmt: skip
    if isinstance(recorded, bool) or not isinstance(recorded, (int, float)):
        return made == recorded
    if isinstance(made, bool) or not isinstance(made, (int, float)):
        return False
    numbers[0].append(made)
    numbers[1].append(recorded)
    return True


def run_case(folder: Path) -> tuple[dict[str, Any], list[Comparison]]:
    """(outputs, comparisons) of a case. Raises KeyError for an unknown family."""
    name = family_of(folder)
    if name is None:
        raise KeyError(folder.name)
    family = FAMILIES[name]
    description = json.loads((folder / "case.json").read_text("utf-8"))
    recorded: dict[str, Any] = {}
    if (folder / "io.json").is_file():
        recorded |= json.loads((folder / "io.json").read_text("utf-8"))
    if (folder / "io.safetensors").is_file():
        recorded |= load_file(folder / "io.safetensors")
    inputs = {key: value for key, value in recorded.items() if family.is_input(description, key)}
    with torch.no_grad():
        outputs = family.compute(Case(description, folder / "weights.safetensors", inputs))
    compared = []
    for key in sorted(recorded):
        if not family.is_output(description, key):
            continue
        tolerance = family.tolerance(description, key)
        missing = Comparison(key, tolerance, float("inf"), False)
        compared.append(compare(key, outputs[key], recorded[key], tolerance) if key in outputs else missing)
    return outputs, compared


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("case", type=Path)
    parser.add_argument("--out", type=Path, help="write what was computed: .json, else safetensors (tensors only)")
    arguments = parser.parse_args()
    if family_of(arguments.case) is None:
        print(f"{arguments.case.name}: no family of that name; known: {', '.join(sorted(FAMILIES))}", file=sys.stderr)
        return 2
    outputs, compared = run_case(arguments.case)
    for one in compared:
        print(f"{'ok  ' if one.holds else 'FAIL'} {one.name:<20} largest error {one.error:.3g}  ({one.tolerance})")
    if arguments.out and arguments.out.suffix == ".json":
        arguments.out.write_text(json.dumps(_plain(outputs)), "utf-8")
    elif arguments.out:
        tensors = {key: torch.as_tensor(value) for key, value in outputs.items()
                   if isinstance(value, (Tensor, np.ndarray))}  # fmt: skip
        save_file({key: value.contiguous() for key, value in tensors.items()}, arguments.out)
    return 0 if compared and all(one.holds for one in compared) else 1


if __name__ == "__main__":
    sys.exit(main())
