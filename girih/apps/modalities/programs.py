"""CAD programs, scenes and texts for `girih tokens`. Does not know their languages; tokenizers/ does."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from girih.apps.modalities import Loss, Side, Signal, farthest, frame
from girih.files import whole
from girih.tokenizers.shape.cad import Extrusion, Program
from girih.tokenizers.shape.cad_curves import Arc, Circle, Line
from girih.tokenizers.shape.cad_json import program_from_json, write_program


class Cad:
    """Sketch-and-extrude programs in DeepCAD's JSON."""

    reads = (".json",)
    writes = (".json", ".step", ".glb", ".stl", ".obj", ".ply", ".png")

    def read(self, path: Path, tokenizer: Any) -> Signal:
        program = program_from_json(path)
        side: Side = {"centre": [0.0, 0.0, 0.0], "scale": 1.0}
        notes: tuple[str, ...] = ()
        if hasattr(tokenizer, "framed"):  # into the unit cube, which the decoded program has to leave again
            tokenizer.framed(program)
            moved = _points(tokenizer.framed(program))
            notes = tuple(tokenizer.changes(program))
            side = _undone(_points(program), moved)
        return Signal(program, 8 * path.stat().st_size, side, notes)

    def encode(self, tokenizer: Any, signal: Signal) -> Tensor:
        tokens: Tensor = tokenizer.encode([signal.value])
        return tokens

    def decode(self, tokenizer: Any, tokens: Tensor, side: Side) -> Any:
        centre, scale = frame(side)
        program: Program = tokenizer.decode(tokens)[0]
        x, y, z = (centre / scale).tolist()
        return program if (x, y, z, scale) == (0, 0, 0, 1) else program.moved((x, y, z), scale)

    def loss(self, tokenizer: Any, signal: Signal, decoded: Any) -> Loss:
        before, after = _points(signal.value), _points(decoded)
        error = max(farthest(before, after), farthest(after, before))
        size = float((before.amax(0) - before.amin(0)).max())
        steps = f"{len(decoded.extrusions)} extrusions of {len(signal.value.extrusions)}"
        return Loss(100 * error / size, "% of its size", f"corners off by up to {error:.4g} in the file's unit "
                                                         f"({100 * error / size:.2f} % of its size); {steps}")

    def words(self, tokenizer: Any, tokens: Tensor) -> Iterator[str]:
        for i, one in enumerate(tokenizer.decode(tokens)[0].extrusions):
            yield f"sketch {i}: at {_numbers(one.plane.origin)}, x along {_numbers(one.plane.x_axis)}"
            for loop in (loop for face in one.faces for loop in face.loops):
                if not isinstance(loop.curves[0], Circle):
                    yield f"  from {_numbers(loop.start)}"
                for curve in loop.curves:
                    if isinstance(curve, Line):
                        yield f"  line to {_numbers(curve.end)}"
                    elif isinstance(curve, Arc):
                        yield f"  arc by {_numbers(curve.mid)} to {_numbers(curve.end)}"
                    else:
                        yield f"  circle at {_numbers(curve.center)}, radius {curve.radius:.4g}"
            yield f"extrude {i}: {one.boolean}, {one.extent} {_numbers(one.distances)}, unit {one.unit:.4g}"

    def write(self, path: Path, decoded: Any) -> None:
        if path.suffix.lower() == ".json":
            write_program(decoded, path)
            return
        from girih.apps.commands.cad import write
        from girih.tokenizers.shape.cad_mesh import program_mesh

        write(decoded, None if path.suffix.lower() == ".step" else program_mesh(decoded), path)


class Scenes:
    """Rooms in SceneScript's text form."""

    reads = (".txt",)
    writes = (".txt", ".glb")

    def read(self, path: Path, tokenizer: Any) -> Signal:
        from girih.tokenizers.scene_commands import parse

        scene = parse(_text(path), tokenizer.commands)
        return Signal(scene, 8 * path.stat().st_size, notes=tuple(tokenizer.prepared(scene)[1]))

    def encode(self, tokenizer: Any, signal: Signal) -> Tensor:
        tokens: Tensor = tokenizer.encode(signal.value)
        return tokens

    def decode(self, tokenizer: Any, tokens: Tensor, side: Side) -> Any:
        return tokenizer.decode(tokens)[0]

    def loss(self, tokenizer: Any, signal: Signal, decoded: Any) -> Loss:
        kept = {(e.command, e.params["id"]) for e in tokenizer.prepared(signal.value)[0].entities}
        given = [e for e in signal.value.sorted(tokenizer.commands).entities if (e.command, e.params["id"]) in kept]
        kinds = {command.name: dict(command.written) for command in tokenizer.commands}
        bins = error = 0.0
        for before, after in zip(given, decoded.entities, strict=True):
            for name, kind in kinds[before.command].items():
                if kind != "class":
                    edges, size = tokenizer.quantizers[kind].edges, tokenizer.quantizers[kind].size
                    off = abs(before.params[name] - after.params[name])
                    bins, error = max(bins, off / (edges[-1] - edges[0]) * size), max(error, off)
        return Loss(bins, "bins", f"numbers off by up to {bins:.3f} bins ({error:.3g} m or rad); "
                                  f"{len(decoded.entities)} entities of {len(signal.value.entities)}")  # fmt: skip

    def words(self, tokenizer: Any, tokens: Tensor) -> Iterator[str]:
        yield from str(tokenizer.decode(tokens)[0]).splitlines()

    def write(self, path: Path, decoded: Any) -> None:
        if path.suffix.lower() == ".glb":
            from girih.tokenizers.scene_boxes import write_scene

            write_scene(decoded, path)
        else:
            _write_text(path, str(decoded) + "\n")


class Texts:
    """Any UTF-8 text."""

    reads = (".txt", ".md")
    writes = reads

    def read(self, path: Path, tokenizer: Any) -> Signal:
        text = _text(path)
        if not text:
            raise ValueError(f"{path.name} is empty")
        return Signal(text, 8 * path.stat().st_size)

    def encode(self, tokenizer: Any, signal: Signal) -> Tensor:
        tokens: Tensor = tokenizer.encode([signal.value])
        return tokens

    def decode(self, tokenizer: Any, tokens: Tensor, side: Side) -> Any:
        return tokenizer.decode(tokens)[0]

    def loss(self, tokenizer: Any, signal: Signal, decoded: Any) -> Loss:
        if decoded == signal.value:
            return Loss(None, "characters", "exact")
        wrong = sum(a != b for a, b in zip(decoded, signal.value, strict=False)) + abs(len(decoded) - len(signal.value))
        return Loss(float(wrong), "characters", f"{wrong} characters differ")

    def words(self, tokenizer: Any, tokens: Tensor) -> Iterator[str]:
        for i, word in enumerate(tokens[0].tolist()):
            yield f"word {i}: {bytes(token for token in word if token < 256)!r}"

    def write(self, path: Path, decoded: Any) -> None:
        _write_text(path, decoded)


def _points(program: Program) -> Tensor:
    """Ends, middles and rims of every curve, below and above [n, 3]."""
    return torch.tensor([one.plane.at((x * one.unit, y * one.unit), height) for one in program.extrusions
                         for x, y in _outline(one) for height in one.span], dtype=torch.float64)  # fmt: skip


def _outline(one: Extrusion) -> Iterator[tuple[float, float]]:
    for curve in (curve for face in one.faces for loop in face.loops for curve in loop.curves):
        if isinstance(curve, Circle):
            (x, y), r = curve.center, curve.radius
            yield from ((x - r, y), (x + r, y), (x, y - r), (x, y + r))
        else:
            yield curve.start
            yield curve.end
            if isinstance(curve, Arc):
                yield curve.mid


def _undone(before: Tensor, after: Tensor) -> Side:
    """The frame that brings ``after``'s box back to ``before``'s."""
    low, high = before.amin(0), before.amax(0)
    scale = float((high - low).max() / (after.amax(0) - after.amin(0)).max())
    return {"centre": (low - after.amin(0) * scale).tolist(), "scale": scale}


def _numbers(values: Any) -> str:
    return " ".join(f"{round(value, 3) + 0.0:g}" if math.isfinite(value) else str(value) for value in values)


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name} is not UTF-8 text: byte {error.start} is wrong") from error


def _write_text(path: Path, text: str) -> None:
    with whole(path) as part:
        part.write_bytes(text.encode("utf-8"))
