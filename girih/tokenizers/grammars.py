"""Grammars of record languages: which token may come next, for a batch of rows, at the same cost at any length.

Knows schemas of records, the automaton that transitions between records make of them, and rules with a memory. Knows no
asset and no model. How to write a language with it: the docstring of ``girih/tokenizers/records.py``. Finite-state part
and rules are the two engines of PICARD-style constraining (Scholak et al. 2021): a table lookup, and what a table
cannot say.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from math import prod
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from girih.spec import Grammar, GrammarState
from girih.tokenizers.records import Field, Record, RecordSchema, ids

DEAD, DONE = 0, 1  # states of every automaton: a token outside the mask was taken; the end token was
NEVER = 32767  # tokens to the end of a way that does not lead there
Moved = TypeVar("Moved")


class Automaton:
    """Records and the transitions between them, as tables over token ids.

    Attributes:
        schema: the records; vocab_size: ids.
        next: int [states, ids], the state after a token; ``DEAD`` where it may not come.
        cost: int16 [states, ids], the fewest tokens to the end by way of this one; ``NEVER`` where it may not come.
        slots: for each state what it is about to place: {(record name, slot)}; several where records begin alike.

    Raises:
        ValueError: a record or state that does not exist, two records that begin alike and part with the same id, a
            state from which no way leads to the end.
    """

    def __init__(self, schema: RecordSchema, transitions: Mapping[str, Mapping[str, str]]):
        self.schema, self.vocab_size = schema, schema.vocab_size
        self.slots: list[set[tuple[str, int]]] = [set(), set()]
        self._edges: list[dict[range, tuple[int, str]]] = [{}, {}]  # ids -> (state, the record that this closes or "")
        filler = next((one for one in (schema.pad, schema.eos) if one is not None), None)
        if filler is not None:
            self._edges[DONE][ids(filler)] = (DONE, "")
        roots = {"end": DONE} | {name: self._state() for name in transitions}
        for name, ways in transitions.items():
            for record, target in ways.items():
                if target not in roots:
                    raise ValueError(f"state {name!r} leads to {target!r}, which has no transitions")
                self._grow(roots[name], self._record(record), roots[target])
        if "start" not in roots:
            raise ValueError("transitions have no state 'start'")
        self.start = roots["start"]
        if schema.bos is not None:
            self.start = self._state()
            self._grow(self.start, Record("bos", (schema.bos,)), roots["start"])
        self.next, self.cost, self._closes = self._tables()
        for name, root in roots.items():
            if int(self.cost[root].min()) >= NEVER and root != DONE:
                raise ValueError(f"no way leads from state {name!r} to the end")

    def here(self, record: str, slot: int) -> Tensor:
        """bool [states]: about to place ``slot`` of ``record``."""
        return torch.tensor([(record, slot) in slots for slots in self.slots])

    def split(self, body: Tensor) -> list[tuple[str, int, int]]:
        """A body [n] without bos and eos as its records: (name, start, end).

        Raises ValueError naming the first token that may not stand where it does, or that the body stops too early.
        """
        records, start, next, closes = [], 0, self.next.numpy(force=True), self._closes.numpy(force=True)
        state = self.start if self.schema.bos is None else int(next[self.start, self.schema.bos])
        for at, token in enumerate(body.tolist()):
            target = int(next[state, token]) if 0 <= token < self.vocab_size else DEAD
            if target == DEAD:
                raise ValueError(f"token {at} (id {token}) may not come here; what may: {self._expected(state)}")
            closed = closes[state, token]
            if closed >= 0:
                records.append((self.schema.records[closed].name, start, at + 1))
                start = at + 1
            state = target
        ended = state == DONE or (self.schema.eos is not None and next[state, self.schema.eos] == DONE)
        if not ended:
            raise ValueError(f"the sequence stops after {len(body)} tokens, before {self._expected(state)}")
        return records

    def to(self, device: torch.device | str) -> Automaton:
        """The same automaton with its tables on ``device``."""
        return _moved(self, device)

    def _record(self, name: str) -> Record:
        if name != "eos":
            return self.schema[name]
        if self.schema.eos is None:
            raise ValueError("a transition takes 'eos', but the schema has no end token")
        return Record("eos", (self.schema.eos,))

    def _state(self) -> int:
        self.slots.append(set())
        self._edges.append({})
        return len(self._edges) - 1

    def _grow(self, state: int, record: Record, target: int) -> None:
        """Lay a record's slots as a path from ``state`` to ``target``, along what other records share with it."""
        for i, slot in enumerate(record.slots):
            edges, here, last = self._edges[state], ids(slot), i == len(record.slots) - 1
            self.slots[state].add((record.name, i))
            for other, (_, closed) in edges.items():
                same = other == here and not last and not closed
                if not same and max(other.start, here.start) < min(other.stop, here.stop):
                    raise ValueError(f"slot {i} of record {record.name!r} (ids {here.start} .. {here.stop - 1}) cannot "
                                     f"be told from another record's ids {other.start} .. {other.stop - 1}")
            if here not in edges:
                edges[here] = (target, record.name) if last else (self._state(), "")
            state = edges[here][0]

    def _tables(self) -> tuple[Tensor, Tensor, Tensor]:
        size = (len(self._edges), self.vocab_size)
        left = np.full(size[0], NEVER)  # fewest tokens to the end from each state
        left[DONE], reached = 0, [DONE]
        before: list[list[int]] = [[] for _ in range(size[0])]
        for state, edges in enumerate(self._edges):
            for target, _ in edges.values():
                before[target].append(state)
        for state in reached:  # breadth first, against the arrows
            for earlier in before[state]:
                if left[earlier] == NEVER:
                    left[earlier] = left[state] + 1
                    reached.append(earlier)
        next, cost, closes = np.full(size, DEAD), np.full(size, NEVER), np.full(size, -1)
        names = [record.name for record in self.schema.records]
        for state, edges in enumerate(self._edges):
            for here, (target, closed) in edges.items():
                columns = slice(here.start, here.stop)
                next[state, columns] = target
                cost[state, columns] = 0 if state == DONE else min(left[target] + 1, NEVER)
                closes[state, columns] = names.index(closed) if closed in names else -1
        return (torch.from_numpy(next.astype(np.int32)), torch.from_numpy(cost.astype(np.int16)),
                torch.from_numpy(closes.astype(np.int16)))

    def _expected(self, state: int) -> str:
        words = []
        for name, slot in sorted(self.slots[state]):
            part = self.schema.bos if name == "bos" else self._record(name).slots[slot]
            what = part.name if isinstance(part, Field) else f"id {part}"
            words.append("the end token" if name == "eos" else f"{what} of {name}")
        return " or ".join(words) or "nothing"


class Rule(Protocol):
    """What an automaton cannot say. ``at`` is LongTensor [rows], the automaton's states; memory is the rule's own.

    A rule may only forbid values: at least one way on stays open, and the shortest way to the end gets no longer.
    """

    def start(self, rows: int) -> GrammarState: ...

    def mask(self, at: Tensor, memory: GrammarState) -> Tensor:
        """bool [rows, ids]: what the rule has nothing against."""

    def advance(self, at: Tensor, tokens: Tensor, memory: GrammarState) -> GrammarState:
        """The memory after ``tokens`` [rows], taken in the states ``at``."""


class RecordGrammar:
    """An automaton, rules, and a length: a ``girih.spec.Grammar``.

    Args:
        automaton: what may follow what. rules: what else is forbidden.
        limit: most tokens of a sequence, bos and eos included; ways that do not lead to the end in time are closed.

    Raises:
        ValueError: a limit below the shortest sequence.
    """

    def __init__(self, automaton: Automaton, rules: Sequence[Rule] = (), limit: int | None = None):
        self.automaton, self.rules, self.limit = automaton, tuple(rules), limit
        self.vocab_size = automaton.vocab_size
        shortest = int(automaton.cost[automaton.start].min())
        if limit is not None and limit < shortest:
            raise ValueError(f"a limit of {limit} tokens is below the shortest sequence, {shortest}")

    def start(self, rows: int) -> GrammarState:
        at = torch.full((rows,), self.automaton.start, device=self.automaton.next.device)
        state = {"at": at, "left": torch.full_like(at, 2**62 if self.limit is None else self.limit)}
        for i, rule in enumerate(self.rules):
            state |= {f"{i}.{name}": value for name, value in rule.start(rows).items()}
        return state

    def mask(self, state: GrammarState) -> Tensor:
        at = state["at"]
        allowed = self.automaton.cost[at] <= state["left"].clamp(max=NEVER - 1).to(torch.int16)[:, None]
        for i, rule in enumerate(self.rules):
            allowed &= rule.mask(at, _memory(state, i))
        return allowed

    def advance(self, state: GrammarState, tokens: Tensor) -> GrammarState:
        at = state["at"]
        out = {"at": self.automaton.next[at, tokens].long(), "left": state["left"] - (at != DONE).long()}
        for i, rule in enumerate(self.rules):
            after = rule.advance(at, tokens, _memory(state, i))
            out |= {f"{i}.{name}": value for name, value in after.items()}
        return out

    def forced(self, state: GrammarState) -> Tensor:
        allowed = self.mask(state)
        return torch.where(allowed.sum(-1) == 1, allowed.long().argmax(-1), -1)

    def done(self, state: GrammarState) -> Tensor:
        return state["at"] == DONE

    def to(self, device: torch.device | str) -> RecordGrammar:
        out = copy.copy(self)
        out.automaton = self.automaton.to(device)
        out.rules = tuple(_moved(rule, device) for rule in self.rules)
        return out


class Tuples:
    """Rule: a tuple of fields, a vertex or a joint, is new, or is one seen before.

    Args:
        automaton: of the language.
        patterns: by record one letter a slot: ``n`` = part of a tuple that must differ from those remembered, and is
            then remembered; ``k`` = part of a tuple that must be one of those remembered; ``.`` = neither. ``width``
            letters make a tuple. A bone whose parent is a known joint: ``{"bone": "kkknnn"}``.
        width: fields of a tuple.
        memory: how many tuples are remembered, the latest ones; there must be more different tuples than that.
        forget: records at whose first slot the memory is emptied.

    Raises:
        ValueError: a pattern that does not fit its record, or records that begin alike with different letters.
    """

    def __init__(self, automaton: Automaton, patterns: Mapping[str, str], width: int = 3, memory: int = 1,
                 forget: Sequence[str] = ()):
        states = len(automaton.slots)
        self.width, self.memory, self.vocab_size = width, memory, automaton.vocab_size
        self.letter = torch.zeros(states, dtype=torch.long)  # 0 = none, 1 = n, 2 = k
        self.part = torch.zeros(states, dtype=torch.long)  # which component of the tuple comes
        self.room = torch.full((states,), 2**62)  # how many tuples one value of this component has room for
        self.values = torch.zeros(states, automaton.vocab_size, dtype=torch.bool)  # the ids that are components
        self.clears = torch.zeros(states, dtype=torch.bool)
        for name in forget:
            self.clears |= automaton.here(name, 0)
        for name, pattern in patterns.items():
            slots = automaton.schema[name].slots
            if len(pattern) != len(slots) or set(pattern) - set("nk."):
                raise ValueError(f"pattern {pattern!r} does not fit the {len(slots)} slots of {name!r}")
            lettered = [i for i, letter in enumerate(pattern) if letter != "."]
            for k, i in enumerate(lettered):
                slot, rest = slots[i], lettered[k + 1 : k + width - k % width]
                fits = isinstance(slot, Field) and {pattern[j] for j in (i, *rest)} == {pattern[i]}
                if not fits or len(lettered) % width:
                    raise ValueError(f"pattern {pattern!r} of {name!r} is not made of fields, {width} a tuple")
                here = automaton.here(name, i)
                role = ".nk".index(pattern[i])
                if bool((here & (self.letter != 0) & ((self.letter != role) | (self.part != k % width))).any()):
                    raise ValueError(f"{name!r} begins like another record, but with another pattern")
                self.letter[here], self.part[here] = role, k % width
                self.room[here] = prod(len(ids(slots[j])) for j in rest)
                self.values[here.nonzero()[:, 0], ids(slot).start : ids(slot).stop] = True

    def start(self, rows: int) -> GrammarState:
        seen = torch.full((rows, self.memory, self.width), -1, device=self.letter.device)
        return {"seen": seen, "open": seen.new_full((rows, self.width), -1)}

    def mask(self, at: Tensor, memory: GrammarState) -> Tensor:
        seen, part = self._seen(at, memory), self.part[at][:, None]
        later = torch.arange(self.width, device=at.device) >= part  # components that are still to come
        alike = ((seen == memory["open"][:, None]) | later[:, None]).all(-1) & (seen[..., 0] >= 0)
        value = seen.gather(2, part[:, None].expand(-1, self.memory, 1))[..., 0].clamp(min=0)
        count = torch.zeros(len(at), self.vocab_size, dtype=torch.long, device=at.device)
        count.scatter_add_(1, value, alike.long())
        letter = self.letter[at][:, None]
        new, known = count < self.room[at][:, None], (count > 0) | ~self.values[at]
        return torch.where(letter == 1, new, (letter == 0) | known)

    def advance(self, at: Tensor, tokens: Tensor, memory: GrammarState) -> GrammarState:
        seen, part, rows = self._seen(at, memory), self.part[at], torch.arange(len(at), device=at.device)
        component = self.values[at, tokens]
        opened = memory["open"].clone()
        opened[rows, part] = torch.where(component, tokens, opened[rows, part])
        closed = component & (part == self.width - 1) & (self.letter[at] == 1)
        shifted = torch.cat((opened[:, None], seen[:, :-1]), 1)
        return {"seen": torch.where(closed[:, None, None], shifted, seen), "open": opened}

    def _seen(self, at: Tensor, memory: GrammarState) -> Tensor:
        return memory["seen"].masked_fill(self.clears[at][:, None, None], -1)


def accepts(grammar: Grammar, tokens: Tensor) -> Tensor:
    """bool [rows]: each row of token ids [rows, n], padding included, is a whole sequence of the grammar."""
    state = grammar.start(len(tokens))
    fine = torch.ones(len(tokens), dtype=torch.bool, device=tokens.device)
    for column in tokens.unbind(1):
        fine &= grammar.mask(state).gather(1, column[:, None])[:, 0]
        state = grammar.advance(state, column)
    return fine & grammar.done(state)


def _memory(state: GrammarState, rule: int) -> GrammarState:
    prefix = f"{rule}."
    return {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}


def _moved(thing: Moved, device: torch.device | str) -> Moved:
    """A shallow copy whose tensors lie on ``device``."""
    out = copy.copy(thing)
    out.__dict__ = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in vars(thing).items()}
    return out
