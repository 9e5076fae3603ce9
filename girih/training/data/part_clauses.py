"""Sizes and holes that several families of parts share: how they are said, and the features that they are.

Knows phrases for sizes and holes, sensible hole sizes for the room there is, and the features they make. Does not know
families (parts.py), nor how clauses become a sentence (part_words.py). Values are half millimetres, but for the bounds
of ``Draft.length``, which are millimetres.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from girih.tokenizers.shape.part_features import Feature
from girih.training.data.part_words import Draft

_SIZES = {
    "wide": ("{a} mm wide", "width {a} mm", "{a} mm in width", "a width of {a} mm"),
    "deep": ("{a} mm deep", "depth {a} mm", "{a} mm in depth", "a depth of {a} mm"),
    "long": ("{a} mm long", "length {a} mm", "{a} mm in length", "a length of {a} mm"),
    "high": ("{a} mm high", "height {a} mm", "{a} mm tall", "a height of {a} mm"),
    "thick": ("{a} mm thick", "thickness {a} mm", "{a} mm in thickness", "a thickness of {a} mm"),
    "across": ("{a} mm in diameter", "diameter {a} mm", "{a} mm diameter", "outer diameter {a} mm",
               "{a} mm outer diameter", "{a} mm across", "a diameter of {a} mm"),
    "flats": ("{a} mm across flats", "{a} mm across the flats", "width across flats {a} mm", "{a} mm wide"),
    "walls": ("{a} mm thick walls", "walls {a} mm thick", "a wall thickness of {a} mm", "walls of {a} mm",
              "wall thickness {a} mm"),
    "floor": ("a {a} mm floor", "a floor {a} mm thick", "a floor of {a} mm", "a {a} mm thick bottom",
              "floor thickness {a} mm"),
    "corner": ("corners rounded with {a} mm", "rounded corners of {a} mm", "a corner radius of {a} mm",
               "{a} mm corner radius", "corners of {a} mm radius"),
}  # fmt: skip
# Of holes: {n} how many, {k} what kind of holes, {d} their diameter.
_HOLES = ("{n} {d} mm {k}holes", "{n} {k}holes {d} mm in diameter", "{n} {k}holes of {d} mm",
          "{n} {k}holes of {d} mm diameter", "{n} {k}holes with a diameter of {d} mm", "{n} {d} mm diameter {k}holes",
          "{n} {k}holes {d} mm wide", "{n} {k}holes diameter {d} mm")  # fmt: skip
_PLAIN_HOLES = ("{n} {k}holes",)
_INSET = ("{i} mm from the edges", "{i} mm from each edge", "inset {i} mm", "at {i} mm from the edges",
          "{i} mm in from the edges", "with their centres {i} mm from the edges")  # fmt: skip
_CIRCLE = ("on a {c} mm bolt circle", "on a bolt circle of {c} mm", "on a circle of {c} mm diameter",
           "on a {c} mm circle", "on a {c} mm pitch circle", "around a {c} mm circle")  # fmt: skip
_PITCH = ("{p} mm apart", "spaced {p} mm apart", "with {p} mm spacing", "at a pitch of {p} mm",
          "with a pitch of {p} mm")  # fmt: skip
_AT = ("{x} mm from the left edge and {y} mm from the front edge", "{x} mm from the left and {y} mm from the front",
       "at {x} mm from the left edge, {y} mm from the front edge")  # fmt: skip
_ON_LINE = ("on the centre line {x} mm from the left edge", "centred in depth, {x} mm from the left edge")
MIDDLE = ("a {d} mm hole in the middle", "a {d} mm hole in the centre", "a centred {d} mm hole",
           "a centre hole of {d} mm", "a central hole {d} mm in diameter", "a hole of {d} mm in the middle",
           "one {d} mm hole in the center", "a {d} mm diameter hole at the center",
           "a centered hole with a diameter of {d} mm")  # fmt: skip
BORE = ("a {d} mm bore", "a bore of {d} mm", "a {d} mm hole", "a hole {d} mm in diameter", "bore diameter {d} mm",
         "an inner diameter of {d} mm", "a {d} mm centre hole", "a {d} mm hole through the middle",
         "a through hole of {d} mm", "inner diameter {d} mm", "{d} mm inner diameter")  # fmt: skip


def tell_size(draft: Draft, word: str, value: int, *facts: str) -> None:
    phrase = draft.pick(_SIZES[word])
    having = word in ("walls", "floor", "corner") or phrase.startswith("a ")
    draft.tell("having" if having else "post", (phrase,), facts, a=value)


def tell_sizes(draft: Draft, sizes: Sequence[tuple[str, int, tuple[str, ...]]], optional: float = 0.12) -> None:
    """Three sizes (word, value, facts): as "60 by 40 by 5", as "60 by 40" and the third by its word, or all by words
    in any order; now and then something is left out."""
    form = draft.rng.random()
    joined = 3 if form < 0.3 else 2 if form < 0.7 else 0
    if joined:
        by = draft.pick((" by ", " by ", " x ", " x ", " mm by ", " mm x "))
        template = by.join(("{a}", "{b}", "{c}")[:joined]) + " mm"
        values = {name: size[1] for name, size in zip("abc", sizes[:joined], strict=False)}
        place = draft.pick(("pre", "post", "post"))
        wordings = (template,) if place == "pre" else (template, template, "of " + template, "measuring " + template)
        draft.tell(place, wordings, [fact for size in sizes[:joined] for fact in size[2]], **values)
    for word, value, facts in sizes[joined:]:
        if not draft.chance(optional):
            tell_size(draft, word, value, *facts)


def tell_block(draft: Draft, width: int, depth: int, third: tuple[str, int, tuple[str, ...]]) -> tuple[int, int]:
    """Wide and deep, or long and wide, which is only plain when both are told and the first is longer."""
    if draft.chance(0.75):
        tell_sizes(draft, (("wide", width, ("width",)), ("deep", depth, ("depth",)), third))
        return width, depth
    width, depth = max(width, depth), min(width, depth)
    tell_sizes(draft, (("long", width, ("width",)), ("wide", depth, ("depth",)), third), 0.0)
    return width, depth


def tell_holes(draft: Draft, prefix: str, count: int, diameter: int, kinds: Sequence[str], places: Sequence[str],
               position: Sequence[str] = (), facts: Sequence[str] = (), **values: int) -> None:
    """"four 5 mm corner holes 6 mm from the edges"; a kind or a place says which holes, and the position is told too,
    where there is one; the diameter is left out now and then."""
    bare = draft.chance(0.15)
    wording = draft.pick(_PLAIN_HOLES if bare else _HOLES)
    if count == 1:
        wording = wording.replace("holes", "hole")
    if prefix == "corner" and draft.chance(0.1):
        wording = wording.removeprefix("{n} ")
    kind = draft.pick((*kinds, *[""] * len(places)) or ("",))
    where = [] if kind or not places else [draft.pick(places)]
    if position:
        where.append(draft.pick(position))
    told = [f"{prefix}_holes", "holes", *facts, *([] if bare else [f"{prefix}_hole_diameter"])]
    number = draft.pick(("a", "one")) if count == 1 else count
    draft.tell("having", (" ".join(filter(None, [wording, *where])),), told, n=number, k=kind, d=diameter, **values)


# Features that several families share; each returns the features that it adds. What a cut must stay away from is
# part_room.py's: half a millimetre from everything, and ``rim`` from the edges of a block.


def rim_of(corner: int, wall: int = 0) -> float:
    return 1 + wall + max(0, corner - wall) * (1 - 0.5**0.5)


def draw_corners(draft: Draft, width: int, depth: int, rim: float, places: Sequence[str]) -> list[Feature]:
    side = min(width, depth)
    diameter = draft.length(2, min(10, side / 12))
    least, most = math.ceil(diameter / 2 + rim), math.floor((side - diameter - 3) / 2)
    inset = draft.length(least / 2 + 0.5, min(most / 2, max(least / 2 + 1, side / 8)))
    if not least <= inset <= most:
        return []
    inset_words, told = (_INSET, ("corner_hole_inset",)) if draft.chance(0.75) else ((), ())
    if draft.chance(0.12):
        phrase = draft.pick(("a {d} mm hole in each corner", "a hole of {d} mm in each corner"))
        where = [phrase, draft.pick(inset_words)] if inset_words else [phrase]
        draft.tell("having", (" ".join(where),), ("corner_holes", "corner_hole_diameter", "holes", *told), d=diameter,
                   i=inset)  # fmt: skip
    else:
        kinds = ("corner ", "corner ", "corner mounting ", "corner screw ")
        tell_holes(draft, "corner", 4, diameter, kinds, places, inset_words, told, i=inset)
    return [Feature("corners", (diameter, inset))]


def clear_of(width: int, depth: int, rim: float, corners: Sequence[Feature]) -> float:
    """Largest diameter in the middle of a block."""
    across = min(width, depth) - 2 * rim
    for _, (diameter, inset) in corners:
        across = min(across, 2 * math.hypot(width / 2 - inset, depth / 2 - inset) - diameter - 2)
    return across


def draw_bore(draft: Draft, across: float, words: Sequence[str], least: float = 2) -> list[Feature]:
    """A hole in the middle of at most ``across``."""
    if across < 2 * least:
        return []
    diameter = min(draft.length(least, across / 2), math.floor(across))
    if draft.chance(0.1):
        bare = ("a hole in the middle", "a hole in the centre", "a centre hole", "a centred hole", "a central hole")
        draft.tell("having", bare, ("holes",))
    else:
        draft.tell("having", words, ("bore_diameter", "holes"), d=diameter)
    return [Feature("bore", (diameter,))]


def draw_ring(draft: Draft, inner: float, outer: float, largest: float = 12) -> list[Feature]:
    """Holes on a circle, between two diameters."""
    count = draft.pick((3, 4, 4, 5, 6, 6, 8, 8, 10, 12))
    chord = math.sin(math.pi / count)
    diameter = draft.length(1.5, min(largest, (outer - inner) / 8, outer * chord / 8))
    least, most = max(inner + diameter, (diameter + 1) / chord), outer - diameter
    circle = draft.length((0.7 * least + 0.3 * most) / 2, (0.3 * least + 0.7 * most) / 2)
    if not least <= circle <= most:
        return []
    tells = draft.chance(0.85)
    places = ("on a bolt circle", "evenly spaced around the centre", "in a circle", "around the middle")
    tell_holes(draft, "ring", count, diameter, () if tells else ("bolt ", "bolt "), () if tells else places,
               _CIRCLE if tells else (), ("ring_diameter",) if tells else (), c=circle)
    return [Feature("ring", (count, diameter, circle))]


def draw_row(draft: Draft, prefix: str, width: float, height: float, places: Sequence[str],
             least: int = 2) -> list[Feature]:
    """Holes in a line within a width and a height, the prefix "row" or "port"."""
    if min(width, height) < 8:
        return []
    count = min(draft.pick((least, 2, 2, 3, 3, 4)), int(width // 10))
    if count < least:
        return []
    diameter = draft.length(1.5, min(10, height / 3, width / count / 4))
    pitch = 0 if count == 1 else draft.length((diameter + 2) / 2, max((width - diameter) / (count - 1) / 2 - 0.5, 0))
    if count > 1 and not diameter + 1 <= pitch <= (width - diameter) / (count - 1):
        return []
    tells = count > 1 and draft.chance(0.8)
    tell_holes(draft, prefix, count, diameter, (), places, _PITCH if tells else (),
               (f"{prefix}_pitch",) if tells else (), p=pitch)
    return [Feature(prefix, (count, diameter, pitch))]


def draw_window(draft: Draft, width: float, depth: float) -> list[Feature]:
    """A rectangle in the middle of a free width and depth."""
    if min(width, depth) < 20:
        return []
    wide, deep = draft.length(4, width * 0.35), draft.length(4, depth * 0.35)
    pair = draft.pick(("{a} by {b} mm", "{a} x {b} mm"))
    draft.tell("having", (f"a {pair} window in the middle", f"a rectangular cutout of {pair}", f"a {pair} cutout",
                          f"a centred rectangular opening {pair}", f"a {pair} opening in the centre"),
               ("window_width", "window_depth"), a=wide, b=deep)  # fmt: skip
    return [Feature("window", (wide, deep))]


def draw_singles(draft: Draft, width: int, depth: int, rim: float) -> list[Feature]:
    """One or two holes that are measured from the left and the front edge."""
    holes: list[Feature] = []
    left = rim
    for i in range(draft.pick((1, 1, 2))):
        diameter = draft.length(2, min(12, depth / 8))
        low, high = left + diameter / 2, width * (0.45 if i == 0 else 1) - rim - diameter / 2
        x = draft.length(low / 2 + 0.5, high / 2)
        y = 0 if draft.chance(0.2) else draft.length((rim + diameter / 2) / 2 + 0.5, (depth - rim - diameter / 2) / 2)
        fits = low <= x <= high and x != width / 2 and y != depth / 2 and diameter <= depth - 2 * rim - 2
        if not fits or (y and not rim + diameter / 2 <= y <= depth - rim - diameter / 2):
            break
        left = x + diameter / 2 + 1
        number = len(holes) + 1
        facts = [f"hole_{number}_diameter", f"hole_{number}_x", "holes"] + [f"hole_{number}_y"] * bool(y)
        phrase = draft.pick(("a {d} mm hole ", "a hole of {d} mm ", "one {d} mm hole ", "a hole {d} mm in diameter "))
        draft.tell("having", [phrase + place for place in (_AT if y else _ON_LINE)], facts, d=diameter, x=x, y=y)
        holes.append(Feature("hole", (diameter, x, y)))
    return holes
