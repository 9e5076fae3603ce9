"""Records, fields and grammars: what meshes, hair, rigs, CAD programs and scenes have in common.

Knows numbers <-> bins (``FieldQuantizer``) and bins <-> token ids (``Field``, ``Record``, ``RecordSchema``). Which
tokens may follow which is made of these in ``grammars.py``. Knows no asset, no file and no model.

A language is data on top of these two files. Mixed meshes of QuadGPT's kind, whole::

    coordinate = FieldQuantizer(1024, (-1.0, 1.0))                       # round(u*n - 0.5), decoded at the bin's centre
    x, y, z = (Field(axis, coordinate) for axis in "xyz")                # Field(name, quantizer, first=id of bin 0)
    quad = Record("quad", (x, y, z) * 4)                                 # a slot is a Field, or a fixed token id
    triangle = Record("triangle", (1024, 1024, 1024) + (x, y, z) * 3)
    schema = RecordSchema((quad, triangle), vocab_size=1027, bos=1025, eos=1026, pad=1024)

    faces = {"quad": "more", "triangle": "more"}                         # state -> {record: next state}
    automaton = Automaton(schema, {"start": faces, "more": {**faces, "eos": "end"}})
    corners = Tuples(automaton, {"quad": "n" * 12, "triangle": "..." + "n" * 9}, memory=4, forget=("quad", "triangle"))
    grammar = RecordGrammar(automaton, (corners,), limit=2 + 12 * 3072)  # a girih.spec.Grammar

* To tokens: ``quad.encode(values [n, 12])`` or ``quad.to_tokens(bins [n, 12])`` -> [n, 12] ids;
  ``schema.sequence(ids, ...)`` joins blocks between bos and eos; ``schema.batch([...])`` pads rows to one tensor.
* Back: ``schema.bodies(tokens [rows, n])`` strips bos, eos and padding and refuses a wrong end;
  ``quad.decode(ids)`` or ``quad.to_bins(ids)`` undo a block of one kind; ``automaton.split(body)`` cuts a mixed body
  into (record name, start, end) and names the first token that does not fit.
* Transitions name states freely; "start" is where a body begins, "end" where it is done, and "eos" is the record of the
  end token alone. Counts are states too: {f"p{i}": {"point": f"p{i+1}"} ...} asks for five points. Records that may
  follow the same state share what begins alike; where they part, their ids must differ, or the constructor says so.
* ``limit`` is the most tokens of a sequence: a way that no longer leads to the end in time is closed.
* What states cannot say is a ``Rule``: ``Tuples`` (distinct corners, "this parent is a joint seen before", "this joint
  is new"), or a class of the language's own with start, mask and advance. ``automaton.here("quad", 3)`` is bool
  [states]: about to place slot 3 of a quad. A rule keeps its memory in the state, writes nothing in place, forbids
  values but never the last one, and never makes the shortest way to the end longer.
* ``accepts(grammar, tokens)`` checks whole sequences. Tests: ``walk`` and ``assert_the_end_is_near`` of
  ``tests/tokenizers/walks.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import torch
from torch import Tensor

from girih.names import unknown

ROUNDINGS = ("half-even", "half-up", "floor")


@dataclass(frozen=True)
class FieldQuantizer:
    """A number to one of ``size`` bins and back.

    Within a piece of n bins, u = (value - low) / (high - low): bin = round(u * n - shift), value = (bin + offset) / n.
    Bins count through the pieces; a value on an inner edge belongs to the upper piece; values outside take the nearest
    bin.

    Attributes:
        bins: how many, or how many in each piece.
        edges: lowest value, inner edges, highest value: one more than pieces.
        shift: 0.5 makes bins of equal width; 0 (UniRig, DeepCAD) a half one below and a clipped half one above.
        offset: 0.5 decodes at the bin's centre; 0 (MeshAnything, SceneScript) at its lower edge.
        rounding: ``"half-even"`` (torch, NumPy), ``"half-up"`` or ``"floor"``.

    Raises:
        ValueError: naming the value that is out of range.
    """

    bins: int | tuple[int, ...]
    edges: tuple[float, ...] = (-1.0, 1.0)
    shift: float = 0.5
    offset: float = 0.5
    rounding: str = "half-even"

    def __post_init__(self) -> None:
        if self.rounding not in ROUNDINGS:
            raise unknown("rounding", self.rounding, ROUNDINGS)
        if min(self.counts) < 1 or len(self.edges) != len(self.counts) + 1:
            raise ValueError(f"{len(self.counts)} pieces of {self.bins} bins need {len(self.counts) + 1} edges "
                             f"and at least one bin each, got edges {self.edges}")
        if any(not low < high for low, high in zip(self.edges, self.edges[1:], strict=False)):
            raise ValueError(f"edges must rise, got {self.edges}")

    @classmethod
    def integers(cls, count: int) -> FieldQuantizer:
        """Whole numbers 0 .. count - 1, exactly."""
        return cls(count, (0.0, float(count)), shift=0.0, offset=0.0)

    @property
    def counts(self) -> tuple[int, ...]:
        """Bins of each piece."""
        return (self.bins,) if isinstance(self.bins, int) else tuple(self.bins)

    @property
    def size(self) -> int:
        """Bins of all pieces."""
        return sum(self.counts)

    @property
    def bound(self) -> float:
        """The largest |decode(encode(x)) - x| of an x in range, in bins of its piece."""
        low, high = (0.0, 1.0) if self.rounding == "floor" else (-0.5, 0.5)
        inside = max(abs(self.shift + low - self.offset), abs(self.shift + high - self.offset))
        return max(inside, self.offset, 1 - self.offset if self.shift + high < 1 else 0.0)  # the two clipped ends

    def outside(self, values: Tensor) -> Tensor:
        """bool, same shape: the value is out of range and will be clipped."""
        return (values < self.edges[0]) | (values > self.edges[-1])

    def encode(self, values: Tensor) -> Tensor:
        """Numbers of any shape to bins, int64, computed in float32 or float64 as they come, whole numbers in float64.

        Raises ValueError for NaN and infinity.
        """
        values = torch.as_tensor(values)
        if values.dtype not in (torch.float32, torch.float64):
            values = values.float() if values.is_floating_point() else values.double()
        if not bool(values.isfinite().all()):
            raise ValueError(f"{int((~values.isfinite()).sum())} of {values.numel()} values are not finite numbers")
        out = torch.empty(values.shape, dtype=torch.long, device=values.device)
        piece = torch.bucketize(values, values.new_tensor(self.edges[1:-1]), right=True)
        for i, (first, count, low, high) in enumerate(self._pieces()):
            scaled = (values - low) / (high - low) * count - self.shift
            if self.rounding == "half-even":
                scaled = scaled.round()
            else:
                scaled = (scaled + 0.5 if self.rounding == "half-up" else scaled).floor()
            out = torch.where(piece == i, scaled.clamp(0, count - 1).long() + first, out)
        return out

    def decode(self, bins: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Bins of any shape to values. Raises ValueError for a bin that does not exist."""
        bins = torch.as_tensor(bins)
        _in_range("bin", bins, self.size)
        out = torch.empty(bins.shape, dtype=dtype, device=bins.device)
        for first, count, low, high in self._pieces():
            here = (bins >= first) & (bins < first + count)
            out = torch.where(here, ((bins - first).to(dtype) + self.offset) * ((high - low) / count) + low, out)
        return out

    def _pieces(self) -> list[tuple[int, int, float, float]]:
        firsts = accumulate((0, *self.counts[:-1]))
        return list(zip(firsts, self.counts, self.edges[:-1], self.edges[1:], strict=True))


@dataclass(frozen=True)
class Field:
    """A quantised number of a record; bin b is token ``first + b``."""

    name: str
    quantizer: FieldQuantizer
    first: int = 0

    @property
    def ids(self) -> range:
        return range(self.first, self.first + self.quantizer.size)


@dataclass(frozen=True)
class Record:
    """One kind of record: a fixed tuple of slots, each a ``Field`` or a fixed token id."""

    name: str
    slots: tuple[int | Field, ...]

    def __post_init__(self) -> None:
        if not self.slots:
            raise ValueError(f"record {self.name!r} has no slots")

    @property
    def fields(self) -> tuple[Field, ...]:
        return tuple(slot for slot in self.slots if isinstance(slot, Field))

    def encode(self, values: Tensor) -> Tensor:
        """Values [n, fields] to token ids [n, slots]."""
        return self.to_tokens(self._columns(values, lambda field, column: field.quantizer.encode(column), torch.long))

    def decode(self, tokens: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Token ids [n, slots] to values [n, fields]. Raises ValueError for ids that do not belong."""
        return self._columns(self.to_bins(tokens), lambda f, column: f.quantizer.decode(column, dtype), dtype)

    def to_tokens(self, bins: Tensor) -> Tensor:
        """Bins [n, fields] to token ids [n, slots]. Raises ValueError for a bin that does not exist."""
        if bins.ndim != 2 or bins.shape[1] != len(self.fields):
            raise ValueError(f"record {self.name!r} has {len(self.fields)} fields, got bins {list(bins.shape)}")
        low, high, columns = (part.to(bins.device) for part in self._layout)
        if len(columns) == len(low):  # fields only
            out = low + bins
        else:
            out = low.repeat(len(bins), 1)
            out[:, columns] += bins
        if bool(((out < low) | (out > high)).any()):
            raise ValueError(f"record {self.name!r} has a bin out of range: {int(bins.min())} to {int(bins.max())}")
        return out

    def to_bins(self, tokens: Tensor) -> Tensor:
        """Token ids [n, slots] to bins [n, fields]. Raises ValueError for ids that do not belong."""
        if tokens.ndim != 2 or tokens.shape[1] != len(self.slots):
            raise ValueError(f"record {self.name!r} has {len(self.slots)} tokens, got {list(tokens.shape)}")
        low, high, columns = (part.to(tokens.device) for part in self._layout)
        if bool(((tokens < low) | (tokens > high)).any()):
            row, slot = ((tokens < low) | (tokens > high)).nonzero()[0].tolist()
            raise ValueError(f"token {int(tokens[row, slot])} in slot {slot} of {self.name} {row}: "
                             f"must be in {int(low[slot])} .. {int(high[slot])}")
        bins = tokens - low
        return bins if len(columns) == len(low) else bins[:, columns]

    @cached_property
    def _layout(self) -> tuple[Tensor, Tensor, Tensor]:
        """(smallest id, largest id) of each slot, and the columns of the fields."""
        spans = [ids(slot) for slot in self.slots]
        columns = [i for i, slot in enumerate(self.slots) if isinstance(slot, Field)]
        return (torch.tensor([span.start for span in spans]), torch.tensor([span.stop - 1 for span in spans]),
                torch.tensor(columns, dtype=torch.long))

    def _columns(self, table: Tensor, convert: Callable[[Field, Tensor], Tensor], dtype: torch.dtype) -> Tensor:
        """``convert(field, columns)`` of fields that quantise alike at a time, [n, fields] to [n, fields]."""
        if table.ndim != 2 or table.shape[1] != len(self.fields):
            raise ValueError(f"record {self.name!r} has {len(self.fields)} fields, got {list(table.shape)}")
        groups: dict[FieldQuantizer, list[int]] = {}
        for column, field in enumerate(self.fields):
            groups.setdefault(field.quantizer, []).append(column)
        out = torch.empty(table.shape, dtype=dtype, device=table.device)
        for columns in groups.values():
            out[:, columns] = convert(self.fields[columns[0]], table[:, columns])
        return out


def ids(slot: int | Field) -> range:
    """The token ids that may stand in a slot."""
    return slot.ids if isinstance(slot, Field) else range(slot, slot + 1)


@dataclass(frozen=True)
class RecordSchema:
    """The records of a language and its special tokens.

    Raises:
        ValueError: an id outside the vocabulary, or two records of one name.
    """

    records: tuple[Record, ...]
    vocab_size: int
    bos: int | None = None
    eos: int | None = None
    pad: int | None = None

    def __post_init__(self) -> None:
        names = [record.name for record in self.records]
        if len(set(names)) != len(names) or {"bos", "eos"} & set(names):
            raise ValueError(f"records must have different names, none of them 'bos' or 'eos', got {names}")
        specials = [slot for slot in (self.bos, self.eos, self.pad) if slot is not None]
        for slot in (*specials, *(slot for record in self.records for slot in record.slots)):
            if ids(slot).start < 0 or ids(slot).stop > self.vocab_size:
                raise ValueError(f"ids {ids(slot).start} .. {ids(slot).stop - 1} exceed the {self.vocab_size} ids")

    def __getitem__(self, name: str) -> Record:
        for record in self.records:
            if record.name == name:
                return record
        raise unknown("record", name, [record.name for record in self.records])

    def sequence(self, *blocks: Tensor) -> Tensor:
        """Blocks of ids of any shape, in order, between bos and eos: LongTensor [n]."""
        ends = [[] if end is None else [torch.tensor([end])] for end in (self.bos, self.eos)]
        return torch.cat([*ends[0], *(block.reshape(-1).long() for block in blocks), *ends[1]])

    def batch(self, sequences: Sequence[Tensor]) -> Tensor:
        """Sequences to one LongTensor [rows, longest], padded on the right with ``pad`` (eos where there is none).

        Raises ValueError where there are none.
        """
        if not sequences:
            raise ValueError("there is nothing to put into a batch")
        filler = self.pad if self.pad is not None else self.eos if self.eos is not None else 0
        return torch.nn.utils.rnn.pad_sequence(list(sequences), batch_first=True, padding_value=filler)

    def bodies(self, tokens: Tensor) -> list[Tensor]:
        """Rows of token ids [rows, n] without bos, eos and padding.

        Raises:
            ValueError: naming the row: an id outside the vocabulary, no bos, no eos, or more than padding after eos.
        """
        if tokens.ndim != 2:
            raise ValueError(f"tokens must be [rows, n], got {list(tokens.shape)}")
        _in_range("token", tokens, self.vocab_size)
        bodies = []
        for i, row in enumerate(tokens):
            if self.bos is not None:
                if not len(row) or int(row[0]) != self.bos:
                    raise ValueError(f"row {i} does not begin with bos {self.bos}")
                row = row[1:]
            if self.eos is not None:
                at = (row == self.eos).nonzero()[:, 0]
                if not len(at):
                    raise ValueError(f"row {i} has no end token (eos {self.eos}); it was cut off")
                end = int(at[0])
                rest, row = row[end + 1 :], row[:end]
                if bool(((rest != self.eos) & (rest != (self.eos if self.pad is None else self.pad))).any()):
                    raise ValueError(f"row {i} goes on after its end token at {end + (self.bos is not None)}")
            bodies.append(row)
        return bodies


def _in_range(what: str, values: Tensor, size: int) -> None:
    if values.numel() and not 0 <= int(values.min()) <= int(values.max()) < size:
        raise ValueError(f"{what}s must be in 0 .. {size - 1}, got {int(values.min())} to {int(values.max())}")
