"""Rooms as tokens: the language of SceneScript (Avetisyan et al., ECCV 2024).

Knows how commands are quantised and written, and the grammar. The commands themselves are scene_commands.py's. Does not
know point clouds or networks; the second stream that those read (``types``) is made here.

A sequence is START, for each entity PART, its command and its fields, then STOP. Ids
are not written: they are issued anew, and doors and windows belong to the nearest wall.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from diffusers import ConfigMixin, SchedulerMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor

from girih.names import unknown
from girih.spec import TokenSpec
from girih.tokenizers.grammars import Automaton, RecordGrammar, Tuples
from girih.tokenizers.records import Field, FieldQuantizer, Record, RecordSchema
from girih.tokenizers.scene_commands import COMMANDS, Command, Entity, Scene

PAD, START, PART, STOP = range(4)
VALUES = 6  # id of value 0, and of command 0; 4 and 5 are not used


class SceneTokenizer(SchedulerMixin, ConfigMixin):
    """Scenes to tokens and back.

    Bound: half a bin in every number (``centre``), one bin with the published lower-edge decoding. Tokens: [rows, n].

    Args:
        num_bins: bins of every range. ranges: lowest and highest number by kind. classes: words for boxes.
        centre: decode at the bin's centre; False: at its lower edge, as published.
        added_commands: further commands, as dictionaries of ``Command``'s fields; ids of the others stay.
        max_length: most tokens of a scene.

    Raises:
        ValueError: a kind without a range, or a range that does not rise.
    """

    @register_to_config
    def __init__(
        self,
        num_bins: int = 640,
        ranges: dict[str, Sequence[float]] | None = None,
        classes: Sequence[str] = ("table", "chair", "lamp", "sofa", "bed"),
        centre: bool = True,
        added_commands: Sequence[dict[str, Any]] = (),
        max_length: int = 2048,
    ) -> None:
        ranges = ranges or {"world": (0.0, 32.0), "width": (0.0, 25.6), "height": (0.0, 25.6), "scale": (0.0, 20.0),
                            "angle": (-6.4, 6.4)}  # fmt: skip
        self.commands = (*COMMANDS, *map(_command, added_commands))
        self.quantizers = {"class": FieldQuantizer.integers(len(classes))} | {
            kind: FieldQuantizer(num_bins, (float(low), float(high)), 0.0, 0.5 if centre else 0.0, "floor")
            for kind, (low, high) in ranges.items()
        }
        for command in self.commands:
            for _, kind in command.written:
                if kind not in self.quantizers:
                    raise unknown(f"range of {command.name}", kind, list(self.quantizers))
        records = tuple(
            Record(c.name, (PART, VALUES + i, *(Field(name, self.quantizers[k], VALUES) for name, k in c.written)))
            for i, c in enumerate(self.commands, 1)
        )
        self.schema = RecordSchema(records, VALUES + max(num_bins, len(classes)), START, STOP, PAD)
        bare = {c.name: "room" if c.segment else "bare" for c in self.commands if not c.on_wall}
        room = {c.name: "room" for c in self.commands}
        self.automaton = Automaton(
            self.schema, {"start": bare, "bare": {**bare, "eos": "end"}, "room": {**room, "eos": "end"}}
        )
        segments = {c.name: "..nnnnnn" + "." * (len(c.written) - 6) for c in self.commands if c.segment}
        corners = Tuples(self.automaton, segments, forget=tuple(segments))  # of a wall differ
        self.grammar = RecordGrammar(self.automaton, (corners,), max_length)

    @property
    def spec(self) -> TokenSpec:
        return TokenSpec(self.schema.vocab_size, (self.config.max_length,), bos=START, eos=STOP, pad=PAD,
                         grammar=self.grammar)  # fmt: skip

    def prepared(self, scene: Scene) -> tuple[Scene, list[str]]:
        """The scene in canonical order with bins for numbers, and a line on each wall that is left out as too short.

        Raises ValueError naming the entity: a value out of range, an unknown class, a door or window without any wall.
        """
        for entity in scene.entities:
            missing = [name for name, _ in self._command(entity.command).fields if name not in entity.params]
            if missing:
                raise ValueError(f"{entity.command} lacks {', '.join(missing)}")
        entities, notes = [], []
        for entity in scene.sorted(self.commands).entities:
            command = self._command(entity.command)
            bins = {name: self._bin(entity, name, kind) for name, kind in command.written}
            if command.segment and all(bins[f"a_{axis}"] == bins[f"b_{axis}"] for axis in "xyz"):
                notes.append(f"{entity.command} {entity.params['id']} is shorter than a bin and is left out")
            else:
                entities.append(entity.with_(**bins))
        if not entities:
            raise ValueError("the scene has no entities")
        walls = any(self._command(entity.command).segment for entity in entities)
        for entity in entities:
            if not walls and self._command(entity.command).on_wall:
                raise ValueError(f"{entity.command} {entity.params['id']} needs a wall, but the scene has none")
        return Scene(tuple(entities)), notes

    def _bin(self, entity: Entity, name: str, kind: str) -> int:
        value, where = entity.params[name], f"{entity.command} {entity.params.get('id')}: {name}"
        if kind == "class":
            if value not in self.config.classes:
                raise ValueError(f"{where} is {value!r}; known: {', '.join(self.config.classes)}")
            return list(self.config.classes).index(value)
        quantizer, number = self.quantizers[kind], torch.tensor(value, dtype=torch.float64)
        if not math.isfinite(value) or bool(quantizer.outside(number)):
            raise ValueError(f"{where} is {value}, must be in {quantizer.edges[0]} .. {quantizer.edges[-1]}")
        return int(quantizer.encode(number))

    def encode(self, scenes: Scene | Sequence[Scene]) -> Tensor:
        """One or several scenes to LongTensor [rows, n], padded on the right. Raises ValueError as ``prepared``, and
        for a scene that is too long."""
        scenes = [scenes] if isinstance(scenes, Scene) else list(scenes)
        return self.schema.batch([self._sequence(self.prepared(scene)[0]) for scene in scenes])

    def _sequence(self, scene: Scene) -> Tensor:
        blocks = [self.schema[e.command].to_tokens(torch.tensor([[e.params[name] for name, _ in
                                                                  self._command(e.command).written]]))
                  for e in scene.entities]  # fmt: skip
        tokens = self.schema.sequence(*blocks)
        if len(tokens) > self.config.max_length:
            raise ValueError(f"the scene takes {len(tokens)} tokens, more than the {self.config.max_length}")
        return tokens

    def decode(self, tokens: Tensor) -> list[Scene]:
        """LongTensor [rows, n] to scenes. Raises ValueError naming a token that may not stand there."""
        return [self.world(scene) for scene in self.decode_bins(tokens)]

    def decode_bins(self, tokens: Tensor) -> list[Scene]:
        """``decode`` without going back from bins to numbers; ids are issued, walls of doors and windows found."""
        scenes = []
        for body in self.schema.bodies(tokens.cpu()):
            entities: list[Entity] = []
            issued = {command.name: command.first_id for command in self.commands}
            for name, start, end in self.automaton.split(body):
                bins = self.schema[name].to_bins(body[None, start:end])[0].tolist()
                written = dict(zip((n for n, _ in self._command(name).written), bins, strict=True))
                params = {n: issued[name] if kind == "id" else written.get(n) for n, kind in self._command(name).fields}
                entities.append(Entity(name, params))
                issued[name] += 1
            walls = [e for e in entities if self._command(e.command).segment]
            scenes.append(Scene(tuple(self._hung(entity, walls) for entity in entities)))
        return scenes

    def _hung(self, entity: Entity, walls: Sequence[Entity]) -> Entity:
        """The entity with the nearest wall's id in its wall fields."""
        fields = [name for name, kind in self._command(entity.command).fields if kind == "wall"]
        if not fields:
            return entity
        nearest = min(walls, key=lambda wall: _distance(entity.at("position"), wall.at("a"), wall.at("b")))
        return entity.with_(**{name: nearest.params["id"] for name in fields})

    def world(self, scene: Scene) -> Scene:
        """Bins to numbers and words."""
        entities = []
        for entity in scene.entities:
            params = dict(entity.params)
            for name, kind in self._command(entity.command).written:
                if kind == "class":
                    params[name] = self.config.classes[params[name]]
                else:  # FieldQuantizer.decode in the published order: printed numbers agree to the last digit
                    quantizer, (low, high) = self.quantizers[kind], self.quantizers[kind].edges
                    params[name] = (params[name] + quantizer.offset) / quantizer.size * (high - low) + low
            entities.append(Entity(entity.command, params))
        return Scene(tuple(entities))

    @property
    def type_names(self) -> list[str]:
        """What each id of ``types`` says."""
        fields = [f"{command.name}_{name}".upper() for command in self.commands for name, _ in command.fields]
        return ["PAD", "START", "STOP", "PART", "NOT_USED", "NOT_USED_1", "COMMAND", *fields]

    def types(self, tokens: Tensor) -> Tensor:
        """[rows, n] -> [rows, n]: what each token is, by the names of ``type_names``; PAD after STOP and where tokens
        run over the fields of their command."""
        names = self.type_names
        longest = max(len(command.written) for command in self.commands)
        table = torch.zeros(self.schema.vocab_size, longest + 1, dtype=torch.long)  # command id, field -> type
        for i, command in enumerate(self.commands, 1):
            for j, (name, _) in enumerate(command.written):
                table[VALUES + i, j] = names.index(f"{command.name}_{name}".upper())
        at = torch.arange(tokens.shape[1]).expand_as(tokens)
        part = torch.where(tokens == PART, at, -1).cummax(1).values
        since = torch.where(part >= 0, at - part, longest + 9)
        commands = tokens.gather(1, (part + 1).clamp(max=tokens.shape[1] - 1))
        out = table[commands, (since - 2).clamp(0, longest)]
        out = torch.where(since == 1, names.index("COMMAND"), torch.where(since == 0, names.index("PART"), out))
        for token, name in ((START, "START"), (STOP, "STOP"), (PAD, "PAD"), (4, "NOT_USED"), (5, "NOT_USED_1")):
            out = out.masked_fill(tokens == token, names.index(name))
        ended = (tokens == STOP).long().cumsum(1) - (tokens == STOP).long() > 0
        return out.masked_fill(ended, names.index("PAD"))

    def _command(self, name: str) -> Command:
        for command in self.commands:
            if command.name == name:
                return command
        raise unknown("command", name, [command.name for command in self.commands])


def _command(entry: Mapping[str, Any]) -> Command:
    fields = tuple((str(name), str(kind)) for name, kind in entry["fields"])
    return Command(**{**entry, "fields": fields, "order": tuple(entry["order"])})


def _distance(point: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """From a point to the segment a b."""
    along = b - a
    share = np.clip((point - a) @ along / max(along @ along, 1e-12), 0.0, 1.0)
    return float(np.linalg.norm(point - a - share * along))
