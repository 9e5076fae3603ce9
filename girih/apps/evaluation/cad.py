"""What a text-to-CAD model makes of descriptions it never saw: valid solids, the right kind, the stated numbers.

Knows described parts, programs and their facts. Does not know how a report is printed or how parts are made.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from girih.tokenizers.shape.cad_mesh import program_mesh
from girih.tokenizers.shape.part_facts import measure as facts_of
from girih.training.data.parts import DescribedPart, sample

BIN = 0.5  # mm: a stated length is met within one bin; counts must be equal
_BATCH = 50
Progress = Callable[[str, int, int], None]


def measure(pipe: Any, n: int, progress: Progress | None = None, seed: int = 1) -> dict[str, Any]:
    """Shares among the parts made from ``n`` held-out descriptions, part i with seed i:

    ``valid``: the mesh is closed and encloses a volume; ``kind``: of the kind described; ``fact``: stated facts met
    (of all stated); ``facts``: parts all of whose stated facts are met; the same by kind; seconds a part.
    """
    rng = np.random.default_rng(seed)
    asked = [sample(rng, held_out=True) for _ in range(n)]
    rows, seconds = [], 0.0
    for start in range(0, n, _BATCH):
        parts = asked[start : start + _BATCH]
        generators = [torch.Generator().manual_seed(start + i) for i in range(len(parts))]
        began = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # words a model does not know are the point of some descriptions
            made = pipe([part.text for part in parts], generator=generators, output_type="program").programs
        seconds += time.perf_counter() - began
        rows += [_judge(part, program) for part, program in zip(parts, made, strict=True)]
        if progress:
            progress("parts", start + len(parts), n)
    by_kind = {kind: _shares([row for row in rows if row["asked"] == kind])
               for kind in sorted({row["asked"] for row in rows})}  # fmt: skip
    return {**_shares(rows), "parts": n, "seconds": seconds / n, "kinds": by_kind}


def _judge(part: DescribedPart, program: Any) -> dict[str, Any]:
    solid = program_mesh(program)
    kind, facts = facts_of(program)
    met = [name in facts and abs(facts[name] - value) <= (0 if _counts(name) else BIN)
           for name, value in part.facts.items()]  # fmt: skip
    return {"asked": part.kind, "valid": bool(solid.is_watertight and solid.volume > 0), "kind": kind == part.kind,
            "met": sum(met), "stated": len(met), "all": kind == part.kind and all(met)}  # fmt: skip


def _counts(name: str) -> bool:
    return name in ("teeth", "sides") or name.endswith("holes")


def _shares(rows: list[dict[str, Any]]) -> dict[str, float]:
    return {
        "valid": float(np.mean([row["valid"] for row in rows])),
        "kind": float(np.mean([row["kind"] for row in rows])),
        "fact": sum(row["met"] for row in rows) / max(1, sum(row["stated"] for row in rows)),
        "facts": float(np.mean([row["all"] for row in rows])),
        "count": len(rows),
    }
