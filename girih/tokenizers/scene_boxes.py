"""Scenes as named boxes: what a viewer shows of a list of commands, and GLB files.

Knows boxes. Does not know tokens.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from girih.files import whole
from girih.tokenizers.scene_commands import Entity, Scene

if TYPE_CHECKING:
    import trimesh


def scene_boxes(scene: Scene, wall: float = 0.05) -> trimesh.Scene:
    """A ``trimesh.Scene`` of one named box an entity ("make_wall 0", "table 3000"), y up as glTF has it.

    Walls without thickness are drawn ``wall`` metres thick, doors and windows a little thicker than their wall.
    Raises ValueError for a scene without entities, ImportError without trimesh.
    """
    try:
        import trimesh
    except ImportError as error:
        raise ImportError("scenes as GLB need trimesh: pip install 'girih[shape]'") from error
    if not scene.entities:
        raise ValueError("the scene has no entities")
    walls = {e.params["id"]: e for e in scene.entities if "a_x" in e.params}
    out = trimesh.Scene()
    upright = trimesh.transformations.rotation_matrix(-math.pi / 2, (1, 0, 0))
    for entity in scene.entities:
        size, center, yaw = _box(entity, walls, wall)
        pose = trimesh.transformations.rotation_matrix(yaw, (0, 0, 1))
        pose[:3, 3] = center
        box = trimesh.creation.box(np.maximum(size, 1e-3))
        box.visual.face_colors = _COLORS.get(entity.command, (200, 160, 90, 255))
        name = f"{entity.params.get('class', entity.command)} {entity.params['id']}"
        out.add_geometry(box, node_name=name, geom_name=name, transform=upright @ pose)
    return out


_COLORS = {"make_wall": (225, 225, 220, 255), "make_door": (150, 95, 50, 255), "make_window": (120, 180, 230, 255)}


def _box(entity: Entity, walls: Mapping[int, Entity], thin: float) -> tuple[list[float], np.ndarray, float]:
    """Size, centre and yaw of the box that stands for an entity."""
    params = entity.params
    if "a_x" in params:
        a, b = entity.at("a"), entity.at("b")
        along = b - a
        length, rise = math.hypot(along[0], along[1]), np.array([0, 0, params["height"] / 2])
        size = [length, max(params["thickness"], thin), params["height"]]
        return size, (a + b) / 2 + rise, math.atan2(along[1], along[0])
    if "scale_x" in params:
        return list(entity.at("scale")), entity.at("position"), params["angle_z"]
    wall = walls.get(params["wall0_id"])
    size = [params["width"], 1.2 * thin, params["height"]]
    if wall is None:
        return size, entity.at("position"), 0.0
    size[1] = 1.2 * max(wall.params["thickness"], thin)
    along = wall.at("b") - wall.at("a")
    return size, entity.at("position"), math.atan2(along[1], along[0])


def write_scene(scene: Scene, path: str | os.PathLike[str]) -> None:
    """Writes ``scene_boxes`` as binary glTF, whole or not at all."""
    data = scene_boxes(scene).export(file_type="glb")
    with whole(path) as part:
        part.write_bytes(data)
