"""Vocabularies over whole numbers: byte-pair merges of coefficients, and the grammar of a chunk's tokens.

Knows rows of integers and token ids. Does not know actions or transforms (action.py).

``IntegerSymbols`` gives each integer of a range one symbol, so nothing can be dropped. ``ByteSymbols`` is the published
FAST vocabulary: a byte-level BPE over characters, which loses symbols it has not seen.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, trainers
from torch import Tensor

from girih.spec import GrammarState

# Integers travel through the tokenizers library as characters from here on: one code point each, no surrogates.
FIRST, LAST = 0x4E00, 0xD7FF
LONGEST = 65_536  # integers that one merge may stand for: a foreign file of 40 doublings would ask for terabytes
NEVER = 32767  # rank of a pair that no merge joins
# Rows are merged side by side in NumPy where that is faster than the library: many rows, short ones, and a vocabulary
# whose table of pairs (4096^2 x 2 bytes) still fits a cache.
MANY_ROWS, SHORT_ROW, FEW_IDS = 128, 512, 4096
SLICE = 1024  # rows side by side at a time


class IntegerSymbols:
    """BPE over the integers ``-reach .. reach``: ids ``0 .. 2 * reach`` are the integers, then come the merges.

    Attributes:
        size: ids; lengths: int64 [size], integers that each id stands for; longest: ids an integer needs at most (1).
    """

    longest = 1

    def __init__(self, reach: int, merges: Sequence[str]):
        if FIRST + 2 * reach > LAST:
            raise ValueError(f"coefficients reach +-{reach}; at most +-{(LAST - FIRST) // 2} have symbols")
        if len(merges) >= NEVER:
            raise ValueError(f"{len(merges)} merges are too many; at most {NEVER - 1}")
        self.reach = reach
        texts = [chr(FIRST + i) for i in range(2 * reach + 1)]
        ids, pairs = {text: i for i, text in enumerate(texts)}, []
        for number, merge in enumerate(merges):
            left, right = _pair(merge, number, len(texts))
            if len(texts[left]) + len(texts[right]) > LONGEST:
                raise ValueError(f"merge {number} stands for more than {LONGEST} integers")
            pairs.append((texts[left], texts[right]))
            if texts[left] + texts[right] not in ids:  # two merges may make the same text
                ids[texts[left] + texts[right]] = len(texts)
                texts.append(texts[left] + texts[right])
        self.size = len(texts)
        self.lengths = np.array([len(text) for text in texts])
        self._starts = np.cumsum(self.lengths) - self.lengths
        self._integers = _numbers("".join(texts)) - FIRST - reach
        self._library = Tokenizer(models.BPE(vocab=ids, merges=pairs))
        self._pairs = [(ids[left], ids[right], ids[left + right]) for left, right in pairs]

    @staticmethod
    def learn(rows: np.ndarray, reach: int, vocab_size: int) -> list[str]:
        """The merges of a vocabulary of at most ``vocab_size`` ids for integer rows [N, ...] within the reach.

        Raises ValueError when the integers alone are more.
        """
        count = 2 * reach + 1
        if count > vocab_size:
            raise ValueError(f"coefficients take {count} values, vocab_size is {vocab_size}; use a smaller scale")
        library = Tokenizer(models.BPE())
        alphabet = [chr(FIRST + i) for i in range(count)]
        trainer = trainers.BpeTrainer(vocab_size=vocab_size, min_frequency=2, show_progress=False,
                                      initial_alphabet=alphabet)  # fmt: skip
        library.train_from_iterator(_texts(rows.reshape(len(rows), -1) + reach + FIRST), trainer)
        model = json.loads(library.to_str())["model"]
        return [f"{model['vocab'][left]} {model['vocab'][right]}" for left, right in model["merges"]]

    def encode(self, rows: np.ndarray) -> list[np.ndarray]:
        """Integer rows [B, n] to ids, one array a row. All integers must lie within the reach."""
        if len(rows) < MANY_ROWS or rows.shape[1] > SHORT_ROW or self.size > FEW_IDS:
            encodings = self._library.encode_batch_fast(_texts(rows + self.reach + FIRST), add_special_tokens=False)
            return [np.array(encoding.ids, np.int64) for encoding in encodings]
        slices = (rows[i : i + SLICE] for i in range(0, len(rows), SLICE))
        return [ids for part in slices for ids in _merged(part + self.reach, self._ranks, self._made)]

    @cached_property
    def _made(self) -> np.ndarray:
        """int64 [merges]: the id that each merge makes."""
        return np.array([made for _, _, made in self._pairs], np.int64)

    @cached_property
    def _ranks(self) -> np.ndarray:
        """int16 [size + 1, size + 1]: the merge that joins two ids or ``NEVER``; the last id stands beyond a row."""
        ranks = np.full((self.size + 1, self.size + 1), NEVER, np.int16)
        for rank, (left, right, _) in enumerate(self._pairs):
            ranks[left, right] = rank
        return ranks

    def decode(self, rows: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Ids to (all integers one row after another, number of integers of each row)."""
        ids = np.concatenate([np.zeros(0, np.int64), *rows])
        lengths = self.lengths[ids]
        within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        integers = self._integers[np.repeat(self._starts[ids], lengths) + within]
        return integers, np.array([self.lengths[row].sum() for row in rows], np.int64)


class ByteSymbols:
    """A published FAST vocabulary: integer i is the character ``chr(i - min_token)``, tokenised by a byte-level BPE.

    What it loses, it loses as published: integers below ``min_token`` become it, and characters with a byte that was
    not seen in fitting vanish. Attributes: size: ids; longest: ids that a character needs at most.

    Raises:
        ValueError: ``tokenizer`` is not the content of a tokenizer.json.
    """

    longest = 3  # bytes of a character below the surrogates

    def __init__(self, tokenizer: Mapping[str, Any], min_token: int):
        try:
            self._library = Tokenizer.from_str(json.dumps(tokenizer))
        except Exception as error:  # the library raises bare Exception
            raise ValueError(f"not a tokenizer.json: {' '.join(str(error).split())}") from error
        self.min_token, self.size = min_token, self._library.get_vocab_size()

    @staticmethod
    def learn(rows: np.ndarray, vocab_size: int) -> tuple[dict[str, Any], int]:
        """(content of tokenizer.json, ``min_token``) as the published processor fits them to integer rows [N, ...].

        Raises ValueError when the integers span more than ``vocab_size``.
        """
        low, high = int(rows.min()), int(rows.max())
        if high - low > vocab_size:
            raise ValueError(f"coefficients span {high - low}, vocab_size is {vocab_size}; use a smaller scale")
        from tokenizers import ByteLevelBPETokenizer

        whole = ByteLevelBPETokenizer()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size, min_frequency=2, show_progress=False, special_tokens=[], max_token_length=10000,
            initial_alphabet=[chr(i) for i in range(high - low + 1)],
        )  # fmt: skip
        whole._tokenizer.train_from_iterator(_texts(rows.reshape(len(rows), -1) - low), trainer)
        return json.loads(whole._tokenizer.to_str()), low

    def encode(self, rows: np.ndarray) -> list[np.ndarray]:
        """Integer rows [B, n] to ids, one array a row. Raises ValueError for a coefficient that is no character."""
        shifted = np.maximum(rows - self.min_token, 0)
        if shifted.size and shifted.max() > LAST:
            largest = shifted.max() + self.min_token
            raise ValueError(f"coefficient {largest} is out of range; are the actions normalised?")
        encodings = self._library.encode_batch_fast(_texts(shifted), add_special_tokens=False)
        return [np.array(encoding.ids, np.int64) for encoding in encodings]

    def decode(self, rows: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Ids to (all integers one row after another, number of integers of each row)."""
        texts = self._library.decode_batch([row.tolist() for row in rows], skip_special_tokens=False)
        return _numbers("".join(texts)) + self.min_token, np.array([len(text) for text in texts], np.int64)


class ActionGrammar:
    """Ids that make exactly ``total`` integers, then the end token; a ``girih.spec.Grammar``.

    The state ``left`` [rows] counts integers to come, ``ENDED`` after the end token, ``LOST`` after a token outside the
    mask. ``lengths`` [size]: integers of each id; eos and pad are the two ids after them.
    """

    ENDED, LOST = -1, -2

    def __init__(self, lengths: Tensor, total: int):
        self.total, self.vocab_size = total, len(lengths) + 2
        self._lengths = lengths

    def to(self, device: torch.device | str) -> ActionGrammar:
        return ActionGrammar(self._lengths.to(device), self.total)

    def start(self, rows: int) -> GrammarState:
        return {"left": torch.full((rows,), self.total, device=self._lengths.device)}

    def mask(self, state: GrammarState) -> Tensor:
        left = state["left"][:, None]
        return torch.cat([self._lengths <= left, left == 0, left == self.ENDED], 1)

    def advance(self, state: GrammarState, tokens: Tensor) -> GrammarState:
        left = state["left"]
        allowed = self.mask(state).gather(1, tokens[:, None])[:, 0]
        cost = self._lengths[tokens.clamp(max=len(self._lengths) - 1)]
        moved = torch.where(tokens < len(self._lengths), left - cost, self.ENDED)
        return {"left": torch.where(allowed, moved, self.LOST)}

    def forced(self, state: GrammarState) -> Tensor:
        left, eos = state["left"], len(self._lengths)
        return torch.where(left == 0, eos, torch.where(left == self.ENDED, eos + 1, -1))

    def done(self, state: GrammarState) -> Tensor:
        return state["left"] == self.ENDED


def _merged(rows: np.ndarray, ranks: np.ndarray, made: np.ndarray) -> list[np.ndarray]:
    """BPE of rows of ids [B, n], all at once: each round joins, in every row, the leftmost pair of lowest rank.

    A row is a column of a doubly linked list with an end on either side, its places numbered through the whole table.
    ``keys`` orders a row's pairs by (rank, place in the row) in one number; ``nothing`` and more: no merge joins them.
    """
    n, count = rows.shape[1] + 2, len(rows)
    bits = (n - 1).bit_length()
    width, nothing, low_bits = len(ranks), NEVER << bits, (1 << bits) - 1
    flat = ranks.reshape(-1)

    def key_of(left: np.ndarray, right: np.ndarray, height: np.ndarray) -> np.ndarray:
        return (flat[left * width + right].astype(np.int32) << bits) | height

    table = np.full((n, count), width - 1)
    table[1:-1] = rows.T
    place = np.repeat(np.arange(n, dtype=np.int32)[:, None], count, 1)
    keys = np.full((n, count), nothing, np.int32)
    keys[:-1] = key_of(table[:-1], table[1:], place[:-1])
    ids, key, height = table.reshape(-1), keys.reshape(-1), place.reshape(-1)
    after = np.arange(n * count) + count
    before = after - 2 * count
    while True:
        lowest = keys.min(0)
        row = np.flatnonzero(lowest < nothing)
        if not len(row):
            break
        pair = lowest[row]
        left, new = (pair & low_bits) * count + row, made[pair >> bits]
        right, prior = after[left], before[left]
        past = after[right]
        ids[left], ids[right] = new, -1
        after[left], before[past] = past, left
        key[right] = nothing
        key[left] = key_of(new, ids[past], height[left])
        key[prior] = key_of(ids[prior], new, height[prior])
    kept = table[1:-1].T >= 0
    return np.split(table[1:-1].T[kept], np.cumsum(kept.sum(1))[:-1])


def _texts(rows: np.ndarray) -> list[str]:
    """Code points [N, n] to one text a row."""
    whole, n = rows.astype("<u4").tobytes().decode("utf-32-le"), rows.shape[1]
    return [whole[i : i + n] for i in range(0, len(whole), n)]


def _numbers(text: str) -> np.ndarray:
    """The code points of a text, int64."""
    return np.frombuffer(text.encode("utf-32-le"), "<u4").astype(np.int64)


def _pair(merge: str, number: int, size: int) -> tuple[int, int]:
    try:
        left, right = (int(part) for part in merge.split())
    except (ValueError, AttributeError):
        raise ValueError(f"merge {number} is {merge!r}, must be two ids") from None
    if not (0 <= left < size and 0 <= right < size):
        raise ValueError(f"merge {number} joins {left} and {right}, but there are only {size} ids by then")
    return left, right
