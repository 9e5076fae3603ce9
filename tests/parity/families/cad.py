"""CAD programs: the pair tokens of CAD-SIGNet / Text2CAD and the vectors of DeepCAD."""

from __future__ import annotations

from typing import Any

from girih.tokenizers.shape.cad import BOOLEANS, EXTENTS, Arc, Circle, Curve, Extrusion, Face, Line, Plane
from girih.tokenizers.shape.cad_json import program_from_json
from girih.tokenizers.shape.cad_planes import euler
from girih.tokenizers.shape.cad_tokens import CadTokenizer, quantised
from girih.tokenizers.shape.cad_vectors import ARGUMENTS, CadVectorTokenizer

from .case import Case, Family


def cadsignet_tokens(case: Case) -> dict[str, Any]:
    """A program normalised, quantised, as pairs with flags and indices, and decoded."""
    tokenizer = CadTokenizer(max_length=case.description["args"]["max_len"], wrap_angles=False, second_extent=False)
    framed = tokenizer.framed(program_from_json(case.inputs["model"]))
    tokens = tokenizer.encode(framed)
    pairs = tokenizer.pairs(tokens)
    return {
        "normalised": [_pair(one, one.faces) for one in framed.extrusions],
        "quantised": [_quantised(tokenizer, one) for one in framed.extrusions],
        "cad_vec": pairs[0],
        "flag_vec": tokenizer.flags(pairs)[0],
        "index_vec": tokenizer.indices(pairs)[0],
        "decoded": [_pair(one, one.sized.faces, derived=False) for one in tokenizer.decode(tokens)[0].extrusions],
        "n_tokens": tokens.shape[1] // 2,
    }


def _pair(one: Extrusion, faces: tuple[Face, ...], derived: bool = True) -> dict[str, Any]:
    angles = euler(one.plane)
    return {"extent_one": one.sides[0], "extent_two": one.sides[1], "boolean": BOOLEANS.index(one.boolean),
            "sketch_size": one.unit * 255, "origin": one.plane.origin, "euler_zyx": angles, "axes": _axes(one.plane),
            "faces": [[[_curve(c, c if derived else None) for c in loop.curves] for loop in face.loops]
                      for face in faces]}  # fmt: skip


def _quantised(tokenizer: CadTokenizer, one: Extrusion) -> dict[str, Any]:
    """The peer keeps the axes, and of arcs the centre and radius, as they were; of circles the radius rounds alone."""
    bins = tokenizer.bins(one)
    faces = [[[_curve(c, was) for c, was in zip(a.curves, b.curves, strict=True)]
              for a, b in zip(face.loops, before.loops, strict=True)]
             for face, before in zip(quantised(one), one.faces, strict=True)]  # fmt: skip
    return {"extent_one": bins[0], "extent_two": bins[1], "origin": bins[2:5], "euler_zyx": bins[5:8],
            "boolean": bins[8], "sketch_size": bins[9], "axes": _axes(one.plane), "faces": faces}  # fmt: skip


def _axes(plane: Plane) -> list[Any]:
    return [plane.x_axis, plane.y_axis, plane.normal]


def _curve(curve: Curve, original: Curve | None) -> dict[str, Any]:
    """A curve as the recording has it; ``original``: the curve whose centre and radius it says, if it says them."""
    if isinstance(curve, Circle):
        radius = curve.radius if original in (None, curve) else int(original.radius + 0.5)
        x, y = curve.center
        return {"kind": "circle", "center": curve.center, "radius": radius, "pt1": (x, y + curve.radius)}
    points = {"start_point": curve.start, "end_point": curve.end}
    if not isinstance(curve, Arc):
        return {"kind": "line", **points}
    more = {} if original is None else {"center": original.center, "radius": original.radius}
    return {"kind": "arc", **points, "mid_point": curve.mid, **more}


def _tolerance(description: dict[str, Any], name: str) -> str:
    """Vectors are exact; nested values hold whole numbers and floats, for which the looser one is stated."""
    vectors = ("cad_vec", "flag_vec", "index_vec", "n_tokens", "vec", "cmd_args_mask")
    return "exact" if name in vectors else f"atol {description['tolerance']['floats']}"


def deepcad_vec(case: Case) -> dict[str, Any]:
    """A program normalised, as 60 rows of a command and 16 arguments, and decoded."""
    tokenizer = CadVectorTokenizer(max_rows=case.description["args"]["max_total_len"], as_published=True)
    framed = tokenizer.framed(program_from_json(case.inputs["model"]))
    tokens = tokenizer.encode(framed)
    decoded = [{**_parameters(tokenizer, one), "normal": one.plane.normal, "x_axis": one.plane.x_axis,
                "loops": [[_command(curve) for curve in loop.curves]
                          for loop in one.faces[0].moved((128, 128), 1).loops]}
               for one in tokenizer.decode(tokens)[0].extrusions]  # fmt: skip
    return {
        "normalised": [_parameters(tokenizer, one) for one in framed.extrusions],
        "vec": tokenizer.vectors(tokens)[0],
        "decoded": decoded,
        "cmd_args_mask": ARGUMENTS.long(),
    }


def _parameters(tokenizer: CadVectorTokenizer, one: Extrusion) -> dict[str, Any]:
    theta, phi, gamma = tokenizer.angles(one.plane)
    return {"theta": theta, "phi": phi, "gamma": gamma, "sketch_pos": one.plane.origin, "sketch_size": one.unit * 95,
            "extent_one": one.distances[0], "extent_two": one.distances[1], "operation": BOOLEANS.index(one.boolean),
            "extent_type": EXTENTS.index(one.extent)}  # fmt: skip


def _command(curve: Curve) -> dict[str, Any]:
    out = {"kind": type(curve).__name__, "start": curve.start, "end": curve.end}
    if isinstance(curve, Arc):
        out["mid"] = curve.mid
    return out if isinstance(curve, Line) else {**out, "center": curve.center, "radius": curve.radius}


FAMILIES = {
    "deepcad_vec": Family(deepcad_vec, inputs=("model",), tolerance=_tolerance),
    "cadsignet_tokens": Family(cadsignet_tokens, inputs=("model",), tolerance=_tolerance),
}
