"""Parametric millimetre parts as tokens: a language to generate in, where every walk of the grammar is a closed solid.

Knows the ids of features (part_features.py) and which may follow which; how much room each leaves is part_room.py's.
Does not know geometry, texts, meshes or models.

A sequence is bos, a body, what stands on it, a pocket, a port, cuts, eos. A feature is its kind's token and its values,
in half millimetres as a drawing states them: "a plate 60 x 40 x 5 with four corner holes of 4 mm, 6 from the edges" is
``block 120 80 10 0  corners 8 12``. One range of ids serves all lengths, so a number means the same wherever it stands.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import ConfigMixin, SchedulerMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor

from girih.spec import TokenSpec
from girih.tokenizers.grammars import Automaton, RecordGrammar, accepts
from girih.tokenizers.records import Field, FieldQuantizer, Record, RecordSchema
from girih.tokenizers.shape.cad import Program
from girih.tokenizers.shape.part_features import COUNTS, FEATURES, STEP, Feature, build, read
from girih.tokenizers.shape.part_room import LENGTHS, Fits

MOST = 64  # counts 0 .. 63

_CUTS = {"corners": "cornered", "bore": "bored", "ring": "cut", "window": "cut", "row": "cut", "hole": "holes",
         "eos": "end"}  # fmt: skip
_BESIDE = {name: state for name, state in _CUTS.items() if name != "corners"}
_ROUND = {"bore": "bored", "ring": "cut", "eos": "end"}
TRANSITIONS: dict[str, dict[str, str]] = {
    "start": {"block": "block", "disc": "round 0", "prism": "round 0", "gear": "round 0"},
    "block": {"pocket": "hollow", "wall": "bracket", "walls": "open", **_CUTS},
    "hollow": {"port": "open", **_CUTS},
    "bracket": {"port": "base", **_BESIDE},
    "open": _CUTS,
    "base": _BESIDE,  # a bracket's base has a wall on one side: no four holes alike
    "cornered": _BESIDE,
    "holes": {"hole": "holes", "eos": "end"},
    **{f"round {i}": {"boss": f"round {i + 1}", **_ROUND} for i in range(4)},
    "round 4": _ROUND,
    "bored": {"ring": "cut", "eos": "end"},
    "cut": {"eos": "end"},
}


class PartTokenizer(SchedulerMixin, ConfigMixin):
    """Parts to tokens and back; a part is a ``cad.Program`` in millimetres made of ``part_features.FEATURES``.

    Ids: 0 .. 255 lengths in half millimetres, then 64 counts, then a kind for each feature, bos, eos, pad. Exact both
    ways on the grid: ``decode(encode(p))`` is p up to the order of its steps, ``encode(decode(t)) == t``.

    Args:
        max_tokens: of a sequence, bos and eos included.

    Raises:
        ValueError: from ``encode`` for a program that is no part of the language, naming what does not fit; from
            ``decode`` for tokens that the grammar does not take.
    """

    @register_to_config
    def __init__(self, max_tokens: int = 64):
        length, count = FieldQuantizer.integers(LENGTHS), FieldQuantizer.integers(MOST)
        kinds = LENGTHS + MOST
        records = []
        for i, (name, fields) in enumerate(FEATURES.items()):
            slots = (Field(f, count, LENGTHS) if f in COUNTS else Field(f, length) for f in fields)
            records.append(Record(name, (kinds + i, *slots)))
        bos, eos, pad = range(kinds + len(records), kinds + len(records) + 3)
        self.schema = RecordSchema(tuple(records), pad + 1, bos=bos, eos=eos, pad=pad)
        self.automaton = Automaton(self.schema, TRANSITIONS)
        self.grammar = RecordGrammar(self.automaton, (Fits(self.automaton),), max_tokens)
        self.spec = TokenSpec(pad + 1, (max_tokens,), bos=bos, eos=eos, pad=pad, grammar=self.grammar)

    def encode(self, programs: Sequence[Program]) -> Tensor:
        """Programs to tokens, LongTensor ``[rows, longest]``, padded on the right."""
        if not len(programs):
            raise ValueError("there must be at least one program, got none")
        parts = [read(program) for program in programs]
        tokens = self.schema.batch([self._row(features, row) for row, features in enumerate(parts)])
        if tokens.shape[1] > self.config.max_tokens:
            raise ValueError(f"the longest part takes {tokens.shape[1]} tokens; at most {self.config.max_tokens} fit")
        self._check(tokens)
        return tokens

    def decode(self, tokens: Tensor) -> list[Program]:
        """Tokens ``[rows, n]`` to programs."""
        bodies = self.schema.bodies(tokens)
        self._check(tokens)
        return [build(self._features(body)) for body in bodies]

    def _features(self, body: Tensor) -> list[Feature]:
        found = []
        for name, start, end in self.automaton.split(body):
            found.append(Feature(name, tuple(self.schema[name].to_bins(body[None, start:end])[0].tolist())))
        return found

    def _row(self, features: Sequence[Feature], row: int) -> Tensor:
        ids = []
        for name, values in features:
            record = self.schema[name]
            ids.append(record.slots[0])
            for field, value in zip(record.fields, values, strict=True):
                if not 0 <= value < field.quantizer.size:
                    limit, unit = (MOST - 1, "") if field.first else ((LENGTHS - 1) * STEP, " mm")
                    number = value if field.first else value * STEP
                    raise ValueError(f"program {row}: {field.name} of its {name} is {number:g}{unit}; "
                                     f"it must be in 0 .. {limit:g}")
                ids.append(field.first + value)
        return self.schema.sequence(torch.tensor(ids))

    def _check(self, tokens: Tensor) -> None:
        """Raises ValueError naming the first row, and its token, that the grammar does not take."""
        fits = accepts(self.grammar, tokens)
        if bool(fits.all()):
            return
        row = int((~fits).nonzero()[0, 0])
        state = self.grammar.start(1)
        for at, token in enumerate(tokens[row].tolist()):
            if not bool(self.grammar.mask(state)[0, token]):
                raise ValueError(f"row {row}: token {at} (id {token}) may not come here, or leaves no sound solid")
            state = self.grammar.advance(state, tokens[row, at][None])
        raise ValueError(f"row {row} does not end")
