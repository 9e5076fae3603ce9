"""What a part is: its kind and its numbers, read back from a program.

Knows how a person calls the features of a part (part_features.py). Does not know texts, tokens or meshes. It serves to
measure generated parts against what was asked for.
"""

from __future__ import annotations

from collections.abc import Sequence

from girih.tokenizers.shape.cad import Program
from girih.tokenizers.shape.part_features import COUNTS, FEATURES, STEP, Feature, read

KINDS = ("plate", "bracket", "channel", "enclosure", "flange", "washer", "tube", "shaft", "gear", "nut", "standoff")
WASHER = 0.4  # a ring of at most this height, in parts of its diameter, is a washer, a higher one a tube
NUT = 1.0  # a prism of at most this height, in parts of its width across flats, is a nut, a higher one a standoff

# Feature -> names of its facts; "#" stands for the number of the boss (from below) or the single hole (from the left).
_NAMES = {
    "block": ("width", "depth", "height", "corner_radius"),
    "disc": ("diameter", "height"),
    "prism": ("sides", "across_flats", "height"),
    "gear": ("teeth", "diameter", "root_diameter", "height"),
    "pocket": ("wall_thickness", "floor_thickness"),
    "wall": ("wall_thickness", "total_height"),
    "walls": ("wall_thickness", "total_height"),
    "boss": ("boss_#_diameter", "boss_#_height"),
    "port": ("port_holes", "port_hole_diameter", "port_pitch"),
    "corners": ("corner_hole_diameter", "corner_hole_inset"),
    "bore": ("bore_diameter",),
    "ring": ("ring_holes", "ring_hole_diameter", "ring_diameter"),
    "window": ("window_width", "window_depth"),
    "row": ("row_holes", "row_hole_diameter", "row_pitch"),
    "hole": ("hole_#_diameter", "hole_#_x", "hole_#_y"),
}


def measure(program: Program) -> tuple[str, dict[str, float]]:
    """(one of ``KINDS``, facts) of a part, whatever the order of its steps.

    Facts are lengths in millimetres and counts by name: ``width depth height corner_radius diameter sides across_flats
    teeth root_diameter wall_thickness floor_thickness total_height steps``, ``boss_1_diameter boss_1_height ..``,
    ``bore_diameter``, ``window_width window_depth``, of holes ``corner_holes corner_hole_diameter corner_hole_inset``,
    ``ring_holes ring_hole_diameter ring_diameter``, ``row_holes row_hole_diameter row_pitch``, ``port_holes ..``,
    ``single_holes hole_1_diameter hole_1_x hole_1_y ..`` (positions from the left and the front edge; absent in the
    middle), and ``holes``, the round holes of all these. What a part does not have is absent, but for ``holes``.

    Raises:
        ValueError: the program is not made of the features of parts.
    """
    features = read(program)
    return kind_of(features), facts_of(features)


def kind_of(features: Sequence[Feature]) -> str:
    """What a person would call the part."""
    has = {name: values for name, values in features}
    if "gear" in has:
        return "gear"
    if "prism" in has:
        _, across, height = has["prism"]
        return "nut" if height <= NUT * across else "standoff"
    if "disc" in has:
        diameter, height = has["disc"]
        if "ring" in has:
            return "flange"
        if "boss" in has or "bore" not in has:
            return "shaft"
        return "washer" if height <= WASHER * diameter else "tube"
    special = {"pocket": "enclosure", "wall": "bracket", "walls": "channel"}
    return next((kind for name, kind in special.items() if name in has), "plate")


def facts_of(features: Sequence[Feature]) -> dict[str, float]:
    """The numbers of a part by name, as ``measure`` lists them."""
    facts: dict[str, float] = {}
    numbers: dict[str, int] = {}
    for name, values in features:
        numbers[name] = numbers.get(name, 0) + 1
        for fact, field, value in zip(_NAMES[name], FEATURES[name], values, strict=True):
            if value or field not in ("corner", "pitch", "x", "y"):  # there, 0 means: none, or the middle
                facts[fact.replace("#", str(numbers[name]))] = value if field in COUNTS else value * STEP
    if "corners" in numbers:
        facts["corner_holes"] = 4
    if "hole" in numbers:
        facts["single_holes"] = numbers["hole"]
    if "disc" in numbers:
        facts["steps"] = 1 + numbers.get("boss", 0)
    counted = ("corner_holes", "ring_holes", "row_holes", "port_holes", "single_holes")
    facts["holes"] = sum(facts.get(name, 0) for name in counted) + ("bore" in numbers)
    return facts
