"""CAD programs as meshes and STEP files: closed, of the right volume, and read again by the kernel."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from girih.tokenizers.shape.cad import Circle, Extrusion, Face, Loop, Plane, Program
from girih.tokenizers.shape.cad_tokens import CadTokenizer

from ..walks import walk
from .programs import plate, program, ring

pytest.importorskip("manifold3d")
pytest.importorskip("trimesh")
from girih.tokenizers.shape.cad_mesh import program_mesh  # noqa: E402

PLATE = (60 * 40 - 16 * math.pi) * 5


def post(boolean: str, at: tuple[float, float] = (50.0, 30.0), height: float = 20.0) -> Extrusion:
    """A round post of radius 5 on the ground."""
    return Extrusion((Face((Loop((Circle(at, 5.0),)),)),), distances=(height, 0.0), boolean=boolean)


@pytest.mark.parametrize(
    ("more", "volume"),
    [
        ((), PLATE),
        ((post("join"),), PLATE + 25 * math.pi * 15),
        ((post("new"),), PLATE + 25 * math.pi * 15),
        ((post("cut"),), PLATE - 25 * math.pi * 5),
        ((post("intersect"),), 25 * math.pi * 5),
        ((replace(post("cut", (30.0, 20.0)), distances=(-3.0, 0.0)),), PLATE),
    ],
)
def test_volume_and_closedness(more: tuple[Extrusion, ...], volume: float) -> None:
    mesh = program_mesh(Program((*plate().extrusions, *more)), segments=256)
    assert mesh.is_watertight and mesh.is_winding_consistent
    assert mesh.volume == pytest.approx(volume, rel=2e-3)


@pytest.mark.parametrize(
    ("extent", "distances", "bottom", "top"),
    [("one_side", (5.0, 0.0), 0, 5), ("one_side", (-5.0, 0.0), -5, 0), ("symmetric", (5.0, 0.0), -2.5, 2.5),
     ("two_sides", (4.0, 1.0), -1, 4), ("two_sides", (4.0, -1.0), 0, 4)],
)  # fmt: skip
def test_extents(extent: str, distances: tuple[float, float], bottom: float, top: float) -> None:
    mesh = program_mesh(Program((replace(plate().extrusions[0], extent=extent, distances=distances),)))
    assert mesh.bounds[:, 2].tolist() == pytest.approx([bottom, top], abs=1e-6)


def test_plane_and_unit() -> None:
    plane = Plane((1.0, 2.0, 3.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    mesh = program_mesh(Program((replace(plate().extrusions[0], plane=plane, unit=0.1),)))
    assert mesh.bounds.tolist() == pytest.approx(np.array([[1, 2, 3], [6, 8, 7]]))


def test_a_profile_that_crosses_itself_and_a_hole_over_the_edge_still_close() -> None:
    bow = Loop(tuple(ring([(0, 0), (10, 10), (10, 0), (0, 10)])))
    assert program_mesh(Program((Extrusion((Face((bow,)),)),))).volume == pytest.approx(50, rel=1e-6)
    outer, hole = Loop(tuple(ring([(0, 0), (9, 0), (9, 9), (0, 9)]))), Loop((Circle((9.0, 4.0), 3.0),))
    mesh = program_mesh(Program((Extrusion((Face((outer, hole)),)),)), segments=256)
    assert mesh.is_watertight and mesh.volume == pytest.approx(81 - 4.5 * math.pi, rel=1e-3)


def test_nothing_left_is_an_error() -> None:
    for boolean in ("cut", "intersect"):
        far = replace(plate().extrusions[0], boolean=boolean,
                      plane=Plane((0.0, 0.0, 100.0 if boolean == "intersect" else 0.0)))  # fmt: skip
        with pytest.raises(ValueError, match="leaves no solid"):
            program_mesh(Program((*plate().extrusions, far)))
    with pytest.raises(ValueError, match="segments"):
        program_mesh(plate(), segments=2)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=15)
def test_random_programs_are_closed_or_nothing(seed: int) -> None:
    try:
        mesh = program_mesh(program(seed))
    except ValueError as error:
        assert "leaves no solid" in str(error)
        return
    assert mesh.is_watertight and mesh.volume > 0


def test_walks_are_solid_unless_holes_cover_their_face() -> None:
    codec = CadTokenizer(max_length=40)
    for one in codec.decode(walk(codec.grammar, 60, codec.spec.cells)):
        try:
            mesh = program_mesh(one)
        except ValueError as error:
            assert "leaves no solid" in str(error)
            first = one.extrusions[0]
            assert len(one.extrusions) > 1 or any(len(face.loops) > 1 for face in first.faces)
            continue
        assert mesh.is_watertight and mesh.volume > 0


def test_token_round_trip_keeps_the_volume() -> None:
    codec = CadTokenizer()
    framed = codec.framed(plate())
    (decoded,) = codec.decode(codec.encode(framed))
    assert program_mesh(decoded).volume == pytest.approx(program_mesh(framed).volume, rel=0.04)


class TestStep:
    """Against the kernel's exact solids; skipped where it is missing."""

    @pytest.fixture(autouse=True)
    def _kernel(self) -> None:
        pytest.importorskip("OCP")

    @pytest.mark.parametrize("boolean", ["new", "join", "cut", "intersect"])
    def test_written_and_read_again(self, boolean: str, tmp_path, capfd) -> None:
        from girih.tokenizers.shape.cad_step import program_solid, read_step, volume, write_step

        one = Program((*plate().extrusions, post(boolean)))
        write_step(one, tmp_path / "part.step")
        exact = volume(read_step(tmp_path / "part.step"))
        assert exact == pytest.approx(volume(program_solid(one)), rel=1e-9)
        assert exact == pytest.approx(program_mesh(one, 256).volume, rel=2e-3)
        assert capfd.readouterr().out == ""
        assert [path.name for path in tmp_path.iterdir()] == ["part.step"]

    def test_every_kind_of_curve_against_the_mesh(self) -> None:
        from girih.tokenizers.shape.cad_step import program_solid, volume

        compared = 0
        for seed in range(12):
            try:
                exact = volume(program_solid(program(seed)))
            except ValueError as error:
                assert "leaves no solid" in str(error) or "invalid" in str(error)
                continue
            compared += 1
            assert program_mesh(program(seed), 256).volume == pytest.approx(exact, rel=2e-3)
        assert compared >= 6

    def test_what_is_no_step_file_and_no_solid(self, tmp_path) -> None:
        from girih.tokenizers.shape.cad_step import read_step, write_step

        (tmp_path / "x.step").write_bytes(b"solid?")
        with pytest.raises(ValueError, match="x.step"):
            read_step(tmp_path / "x.step")
        bow = Loop(tuple(ring([(0, 0), (10, 10), (10, 0), (0, 10)])))
        with pytest.raises(ValueError):
            write_step(Program((Extrusion((Face((bow,)),)),)), tmp_path / "y.step")
        assert not (tmp_path / "y.step").exists()


def test_without_the_libraries_one_line_says_what_to_install(monkeypatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "manifold3d", None)
    with pytest.raises(ImportError, match=r"manifold3d: pip install 'girih\[cad\]'"):
        program_mesh(plate())
    monkeypatch.setitem(sys.modules, "OCP", None)
    from girih.tokenizers.shape.cad_step import program_solid

    with pytest.raises(ImportError, match=r"pip install 'girih\[cad\]'"):
        program_solid(plate())
