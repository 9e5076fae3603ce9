"""Described parts, drawn from a seed: what the text-to-CAD generator learns from and is measured on.

Knows the families of parts, sensible sizes, what a description says of them and what it leaves out. Does not know
tokens, nor how clauses become a sentence (part_words.py). What is not told is drawn from the same seed.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from girih.names import unknown
from girih.tokenizers.shape.cad import Program
from girih.tokenizers.shape.part_facts import KINDS, WASHER, facts_of
from girih.tokenizers.shape.part_features import Feature, build
from girih.training.data.part_clauses import (
    BORE,
    MIDDLE,
    clear_of,
    draw_bore,
    draw_corners,
    draw_ring,
    draw_row,
    draw_singles,
    draw_window,
    rim_of,
    tell_block,
    tell_size,
    tell_sizes,
)
from girih.training.data.part_words import Draft

MAX_WORDS = 48  # of a description
HELD_OUT = 20  # one description in so many is kept out of training, by what it states


@dataclass(frozen=True)
class DescribedPart:
    """A part and what a person says of it.

    Attributes:
        kind: one of ``part_facts.KINDS``.
        text: the description.
        facts: what the text states, named as ``part_facts.measure`` names it: millimetres, and counts.
        program: the part; ``measure(program)`` has the kind and the facts.
    """

    kind: str
    text: str
    facts: dict[str, float]
    program: Program


def sample(rng: np.random.Generator, held_out: bool = False, kind: str | None = None) -> DescribedPart:
    """A described part, a pure function of ``rng``.

    Args:
        held_out: draw from the combinations of kind and stated facts that training never sees, or from the others.
        kind: one of ``KINDS``; None draws one.

    Raises:
        ValueError: an unknown kind.
    """
    if kind is not None and kind not in KINDS:
        raise unknown("kind", kind, KINDS)
    while True:
        draft = Draft(rng)
        chosen = kind or draft.pick(KINDS)
        names, features = _FAMILIES[chosen](draft)
        known = facts_of(features)
        facts = {name: known[name] for name in sorted(set(draft.told))}
        text = draft.text(names)
        if is_held_out(chosen, facts) == held_out and len(text.split()) <= MAX_WORDS:
            return DescribedPart(chosen, text, facts, build(features))


def is_held_out(kind: str, facts: dict[str, float]) -> bool:
    """Whether a combination of kind and stated facts is kept out of training: a fixed hash of both decides. A kind
    without any fact is not."""
    stated = ",".join(f"{name}={facts[name]:g}" for name in sorted(facts))
    return bool(facts) and zlib.crc32(f"{kind}:{stated}".encode()) % HELD_OUT == 0


# Families: each tells the draft what it says, and returns what the part may be called, and its features. Values are
# half millimetres, but for the bounds of ``Draft.length``, which are millimetres.

Family = Callable[[Draft], tuple[Sequence[str], list[Feature]]]


def _plate(draft: Draft) -> tuple[Sequence[str], list[Feature]]:
    width, depth, height = draft.length(20, 120), draft.length(20, 100), draft.length(1.5, 15)
    width, depth = tell_block(draft, width, depth, ("thick", height, ("height",)))
    corner = 0
    if draft.chance(0.2):
        corner = draft.length(1, min(15, min(width, depth) / 6))
        if draft.chance(0.8):
            tell_size(draft, "corner", corner, "corner_radius")
        else:
            draft.tell("having", ("rounded corners",))
    rim = rim_of(corner)
    corners = draw_corners(draft, width, depth, rim, _AT_CORNERS) if draft.chance(0.5) else []
    inset = sum(corners[0].values[1:]) + corners[0].values[0] / 2 + 1 if corners else rim
    form, cuts = draft.rng.random(), []
    if form < 0.3:
        cuts = draw_bore(draft, 0.8 * clear_of(width, depth, rim, corners), MIDDLE)
    elif form < 0.42:
        cuts = draw_ring(draft, 0, clear_of(width, depth, rim, corners))
    elif form < 0.5:
        bore = draw_bore(draft, 0.4 * clear_of(width, depth, rim, corners), MIDDLE)
        cuts = bore + draw_ring(draft, bore[0].values[0] + 2 if bore else 0, clear_of(width, depth, rim, corners))
    elif form < 0.6:
        cuts = draw_window(draft, width - 2 * inset, depth - 2 * inset)
    elif form < 0.7:
        places = ("in a row", "in a line", "in a row along the middle", "along the centre line")
        cuts = draw_row(draft, "row", width - 2 * rim, depth - 2 * inset, places)
    elif form < 0.8 and not corners:
        cuts = draw_singles(draft, width, depth, rim)
    if not corners and not cuts and draft.chance(0.3):
        draft.tell("post", ("without holes", "no holes"), ("holes",))
    names = ("plate",) * 4 + ("flat plate", "mounting plate", "base plate", "panel", "sheet", "rectangular plate")
    return names, [Feature("block", (width, depth, height, corner)), *corners, *cuts]


def _bracket(draft: Draft) -> tuple[Sequence[str], list[Feature]]:
    width, depth, high = draft.length(15, 100), draft.length(20, 80), draft.length(20, 80)
    thick = draft.length(2, min(10, depth / 8))
    wall = thick if draft.chance(0.75) else draft.length(2, min(10, depth / 8))
    if draft.chance(0.2):
        tell_size(draft, "wide", width, "width")
        legs = ("legs of {a} and {b} mm", "legs {a} and {b} mm long", "a {a} mm foot and a {b} mm high back")
        draft.tell("having", legs, ("depth", "total_height"), a=depth, b=high)
    else:
        sizes = ("wide", width, ("width",)), ("deep", depth, ("depth",)), ("high", high, ("total_height",))
        tell_sizes(draft, sizes)
    if wall == thick:
        if not draft.chance(0.12):
            tell_size(draft, "thick", thick, "height", "wall_thickness")
    else:
        _tell_walls(draft, thick, wall, ("a {a} mm thick base", "a base of {a} mm", "a base {a} mm thick"))
    features = [Feature("block", (width, depth, thick, 0)), Feature("wall", (wall, high))]
    if draft.chance(0.6):
        places = ("in the wall", "in the upright", "in the vertical leg", "in the back")
        features += draw_row(draft, "port", width - 2, high - thick - 2, places, 1)
    if draft.chance(0.65):
        if draft.chance(0.35):
            features += _base_hole(draft, min(width - 2, depth - wall - 2) * 0.8)
        else:
            places = ("in the base", "in the foot", "in the horizontal leg", "in the bottom")
            features += draw_row(draft, "row", width - 2, depth - wall - 2, places)
    names = ("l bracket", "l bracket", "angle bracket", "angle", "l shaped bracket", "corner bracket")
    return ("bracket",) * 3 + names, features


def _tell_walls(draft: Draft, thick: int, wall: int, base: Sequence[str]) -> None:
    draft.tell("having", base, ("height",), a=thick)
    words = ("a {a} mm thick wall", "a wall of {a} mm", "a wall {a} mm thick")
    draft.tell("having", words, ("wall_thickness",), a=wall)


def _base_hole(draft: Draft, across: float) -> list[Feature]:
    words = [f"{phrase} of the base" for phrase in MIDDLE if phrase.endswith(("middle", "centre", "center"))]
    return draw_bore(draft, across, (*words, "a {d} mm hole in the base", "one hole of {d} mm in the base"))


def _channel(draft: Draft) -> tuple[Sequence[str], list[Feature]]:
    width, depth, high = draft.length(15, 60), draft.length(20, 120), draft.length(10, 60)
    thick = draft.length(1, min(6, width / 14))
    tell_sizes(draft, (("wide", width, ("width",)), ("long", depth, ("depth",)), ("high", high, ("total_height",))))
    if not draft.chance(0.12):
        tell_size(draft, draft.pick(("thick", "walls")), thick, "height", "wall_thickness")
    features = [Feature("block", (width, depth, thick, 0)), Feature("walls", (thick, high))]
    form, free = draft.rng.random(), width - 2 * thick - 2
    if form < 0.35:
        features += _base_hole(draft, 0.8 * min(free, depth - 2))
    elif form < 0.55:
        features += draw_window(draft, free, depth - 2)
    elif form < 0.7:
        features += draw_corners(draft, width, depth, thick + 1, ("in the base",))
    return ("channel",) * 3 + ("u channel", "u channel", "u profile", "u bracket", "u shaped channel"), features


def _enclosure(draft: Draft) -> tuple[Sequence[str], list[Feature]]:
    width, depth, height = draft.length(20, 120), draft.length(20, 120), draft.length(8, 80)
    width, depth = tell_block(draft, width, depth, ("high", height, ("height",)))
    wall = draft.length(1, 4)
    floor = wall if draft.chance(0.5) else draft.length(1, 4)
    if wall == floor and draft.chance(0.5):
        words = ("walls and floor {a} mm thick", "walls and floor of {a} mm", "{a} mm thick walls and floor")
        draft.tell("having", words, ("wall_thickness", "floor_thickness"), a=wall)
    else:
        for word, value in (("walls", wall), ("floor", floor)):
            if not draft.chance(0.15):
                tell_size(draft, word, value, "wall_thickness" if word == "walls" else "floor_thickness")
    corner = 0
    if draft.chance(0.25):
        corner = draft.length(1, min(12, min(width, depth) / 8))
        tell_size(draft, "corner", corner, "corner_radius")
    features = [Feature("block", (width, depth, height, corner)), Feature("pocket", (wall, floor))]
    if draft.chance(0.35):
        places = ("in the front", "in the front wall", "in the front side")
        features += draw_row(draft, "port", width - 2 * max(wall, corner) - 2, height - floor - 2, places, 1)
    rim, corners = rim_of(corner, wall), []
    if draft.chance(0.3):
        corners = draw_corners(draft, width, depth, rim, ("in the corners of the floor", "in the floor"))
    if draft.chance(0.25):
        words = ("a {d} mm hole in the floor", "a hole of {d} mm in the middle of the floor", "one {d} mm floor hole")
        corners = corners + draw_bore(draft, 0.6 * clear_of(width, depth, rim, corners), words)
    names = ("enclosure",) * 3 + ("box", "case", "housing", "open box", "tray", "project box", "electronics enclosure")
    return names, [*features, *corners]


def _flange(draft: Draft) -> tuple[Sequence[str], list[Feature]]:
    diameter, height = draft.length(30, 127), draft.length(3, 20)
    _tell_round(draft, diameter, "thick", height)
    features, inner = [Feature("disc", (diameter, height))], 0.0
    if draft.chance(0.35):
        hub, high = draft.length(10, diameter * 0.25), draft.length(5, 40)
        features.append(Feature("boss", (hub, high)))
        _tell_hub(draft, hub, high)
        bore, inner = draw_bore(draft, hub - 4, BORE), hub + 2.0
    else:
        bore = draw_bore(draft, diameter * 0.5, BORE, 4) if draft.chance(0.9) else []
        inner = bore[0].values[0] + 2.0 if bore else 0.0
    ring: list[Feature] = []
    while not ring:
        ring = draw_ring(draft, inner, diameter - 2)
    names = ("flange",) * 3 + ("round flange", "pipe flange", "mounting flange", "flanged disc")
    return names, [*features, *bore, *ring]


def _tell_round(draft: Draft, diameter: int, word: str, height: int, optional: float = 0.1) -> None:
    if not draft.chance(optional):
        if draft.chance(0.2):
            draft.tell("pre", ("{a} mm", "{a} mm diameter"), ("diameter",), a=diameter)
        else:
            tell_size(draft, "across", diameter, "diameter")
    if not draft.chance(optional):
        tell_size(draft, word, height, "height")


def _tell_hub(draft: Draft, diameter: int, height: int) -> None:
    words = ("a hub {a} mm in diameter and {b} mm high", "a {a} mm hub {b} mm high", "a {a} by {b} mm hub",
             "a hub of {a} mm diameter and {b} mm height", "a {b} mm high hub of {a} mm diameter")  # fmt: skip
    draft.tell("having", words, ("boss_1_diameter", "boss_1_height"), a=diameter, b=height)


def _washer(draft: Draft) -> tuple[Sequence[str], list[Feature]]:
    diameter = draft.length(6, 80)
    height = min(draft.length(0.5, min(8, diameter * 0.12)), int(WASHER * diameter))
    _tell_round(draft, diameter, "thick", height)
    bore = draw_bore(draft, diameter * 0.75, BORE, 2)
    return ("washer",) * 3 + ("flat washer", "ring", "shim", "flat ring"), [Feature("disc", (diameter, height)), *bore]


def _tube(draft: Draft) -> tuple[Sequence[str], list[Feature]]:
    diameter = draft.length(6, 80)
    height = draft.length(max(5, diameter * 0.3), 127)
    _tell_round(draft, diameter, draft.pick(("long", "long", "high")), height)
    bore = draw_bore(draft, diameter - 4, BORE, max(2, diameter * 0.2))
    return ("tube",) * 3 + ("pipe", "sleeve", "bushing", "spacer", "hollow cylinder"), [
        Feature("disc", (diameter, height)), *bore]  # fmt: skip


def _shaft(draft: Draft) -> tuple[Sequence[str], list[Feature]]:
    count = draft.pick((1, 2, 2, 3, 3, 4))
    sizes: list[tuple[int, int]] = []
    while len(sizes) < count:
        diameter, length = draft.length(5, 60), draft.length(5, 60 if count > 1 else 127)
        if not sizes or abs(diameter - sizes[-1][0]) >= 2:
            sizes.append((diameter, length))
    if count == 1:
        _tell_round(draft, sizes[0][0], "long", sizes[0][1])
        names: tuple[str, ...] = ("shaft", "shaft", "rod", "pin", "axle", "round bar", "cylinder")
    else:
        facts = [f"{boss}{what}" for boss in ("", "boss_1_", "boss_2_", "boss_3_")[:count]
                 for what in ("diameter", "height")]  # fmt: skip
        one = draft.pick(("{a} mm in diameter and {b} mm long", "{a} mm diameter {b} mm long", "{a} by {b} mm",
                          "diameter {a} mm length {b} mm", "{a} mm diameter for {b} mm"))  # fmt: skip
        told = [one.format(a=f"{a / 2:g}", b=f"{b / 2:g}") for a, b in sizes]
        listed = draft.pick((", ", " then ", ", then ")).join(told)
        steps = draft.pick(("{n} steps: {s}", "{n} sections: {s}", "{n} steps of {s}", "steps of {s}", "sections {s}"))
        if draft.chance(0.06):
            draft.tell("having", ("{n} steps", "{n} sections"), ("steps",), n=count)
        else:
            draft.tell("having", (steps,), ("steps", *facts), n=count, s=listed)
        names = ("shaft", "stepped shaft", "stepped shaft", "axle", "spindle")
    features = [Feature("disc", sizes[0]), *(Feature("boss", size) for size in sizes[1:])]
    if count > 1 and draft.chance(0.25):
        features += draw_bore(draft, min(size[0] for size in sizes) - 3, BORE)
    return names, features


def _gear(draft: Draft) -> tuple[Sequence[str], list[Feature]]:
    teeth, module = draft.whole(8, 40), draft.pick((2, 2, 3, 4, 4, 5, 6, 8))
    while module * (teeth + 2) > 255:
        module -= 1
    outer, root = module * (teeth + 2), math.floor(module * (teeth - 2.5))
    height = draft.length(2, 25)
    place = draft.pick(("pre", "post", "having", "having"))
    draft.tell(place, ("{n} tooth",) if place == "pre" else ("{n} teeth",), ("teeth",), n=teeth)
    _tell_round(draft, outer, draft.pick(("thick", "thick", "wide")), height, 0.15)
    if draft.chance(0.1):
        draft.tell("having", ("a root diameter of {a} mm", "root diameter {a} mm"), ("root_diameter",), a=root)
    features = [Feature("gear", (teeth, outer, root, height))]
    inside = root * math.cos(math.pi / 2 / teeth) - 2
    if draft.chance(0.25) and inside > 20:
        hub, high = draft.length(6, inside * 0.35), draft.length(3, 20)
        _tell_hub(draft, hub, high)
        features.append(Feature("boss", (hub, high)))
        features += draw_bore(draft, hub - 4, BORE)
    elif draft.chance(0.9):
        bore = draw_bore(draft, inside * 0.6, BORE)
        features += bore
        if draft.chance(0.15) and inside > 60:
            features += draw_ring(draft, bore[0].values[0] + 2, inside)
    return ("gear",) * 3 + ("spur gear", "spur gear", "gear wheel", "cog", "cogwheel"), features


_SIDES = {6: ("hex", "hexagonal"), 8: ("octagonal",), 4: ("square",), 5: ("pentagonal",)}


def _prism(draft: Draft, across: int, word: str, height: int, nouns: Sequence[str]) -> tuple[Sequence[str], Feature]:
    sides = draft.pick((6,) * 12 + (8, 4, 5))
    if sides != 6 or draft.chance(0.8):
        nouns = [f"{shape} {noun}" for shape in _SIDES[sides] for noun in nouns]
        draft.told.append("sides")
    if not draft.chance(0.1):
        tell_size(draft, "flats", across, "across_flats")
    if not draft.chance(0.12):
        tell_size(draft, word, height, "height")
    return nouns, Feature("prism", (sides, across, height))


def _nut(draft: Draft) -> tuple[Sequence[str], list[Feature]]:
    across = draft.length(5, 60)
    height = min(draft.length(2, across * 0.45), across)
    names, prism = _prism(draft, across, draft.pick(("high", "thick", "thick")), height, ("nut",))
    return names, [prism, *draw_bore(draft, across * 0.75, BORE)]


def _standoff(draft: Draft) -> tuple[Sequence[str], list[Feature]]:
    across = draft.length(4, 20)
    height = draft.length(across * 0.6 + 1, 80)
    nouns = ("standoff", "standoff", "spacer post")
    names, prism = _prism(draft, across, draft.pick(("long", "long", "high")), height, nouns)
    features = [prism]
    if draft.chance(0.3):
        stud, high = draft.length(2, (across - 2) / 2), draft.length(3, 15)
        words = ("a stud {a} mm in diameter and {b} mm long", "a {a} mm stud {b} mm long", "a {a} by {b} mm stud")
        draft.tell("having", words, ("boss_1_diameter", "boss_1_height"), a=stud, b=high)
        features.append(Feature("boss", (stud, high)))
    else:
        features += draw_bore(draft, across * 0.7, BORE)
    return names, features


_AT_CORNERS = ("in the corners", "near the corners", "at the corners", "one in each corner")
_FAMILIES: dict[str, Family] = {
    "plate": _plate, "bracket": _bracket, "channel": _channel, "enclosure": _enclosure, "flange": _flange,
    "washer": _washer, "tube": _tube, "shaft": _shaft, "gear": _gear, "nut": _nut, "standoff": _standoff,
}  # fmt: skip
