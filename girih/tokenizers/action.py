"""The action tokenizer: chunks of robot actions to a short list of token ids and back.

Knows action chunks ``[B, H, D]`` (H steps, D numbers a step), their statistics, cosine coefficients and a byte-pair
vocabulary over them. Does not know robots, files of recordings (action_files.py) or the models that predict the ids.

FAST (Pertsch et al. 2025): normalise, cosine transform along time, round, and merge frequent runs of coefficients, low
frequencies first. One class in two forms: ``ActionTokenizer.fit`` makes ours, in which no chunk of finite numbers is
undecodable; ``ActionTokenizer.from_published`` opens a published processor (FAST+), kept bit for bit, losses included.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import ConfigMixin, SchedulerMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput
from numpy.typing import ArrayLike
from torch import Tensor

from girih.names import unknown
from girih.spec import TokenSpec
from girih.tokenizers.action_symbols import ActionGrammar, ByteSymbols, IntegerSymbols

FALLBACKS = ("relaxed", "zero", "repeat")
SPREAD = 1e-6  # added to high - low, so that it never is zero; part of the published formula
MAX_LIMIT = 2.0


@dataclass
class EncodedActions(BaseOutput):
    """``tokens [B, L]``; ``clipped [B]`` bool: the chunk held a value that the tokenizer cannot represent."""

    tokens: Tensor
    clipped: Tensor


@dataclass
class DecodedActions(BaseOutput):
    """``actions [B, H, D]``; ``valid [B]`` bool: the ids made exactly H * D coefficients, no fallback was needed."""

    actions: Tensor
    valid: Tensor


def cosine_transform(steps: int) -> np.ndarray:
    """The orthonormal DCT-II as a matrix [steps, steps], row = frequency; its transpose is the inverse."""
    frequency, step = np.arange(steps)[:, None], np.arange(steps)[None]
    matrix = np.cos(math.pi * frequency * (2 * step + 1) / (2 * steps)) * math.sqrt(2 / steps)
    matrix[0] /= math.sqrt(2)
    return matrix


def quantiles(chunks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The 1st and 99th percentile of each dimension, [D] each, over all steps of ``chunks [N, H, D]``."""
    low, high = np.quantile(chunks.reshape(-1, chunks.shape[-1]), [0.01, 0.99], axis=0)
    return low, high


def normalise(chunks: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """``low .. high`` to -1 .. 1, not clipped (openpi's formula)."""
    return 2 * (chunks - low) / (high - low + SPREAD) - 1


class ActionTokenizer(SchedulerMixin, ConfigMixin):
    """FAST tokens of action chunks. Rule-based: all it knows is in its config, statistics and vocabulary included.

    Args:
        horizon, width: steps of a chunk (H) and numbers of a step (D).
        scale: coefficients are rounded after multiplication with it; more = finer and longer.
        low, high: [D], what becomes -1 and 1; None where the caller normalises. A dimension with ``low == high`` is
            constant: it costs (nearly) no tokens and decodes to exactly that value.
        limit: normalised values are clipped to +- this before the transform, so that every coefficient has a symbol;
            None: not clipped, and what has no symbol is lost (the published form).
        merges: pairs of token ids ``"left right"`` in the order they were learned, over one symbol an integer.
        tokenizer, min_token: in the place of ``merges``: the content of a published ``tokenizer.json``, a byte-level
            BPE over characters ``coefficient - min_token``.
        fallback: what a chunk decodes to when its ids do not make H * D coefficients: ``"relaxed"`` cuts or fills with
            zero coefficients, ``"zero"`` is the middle of the range at every step (published), ``"repeat"`` holds
            the ``previous`` action that decode is given.

    Raises:
        ValueError: settings that do not fit together.
    """

    @register_to_config
    def __init__(
        self,
        horizon: int,
        width: int,
        scale: float = 10.0,
        low: Sequence[float] | None = None,
        high: Sequence[float] | None = None,
        limit: float | None = 1.0,
        merges: Sequence[str] | None = (),
        tokenizer: Mapping[str, Any] | None = None,
        min_token: int = 0,
        fallback: str = "relaxed",
    ):
        _check(horizon, width, scale, low, high, fallback)
        self.low, self.high = (None if edge is None else np.asarray(edge, np.float64) for edge in (low, high))
        self.cosines = cosine_transform(horizon)
        self.symbols: IntegerSymbols | ByteSymbols
        if tokenizer is not None:
            self.symbols = ByteSymbols(tokenizer, min_token)
        elif limit is None or not limit > 0:
            raise ValueError(f"an integer vocabulary needs a limit > 0, got {limit}")
        else:
            self.symbols = IntegerSymbols(reach(horizon, scale, limit), merges or ())
        eos, pad = self.symbols.size, self.symbols.size + 1
        longest = self.symbols.longest * horizon * width + 1
        grammar = None
        if isinstance(self.symbols, IntegerSymbols):
            grammar = ActionGrammar(torch.from_numpy(self.symbols.lengths), horizon * width)
        self.spec = TokenSpec(self.symbols.size + 2, (longest,), eos=eos, pad=pad, grammar=grammar)

    @classmethod
    def fit(cls, chunks: ArrayLike | Tensor, scale: float = 10.0, vocab_size: int = 1024, limit: float | None = None,
            fallback: str = "relaxed") -> ActionTokenizer:
        """Statistics and vocabulary from one's own chunks [N, H, D], in their own units.

        ``vocab_size`` counts symbols and merges, the two special ids come on top. ``limit``: see the class; by default
        the largest normalised value of the chunks, but within 1 .. 2. Where the percentiles of a dimension coincide
        although it moves (a gripper that rarely closes), its minimum and maximum are taken.

        Raises:
            ValueError: no chunks, values that are not finite, or more coefficient values than ``vocab_size``.
        """
        chunks = _chunks(chunks)
        if not chunks.size:
            raise ValueError(f"there are no actions to fit on: chunks are {list(chunks.shape)}")
        low, high = quantiles(chunks)
        rare = high <= low
        low = np.where(rare, chunks.min((0, 1)), low)
        high = np.where(rare, chunks.max((0, 1)), high)
        if limit is None:
            moving = high > low
            largest = np.abs(normalise(chunks, low, high)[..., moving]).max(initial=1.0)
            limit = float(min(largest, MAX_LIMIT))
        config: dict[str, Any] = {
            "horizon": chunks.shape[1], "width": chunks.shape[2], "scale": float(scale), "low": low.tolist(),
            "high": high.tolist(), "limit": limit, "fallback": fallback,
        }  # fmt: skip
        plain = cls(**config)
        merges = IntegerSymbols.learn(plain.coefficients(chunks)[0], plain.symbols.reach, vocab_size)
        return cls(**config, merges=merges)

    @classmethod
    def from_published(cls, folder: str | Path, horizon: int, width: int) -> ActionTokenizer:
        """A published processor folder (``physical-intelligence/fast``): ``processor_config.json``, ``tokenizer.json``.

        ``horizon`` and ``width`` of the chunks to decode are not in such a folder; neither are statistics, so actions
        are in normalised units.

        Raises:
            ValueError: a file is missing, is no JSON, or lacks ``scale`` or ``min_token``.
        """
        config = _json(Path(folder) / "processor_config.json")
        tokenizer = _json(Path(folder) / "tokenizer.json")
        for name in ("scale", "min_token"):
            if not isinstance(config.get(name), (int, float)):
                raise ValueError(f"{folder}/processor_config.json has no number {name}; it is no FAST processor")
        return cls(horizon, width, config["scale"], limit=None, merges=None, tokenizer=tokenizer,
                   min_token=int(config["min_token"]), fallback="zero")  # fmt: skip

    def encode(self, chunks: ArrayLike | Tensor) -> Tensor:
        """Chunks [B, H, D] to LongTensor [B, L]: ids, ``spec.eos``, then ``spec.pad``. See ``encode_flagged``."""
        return self.encode_flagged(chunks).tokens

    def encode_flagged(self, chunks: ArrayLike | Tensor) -> EncodedActions:
        """Tokens of chunks [B, H, D], and which chunks held values out of range, which were clipped.

        Raises:
            ValueError: another shape than [B, H, D], or a value that is not finite.
        """
        coefficients, clipped = self.coefficients(chunks)
        rows = self.symbols.encode(coefficients.reshape(-1, self.config["horizon"] * self.config["width"]))
        tokens = np.full((len(rows), max(map(len, rows), default=0) + 1), self.spec.pad)
        for line, row in zip(tokens, rows, strict=True):
            line[: len(row)] = row
            line[len(row)] = self.spec.eos
        return EncodedActions(torch.from_numpy(tokens), torch.from_numpy(clipped))

    def coefficients(self, chunks: ArrayLike | Tensor) -> tuple[np.ndarray, np.ndarray]:
        """(rounded coefficients [B, H, D] int64, lowest frequency first; clipped [B] bool)."""
        values = _chunks(chunks)
        steps, width = self.config["horizon"], self.config["width"]
        if values.shape[1:] != (steps, width):
            raise ValueError(f"chunks are {list(values.shape)}, this tokenizer was made for [B, {steps}, {width}]")
        outside = np.zeros(values.shape, bool)
        if self.low is not None and self.high is not None:
            still = self.low == self.high
            outside |= still & (np.abs(values - self.low) > SPREAD * (1 + np.abs(self.low)))
            with np.errstate(over="ignore"):  # becomes infinite, then the limit
                values = np.where(still, 0.0, normalise(values, self.low, self.high))
        if (limit := self.config["limit"]) is not None:
            outside |= np.abs(values) > limit
            values = np.clip(values, -limit, limit)
        scaled = np.rint(self.config["scale"] * (self.cosines @ values))
        if not (np.abs(scaled) < 2**31).all():  # only without limit
            raise ValueError(f"values up to {np.abs(values).max():.3g} make huge coefficients; normalise them first")
        return scaled.astype(np.int64), np.asarray(outside.any((1, 2)))

    def decode(self, tokens: Tensor | Sequence[Sequence[int]], previous: ArrayLike | Tensor | None = None,
               dtype: torch.dtype = torch.float32) -> Tensor:
        """Tokens [B, L] (or lists of ids) to actions [B, H, D] in the units of the data. See ``decode_flagged``."""
        return self.decode_flagged(tokens, previous, dtype).actions

    def decode_flagged(self, tokens: Tensor | Sequence[Sequence[int]], previous: ArrayLike | Tensor | None = None,
                       dtype: torch.dtype = torch.float32) -> DecodedActions:
        """Actions and which rows were valid. In a row all from the first ``eos`` or ``pad`` on is left out.

        ``previous``: [B, D], the last action sent, for the fallback ``"repeat"``.

        Raises:
            ValueError: an id outside the vocabulary, or the fallback needs ``previous``.
        """
        steps, width = self.config["horizon"], self.config["width"]
        symbols, lengths = self.symbols.decode(self.rows(tokens))
        valid = lengths == steps * width
        coefficients = np.zeros((len(lengths), steps * width))
        row = np.repeat(np.arange(len(lengths)), lengths)
        place = np.arange(len(symbols)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        kept = place < steps * width
        coefficients[row[kept], place[kept]] = symbols[kept]
        if self.config["fallback"] == "zero":
            coefficients[~valid] = 0
        values = self.cosines.T @ (coefficients.reshape(-1, steps, width) / self.config["scale"])
        if self.low is not None and self.high is not None:
            spread = np.where(self.low == self.high, 0.0, self.high - self.low + SPREAD)
            values = (values + 1) / 2 * spread + self.low
        if self.config["fallback"] == "repeat" and not valid.all():
            values[~valid] = self._held(previous, len(valid))[~valid, None]
        return DecodedActions(torch.from_numpy(values).to(dtype), torch.from_numpy(valid))

    def rows(self, tokens: Tensor | Sequence[Sequence[int]]) -> list[np.ndarray]:
        """The vocabulary's ids of each row, without ``eos`` and ``pad``. Raises ValueError for ids it does not have."""
        rows, last = [], self.symbols.size + 1
        for i, row in enumerate(tokens.tolist() if isinstance(tokens, Tensor) else tokens):
            ids = np.asarray(row)
            if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu"):
                raise ValueError(f"tokens must be [B, L] or lists of ids, row {i} is {ids.dtype} {list(ids.shape)}")
            if len(ids) and not 0 <= ids.min() <= ids.max() <= last:
                wrong = ids.min() if ids.min() < 0 else ids.max()
                raise ValueError(f"token {wrong} in row {i}: this vocabulary has ids 0 .. {last}")
            ends = np.flatnonzero(ids >= self.symbols.size)
            rows.append((ids[: ends[0]] if len(ends) else ids).astype(np.int64))
        return rows

    def _held(self, previous: ArrayLike | Tensor | None, rows: int) -> np.ndarray:
        if previous is None:
            raise ValueError("a row does not decode, and the fallback 'repeat' needs previous=, the last action sent")
        held = np.asarray(previous, np.float64)
        if held.shape != (rows, self.config["width"]):
            raise ValueError(f"previous is {list(held.shape)}, must be [{rows}, {self.config['width']}]")
        return held


def reach(horizon: int, scale: float, limit: float) -> int:
    """The largest coefficient of values within +- ``limit``: |c| <= scale * |x| <= scale * limit * sqrt(H)."""
    return math.ceil(scale * limit * math.sqrt(horizon))


def _chunks(chunks: ArrayLike | Tensor) -> np.ndarray:
    """Float64 [N, H, D]. Raises ValueError for another number of axes or a value that is not finite."""
    values = np.asarray(chunks, np.float64)
    if values.ndim != 3:
        raise ValueError(f"action chunks must be [B, H, D], got {list(values.shape)}")
    finite = np.isfinite(values)
    if not finite.all():
        chunk, step, dimension = np.argwhere(~finite)[0]
        value = values[chunk, step, dimension]
        raise ValueError(f"chunk {chunk}, step {step}, dimension {dimension} is {value}, not a finite number")
    return values


def _check(horizon: int, width: int, scale: float, low: Any, high: Any, fallback: str) -> None:
    if horizon < 1 or width < 1 or not 0 < scale < math.inf:
        raise ValueError(f"horizon {horizon}, width {width} and scale {scale} must be positive")
    if (low is None) != (high is None):
        raise ValueError("low and high come together")
    if low is not None:
        if len(low) != width or len(high) != width:
            raise ValueError(f"low has {len(low)} and high {len(high)} numbers, the width is {width}")
        if not np.all(np.isfinite([*low, *high])) or not np.all(np.asarray(low) <= np.asarray(high)):
            raise ValueError(f"low {list(low)} must be finite and nowhere above high {list(high)}")
    if fallback not in FALLBACKS:
        raise unknown("fallback", fallback, FALLBACKS)


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, not an object")
    return content
