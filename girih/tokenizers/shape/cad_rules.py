"""What the grammars of the CAD languages forbid beyond their automata: profiles that enclose nothing, and the like.

Knows whole-number sketch coordinates as they come token by token. Knows no record layout: each rule is told the slots.
Every rule keeps to the promise of ``girih.tokenizers.records``: some value stays open, and a way to the end in time.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from girih.spec import GrammarState
from girih.tokenizers.grammars import Automaton

Slot = tuple[str, int]
MEMORY = 32


def _states(automaton: Automaton, slots: Sequence[Slot]) -> Tensor:
    """bool [states]: about to place one of ``slots``."""
    found = torch.zeros(len(automaton.slots), dtype=torch.bool)
    for record, slot in slots:
        found |= automaton.here(record, slot)
    return found


def _closing(automaton: Automaton, tokens: Sequence[tuple[Sequence[Slot], int]]) -> Tensor:
    """bool [states, ids]: where (slots, token id) says so."""
    found = torch.zeros(len(automaton.slots), automaton.vocab_size, dtype=torch.bool)
    for slots, token in tokens:
        found[:, token] |= _states(automaton, slots)
    return found


def _flags(automaton: Automaton, ids: Sequence[int]) -> Tensor:
    """bool [ids]: one of these."""
    found = torch.zeros(automaton.vocab_size, dtype=torch.bool)
    found[list(ids)] = True
    return found


class ClosedLoops:
    """Rule: every loop of lines and arcs encloses something. Circles are no concern of it.

    A loop is a ring of corners. No corner comes twice (of long loops: twice within ``MEMORY`` corners), an arc given by
    a middle point is no line, not all corners of an all-line loop lie on a line, and two arcs do not run there and back
    on one circle. What cannot be asked of single corners is asked when the loop ends; so that it can end in time, it is
    asked of each corner once fewer than ``reserve`` tokens or only the last curve are left.

    Args:
        corner: the slots of a corner's x and of its y. middle: the same of an arc's middle point, if the language has
            one; the corner before it is then the arc's start.
        first: the token id of coordinate 0. size: coordinates.
        closes: (slots, token id): where that token ends a loop.
        arcs: the same of a token that announces an arc, in languages without middle points.
        reserve: tokens of one more line. limit: of the sequence. longest: most curves of a loop.
    """

    def __init__(
        self,
        automaton: Automaton,
        corner: tuple[Sequence[Slot], Sequence[Slot]],
        middle: tuple[Sequence[Slot], Sequence[Slot]],
        first: int,
        size: int,
        closes: Sequence[tuple[Sequence[Slot], int]],
        reserve: int,
        limit: int,
        arcs: Sequence[tuple[Sequence[Slot], int]] = (),
        longest: int | None = None,
    ):
        self.first, self.size, self.ids = first, size, automaton.vocab_size
        self.reserve, self.limit, self.longest = reserve, limit, longest
        self.role = torch.zeros(len(automaton.slots), dtype=torch.long)  # 1, 2: x, y of a corner, 3, 4: of a middle
        for i, slots in enumerate((*corner, *middle), 1):
            self.role[_states(automaton, slots)] = i
        self.closes, self.arcs = _closing(automaton, closes), _closing(automaton, arcs)
        self.cost = automaton.cost[:, first].long()  # by way of a coordinate

    def start(self, rows: int) -> GrammarState:
        zero = torch.zeros(rows, dtype=torch.long, device=self.cost.device)
        point, no = zero[:, None].repeat(1, 2), zero.bool()
        return {"count": zero, "left": zero + self.limit, "x": zero, "arc": no, "solid": no,
                "seen": zero[:, None].repeat(1, MEMORY) - 1,
                "origin": point, "second": point, "corner": point, "middle": point, "bulge": point - 1}  # fmt: skip

    def mask(self, at: Tensor, memory: GrammarState) -> Tensor:
        wrong = torch.zeros(len(at), self.ids + 1, dtype=torch.bool, device=at.device)  # the last column takes "none"
        values = self._forbidden(at, memory)
        wrong.scatter_(1, torch.where(values >= 0, values + self.first, self.ids), True)
        return ~(wrong[:, : self.ids] | self.closes[at] & ~self._closable(memory)[:, None])

    def advance(self, at: Tensor, tokens: Tensor, memory: GrammarState) -> GrammarState:
        role, value, closed = self.role[at], tokens - self.first, self.closes[at, tokens]
        corner, middle = role == 2, role == 4
        x = torch.where((role == 1) | (role == 3), value, memory["x"])
        point = torch.stack((x, value), 1)
        count = memory["count"].masked_fill(closed, 0)
        off = _turn(memory["origin"], memory["second"], point) != 0
        solid = memory["solid"] & ~closed | corner & (count >= 2) & off | middle | self.arcs[at, tokens]

        def keep(name: str, when: Tensor) -> Tensor:
            return torch.where(when[:, None], point, memory[name])

        seen = torch.where(closed[:, None], -1, memory["seen"])
        packed = (x * self.size + value)[:, None]
        return {
            "count": count + corner.long(), "left": memory["left"] - 1, "x": x, "solid": solid,
            "seen": torch.where(corner[:, None], torch.cat((packed, seen[:, :-1]), 1), seen),
            "arc": memory["arc"] & ~corner | middle,
            "origin": keep("origin", corner & (count == 0)), "second": keep("second", corner & (count == 1)),
            "corner": keep("corner", corner), "middle": keep("middle", middle),
            "bulge": keep("bulge", middle & (count == 1)).masked_fill(closed[:, None], -1),
        }  # fmt: skip

    def _closable(self, memory: GrammarState) -> Tensor:
        """bool [rows]: the loop may end with the curve that was placed last."""
        bent = _turn(memory["corner"], memory["middle"], memory["origin"]) != 0
        return memory["solid"] & (bent | ~memory["arc"]) | (memory["count"] < 2)

    def _forbidden(self, at: Tensor, memory: GrammarState) -> Tensor:
        """[rows, n]: coordinates that may not come; -1 = none."""
        role = self.role[at]
        if not bool(role.any()):
            return role[:, None] - 1
        count, last, origin, x = memory["count"], memory["corner"], memory["origin"], memory["x"]
        tight = memory["left"] - self.cost[at] < self.reserve
        if self.longest is not None:
            tight = tight | (count >= self.longest - 1)
        tight = tight & (count >= 2)
        corner_y, middle_y = role == 2, role == 4
        corner, middle, second = corner_y | (role == 1), middle_y | (role == 3), corner_y | middle_y
        lines = (
            (corner & (count >= 1) & memory["arc"], last, memory["middle"]),  # the arc before is one
            (corner & tight & ~memory["solid"], origin, memory["second"]),  # not all corners on a line
            (middle & tight, last, origin),  # this arc can be the last
        )
        points = ((corner_y & (count >= 1) | middle_y, last), (corner_y & (count >= 2), origin))
        values = [torch.where(when, self._on_line(a, b, x, second), -1) for when, a, b in lines]
        values += [torch.where(when & (x == point[:, 0]), point[:, 1], -1) for when, point in points]
        back = middle_y & (count == 2) & (memory["bulge"][:, 0] >= 0)
        if bool(back.any()):
            values += [torch.where(back, y, -1) for y in self._on_arc(origin, memory["bulge"], last, x)]
        seen = memory["seen"]
        again = corner_y[:, None] & (seen >= 0) & (seen // self.size == x[:, None])
        return torch.cat((torch.stack(values, 1), torch.where(again, seen % self.size, -1)), 1)

    def _on_line(self, a: Tensor, b: Tensor, x: Tensor, second: Tensor) -> Tensor:
        """[rows]: the y (``second``) that with the x placed is on the line a b, or the x whose every y is; else -1."""
        dx, dy = (b - a).unbind(1)
        rise, run = dy * (x - a[:, 0]), dx.masked_fill(dx == 0, 1)
        y = a[:, 1] + rise.div(run, rounding_mode="floor")
        y = torch.where((dx != 0) & (rise % run == 0) & (y >= 0) & (y < self.size), y, -1)
        return torch.where(second, y, torch.where(dx == 0, a[:, 0], -1))

    def _on_arc(self, a: Tensor, bulge: Tensor, b: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """[rows] twice: the y that with the x placed lie on the arc from a by way of ``bulge`` to b; else -1."""
        # The circle is p (x^2 + y^2) + q x + r y + s = 0 in whole numbers, with a moved to the origin: s = 0.
        (ux, uy), (vx, vy) = (bulge - a).unbind(1), (b - a).unbind(1)
        uu, vv, dx = ux * ux + uy * uy, vx * vx + vy * vy, x - a[:, 0]
        p, q, r = ux * vy - uy * vx, uy * vv - vy * uu, vx * uu - ux * vv
        rest = p * dx * dx + q * dx
        root = (r * r - 4 * p * rest).clamp(min=0).double().sqrt()
        found = []
        for sign in (-1, 1):
            dy = ((sign * root - r) / (2 * p).masked_fill(p == 0, 1)).round().long()
            on = (p * dy * dy + r * dy + rest == 0) & (p != 0) & ((vx * dy - vy * dx) * (vx * uy - vy * ux) > 0)
            y = dy + a[:, 1]
            found.append(torch.where(on & (y >= 0) & (y < self.size), y, -1))
        return found[0], found[1]


def _cross(a: Tensor, b: Tensor) -> Tensor:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def _turn(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Twice the signed area of three points [rows, 2]: 0 where they lie on a line."""
    return _cross(b - a, c - a)


class NoReturn:
    """Rule: a loop of two arcs does not go there and back on one arc; for arcs given by sweep and side.

    Args:
        sweep, side: the slots of an arc's two. command: the slots where a curve is announced.
        closes, reserve, limit: as in ``ClosedLoops``.
    """

    def __init__(
        self,
        automaton: Automaton,
        sweep: Slot,
        side: Slot,
        command: Sequence[Slot],
        closes: Sequence[tuple[Sequence[Slot], int]],
        reserve: int,
        limit: int,
    ):
        self.sweep, self.side = _states(automaton, [sweep]), _states(automaton, [side])
        self.command = _states(automaton, command)
        self.closes = _closing(automaton, closes)
        self.cost, self.reserve, self.limit = automaton.cost.min(1).values.long(), reserve, limit
        self.ids = torch.arange(automaton.vocab_size)

    def start(self, rows: int) -> GrammarState:
        zero = torch.zeros(rows, dtype=torch.long, device=self.ids.device)
        return {"count": zero, "left": zero + self.limit, "arcs": zero[:, None].repeat(1, 4) - 1}

    def mask(self, at: Tensor, memory: GrammarState) -> Tensor:
        arcs = memory["arcs"]  # sweep and side of the first curve, and of the second; -1 for lines
        twins = (memory["count"] == 2) & (arcs[:, 0] >= 0) & (arcs[:, 0] == arcs[:, 2])
        tight = memory["left"] - self.cost[at] < self.reserve
        back = (twins & tight & self.side[at])[:, None] & (self.ids != arcs[:, 1:2])
        return ~(back | self.closes[at] & (twins & (arcs[:, 1] != arcs[:, 3]))[:, None])

    def advance(self, at: Tensor, tokens: Tensor, memory: GrammarState) -> GrammarState:
        closed = self.closes[at, tokens]
        curve = self.command[at] & ~closed
        count = memory["count"].masked_fill(closed, 0) + curve.long()
        arcs = memory["arcs"].masked_fill(closed[:, None], -1)
        place = torch.arange(4, device=at.device)
        for here, first in ((self.sweep[at], 0), (self.side[at], 1)):
            slot = here[:, None] & (place == ((count - 1) * 2 + first)[:, None])
            arcs = torch.where(slot, tokens[:, None], arcs)
        return {"count": count, "left": memory["left"] - 1, "arcs": arcs}


class After:
    """Rule: after ``token`` in one slot, a later slot of the record may hold none of ``forbidden``."""

    def __init__(
        self, automaton: Automaton, first: Sequence[Slot], token: int, second: Sequence[Slot], forbidden: Sequence[int]
    ):
        self.first, self.second, self.token = _states(automaton, first), _states(automaton, second), token
        self.forbidden = _flags(automaton, forbidden)

    def start(self, rows: int) -> GrammarState:
        return {"held": torch.zeros(rows, dtype=torch.bool, device=self.forbidden.device)}

    def mask(self, at: Tensor, memory: GrammarState) -> Tensor:
        return ~((memory["held"] & self.second[at])[:, None] & self.forbidden)

    def advance(self, at: Tensor, tokens: Tensor, memory: GrammarState) -> GrammarState:
        return {"held": torch.where(self.first[at], tokens == self.token, memory["held"])}


class AtMost:
    """Rule: once ``most`` of the ``counted`` tokens have come since the last of ``resets``, no more of ``blocked``."""

    def __init__(
        self,
        automaton: Automaton,
        most: int,
        counted: Sequence[int],
        blocked: Sequence[int],
        resets: Sequence[int] = (),
    ):
        self.most = most
        self.counted, self.blocked, self.resets = (_flags(automaton, ids) for ids in (counted, blocked, resets))

    def start(self, rows: int) -> GrammarState:
        return {"count": torch.zeros(rows, dtype=torch.long, device=self.counted.device)}

    def mask(self, at: Tensor, memory: GrammarState) -> Tensor:
        return ~((memory["count"] >= self.most)[:, None] & self.blocked)

    def advance(self, at: Tensor, tokens: Tensor, memory: GrammarState) -> GrammarState:
        count = memory["count"].masked_fill(self.resets[tokens], 0)
        return {"count": count + self.counted[tokens].long()}
