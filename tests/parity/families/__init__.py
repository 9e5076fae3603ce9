"""The families of recorded cases by name; one module here for each kind of system."""

from __future__ import annotations

import torch

from . import action, audio, cad, hair, images, llamagen, meshes, rigs, scenes, video
from .case import Case, Family

__all__ = ["FAMILIES", "Case", "Family"]

torch.set_num_threads(1)

FAMILIES: dict[str, Family] = {
    **audio.FAMILIES,
    **cad.FAMILIES,
    **hair.FAMILIES,
    **images.FAMILIES,
    **llamagen.FAMILIES,
    **video.FAMILIES,
    **action.FAMILIES,
    **meshes.FAMILIES,
    **rigs.FAMILIES,
    **scenes.FAMILIES,
}
