"""Makes the samples beside it: python assets/samples/make.py. actions.npy has a maker of its own (actions.md)."""

from pathlib import Path

import numpy as np
import torch

import girih
from girih.tokenizers.audio import files
from girih.tokenizers.shape.cad_json import write_program
from girih.tokenizers.shape.hair_mesh import write_hair
from girih.tokenizers.shape.meshes import Mesh, write_mesh
from girih.tokenizers.shape.part_features import Feature, build
from girih.tokenizers.shape.rig_files import write_rig

HERE = Path(__file__).parent
CORNERS = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) / 2
SIDES = np.array([(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)])


def boxes(*parts: tuple[tuple[float, ...], tuple[float, ...]]) -> Mesh:
    """Boxes of (centre, size)."""
    vertices = [np.array(centre) + CORNERS * size for centre, size in parts]
    return Mesh(np.concatenate(vertices), np.concatenate([SIDES + 8 * i for i in range(len(parts))]))


def torus(around: int = 24, across: int = 12, radius: float = 0.3, tube: float = 0.1) -> Mesh:
    """Of quads."""
    u, v = np.meshgrid(np.arange(around), np.arange(across), indexing="ij")
    a, b = 2 * np.pi * u / around, 2 * np.pi * v / across
    ring = radius + tube * np.cos(b)
    vertices = np.stack([ring * np.cos(a), tube * np.sin(b), ring * np.sin(a)], -1).reshape(-1, 3)
    name = [((u + i) % around) * across + (v + j) % across for i, j in ((0, 0), (0, 1), (1, 1), (1, 0))]
    return Mesh(vertices, np.stack(name, -1).reshape(-1, 4))


def hair(cards: int = 16, points: int = 12) -> list[np.ndarray]:
    """A bob: cards from the crown down around a head."""
    made, down = [], np.linspace(0, 1, points)
    for turn in np.linspace(0.6, 2 * np.pi - 0.6, cards):  # the face, at +z, stays free
        out = 0.12 * np.sin(np.minimum(down * 2.2, np.pi / 2)) + 0.01 * down
        height = 0.32 - 0.3 * down**1.5
        made.append(np.stack([out * np.sin(turn), height, out * np.cos(turn), 0.02 - 0.012 * down,
                              0.006 - 0.004 * down], 1))  # fmt: skip
    return made


def body() -> girih.Rig:
    """Seventeen joints of a standing figure, in metres."""
    half = [("hip", "pelvis", 0.1, 0.93), ("knee", "hip", 0.1, 0.5), ("ankle", "knee", 0.1, 0.08),
            ("shoulder", "chest", 0.18, 1.42), ("elbow", "shoulder", 0.45, 1.42), ("wrist", "elbow", 0.7, 1.42)]
    rows = [("pelvis", "", 0.0, 1.0), ("spine", "pelvis", 0.0, 1.15), ("chest", "spine", 0.0, 1.35),
            ("neck", "chest", 0.0, 1.5), ("head", "neck", 0.0, 1.65)]  # fmt: skip
    for side, sign in (("left", 1), ("right", -1)):
        for name, parent, x, y in half:
            above = parent if parent in ("pelvis", "chest") else f"{side} {parent}"
            rows.append((f"{side} {name}", above, sign * x, y))
    names = [row[0] for row in rows]
    parents = [names.index(parent) if parent else -1 for _, parent, _, _ in rows]
    depth = [0.02 if "knee" in name else 0.0 for name in names]
    places = np.array([(x, y, z) for (_, _, x, y), z in zip(rows, depth, strict=True)])
    return girih.Rig(places, np.array(parents), tuple(name.replace(" ", "_") for name in names))


ROOM = """\
make_wall, id=0, a_x=0.5, a_y=0.5, a_z=0.0, b_x=5.1, b_y=0.5, b_z=0.0, height=2.6, thickness=0.12
make_wall, id=1, a_x=5.1, a_y=0.5, a_z=0.0, b_x=5.1, b_y=4.3, b_z=0.0, height=2.6, thickness=0.12
make_wall, id=2, a_x=0.5, a_y=4.3, a_z=0.0, b_x=5.1, b_y=4.3, b_z=0.0, height=2.6, thickness=0.12
make_wall, id=3, a_x=0.5, a_y=0.5, a_z=0.0, b_x=0.5, b_y=4.3, b_z=0.0, height=2.6, thickness=0.12
make_door, id=1000, wall0_id=0, wall1_id=0, position_x=1.4, position_y=0.5, position_z=1.0, width=0.9, height=2.0
make_window, id=2000, wall0_id=2, wall1_id=2, position_x=2.8, position_y=4.3, position_z=1.5, width=1.6, height=1.2
make_bbox, id=3000, class=bed, position_x=4.0, position_y=3.2, position_z=0.3, angle_z=0.0, scale_x=1.6, scale_y=2.0, \
scale_z=0.6
make_bbox, id=3001, class=table, position_x=1.6, position_y=2.8, position_z=0.37, angle_z=0.4, scale_x=1.2, \
scale_y=0.7, scale_z=0.74
make_bbox, id=3002, class=lamp, position_x=0.9, position_y=4.0, position_z=0.8, angle_z=0.0, scale_x=0.3, scale_y=0.3, \
scale_z=1.6
"""


def chord(rate: int = 16000) -> torch.Tensor:
    """One second of a plucked major chord: Karplus and Strong's strings, one after the other."""
    noise, out = np.random.default_rng(0), np.zeros(rate)
    for i, pitch in enumerate((220.0, 277.18, 329.63)):
        string, start = noise.uniform(-1, 1, round(rate / pitch)), i * rate // 40
        for at in range(start, rate):
            out[at] += string[0]
            string = np.append(string[1:], 0.498 * (string[0] + string[1]))
    return torch.from_numpy(0.9 * out / np.abs(out).max()).float()[None]


if __name__ == "__main__":
    legs = [((x, 0.22, z), (0.05, 0.44, 0.05)) for x in (-0.2, 0.2) for z in (-0.2, 0.2)]
    write_mesh(boxes(((0, 0.46, 0), (0.46, 0.04, 0.46)), ((0, 0.7, -0.21), (0.46, 0.44, 0.04)), *legs),
               HERE / "chair.glb")  # fmt: skip
    write_mesh(torus(), HERE / "torus.obj")
    plate = [("block", (120, 80, 10, 6)), ("corners", (8, 12)), ("bore", (40,)), ("ring", (4, 6, 60))]
    write_program(build([Feature(*one) for one in plate]), HERE / "plate.json")
    write_hair(HERE / "hair.glb", hair())
    write_rig(HERE / "body.glb", body())
    (HERE / "room.txt").write_text(ROOM)
    files.write(HERE / "chord.wav", chord(), 16000)
    girih.load("image")("a red apple", generator=torch.Generator().manual_seed(1)).images[0].save(HERE / "apple.png")
