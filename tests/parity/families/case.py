"""What a family of recorded cases is: how its outputs are computed, and what in a case is input and what is output."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any


@dataclass
class Case:
    """What a family's function sees: never a recorded output.

    ``description``: case.json; ``weights``: the peer's state dict, if the case has one; ``inputs``: what was recorded
    as input, tensors (io.safetensors) and plain values (io.json) by name.
    """

    description: dict[str, Any]
    weights: Path
    inputs: dict[str, Any]

    def setting(self, output: str, name: str, default: float) -> float:
        """A call's keyword as written in case.json: the call that mentions ``output`` and ``name=VALUE``."""
        for call in self.description["calls"]:
            found = re.search(rf"{name}=(-?[\d.]+)", call)
            if output in call and found:
                return float(found[1])
        return default


def stated(description: dict[str, Any], name: str) -> str:
    """The tolerance that case.json states for an output by name."""
    return description["tolerance"][name]


@dataclass
class Family:
    """One kind of recorded case.

    Attributes:
        compute: a case -> its outputs by name: tensors, arrays or plain (nested) values.
        inputs: names (or fnmatch patterns) of the recorded values that are inputs; None: those without a tolerance.
        notes: names (or patterns) that are neither input nor output (an intermediate that no public class has, say).
        alone: it must be computed in a process where no convolution ran before (it chooses the kernels).
        tolerance: (description, output name) -> "exact" or "atol X rtol Y" (either alone, in any order).
    """

    compute: Callable[[Case], dict[str, Any]]
    inputs: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    tolerance: Callable[[dict[str, Any], str], str] = stated
    alone: bool = False

    def is_input(self, description: dict[str, Any], name: str) -> bool:
        if self.inputs is None:
            return name not in description["tolerance"]
        return _any(name, self.inputs)

    def is_output(self, description: dict[str, Any], name: str) -> bool:
        return not self.is_input(description, name) and not _any(name, self.notes)


def _any(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
