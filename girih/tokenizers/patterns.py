"""Codebook patterns by name: in which order the K code streams of an audio codec are generated.

Each builder makes the table of one :class:`girih.spec.CodebookPattern` for a number of codebooks and frames. Knows
tables alone; does not know codes, codecs or models.

Sources: Copet et al. 2023, section 2.2 (parallel, delay, flat, partial flattening), Wang et al. 2023 VALL-E
(coarse-first), Agostinelli et al. 2023 MusicLM (grouped), Le Lan et al. 2023 (stack, stack-and-delay).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from girih.names import unknown
from girih.spec import CodebookPattern

Cells = list[tuple[int, int]]  # the (frame, codebook) cells of one step
START: Cells = []


def parallel(codebooks: int, frames: int, empty_initial: int = 0) -> CodebookPattern:
    """All codebooks of a frame at once; T steps."""
    return delay(codebooks, frames, [0] * codebooks, empty_initial=empty_initial)


def delay(
    codebooks: int,
    frames: int,
    delays: Sequence[int] | None = None,
    flatten_first: int = 0,
    empty_initial: int = 0,
) -> CodebookPattern:
    """Codebook q comes ``delays[q]`` steps late (default 0, 1, 2, ...); T + max delay steps.

    ``flatten_first``: so many frames come flat, then the delays start anew. ``empty_initial``: so many empty steps
    after the start column; -1 takes the start column away too.
    """
    late = _rising("delays", delays if delays is not None else range(codebooks), codebooks)
    flat = min(flatten_first, frames)
    steps = [START] * (1 + empty_initial) + [[(t, q)] for t in range(flat) for q in range(codebooks)]
    for t in range(flatten_first, frames + late[-1]):
        steps.append([(t - d, q) for q, d in enumerate(late) if t - d >= flatten_first])
    return _table(steps, codebooks, frames)


def unrolled(
    codebooks: int, frames: int, flattening: Sequence[int] | None = None, delays: Sequence[int] | None = None
) -> CodebookPattern:
    """Each frame takes several inner steps: codebook q comes at inner step ``flattening[q]`` (default q: one by one,
    the flat pattern of K * T steps); codebooks may share one. ``delays``: how many frames an inner step is late."""
    inner = _rising("flattening", flattening if flattening is not None else range(codebooks), codebooks)
    late = _rising("delays", delays if delays is not None else [0] * codebooks, codebooks)
    if len(set(zip(inner, late, strict=True))) != len(set(inner)):
        raise ValueError(f"codebooks of one inner step must share a delay, got flattening {inner}, delays {late}")
    stop = frames + late[-1]
    timed: list[tuple[int, Cells]] = []
    for t in range(stop):
        for step in range(inner[-1] + 1):
            cells = [(t, q) for q in range(codebooks) if inner[q] == step]
            at = t + (late[cells[0][1]] if cells else 0)
            if at < stop:
                timed.append((at, cells))
    # Late cells come before the newer frame that shares their time.
    return _table([START, *(cells for _, cells in sorted(timed))], codebooks, frames)


def coarse_first(codebooks: int, frames: int, delays: Sequence[int] | None = None) -> CodebookPattern:
    """Codebook 0 of all frames, then the others together, ``delays[q - 1]`` steps late among themselves. What was
    trained with one number of frames is not to be used with another."""
    late = _rising("delays", delays if delays is not None else [0] * (codebooks - 1), codebooks - 1)
    fine = [
        [(t - d, q) for q, d in enumerate(late, start=1) if t >= d] for t in range(frames + late[-1] if late else 0)
    ]
    return _table([START, *([(t, 0)] for t in range(frames)), *fine], codebooks, frames)


def grouped(codebooks: int, frames: int, group_by: int = 2) -> CodebookPattern:
    """Groups of ``group_by`` codebooks one after the other, each flat: frame by frame, codebook by codebook."""
    if group_by < 1 or codebooks % group_by:
        raise ValueError(f"{codebooks} codebooks do not divide into groups of {group_by}")
    steps = [
        [(t, q)] for first in range(0, codebooks, group_by) for t in range(frames)
        for q in range(first, first + group_by)
    ]  # fmt: skip
    return _table([START, *steps], codebooks, frames)


def stack(codebooks: int, frames: int) -> CodebookPattern:
    """The steps of flat. What differs is in the generator: a frame's cells stand in one stack, and the long-term cache
    keeps one row a frame."""
    return unrolled(codebooks, frames)


def stack_and_delay(codebooks: int, frames: int, order: Sequence[int] | None = None) -> CodebookPattern:
    """K streams: cell (``order[i]``, q) at step i + q + 1; T + K - 1 steps.

    ``order``: frames in the order they are begun; None = :func:`frame_order`, in which whichever of two neighbours
    comes second sees the first one complete, where T allows it.
    """
    order = frame_order(codebooks, frames) if order is None else list(order)
    if sorted(order) != list(range(frames)):
        raise ValueError(f"order must name each of the {frames} frames exactly once")
    starts = range(frames + codebooks - 1)
    steps = [[(order[i - q], q) for q in range(codebooks) if 0 <= i - q < frames] for i in starts]
    return _table([START, *steps], codebooks, frames, ordered=False)


def frame_order(codebooks: int, frames: int) -> list[int]:
    """Frames in strides s: 0, s, 2s, ..., 1, s + 1, ...; s is the largest up to ``codebooks`` that keeps neighbours at
    least ``codebooks`` steps apart, else 1 (the order of time)."""
    for stride in range(codebooks, 1, -1):
        order = strided(frames, stride)
        if separation(order) >= codebooks:
            return order
    return list(range(frames))


def strided(frames: int, stride: int) -> list[int]:
    """Frames 0, s, 2s, ..., then 1, s + 1, ..., and so on."""
    return [t for first in range(stride) for t in range(first, frames, stride)]


def separation(order: Sequence[int]) -> int:
    """Smallest number of positions between two frames that are neighbours in time; the number of frames if there are
    none."""
    position = {frame: i for i, frame in enumerate(order)}
    return min((abs(position[t + 1] - position[t]) for t in range(len(order) - 1)), default=len(order))


PATTERNS: dict[str, Callable[..., CodebookPattern]] = {
    "parallel": parallel,
    "delay": delay,
    "flat": unrolled,
    "unrolled": unrolled,
    "coarse-first": coarse_first,
    "grouped": grouped,
    "stack": stack,
    "stack-and-delay": stack_and_delay,
}


def pattern(name: str, codebooks: int, frames: int, **options: Any) -> CodebookPattern:
    """The pattern of that name. Raises ValueError for an unknown name or option, or numbers below 1."""
    if name not in PATTERNS:
        raise unknown("codebook pattern", name, PATTERNS)
    if codebooks < 1 or frames < 1:
        raise ValueError(f"a pattern needs at least 1 codebook and 1 frame, got {codebooks} and {frames}")
    try:
        return PATTERNS[name](codebooks, frames, **options)
    except TypeError as error:
        raise ValueError(f"codebook pattern {name}: {error}") from error


def _rising(name: str, values: Sequence[int], count: int) -> list[int]:
    numbers = list(values)
    if len(numbers) != count or numbers != sorted(numbers) or min(numbers, default=0) < 0:
        raise ValueError(f"{name} must be {count} numbers >= 0 that do not fall, got {numbers}")
    return numbers


def _table(steps: list[Cells], codebooks: int, frames: int, ordered: bool = True) -> CodebookPattern:
    rows = [[-1] * codebooks for _ in steps]
    for row, cells in zip(rows, steps, strict=True):
        for frame, q in cells:
            row[q] = frame
    return CodebookPattern(tuple(map(tuple, rows)), frames, ordered)
