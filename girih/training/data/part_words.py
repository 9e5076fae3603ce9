"""How people describe a part: clauses with numbers in several wordings, put together into a sentence.

Knows phrases, number words and the order of clauses. Does not know parts (parts.py): it is told templates and values.
A description is lower case; each number is a word of its own ("60", "6.5"), lengths in millimetres.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

Item = TypeVar("Item")
NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
                "twelve")  # fmt: skip
UNITS = (" mm",) * 6 + ("",) * 3 + (" millimeters",)
OPENINGS = ("{}",) * 12 + ("make {}", "i need {}", "please make {}", "design {}", "create {}", "draw {}", "model {}",
                           "give me {}", "generate {}", "can you make {}")  # fmt: skip


class Draft:
    """A part being described: draws, clauses, and the names of the facts that are told.

    A silent draft says nothing but the name. Clauses: ``pre`` stand before the noun ("60 by 40 mm"), ``post`` after it
    ("5 mm thick"), ``having`` after "with".
    """

    def __init__(self, rng: np.random.Generator):
        self.rng = rng
        self.silent = self.chance(0.04)  # "a flange": the name says all
        self.told: list[str] = []
        self.clauses: dict[str, list[str]] = {"pre": [], "post": [], "having": []}

    def chance(self, share: float) -> bool:
        return self.rng.random() < share

    def pick(self, options: Sequence[Item]) -> Item:
        return options[int(self.rng.integers(len(options)))]

    def whole(self, low: int, high: int) -> int:
        """low .. high, both included."""
        return int(self.rng.integers(low, max(low, high) + 1))

    def length(self, low: float, high: float) -> int:
        """A length of low .. high mm as people choose them, in half millimetres: round ones often, .5 seldom."""
        low, high = int(np.ceil(2 * low)), int(np.floor(2 * max(low, high)))
        steps = (10, 2, 2, 1) if high - low > 30 else (2, 2, 2, 1)
        step = steps[int(np.searchsorted((0.4, 0.65, 0.9), self.rng.random(), side="right"))]
        first, last = -(-low // step), high // step
        return step * self.whole(first, last) if first <= last else low

    def tell(self, place: str, templates: Sequence[str], facts: Sequence[str] = (), **values: int | str) -> None:
        """Say one of the templates and note the facts that it tells. ``n`` is a count, text stays, the rest are lengths
        in half millimetres."""
        if self.silent:
            return
        template = self.pick(templates)
        words = {name: value if isinstance(value, str) else f"{value / 2:g}" for name, value in values.items()}
        if isinstance(number := values.get("n"), int):
            spelt = number < len(NUMBER_WORDS) and ("{n} {d}" in template or self.chance(0.7))  # never "6 8 mm holes"
            words["n"] = NUMBER_WORDS[number] if spelt else str(number)
        self.clauses[place].append(template.format(**words))
        self.told += facts

    def text(self, names: Sequence[str]) -> str:
        """All clauses around one of the names, in an order of its own."""
        post, having = self.clauses["post"], self.clauses["having"]
        for clauses in (post, having):
            self.rng.shuffle(clauses)
        noun = " ".join([*self.clauses["pre"], self.pick(names)])
        noun = article(noun) if self.chance(0.85) else noun
        form = self.rng.random()
        if form < 0.12:  # a bare list
            every = [*post, *having]
            self.rng.shuffle(every)
            body = ", ".join([noun, *every])
        elif form < 0.27 and post and having:
            body = f"{noun} with {self._joined(having)}, {self._joined(post)}"
        else:
            gap = self.pick((" ", " ", ", "))
            body = noun + (gap + self._joined(post) if post else "")
            body += (self.pick((" with ", " with ", ", with ", " that has ")) + self._joined(having)) if having else ""
        text = re.sub(r"(, and|,| and) of ", r"\1 ", self.pick(OPENINGS).format(body))
        text = re.sub(r"\ba (?=(8[\d.]*|1[18](\.5)?) )", "an ", text)
        unit = self.pick(UNITS)
        if not unit and re.search(r"\d mm \d", text):  # "holes of 3 6 from the edges" would say nothing
            unit = " mm"
        return re.sub(r" mm\b", unit, text)

    def _joined(self, clauses: Sequence[str]) -> str:
        last = self.pick((" and ", " and ", ", ", ", and "))
        return last.join([", ".join(clauses[:-1]), clauses[-1]]) if len(clauses) > 1 else clauses[0]


def article(noun: str) -> str:
    """The noun phrase with "a" or "an"."""
    return ("an " if re.match(r"[aeio]", noun) else "a ") + noun
