"""Runs a recorded case of a published implementation through girih's public classes and checkpoint adapters.

    python tests/parity/run.py CASE_DIR [--out FILE]

Loads case.json, weights and inputs, computes the outputs from the inputs alone, compares each with what was recorded,
and prints the largest error of each. Exit code 0: all within the case's tolerance; 1: some are not; 2: a case it does
not know.
The folder's name begins with its family's name; the families are a table in families.py.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path

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


def compare(name: str, made: Tensor, recorded: Tensor, tolerance: str) -> Comparison:
    """``tolerance`` is "exact" or "atol X rtol Y" (either alone, in any order)."""
    recorded = recorded.reshape(-1) if made.shape != recorded.shape and recorded.numel() == made.numel() else recorded
    made = made.reshape(recorded.shape) if made.numel() == recorded.numel() else made
    if made.shape != recorded.shape:
        return Comparison(name, tolerance, float("inf"), False)
    difference = (made.double() - recorded.double()).abs()
    limits = {kind: float(value) for kind, value in re.findall(r"(atol|rtol)\s+([\d.e+-]+)", tolerance)}
    if tolerance != "exact" and not limits:
        raise ValueError(f"tolerance {tolerance!r} of {name} is not understood")
    allowed = limits.get("atol", 0.0) + limits.get("rtol", 0.0) * recorded.double().abs()
    holds = bool((difference <= allowed).all()) and bool(made.double().isfinite().all())
    return Comparison(name, tolerance, float(difference.max()) if difference.numel() else 0.0, holds)


def run_case(folder: Path) -> tuple[dict[str, Tensor], list[Comparison]]:
    """(outputs, comparisons) of a case. Raises KeyError for an unknown family."""
    family = family_of(folder)
    if family is None:
        raise KeyError(folder.name)
    description = json.loads((folder / "case.json").read_text("utf-8"))
    recorded = load_file(folder / "io.safetensors")
    # What the case states a tolerance for is an output; an adapter sees only the rest.
    inputs = {name: tensor for name, tensor in recorded.items() if name not in description["tolerance"]}
    with torch.no_grad():
        outputs = FAMILIES[family](Case(description, folder / "weights.safetensors", inputs))
    compared = []
    for name, tolerance in description["tolerance"].items():
        if name not in outputs:
            compared.append(Comparison(name, tolerance, float("inf"), False))
        else:
            compared.append(compare(name, outputs[name], recorded[name], tolerance))
    return outputs, compared


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("case", type=Path)
    parser.add_argument("--out", type=Path, help="write what was computed, safetensors")
    arguments = parser.parse_args()
    try:
        outputs, compared = run_case(arguments.case)
    except KeyError:
        print(f"{arguments.case.name}: no family of that name; known: {', '.join(sorted(FAMILIES))}", file=sys.stderr)
        return 2
    for one in compared:
        print(f"{'ok  ' if one.holds else 'FAIL'} {one.name:<20} largest error {one.error:.3g}  ({one.tolerance})")
    if arguments.out:
        save_file({name: tensor.contiguous() for name, tensor in outputs.items()}, arguments.out)
    return 0 if all(one.holds for one in compared) else 1


if __name__ == "__main__":
    sys.exit(main())
