"""One way to say that a name is not known: with the nearest known one.

Knows spelling, not models, styles or recipes; whoever owns the names passes them in.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

LISTED = 100


def unknown(kind: str, name: str, known: Iterable[str]) -> ValueError:
    """The error to raise for `name`, which is no `kind` ("model", "style"): names the nearest known and lists all,
    or says how many there are beyond ``LISTED``.

    >>> raise unknown("style", "flt", ["flat", "noto"])
    ValueError: unknown style 'flt'; did you mean 'flat'? Known: flat, noto
    """
    names = sorted(known)
    near = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    listed = ", ".join(names) if len(names) <= LISTED else f"{len(names)} names"
    return ValueError(f"unknown {kind} {name!r}{hint} Known: {listed or 'none'}")
