"""CAD programs as data: geometry, canonical order, JSON both ways, and what is refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from girih.tokenizers.shape.cad import Arc, Circle, Extrusion, Face, Line, Loop, Plane, Program
from girih.tokenizers.shape.cad_json import program_from_json, program_to_json, write_program

from .programs import arc, loop, plate, program, ring

SEEDS = st.integers(0, 2**32 - 1)


@given(st.floats(0, 6), st.floats(0.1, 6.1), st.booleans())
def test_arc_finds_its_circle_sweep_and_box(begin: float, sweep: float, clockwise: bool) -> None:
    one = arc((3.0, -2.0), 5.0, begin, begin + (-sweep if clockwise else sweep))
    assert math.dist(one.center, (3.0, -2.0)) < 1e-6 and abs(one.radius - 5) < 1e-6
    assert one.sweep == pytest.approx(-sweep if clockwise else sweep, abs=1e-6)
    (x0, y0), (x1, y1) = one.bounds
    way = [begin + one.sweep * k / 2000 for k in range(2001)]
    xs, ys = [3 + 5 * math.cos(a) for a in way], [-2 + 5 * math.sin(a) for a in way]
    assert (x0, y0, x1, y1) == pytest.approx((min(xs), min(ys), max(xs), max(ys)), abs=1e-4)


@given(SEEDS)
def test_canonical_order_does_not_depend_on_how_a_loop_is_given(seed: int) -> None:
    import numpy as np

    rng = np.random.default_rng(seed)
    one = loop(rng, 3.0, 4.0, 10.0)
    curves = list(one.curves)
    if not isinstance(curves[0], Circle):
        turn = rng.integers(len(curves))
        curves = curves[turn:] + curves[:turn]
        if rng.random() < 0.5:
            curves = [curve.reversed() for curve in reversed(curves)]
        curves = [curve.reversed() if rng.random() < 0.5 else curve for curve in curves]
    assert Loop(tuple(curves)).canonical() == one.canonical()
    again = one.canonical()
    assert again.canonical() == again
    assert again.start == min(curve.start for curve in again.curves)


def test_reversed_lines_of_a_triangle_become_a_chain() -> None:
    a, b, c = (0.0, 0.0), (4.0, 0.0), (0.0, 3.0)
    assert Loop((Line(b, a), Line(b, c), Line(a, c))).canonical() == Loop((Line(a, b), Line(b, c), Line(c, a)))


def test_outer_loop_comes_first() -> None:
    outer, hole = Loop(tuple(ring([(0, 0), (9, 0), (9, 9), (0, 9)]))), Loop((Circle((4.0, 4.0), 1.0),))
    assert Face((hole, outer)).canonical() == Face((outer, hole))


def test_simplified_drops_what_encloses_nothing() -> None:
    square = ring([(0, 0), (9, 0), (9, 9), (0, 9)])
    with_extras = [square[0], Line((9, 0), (9, 0)), Arc((9, 0), (9, 5), (9, 9)), *square[2:]]
    assert Loop(tuple(with_extras)).simplified() == Loop(tuple(square))
    assert Loop(tuple(ring([(0, 0), (5, 0), (9, 0)]))).simplified() is None
    there_and_back = Arc((0, 0), (5, 5), (10, 0)), Arc((10, 0), (5, 5), (0, 0))
    assert Loop(there_and_back).simplified() is None
    assert Loop((there_and_back[0], Arc((10, 0), (5, -5), (0, 0)))).simplified() is not None


def test_span_of_each_extent() -> None:
    one = plate().extrusions[0]
    assert replace(one, distances=(-4.0, 0.0)).span == (-4.0, 0.0)
    assert replace(one, distances=(6.0, 0.0), extent="symmetric").span == (-3.0, 3.0)
    assert replace(one, distances=(6.0, 2.0), extent="two_sides").span == (-2.0, 6.0)


def test_box_and_moving() -> None:
    assert plate().box == ((0.0, 0.0, 0.0), (60.0, 40.0, 5.0))
    assert plate().moved((1.0, 2.0, 3.0), 2.0).box == ((2.0, 4.0, 6.0), (122.0, 84.0, 16.0))


@given(SEEDS)
def test_json_round_trip(seed: int) -> None:
    one = program(seed)
    back = program_from_json(json.loads(json.dumps(program_to_json(one))))
    assert len(back.extrusions) == len(one.extrusions)
    for a, b in zip(one.extrusions, back.extrusions, strict=True):
        assert (a.boolean, a.extent, a.distances, a.plane) == (b.boolean, b.extent, b.distances, b.plane)
        curves = [[c for face in e.faces for ring in face.loops for c in ring.curves] for e in (a, b)]
        for c, d in zip(*curves, strict=True):
            assert type(c) is type(d) and math.dist(c.start, d.start) < 1e-9 and math.dist(c.end, d.end) < 1e-9
            if isinstance(c, Arc):
                assert math.dist(c.mid, d.mid) < 1e-6


def test_json_file(tmp_path) -> None:
    write_program(plate(), tmp_path / "plate.json")
    assert program_from_json(tmp_path / "plate.json").extrusions == plate().extrusions


def _data() -> dict:
    return program_to_json(plate())


def _curves(data: dict) -> list:
    return data["entities"]["S1"]["profiles"]["P1"]["loops"][0]["profile_curves"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("sequence"), "no entry 'sequence'"),
        (lambda d: d["sequence"].clear(), "no extrusions"),
        (lambda d: _curves(d)[0].update(type="Spline3D"), "'Spline3D' is not supported"),
        (lambda d: _curves(d).pop(), "open"),
        (lambda d: _curves(d).clear(), "no curves"),
        (lambda d: _curves(d)[0]["start_point"].update(x=float("nan")), "not finite|open"),
        (lambda d: _curves(d)[0]["start_point"].update(x="wide"), "could not convert"),
        (lambda d: d["entities"]["E1"].update(operation="Explode"), "'Explode' is unknown"),
        (lambda d: d["entities"]["E1"].update(operation="CutFeatureOperation"), "must be a new body"),
        (lambda d: d["entities"]["E1"]["extent_one"]["distance"].update(value=0), "no thickness"),
        (lambda d: d["entities"]["E1"]["start_extent"].update(type="OffsetDefinition"), "'OffsetDefinition'"),
        (lambda d: d["entities"]["S1"]["transform"]["x_axis"].update(x=0.5), "right angle"),
        (lambda d: d.update(entities=[]), "laid out"),
    ],
)
def test_bad_json_is_one_clear_line(change, message: str) -> None:
    data = _data()
    change(data)
    with pytest.raises(ValueError, match=message) as error:
        program_from_json(data)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b"[" * 100_000])
def test_a_file_that_is_no_program(tmp_path, content: bytes) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(ValueError, match="x.json"):
        program_from_json(tmp_path / "x.json")


def test_bad_programs() -> None:
    one = plate().extrusions[0]
    circle, line = Circle((0.0, 0.0), 1.0), Line((0.0, 0.0), (1.0, 0.0))
    for bad, message in (
        (replace(one, faces=()), "no faces"),
        (replace(one, faces=(Face(()),)), "without a loop"),
        (replace(one, faces=(Face((Loop((circle, line)),)),)), "alone in its loop"),
        (replace(one, faces=(Face((Loop((replace(circle, radius=0.0),)),)),)), "encloses nothing"),
        (replace(one, extent="both"), "extent must be one of"),
        (replace(one, unit=0.0), "unit"),
        (replace(one, distances=(1e200, 0.0)), "up to 1e"),
        (replace(one, faces=(one.faces[0].moved((0.0, 0.0), 1e200),)), "up to 1e"),
        (replace(one, faces=(one.faces[0].moved((0.0, 0.0), 1e-9),)), "encloses nothing|across"),
        (replace(one, plane=Plane(origin=(math.inf, 0.0, 0.0))), "finite"),
    ):
        with pytest.raises(ValueError, match=message):
            Program((bad,)).checked()
    assert Program((one, Extrusion(one.faces, boolean="cut"))).checked()


@pytest.mark.parametrize("count", [50, pytest.param(2000, marks=pytest.mark.slow)])
def test_fuzzed_files_are_a_program_or_one_clear_line(tmp_path, count: int) -> None:
    import numpy as np

    rng = np.random.default_rng(0)
    whole = json.dumps(program_to_json(program(3))).encode()
    for _ in range(count):
        data = bytearray(whole)
        for _ in range(rng.integers(1, 6)):
            at = int(rng.integers(len(data)))
            data[at : at + int(rng.integers(1, 4))] = [b"9", b"{", b"e9", b"\x00", b"-", b"null", b""][rng.integers(7)]
        (tmp_path / "x.json").write_bytes(data[: rng.integers(len(data))] if rng.random() < 0.1 else data)
        try:
            assert program_from_json(tmp_path / "x.json").checked()
        except ValueError as error:
            assert str(error) and "\n" not in str(error)
