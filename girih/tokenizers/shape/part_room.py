"""The room that each feature of a part leaves for the next: the rule that keeps every part one closed solid.

Knows for each value of a feature (part_features.py) which numbers it may be, given what stands and what was cut before:
every cut stays half a millimetre away from edges and other cuts, so nothing falls apart, touches along a line or
vanishes. Does not know which features follow which (parts.py), nor geometry beyond boxes, circles and strips.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from girih.spec import GrammarState
from girih.tokenizers.grammars import Automaton
from girih.tokenizers.records import ids
from girih.tokenizers.shape.part_features import FEATURES

LENGTHS = 256  # half millimetres 0 .. 127.5 mm
MARGIN = 1.0  # half millimetres between a cut and everything else
SMALLEST = 2.0  # the least diameter or width of a cut
EPS = 1e-6


class Room(NamedTuple):
    """What a part leaves free, each float64 [rows, 1], in half millimetres; margins are taken off already.

    left .. back: the region that holes may reach, from the left and the front edge. strip_x, strip_y: width and depth
    between the corner holes. from_x, to_x: where the next single hole may reach. across: largest diameter of a cut in
    the middle. inner, outer: between them lies a ring. port_x, port_z: size of the wall that a port goes through.
    last, cap: diameter of the body or boss on top, largest diameter of the next boss.
    """

    width: Tensor
    depth: Tensor
    height: Tensor
    corner: Tensor
    left: Tensor
    right: Tensor
    front: Tensor
    back: Tensor
    strip_x: Tensor
    strip_y: Tensor
    from_x: Tensor
    to_x: Tensor
    across: Tensor
    inner: Tensor
    outer: Tensor
    port_x: Tensor
    port_z: Tensor
    last: Tensor
    cap: Tensor

    def region(self, left: Tensor, right: Tensor, front: Tensor, back: Tensor) -> Room:
        """With another region for holes, and nothing in it."""
        across = torch.minimum(right - left, back - front)
        return self._replace(left=left, right=right, front=front, back=back, strip_x=right - left,
                             strip_y=back - front, from_x=left, to_x=right, across=across, outer=across)  # fmt: skip


# For each feature, the values that each of its fields may have: v [1, ids] are the candidates, t the values taken
# before it, r the room. Conditions also make sure that the next field has a value.
Allowed = Callable[[Tensor, Sequence[Tensor], Room], Tensor]


def _whole(low: Tensor, high: Tensor) -> Tensor:
    """Whether a whole number lies in low .. high."""
    return torch.ceil(low - EPS) <= high + EPS


def _within(v: Tensor, low: Tensor | float, high: Tensor | float) -> Tensor:
    return (v >= low - EPS) & (v <= high + EPS)


def _chord(count: Tensor) -> Tensor:
    return torch.sin(torch.pi / count.clamp(min=1))


def _tight(count: Tensor, diameter: Tensor, r: Room) -> tuple[Tensor, Tensor]:
    """Least and largest diameter of the circle of a ring."""
    return (torch.maximum(r.inner + diameter, (diameter + MARGIN) / _chord(count)), r.outer - diameter)


def _line(fits_x: Callable[[Room], Tensor], fits_y: Callable[[Room], Tensor], least: int) -> tuple[Allowed, ...]:
    """Count, diameter and pitch of holes in a line, in a field of a given size."""
    return (
        lambda v, t, r: _within(v, least, torch.clamp((fits_x(r) + MARGIN) / (SMALLEST + MARGIN), max=12))
        & (fits_y(r) >= SMALLEST),
        lambda v, t, r: _within(v, SMALLEST, torch.minimum(fits_y(r), (fits_x(r) + MARGIN) / t[0] - MARGIN)),
        lambda v, t, r: torch.where(t[0] == 1, v == 0, _within(v, t[1] + MARGIN,
                                                               (fits_x(r) - t[1]) / (t[0] - 1).clamp(min=1))),
    )  # fmt: skip


def _side(r: Room) -> Tensor:
    return torch.minimum(r.width, r.depth)


def _edge(r: Room) -> Tensor:
    return torch.maximum(r.left, r.front)


def _middle_x(r: Room) -> Tensor:
    return (r.left + r.right) / 2


ALLOWED: dict[str, tuple[Allowed, ...]] = {
    "block": (
        lambda v, t, r: v >= 8,
        lambda v, t, r: v >= 8,
        lambda v, t, r: v >= 2,
        lambda v, t, r: 2 * v <= torch.minimum(t[0], t[1]) - 2,
    ),
    "disc": (lambda v, t, r: v >= 4, lambda v, t, r: v >= 1),
    "prism": (lambda v, t, r: _within(v, 3, 12), lambda v, t, r: v >= 4, lambda v, t, r: v >= 1),
    "gear": (
        lambda v, t, r: v >= 6,
        lambda v, t, r: v >= t[0] + 4,
        lambda v, t, r: _within(v, t[1] / 2, t[1] - 2),
        lambda v, t, r: v >= 1,
    ),
    "pocket": (lambda v, t, r: _within(v, 1, (_side(r) - 4) / 2), lambda v, t, r: _within(v, 1, r.height - 1)),
    "wall": (
        lambda v, t, r: _within(v, 1, r.depth - 6) & (r.corner == 0) & (r.height < LENGTHS - 3),
        lambda v, t, r: v >= r.height + 2,
    ),
    "walls": (
        lambda v, t, r: _within(v, 1, (r.width - 6) / 2) & (r.corner == 0) & (r.height < LENGTHS - 3),
        lambda v, t, r: v >= r.height + 2,
    ),
    "boss": (lambda v, t, r: _within(v, 4, r.cap) & ((v - r.last).abs() >= 2), lambda v, t, r: v >= 1),
    "port": _line(lambda r: r.port_x, lambda r: r.port_z, 1),
    "corners": (
        lambda v, t, r: (v >= SMALLEST) & _whole(v / 2 + _edge(r), (_side(r) - v - 1) / 2 - MARGIN),
        lambda v, t, r: _within(v, t[0] / 2 + _edge(r), (_side(r) - t[0] - 1) / 2 - MARGIN),
    ),
    "bore": (lambda v, t, r: _within(v, SMALLEST, r.across),),
    "ring": (
        lambda v, t, r: _within(v, 3, 24) & _whole(*_tight(v, torch.full_like(v, SMALLEST), r)),
        lambda v, t, r: (v >= SMALLEST) & _whole(*_tight(t[0], v, r)),
        lambda v, t, r: _within(v, *_tight(t[0], t[1], r)),
    ),
    "window": (
        lambda v, t, r: _within(v, SMALLEST, r.right - r.left) & (r.back - r.front >= SMALLEST)
        & ((v <= r.strip_x) | (r.strip_y >= SMALLEST)),
        lambda v, t, r: _within(v, SMALLEST, torch.where(t[0] <= r.strip_x, r.back - r.front, r.strip_y)),
    ),
    "row": _line(lambda r: r.right - r.left, lambda r: r.strip_y, 2),
    "hole": (
        lambda v, t, r: _within(v, SMALLEST, r.back - r.front - 2) & _whole(r.from_x + v / 2, r.to_x - v / 2),
        lambda v, t, r: torch.where(v == 0, _within(_middle_x(r), r.from_x + t[0] / 2, r.to_x - t[0] / 2),
                                    _within(v, r.from_x + t[0] / 2, r.to_x - t[0] / 2) & (v != _middle_x(r))),
        lambda v, t, r: torch.where(v == 0, t[1] != 0, _within(v, r.front + t[0] / 2, r.back - t[0] / 2)
                                    & (v != (r.front + r.back) / 2)),
    ),
}  # fmt: skip


def _after(name: str, t: Sequence[Tensor], r: Room) -> Room:
    """The room that a feature leaves."""
    if name == "block":
        width, depth, height, corner = t
        rim = MARGIN + _bend(corner)
        r = r._replace(width=width, depth=depth, height=height, corner=corner)
        return r.region(rim, width - rim, rim, depth - rim)
    if name in ("disc", "prism", "gear"):
        across = {"disc": t[0], "prism": t[1]}.get(name, t[-2] * torch.cos(torch.pi / (2 * t[0].clamp(min=1))))
        cap = torch.full_like(across, LENGTHS) if name == "disc" else across - 2 * MARGIN
        last = across if name == "disc" else torch.zeros_like(across)
        return r._replace(across=across - 2 * MARGIN, outer=across - 2 * MARGIN, last=last, cap=cap)
    if name == "pocket":
        wall, floor = t
        inside = (r.corner - wall).clamp(min=0)
        rim = wall + MARGIN + _bend(inside)
        port_x = r.width - 2 * (torch.maximum(wall, r.corner) + MARGIN)
        r = r._replace(port_x=port_x, port_z=r.height - floor - 2 * MARGIN)
        return r.region(rim, r.width - rim, rim, r.depth - rim)
    if name == "wall":
        thick, high = t
        r = r._replace(port_x=r.width - 2 * MARGIN, port_z=high - r.height - 2 * MARGIN)
        return r.region(r.left, r.right, r.front, r.depth - thick - MARGIN)
    if name == "walls":
        return r.region(t[0] + MARGIN, r.width - t[0] - MARGIN, r.front, r.back)
    if name == "boss":
        inner = torch.maximum(r.inner, t[0] + 2 * MARGIN)
        return r._replace(across=torch.minimum(r.across, t[0] - 2 * MARGIN), inner=inner, last=t[0])
    if name == "corners":
        diameter, inset = t
        taken = inset + diameter / 2 + MARGIN  # from the edges
        clear = torch.hypot(r.width / 2 - inset, r.depth / 2 - inset) * 2 - diameter - 2 * MARGIN
        return r._replace(strip_x=r.width - 2 * taken, strip_y=r.depth - 2 * taken, from_x=taken,
                          to_x=r.width - taken, across=torch.minimum(r.across, clear),
                          outer=torch.minimum(r.outer, clear))  # fmt: skip
    if name == "bore":
        return r._replace(inner=torch.maximum(r.inner, t[0] + 2 * MARGIN))
    if name == "hole":
        return r._replace(from_x=torch.where(t[1] == 0, _middle_x(r), t[1]) + t[0] / 2 + MARGIN)
    return r


def _bend(corner: Tensor) -> Tensor:
    """How far a rounded corner reaches inwards from both edges."""
    return corner * (1 - 0.5**0.5)


class Fits:
    """Rule: each value leaves the part in one piece, and a feature is begun only where there is room for it."""

    def __init__(self, automaton: Automaton):
        self.vocab_size = automaton.vocab_size
        self.kinds = {name: ids(automaton.schema[name].slots[0]).start for name in ALLOWED}
        self.fields = {name: automaton.schema[name].fields for name in ALLOWED}
        self.slots = [sorted(slots) for slots in automaton.slots]
        # States that place the same slots are one to this rule: the first of them stands for all.
        self.alike = torch.tensor([self.slots.index(slots) for slots in self.slots])

    def start(self, rows: int) -> GrammarState:
        widths = {"room": len(Room._fields), "taken": max(map(len, ALLOWED.values()))}
        return {name: torch.zeros(rows, width, dtype=torch.float64, device=self.alike.device)
                for name, width in widths.items()}  # fmt: skip

    def mask(self, at: Tensor, memory: GrammarState) -> Tensor:
        out = torch.ones(len(at), self.vocab_size, dtype=torch.bool, device=at.device)
        for state, rows in self._groups(at):
            room, taken = self._memory(memory, rows)
            for name, slot in self.slots[state]:
                if name not in ALLOWED:  # the end token
                    continue
                if slot == 0:  # the kind: there must be a first value
                    out[rows, self.kinds[name]] = self._allowed(name, 1, taken, room).any(-1)
                else:
                    field = self.fields[name][slot - 1].ids
                    out[rows, field.start : field.stop] = self._allowed(name, slot, taken, room)
        return out

    def advance(self, at: Tensor, tokens: Tensor, memory: GrammarState) -> GrammarState:
        room, taken = memory["room"].clone(), memory["taken"].clone()
        for state, rows in self._groups(at):
            name, slot = self.slots[state][0]
            if slot:
                taken[rows, slot - 1] = (tokens[rows] - self.fields[name][slot - 1].first).double()
                if slot == len(FEATURES[name]):
                    now = self._memory({"room": room, "taken": taken}, rows)
                    after = _after(name, now[1][:slot], now[0])
                    room[rows] = torch.cat([column.expand(len(rows), 1) for column in after], 1)
        return {"room": room, "taken": taken}

    def _groups(self, at: Tensor) -> list[tuple[int, Tensor]]:
        """(state, its rows) for the states in which this rule has a say."""
        at = self.alike[at]
        here = [state for state in at.unique().tolist() if any(name in ALLOWED for name, _ in self.slots[state])]
        return [(state, (at == state).nonzero()[:, 0]) for state in here]

    def _memory(self, memory: GrammarState, rows: Tensor) -> tuple[Room, tuple[Tensor, ...]]:
        room, taken = (memory[name][rows].T[..., None].unbind(0) for name in ("room", "taken"))
        return Room(*room), taken

    def _allowed(self, name: str, slot: int, taken: Sequence[Tensor], room: Room) -> Tensor:
        size = len(self.fields[name][slot - 1].ids)
        values = torch.arange(size, dtype=torch.float64, device=taken[0].device)[None]
        return ALLOWED[name][slot - 1](values, taken, room).expand(len(taken[0]), size)
