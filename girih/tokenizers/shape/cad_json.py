"""Sketch-and-extrude programs from and to JSON as the DeepCAD data set has it (Onshape's feature list, metres).

Knows entities, profiles and extrude features. Does not know tokens or meshes.
"""

from __future__ import annotations

import json
import math
import os
from itertools import groupby
from pathlib import Path
from typing import Any

from girih.files import whole
from girih.tokenizers.shape.cad import Arc, Circle, Curve, Extrusion, Face, Line, Loop, Plane, Point, Program, Vector

_BOOLEANS = {
    "new": "NewBodyFeatureOperation",
    "join": "JoinFeatureOperation",
    "cut": "CutFeatureOperation",
    "intersect": "IntersectFeatureOperation",
}
_EXTENTS = {
    "one_side": "OneSideFeatureExtentType",
    "symmetric": "SymmetricFeatureExtentType",
    "two_sides": "TwoSidesFeatureExtentType",
}


def program_from_json(data: dict[str, Any] | str | os.PathLike[str]) -> Program:
    """A parsed JSON object, or the path of a file, to a program, curves, loops and faces in the order of the file.

    An extrude feature of several profiles becomes one extrusion per sketch; of a new body, those after the first join.
    Lines of no length are left out. Numbers keep the file's unit.

    Raises:
        ValueError: in one line: what is missing, of an unknown kind, open or encloses nothing.
        OSError: the file cannot be read.
    """
    if not isinstance(data, dict):
        data = _read(Path(data))
    try:
        features = [item["entity"] for item in data["sequence"] if item["type"] == "ExtrudeFeature"]
        extrusions = [one for name in features for one in _extrusions(data["entities"], name)]
        box = data.get("properties", {}).get("bounding_box")
        bounds = None if box is None else (_vector(box["min_point"]), _vector(box["max_point"]))
    except KeyError as error:
        raise ValueError(f"the CAD JSON has no entry {error}") from error
    except (TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"the CAD JSON is not laid out as expected: {error}") from error
    return Program(tuple(extrusions), bounds).checked()


def _read(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text("utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path.name} is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise ValueError(f"{path.name} holds a JSON {type(data).__name__}, not an object")
    return data


def _extrusions(entities: dict[str, Any], name: str) -> list[Extrusion]:
    feature = entities[name]
    start = feature["start_extent"]["type"]
    if start != "ProfilePlaneStartDefinition":
        raise ValueError(f"extrusion {name!r} starts from {start!r}; only ProfilePlaneStartDefinition is supported")
    boolean = _known(_BOOLEANS, feature["operation"], "operation")
    extent = _known(_EXTENTS, feature["extent_type"], "extent_type")
    one = float(feature["extent_one"]["distance"]["value"])
    two = float(feature["extent_two"]["distance"]["value"]) if extent == "two_sides" else 0.0
    found: list[Extrusion] = []
    for sketch, group in groupby(feature["profiles"], key=lambda profile: profile["sketch"]):
        frame = entities[sketch]["transform"]
        plane = Plane(_vector(frame["origin"]), _vector(frame["x_axis"]), _vector(frame["y_axis"]))
        faces = tuple(_face(entities[sketch]["profiles"][profile["profile"]]) for profile in group)
        found.append(Extrusion(faces, plane, (one, two), extent, "join" if boolean == "new" and found else boolean))
    return found


def _face(profile: dict[str, Any]) -> Face:
    loops = []
    for loop in profile["loops"]:
        curves = tuple(_curve(entry) for entry in loop["profile_curves"])
        loops.append(Loop(tuple(c for c in curves if isinstance(c, Circle) or c.start != c.end)))
    return Face(tuple(loops))


def _curve(entry: dict[str, Any]) -> Curve:
    kind = entry["type"]
    if kind == "Line3D":
        return Line(_point(entry["start_point"]), _point(entry["end_point"]))
    if kind == "Circle3D":
        return Circle(_point(entry["center_point"]), float(entry["radius"]))
    if kind != "Arc3D":
        raise ValueError(f"curve type {kind!r} is not supported; known: Line3D, Arc3D, Circle3D")
    angles = float(entry["start_angle"]), float(entry["end_angle"])
    # Angles are counted about the curve's normal, from its reference direction.
    middle = sum(angles) / 2 * math.copysign(1.0, entry["normal"]["z"])
    (x, y), (u, v), radius = _point(entry["center_point"]), _point(entry["reference_vector"]), float(entry["radius"])
    c, s = math.cos(middle) * radius, math.sin(middle) * radius
    mid = x + c * u - s * v, y + s * u + c * v
    return Arc(_point(entry["start_point"]), mid, _point(entry["end_point"]), angles)


def _known(table: dict[str, str], value: str, what: str) -> str:
    for name, peer in table.items():
        if peer == value:
            return name
    raise ValueError(f"{what} {value!r} is unknown; known: {', '.join(table.values())}")


def _point(entry: dict[str, Any]) -> Point:
    return float(entry["x"]), float(entry["y"])


def _vector(entry: dict[str, Any]) -> Vector:
    return float(entry["x"]), float(entry["y"]), float(entry["z"])


def program_to_json(program: Program) -> dict[str, Any]:
    """The same layout back: sketch S1 with its profiles, feature E1, and so on. Raises ValueError if it is invalid."""
    entities: dict[str, Any] = {}
    sequence = []
    for i, one in enumerate((one.sized for one in program.checked().extrusions), 1):
        profiles = {f"P{j}": {"loops": _loops(face), "properties": {}} for j, face in enumerate(one.faces, 1)}
        axes = {"origin": one.plane.origin, "x_axis": one.plane.x_axis, "y_axis": one.plane.y_axis,
                "z_axis": one.plane.normal}  # fmt: skip
        frame = {name: _xyz(axis) for name, axis in axes.items()}
        entities[f"S{i}"] = {"type": "Sketch", "name": f"Sketch {i}", "transform": frame, "profiles": profiles}
        entities[f"E{i}"] = {
            "type": "ExtrudeFeature",
            "name": f"Extrude {i}",
            "profiles": [{"sketch": f"S{i}", "profile": name} for name in profiles],
            "operation": _BOOLEANS[one.boolean],
            "start_extent": {"type": "ProfilePlaneStartDefinition"},
            "extent_type": _EXTENTS[one.extent],
            "extent_one": {"distance": {"type": "ModelParameter", "value": one.distances[0]}},
            "extent_two": {"distance": {"type": "ModelParameter", "value": one.distances[1]}},
        }
        sequence += [{"type": "Sketch", "entity": f"S{i}"}, {"type": "ExtrudeFeature", "entity": f"E{i}"}]
    low, high = program.box
    box = {"type": "BoundingBox3D", "min_point": _xyz(low), "max_point": _xyz(high)}
    return {"entities": entities, "sequence": sequence, "properties": {"bounding_box": box}}


def write_program(program: Program, path: str | os.PathLike[str]) -> None:
    """Writes the JSON, whole or not at all."""
    text = json.dumps(program_to_json(program), indent=1)
    with whole(path) as part:
        part.write_text(text, "utf-8")


def _loops(face: Face) -> list[dict[str, Any]]:
    return [{"is_outer": i == 0, "profile_curves": [_entry(curve) for curve in loop.curves]}
            for i, loop in enumerate(face.loops)]  # fmt: skip


def _entry(curve: Curve) -> dict[str, Any]:
    if isinstance(curve, Line):
        return {"type": "Line3D", "start_point": _xyz(curve.start), "end_point": _xyz(curve.end)}
    up = {"center_point": _xyz(curve.center), "radius": curve.radius, "normal": _xyz((0.0, 0.0, 1.0))}
    if isinstance(curve, Circle):
        return {"type": "Circle3D", **up}
    # Counted counter-clockwise, so a clockwise arc is counted from its end.
    begin = curve.start if curve.sweep > 0 else curve.end
    reference = (begin[0] - curve.center[0]) / curve.radius, (begin[1] - curve.center[1]) / curve.radius
    return {"type": "Arc3D", "start_point": _xyz(curve.start), "end_point": _xyz(curve.end), **up, "start_angle": 0.0,
            "end_angle": abs(curve.sweep), "reference_vector": _xyz(reference)}  # fmt: skip


def _xyz(values: tuple[float, ...]) -> dict[str, float]:
    return dict(zip("xyz", (*values, 0.0)[:3], strict=True))
