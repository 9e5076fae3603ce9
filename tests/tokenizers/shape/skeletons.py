"""Rigs for tests: random trees, some with joints that coincide."""

from __future__ import annotations

import numpy as np

from girih.tokenizers.shape.skeleton import Rig


def rig(seed: int, joints: int = 12, half: float = 0.45, crowded: bool = False) -> Rig:
    """A random tree in [-half, half], joints in any order; ``crowded``: on a few places, so that many coincide."""
    rng = np.random.default_rng(seed)
    places = rng.uniform(-half, half, (joints, 3))
    if crowded:
        places = np.round(places / half) * half * 0.9
    parents = np.array([-1, *(int(rng.integers(0, i)) for i in range(1, joints))])
    return Rig(places, parents).reordered(rng.permutation(joints).tolist())


def edges(one: Rig) -> set[tuple[tuple[float, ...], tuple[float, ...]]]:
    """The bones as (parent's place, child's place)."""
    places = [tuple(place) for place in one.joints.round(9).tolist()]
    return {(places[parent], places[child]) for parent, child in one.bones.tolist()}
