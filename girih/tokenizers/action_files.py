"""Recordings of robot actions from and to files: NumPy, CSV and LeRobot's parquet.

Knows file layouts and how recordings are cut into chunks. Does not know tokens.
"""

from __future__ import annotations

import csv
import importlib
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np

from girih.files import whole
from girih.names import unknown

SUFFIXES = (".npy", ".csv", ".parquet")
EPISODE, FRAME, ACTION = "episode_index", "frame_index", "action"  # LeRobot's column names
MAX_NUMBERS = 100_000_000  # 800 MB as float64


def read_actions(path: str | Path) -> list[np.ndarray]:
    """Episodes, float64 [T, D] each, from one file or from the folder of a LeRobot data set.

    * ``.npy``: [T, D], one episode; [N, H, D], N of them; numbers only.
    * ``.csv``: a header and numbers. Columns named ``action``, ``action.x``, ``action_0`` ... in their order, or all
      columns if none is; ``episode_index`` parts episodes, ``frame_index`` orders the rows within.
    * ``.parquet`` or a folder with ``data/**/*.parquet``: the same columns, ``action`` may be a list. Needs pyarrow.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another suffix, no actions, rows of different widths, or numbers that are not finite.
        ImportError: parquet without pyarrow.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(path.glob("data/**/*.parquet")) or sorted(path.glob("*.parquet"))
        if not files:
            raise ValueError(f"{path} is no LeRobot data set: there is no data/**/*.parquet in it")
        episodes = [episode for file in files for episode in _parquet(file)]
    elif not path.is_file():
        raise FileNotFoundError(f"action file {path} does not exist")
    elif path.suffix in SUFFIXES:
        episodes = {".npy": _npy, ".csv": _csv, ".parquet": _parquet}[path.suffix](path)
    else:
        raise unknown("action file suffix", path.suffix, SUFFIXES)
    return _checked(episodes, path)


def write_actions(path: str | Path, chunks: np.ndarray) -> None:
    """Chunks [N, H, D] to ``.npy`` (float32) or ``.csv`` (``episode_index``, ``frame_index``, ``action.0`` ...).

    The file appears whole or not at all. Raises ValueError for another suffix or shape.
    """
    path, chunks = Path(path), np.asarray(chunks)
    if chunks.ndim != 3:
        raise ValueError(f"action chunks must be [N, H, D], got {list(chunks.shape)}")
    if path.suffix not in (".npy", ".csv"):
        raise unknown("action file suffix", path.suffix, (".npy", ".csv"))
    with whole(path) as part:
        if path.suffix == ".npy":
            with part.open("wb") as file:
                np.save(file, chunks.astype(np.float32))
            return
        with part.open("w", newline="", encoding="utf-8") as text:
            writer = csv.writer(text)
            writer.writerow([EPISODE, FRAME, *(f"{ACTION}.{i}" for i in range(chunks.shape[2]))])
            for index, chunk in enumerate(chunks):
                writer.writerows([index, frame, *map(repr, row)] for frame, row in enumerate(chunk.tolist()))


def to_chunks(episodes: Iterable[np.ndarray], horizon: int, stride: int | None = None) -> np.ndarray:
    """Windows [N, horizon, D] of each episode, one every ``stride`` steps (default: the horizon, no overlap).

    The last window is filled up with the episode's last action, as LeRobot does.

    Raises:
        ValueError: no episodes, or a horizon or stride below 1.
    """
    stride = horizon if stride is None else stride
    if horizon < 1 or stride < 1:
        raise ValueError(f"horizon {horizon} and stride {stride} must be at least 1")
    windows = []
    for episode in episodes:
        past = max(len(episode) - horizon, 0)  # steps beyond the first window
        for start in range(0, math.ceil(past / stride) * stride + 1, stride) if len(episode) else ():
            window = episode[start : start + horizon]
            windows.append(np.concatenate([window, np.repeat(window[-1:], horizon - len(window), 0)]))
    if not windows:
        raise ValueError("there are no episodes to cut into chunks")
    return np.stack(windows)


def _npy(path: Path) -> list[np.ndarray]:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError, TokenError) as error:  # the last: a header that is cut off
        raise ValueError(f"{path} is not a whole .npy file of numbers: {error}") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu" or array.ndim not in (2, 3):
        raise ValueError(f"{path} must hold numbers [T, D] or [N, H, D], got {getattr(array, 'dtype', type(array))} "
                         f"{list(getattr(array, 'shape', ()))}")
    if array.size > MAX_NUMBERS:
        raise ValueError(f"{path} holds {array.size} numbers, more than {MAX_NUMBERS}")
    values = np.array(array, np.float64)
    return [values] if values.ndim == 2 else list(values)


def _csv(path: Path) -> list[np.ndarray]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header, *rows = list(csv.reader(file)) or [[]]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not CSV text: {error}") from error
    rows = [row for row in rows if row]
    for number, row in enumerate(rows):
        if len(row) != len(header):
            raise ValueError(f"{path}, row {number + 1} has {len(row)} values, the header {len(header)}")
    try:
        table = np.array(rows, np.float64).reshape(len(rows), len(header))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    columns = {name.strip(): table[:, i] for i, name in enumerate(header)}
    return _parted(columns, path)


def _parquet(path: Path) -> list[np.ndarray]:
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise ImportError(f"{path} is parquet; reading it needs pyarrow: pip install pyarrow") from error
    try:
        file = parquet.ParquetFile(path)
        names = [name for name in file.schema_arrow.names if name in (EPISODE, FRAME) or _is_action(name)]
        table = file.read(columns=names)
    except Exception as error:  # pyarrow's own errors derive from several builtins
        raise ValueError(f"{path} is not a whole parquet file: {' '.join(str(error).split())}") from error
    columns = {}
    for name in names:
        try:
            columns[name] = np.array(table[name].to_pylist(), np.float64)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}: column {name} holds no numbers, or rows of different widths") from error
    return _parted(columns, path)


def _is_action(name: str) -> bool:
    return re.fullmatch(rf"{ACTION}s?([._ \[].*)?", name) is not None


def _parted(columns: dict[str, np.ndarray], path: Path) -> list[np.ndarray]:
    """Columns [rows] or [rows, D] by name to episodes."""
    named = [name for name in columns if _is_action(name)] or [n for n in columns if n not in (EPISODE, FRAME)]
    if not named:
        raise ValueError(f"{path} has no columns of actions; its columns are {', '.join(columns) or 'none'}")
    actions = np.column_stack([columns[name] for name in named])
    rows: Any = np.arange(len(actions))
    episode = columns.get(EPISODE, np.zeros(len(actions)))
    order = np.lexsort((columns.get(FRAME, rows), episode))
    cuts = np.flatnonzero(np.diff(episode[order])) + 1
    return np.split(actions[order], cuts)


def _checked(episodes: Sequence[np.ndarray], path: Path) -> list[np.ndarray]:
    episodes = [episode for episode in episodes if len(episode)]
    if not episodes:
        raise ValueError(f"{path} holds no actions")
    widths = sorted({episode.shape[1] for episode in episodes})
    if len(widths) > 1 or widths[0] < 1:
        raise ValueError(f"{path} holds actions of {' and '.join(map(str, widths))} numbers")
    for number, episode in enumerate(episodes):
        if not np.isfinite(episode).all():
            step, dimension = np.argwhere(~np.isfinite(episode))[0]
            raise ValueError(f"{path}: episode {number}, step {step}, dimension {dimension} is "
                             f"{episode[step, dimension]}, not a finite number")  # fmt: skip
    return episodes
