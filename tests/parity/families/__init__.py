"""The families of recorded cases by name; one module here for each kind of system."""

from __future__ import annotations

import torch

from . import llamagen
from .case import Case, Family

__all__ = ["FAMILIES", "Case", "Family"]

torch.set_num_threads(1)

FAMILIES: dict[str, Family] = {
    **llamagen.FAMILIES,
}
