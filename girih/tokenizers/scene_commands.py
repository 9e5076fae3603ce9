"""Rooms as lists of commands: SceneScript's entities, their text form, their order, and turning them.

Knows the table of commands: a new kind of entity is an entry in it. Does not know tokens (scene.py) or files
(scene_boxes.py). x, y, z are in metres, z is up. Avetisyan et al., ECCV 2024.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from girih.names import unknown


@dataclass(frozen=True)
class Command:
    """A kind of entity.

    Attributes:
        fields: (name, kind) in order; kinds: "id" the entity's own, "wall" another's id, "class" a word, else the name
            of the range that the number is quantised in.
        order: fields that entities of this kind are sorted by.
        first_id: ids are issued from here on.
        segment: it runs from a corner a to a corner b, which are sorted too.
    """

    name: str
    fields: tuple[tuple[str, str], ...]
    order: tuple[str, ...]
    first_id: int
    segment: bool = False

    @property
    def written(self) -> tuple[tuple[str, str], ...]:
        """The fields that are tokens."""
        return tuple((name, kind) for name, kind in self.fields if kind not in ("id", "wall"))

    @property
    def on_wall(self) -> bool:
        return any(kind == "wall" for _, kind in self.fields)


def _xyz(prefix: str) -> tuple[tuple[str, str], ...]:
    return tuple((f"{prefix}_{axis}", "world") for axis in "xyz")


_OPENING = (("id", "id"), ("wall0_id", "wall"), ("wall1_id", "wall"), *_xyz("position"), ("width", "width"),
            ("height", "height"))  # fmt: skip
COMMANDS = (
    Command("make_wall", (("id", "id"), *_xyz("a"), *_xyz("b"), ("height", "height"), ("thickness", "height")),
            ("a_z", "a_y", "a_x", "b_z", "b_y", "b_x"), 0, segment=True),
    Command("make_door", _OPENING, ("position_z", "position_y", "position_x"), 1000),
    Command("make_window", _OPENING, ("position_z", "position_y", "position_x"), 2000),
    Command("make_bbox", (("id", "id"), ("class", "class"), *_xyz("position"), ("angle_z", "angle"),
                          *((f"scale_{axis}", "scale") for axis in "xyz")), ("position_y", "position_x"), 3000),
)  # fmt: skip


@dataclass(frozen=True)
class Entity:
    """One command with its fields by name: whole numbers for ids, a word for the class, else floats."""

    command: str
    params: Mapping[str, Any]

    def with_(self, **changes: Any) -> Entity:
        return Entity(self.command, {**self.params, **changes})

    def at(self, prefix: str) -> np.ndarray:
        """A point of it: "a", "b" or "position"."""
        return np.array([self.params[f"{prefix}_{axis}"] for axis in "xyz"], dtype=float)


@dataclass(frozen=True)
class Scene:
    """Entities in order."""

    entities: tuple[Entity, ...]

    def __str__(self) -> str:
        """The text form, one line an entity."""
        return "\n".join(", ".join((e.command, *(f"{name}={value}" for name, value in e.params.items())))
                         for e in self.entities)  # fmt: skip

    def moved(self, translation: Sequence[float]) -> Scene:
        """Every point shifted by ``translation`` (x, y, z)."""
        shift = dict(zip("xyz", map(float, translation), strict=True))
        return Scene(tuple(e.with_(**{name: e.params[name] + shift[name[-1]] for name in e.params
                                      if name[:-2] in ("a", "b", "position")}) for e in self.entities))  # fmt: skip

    def turned(self, angle: float) -> Scene:
        """Turned about the z axis by ``angle`` radians, the angles of boxes in canonical range."""
        return Scene(tuple(_turned(entity, angle) for entity in self.entities))

    def sorted(self, commands: Sequence[Command] = COMMANDS) -> Scene:
        """In canonical order: by command, then by position; corners of walls too."""
        table = {command.name: (i, command) for i, command in enumerate(commands)}
        entities = [_ordered(e) if table[e.command][1].segment else e for e in self.entities]
        return Scene(tuple(sorted(entities, key=lambda e: (
            table[e.command][0], *(e.params[name] for name in table[e.command][1].order)))))  # fmt: skip

    def extent(self) -> dict[str, float]:
        """min, max and size of x, y and z over walls and boxes. Raises ValueError if there are none."""
        points = [corner for entity in self.entities for corner in _corners(entity)]
        if not points:
            raise ValueError("the scene has neither walls nor boxes")
        low, high = np.min(points, 0), np.max(points, 0)
        parts = {"min": low, "max": high, "size": high - low}
        return {f"{part}_{axis}": float(values[i]) for i, axis in enumerate("xyz") for part, values in parts.items()}


def parse(text: str, commands: Sequence[Command] = COMMANDS) -> Scene:
    """The text form to a scene; blank lines do not count.

    Raises ValueError naming the line: an unknown command, a field that is missing, unknown or no finite number.
    """
    table = {command.name: command for command in commands}
    entities = []
    for number, line in enumerate(text.splitlines(), 1):
        name, *pairs = (part.strip() for part in line.split(","))
        if not name and not pairs:
            continue
        if name not in table:
            raise ValueError(f"line {number}: {unknown('command', name, list(table))}")
        values = dict(part.partition("=")[::2] for part in pairs)
        kinds = dict(table[name].fields)
        if values.keys() != kinds.keys():
            wrong = sorted(values.keys() ^ kinds.keys())
            raise ValueError(f"line {number}: {name} has the fields {', '.join(kinds)}; wrong: {', '.join(wrong)}")
        entities.append(Entity(name, {key: _value(values[key], kind, f"line {number}: {key}")
                                      for key, kind in kinds.items()}))  # fmt: skip
    return Scene(tuple(entities))


def _value(text: str, kind: str, where: str) -> int | float | str:
    if kind == "class":
        return text
    try:
        value = float(text)
        if math.isfinite(value) and (kind not in ("id", "wall") or value == int(value)):
            return int(value) if kind in ("id", "wall") else value
    except ValueError:
        pass
    raise ValueError(f"{where} must be a {'whole' if kind in ('id', 'wall') else 'finite'} number, got {text!r}")


def _ordered(entity: Entity) -> Entity:
    """The corners so that a comes before b by (z, y, x)."""
    if tuple(entity.at("a")[::-1]) <= tuple(entity.at("b")[::-1]):
        return entity
    other = {"a": "b", "b": "a"}
    return entity.with_(**{f"{end}_{axis}": entity.params[f"{other[end]}_{axis}"] for end in "ab" for axis in "xyz"})


def _turned(entity: Entity, angle: float) -> Entity:
    params = dict(entity.params)
    for prefix in ("a", "b", "position"):
        if f"{prefix}_x" in params:
            x, y = params[f"{prefix}_x"], params[f"{prefix}_y"]
            params[f"{prefix}_x"] = x * math.cos(angle) - y * math.sin(angle)
            params[f"{prefix}_y"] = x * math.sin(angle) + y * math.cos(angle)
    if "angle_z" in params:  # a box looks the same after half a turn, a square one after a quarter
        square = abs(params["scale_x"] - params["scale_y"]) < 1e-3
        params["angle_z"] = (params["angle_z"] + angle) % (math.pi / (2 if square else 1)) - math.pi
    return Entity(entity.command, params)


def _corners(entity: Entity) -> Iterable[np.ndarray]:
    if "a_x" in entity.params:
        top = np.array([0.0, 0.0, entity.params["height"]])
        return [point + lift for point in (entity.at("a"), entity.at("b")) for lift in (0 * top, top)]
    if "scale_x" not in entity.params:
        return []
    c, s = math.cos(entity.params["angle_z"]), math.sin(entity.params["angle_z"])
    half = entity.at("scale") / 2
    signs = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
    return list(entity.at("position") + signs * half @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]))
