"""Reads a picture set folder: cut-out drawings with a label and a style each.

Knows the files of a set (pictures.npy, index.jsonl). Does not know how a set is made (emoji.py) or used (compose.py).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Row:
    """What is known of one drawing."""

    label: str
    hexcode: str
    style: str
    tags: tuple[str, ...]
    group: str


class PictureSet:
    """A set of drawings.

    `rgba`: uint8 [n,S,S,4], straight alpha, memory-mapped read-only. `rows[i]` describes `rgba[i]`. `size` = S.
    `styles`: names in the order of the set. `of[label][style]` is a row number.
    Raises ValueError when the folder is not a picture set or its two files disagree.
    """

    def __init__(self, folder: Path | str):
        folder = Path(folder)
        for name in ("pictures.npy", "index.jsonl"):
            if not (folder / name).is_file():
                raise ValueError(f"{folder} is not a picture set: it has no {name} (`girih data emoji` makes one)")
        self.rgba: np.ndarray = np.load(folder / "pictures.npy", mmap_mode="r")
        self.rows: list[Row] = []
        for line in (folder / "index.jsonl").read_text("utf-8").splitlines():
            entry = json.loads(line)
            self.rows.append(Row(**{**entry, "tags": tuple(entry["tags"])}))
        shape = self.rgba.shape
        if len(shape) != 4 or shape[0] != len(self.rows) or shape[1] != shape[2] or shape[3] != 4:
            raise ValueError(f"{folder}: pictures.npy is {shape}, index.jsonl has {len(self.rows)} lines")
        self.size: int = shape[1]
        self.styles: tuple[str, ...] = tuple(dict.fromkeys(row.style for row in self.rows))
        self.of: dict[str, dict[str, int]] = {}
        for number, row in enumerate(self.rows):
            self.of.setdefault(row.label, {})[row.style] = number

    def __len__(self) -> int:
        return len(self.rows)
