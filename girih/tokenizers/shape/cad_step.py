"""CAD programs as exact solids and STEP files, through Open CASCADE (cadquery-ocp; build123d brings it too).

Knows how a program becomes edges, wires, faces and prisms of the kernel. Does not know tokens; ``cad_mesh`` makes
meshes without the kernel.
"""

from __future__ import annotations

import os
from typing import Any

from girih.files import whole
from girih.tokenizers.shape.cad import Arc, Circle, Curve, Extrusion, Face, Line, Loop, Program


def program_solid(program: Program) -> Any:
    """The finished solid as a ``TopoDS_Shape``, one unit of the program a millimetre.

    Raises:
        ValueError: an invalid program, one that leaves no solid, or a solid that the kernel calls invalid (a profile
            that crosses itself).
        ImportError: the kernel is missing.
    """
    _kernel()
    from OCP.BRepAlgoAPI import BRepAlgoAPI_Common, BRepAlgoAPI_Cut, BRepAlgoAPI_Fuse
    from OCP.BRepCheck import BRepCheck_Analyzer

    operations = {"new": BRepAlgoAPI_Fuse, "join": BRepAlgoAPI_Fuse, "cut": BRepAlgoAPI_Cut,
                  "intersect": BRepAlgoAPI_Common}  # fmt: skip
    solid = None
    for i, extrusion in enumerate(program.checked().extrusions):
        for part in _prisms(extrusion, i):
            solid = part if solid is None else operations[extrusion.boolean](solid, part).Shape()
    if volume(solid) <= 0:
        raise ValueError("the program leaves no solid: it is cut away whole, or its parts do not meet")
    if not BRepCheck_Analyzer(solid).IsValid():
        raise ValueError("the kernel calls the solid invalid; a profile may cross itself")
    return solid


def write_step(program: Program, path: str | os.PathLike[str]) -> None:
    """Writes a STEP file (AP214, millimetres), whole or not at all. Raises as ``program_solid``, and OSError."""
    solid = program_solid(program)
    from OCP.IFSelect import IFSelect_ReturnStatus
    from OCP.STEPControl import STEPControl_StepModelType, STEPControl_Writer

    _silence()
    writer = STEPControl_Writer()
    writer.Transfer(solid, STEPControl_StepModelType.STEPControl_AsIs)
    with whole(path) as part:
        if writer.Write(str(part)) != IFSelect_ReturnStatus.IFSelect_RetDone:
            raise OSError(f"the kernel could not write {path}")


def read_step(path: str | os.PathLike[str]) -> Any:
    """The shape in a STEP file. Raises ValueError if there is none, ImportError without the kernel."""
    _kernel()
    from OCP.IFSelect import IFSelect_ReturnStatus
    from OCP.STEPControl import STEPControl_Reader

    _silence()
    reader = STEPControl_Reader()
    if reader.ReadFile(str(path)) != IFSelect_ReturnStatus.IFSelect_RetDone or not reader.TransferRoots():
        raise ValueError(f"{os.path.basename(path)} is not a STEP file with a shape in it")
    return reader.OneShape()


def volume(shape: Any) -> float:
    """Volume of a shape in cubic millimetres, from its exact faces."""
    from OCP.BRepGProp import BRepGProp
    from OCP.GProp import GProp_GProps

    found = GProp_GProps()
    BRepGProp.VolumeProperties_s(shape, found)
    return float(found.Mass())


def _kernel() -> None:
    try:
        import OCP  # noqa: F401
    except ImportError as error:
        raise ImportError("STEP files need the Open CASCADE kernel: pip install 'girih[cad]'") from error


def _silence() -> None:
    """Keep the kernel's progress report off standard output."""
    from OCP.Message import Message, Message_Gravity

    for printer in Message.DefaultMessenger_s().Printers():
        printer.SetTraceLevel(Message_Gravity.Message_Fail)


def _prisms(extrusion: Extrusion, place: int) -> list[Any]:
    """One solid a face, from the lower to the upper end."""
    from OCP.BRepPrimAPI import BRepPrimAPI_MakePrism
    from OCP.gp import gp_Vec

    low, high = extrusion.span
    way = gp_Vec(*extrusion.plane.normal).Multiplied(high - low)
    try:
        return [BRepPrimAPI_MakePrism(_face(extrusion, face, low), way).Shape() for face in extrusion.sized.faces]
    except RuntimeError as error:  # the kernel's exceptions (Standard_Failure) derive from it
        raise ValueError(f"the kernel cannot build extrusion {place}: {error}") from error


def _face(extrusion: Extrusion, face: Face, height: float) -> Any:
    from OCP.BRepBuilderAPI import BRepBuilderAPI_MakeFace
    from OCP.gp import gp_Ax3, gp_Dir, gp_Pln, gp_Pnt
    from OCP.ShapeFix import ShapeFix_Face

    plane = extrusion.plane
    frame = gp_Ax3(gp_Pnt(*plane.at((0.0, 0.0), height)), gp_Dir(*plane.normal), gp_Dir(*plane.x_axis))
    outer, *holes = sorted(face.loops, key=_extent, reverse=True)
    maker = BRepBuilderAPI_MakeFace(gp_Pln(frame), _wire(extrusion, outer, height))
    for hole in holes:
        maker.Add(_wire(extrusion, hole, height))
    fixed = ShapeFix_Face(maker.Face())  # turns the wires the right way around
    fixed.FixOrientation()
    return fixed.Face()


def _extent(loop: Loop) -> float:
    (x0, y0), (x1, y1) = loop.bounds
    return (x1 - x0) * (y1 - y0)


def _wire(extrusion: Extrusion, loop: Loop, height: float) -> Any:
    from OCP.BRepBuilderAPI import BRepBuilderAPI_MakeWire

    maker = BRepBuilderAPI_MakeWire()
    for curve in loop.chained().curves:
        maker.Add(_edge(extrusion, curve, height))
    return maker.Wire()


def _edge(extrusion: Extrusion, curve: Curve, height: float) -> Any:
    from OCP.BRepBuilderAPI import BRepBuilderAPI_MakeEdge
    from OCP.GC import GC_MakeArcOfCircle
    from OCP.gp import gp_Ax2, gp_Circ, gp_Dir, gp_Pnt

    def at(point: tuple[float, float]) -> Any:
        return gp_Pnt(*extrusion.plane.at(point, height))

    if isinstance(curve, Circle):
        axis = gp_Ax2(at(curve.center), gp_Dir(*extrusion.plane.normal))
        return BRepBuilderAPI_MakeEdge(gp_Circ(axis, curve.radius)).Edge()
    if isinstance(curve, Arc) and curve.turn != 0:
        arc = GC_MakeArcOfCircle(at(curve.start), at(curve.mid), at(curve.end)).Value()
        return BRepBuilderAPI_MakeEdge(arc).Edge()
    assert isinstance(curve, (Line, Arc))
    return BRepBuilderAPI_MakeEdge(at(curve.start), at(curve.end)).Edge()
