"""Skeletons: joints and their parents, orders, repair of broken ones, distances between two, RigNet's text form.

Knows one rig's geometry and tree. Does not know tokens (rig.py), meshes, skins or binary files (rig_files.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SAMPLE_STEP = 0.005  # between the points that stand for a bone in distances


@dataclass(frozen=True, eq=False)
class Rig:
    """A tree of joints.

    Attributes:
        joints: ``[J, 3]`` positions, J >= 1. parents: ``[J]`` indices, -1 for the one root.
        names: one a joint; ``joint0``, ``joint1``, ... by default.
        parts: UniRig's template group of each joint ("body", "hand"; None = a spring bone). kind: its class of rigs.

    Raises:
        ValueError: positions that are not finite, no or two roots, a parent that does not exist, a cycle, lists of
            other lengths.
    """

    joints: Floats
    parents: Ints
    names: tuple[str, ...] = ()
    parts: tuple[str | None, ...] = ()
    kind: str | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        joints, parents = np.asarray(self.joints, dtype=np.float64), np.asarray(self.parents)
        if joints.ndim != 2 or joints.shape[1] != 3 or not len(joints):
            raise ValueError(f"joints must be [J, 3] with J >= 1, got {list(joints.shape)}")
        if not np.isfinite(joints).all():
            raise ValueError(f"joint {int(np.argmin(np.isfinite(joints).all(1)))} has a position that is not finite")
        if parents.shape != (len(joints),) or parents.dtype.kind not in "iu":
            raise ValueError(f"parents must be {len(joints)} whole numbers, got {parents.dtype} {list(parents.shape)}")
        if parents.min() < -1 or parents.max() >= len(joints):
            raise ValueError(f"parents must be in -1 .. {len(joints) - 1}, got {parents.min()} to {parents.max()}")
        if (roots := np.flatnonzero(parents == -1)).size != 1:
            raise ValueError(f"a rig needs exactly one root (parent -1), got {roots.size}: joints {roots.tolist()[:8]}")
        object.__setattr__(self, "joints", joints)
        object.__setattr__(self, "parents", parents.astype(np.int64))
        names = tuple(self.names) or tuple(f"joint{i}" for i in range(len(joints)))
        parts = tuple(self.parts) or (None,) * len(joints)
        if len(names) != len(joints) or len(parts) != len(joints) or len(set(names)) != len(names):
            raise ValueError(f"{len(joints)} joints need as many different names and as many parts, "
                             f"got {len(names)} names ({len(set(names))} different) and {len(parts)} parts")
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "parts", parts)
        if len(reached := _breadth_first(self.children(), self.root)) < len(joints):
            lost = sorted(set(range(len(joints))) - set(reached))
            raise ValueError(f"joints {lost[:8]} hang on a cycle instead of the root")

    @property
    def root(self) -> int:
        return int(np.argmin(self.parents))

    @property
    def bones(self) -> Ints:
        """``[J - 1, 2]``: (parent, child), in order of the child."""
        child = np.flatnonzero(self.parents >= 0)
        return np.column_stack([self.parents[child], child])

    def children(self) -> list[list[int]]:
        """For each joint its children, in order."""
        out: list[list[int]] = [[] for _ in self.parents]
        for child, parent in enumerate(self.parents.tolist()):
            if parent >= 0:
                out[parent].append(child)
        return out

    def reordered(self, order: Sequence[int]) -> Rig:
        """The same rig with its joints in another order, a permutation."""
        place = np.full(len(order) + 1, -1)  # the last one is the root's parent, -1
        place[list(order)] = np.arange(len(order))
        names, parts = tuple(self.names[i] for i in order), tuple(self.parts[i] for i in order)
        return replace(self, joints=self.joints[list(order)], parents=place[self.parents[list(order)]], names=names,
                       parts=parts)  # fmt: skip

    def depth_first(self) -> Rig:
        """The same rig, each joint followed by its first child's branch, then by the next one's."""
        children, order, waiting = self.children(), [], [self.root]
        while waiting:
            order.append(waiting.pop())
            waiting += children[order[-1]][::-1]
        return self.reordered(order)


def fit(rig: Rig, low: float, high: float) -> tuple[Rig, Floats, float]:
    """(rig, centre, scale): the rig moved and scaled alike on all axes to fill [low, high]; what undoes it is
    ``(joints - (low + high) / 2) * scale + centre``."""
    bottom, top = rig.joints.min(0), rig.joints.max(0)
    scale = float((top - bottom).max()) / (high - low) or 1.0
    centre = (bottom + top) / 2
    middle = (low + high) / 2
    return replace(rig, joints=np.clip((rig.joints - centre) / scale + middle, low, high)), centre, scale


def _breadth_first(neighbours: Sequence[Sequence[int]], root: int) -> dict[int, int]:
    """{joint: the joint it was reached from, -1 for the root}, in order of being reached."""
    reached, waiting = {root: -1}, [root]
    for joint in waiting:
        for other in neighbours[joint]:
            if other not in reached:
                reached[other] = joint
                waiting.append(other)
    return reached


# --- from bones as pairs of points, whatever a model wrote, to a rig ------------------------------------------------


def joints_of(ends: ArrayLike) -> tuple[Floats, Ints]:
    """Bones as points ``[b, 2, 3]`` (parent, child) to (distinct joints sorted by x, y, z; index pairs ``[b, 2]``)."""
    points = np.asarray(ends, dtype=np.float64).reshape(-1, 3)
    joints, index = np.unique(points, axis=0, return_inverse=True)
    return joints, index.reshape(-1, 2).astype(np.int64)


def repair(joints: ArrayLike, bones: ArrayLike, root: int | None = None, tolerance: float = 0.0025,
           near: float | None = None) -> tuple[Floats, Ints, int | None]:  # fmt: skip
    """One connected skeleton from joints ``[J, 3]`` and bones ``[b, 2]``: (joints, bones, root).

    Joints closer than ``tolerance`` become the first of them; bones without length or given twice go. While parts
    remain apart, the closest joints of two of them become one where they are closer than ``near`` (8 x ``tolerance``),
    else a bone joins them (MagicArticulate, ``merge_duplicate_joints_and_fix_bones``).
    """
    at = np.asarray(joints, dtype=np.float64)
    near = 8 * tolerance if near is None else near
    distances = np.linalg.norm(at[:, None] - at[None], axis=2)
    keeper = np.arange(len(at))
    for i in range(len(at)):
        if keeper[i] == i:
            later = (distances[i] < tolerance) & (keeper == np.arange(len(at)))
            later[: i + 1] = False
            keeper[later] = i
    pairs = _distinct([(int(keeper[a]), int(keeper[b])) for a, b in np.asarray(bones).reshape(-1, 2).tolist()])
    alive = np.unique(keeper)
    while len(parts := _parts(alive.tolist(), pairs)) > 1:
        label = np.full(len(at), -1)
        for number, part in enumerate(parts):
            label[part] = number
        apart = np.where(label[alive][:, None] < label[alive][None], distances[np.ix_(alive, alive)], np.inf)
        first, second = (int(alive[k]) for k in np.unravel_index(int(apart.argmin()), apart.shape))
        if distances[first, second] < near:
            keeper[keeper == second] = first
            alive = alive[alive != second]
            pairs = _distinct([(first if a == second else a, first if b == second else b) for a, b in pairs])
        else:
            pairs.append((first, second))
    place = np.searchsorted(alive, keeper)
    renumbered = np.array([(place[a], place[b]) for a, b in pairs], dtype=np.int64).reshape(-1, 2)
    return at[alive], renumbered, None if root is None else int(place[root])


def _distinct(pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    seen: dict[tuple[int, int], tuple[int, int]] = {}
    for a, b in pairs:
        if a != b:
            seen.setdefault((min(a, b), max(a, b)), (a, b))
    return list(seen.values())


def _parts(joints: Sequence[int], pairs: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Connected parts, in order of their first joint."""
    neighbours: dict[int, list[int]] = {joint: [] for joint in joints}
    for a, b in pairs:
        neighbours[a].append(b)
        neighbours[b].append(a)
    parts, seen = [], set[int]()
    for joint in joints:
        if joint not in seen:
            part, waiting = {joint}, [joint]
            for here in waiting:
                fresh = [other for other in neighbours[here] if other not in part]
                part.update(fresh)
                waiting += dict.fromkeys(fresh)
            seen |= part
            parts.append(sorted(part))
    return parts


def central_joint(joints: ArrayLike) -> int:
    """The joint nearest the mean of all: the root of a skeleton whose bones have no direction."""
    at = np.asarray(joints, dtype=np.float64)
    return int(np.linalg.norm(at - at.mean(0), axis=1).argmin())


def hierarchy(count: int, bones: ArrayLike, root: int) -> Ints:
    """Bones ``[b, 2]`` in any direction to (parent, child) pairs ``[count - 1, 2]``, breadth first from ``root``; bones
    that would close a loop go. Raises ValueError where some joints are not reached."""
    neighbours: list[list[int]] = [[] for _ in range(count)]
    for a, b in np.asarray(bones).reshape(-1, 2).tolist():
        neighbours[a].append(b)
        neighbours[b].append(a)
    reached = _breadth_first(neighbours, root)
    if len(reached) < count:
        raise ValueError(f"{count - len(reached)} of {count} joints are not connected to the root")
    return np.array([(parent, child) for child, parent in reached.items() if parent >= 0], np.int64).reshape(-1, 2)


def rig_of(joints: ArrayLike, bones: ArrayLike, root: int) -> Rig:
    """A connected skeleton as a rig, joints in the given order. Raises ValueError like ``hierarchy``."""
    at = np.asarray(joints, dtype=np.float64)
    parents = np.full(len(at), -1)
    pairs = hierarchy(len(at), bones, root)
    parents[pairs[:, 1]] = pairs[:, 0]
    return Rig(at, parents)


# --- distances ------------------------------------------------------------------------------------------------------


def skeleton_distances(joints: ArrayLike, bones: ArrayLike, true_joints: ArrayLike, true_bones: ArrayLike,
                       step: float = SAMPLE_STEP) -> dict[str, float]:  # fmt: skip
    """Chamfer distances ``{"j2j", "j2b", "b2b"}`` between two skeletons: joints to joints, joints to bones, bones to
    bones, each the mean of both ways, in the skeletons' unit (RigNet; MagicArticulate prints 100 times these).

    Bones are ``[b, 2]`` index pairs, sampled every ``step`` with both ends.
    """
    one, two = np.asarray(joints, dtype=np.float64), np.asarray(true_joints, dtype=np.float64)
    along_one, along_two = _samples(one, bones, step), _samples(two, true_bones, step)
    nearest = {(i, j): _nearest(a, b) for i, a in enumerate((one, along_one)) for j, b in enumerate((two, along_two))}
    back = {(i, j): _nearest(b, a) for i, a in enumerate((one, along_one)) for j, b in enumerate((two, along_two))}
    return {
        "j2j": (nearest[0, 0] + back[0, 0]) / 2,
        "j2b": (nearest[0, 1] + back[1, 0]) / 2,
        "b2b": (nearest[1, 1] + back[1, 1]) / 2,
    }


def _samples(joints: Floats, bones: ArrayLike, step: float) -> Floats:
    pairs = np.asarray(bones, dtype=np.int64).reshape(-1, 2)
    if not len(pairs):
        return joints
    lines = []
    for start, end in zip(joints[pairs[:, 0]], joints[pairs[:, 1]], strict=True):
        pieces = max(round(float(np.linalg.norm(end - start)) / step), 1)
        lines.append(start + (end - start) * np.linspace(0, 1, pieces + 1)[:, None])
    return np.concatenate(lines)


def _nearest(points: Floats, others: Floats) -> float:
    """Mean distance of ``points`` to the nearest of ``others``."""
    parts = (torch.cdist(part, torch.from_numpy(others), compute_mode="donot_use_mm_for_euclid_dist").amin(1)
             for part in torch.from_numpy(points).split(2048))  # fmt: skip
    return float(torch.cat(list(parts)).mean())


# --- RigNet's text form ---------------------------------------------------------------------------------------------


def rig_text(joints: ArrayLike, bones: ArrayLike, root: int, names: Sequence[str] = ()) -> str:
    """RigNet's text form: ``joints NAME x y z`` a joint, ``root NAME``, ``hier PARENT CHILD`` a bone, in order.

    ``names``: ``joint0``, ``joint1``, ... by default. Raises ValueError for a name with a space in it, or none.
    """
    places = np.asarray(joints, dtype=np.float64).tolist()
    names = tuple(names) or tuple(f"joint{i}" for i in range(len(places)))
    for name in names:
        if name.split() != [name]:
            raise ValueError(f"the joint name {name!r} has a space in it or is empty; the text form cannot hold it")
    lines = [f"joints {name} {x:.8f} {y:.8f} {z:.8f}" for name, (x, y, z) in zip(names, places, strict=True)]
    lines += [f"root {names[root]}"]
    lines += [f"hier {names[parent]} {names[child]}" for parent, child in np.asarray(bones).reshape(-1, 2).tolist()]
    return "\n".join(lines) + "\n"


def parse_rig_text(text: str) -> Rig:
    """The rig of a RigNet text file, with its names. ``skin`` lines, the weights of a mesh's vertices, are passed over.

    Raises ValueError naming the line that is not understood, or like ``Rig``.
    """
    joints: dict[str, list[float]] = {}
    pairs: list[tuple[str, str]] = []
    roots: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        match line.split():
            case [] | ["skin", *_]:
                continue
            case ["joints", name, *place] if name not in joints and len(place) == 3:
                try:
                    joints[name] = [float(value) for value in place]
                except ValueError:
                    raise ValueError(f"line {number} of the rig: {line[:80]!r} holds no three numbers") from None
            case ["root", name]:
                roots.append(name)
            case ["hier", parent, child]:
                pairs.append((parent, child))
            case _:
                raise ValueError(f"line {number} of the rig is not understood: {line[:80]!r}")
    names = list(joints)
    parents = np.full(len(names), -1)
    for parent, child in pairs:
        if parent not in joints or child not in joints:
            raise ValueError(f"the rig has a bone from {parent!r} to {child!r}, but no such joint")
        if parents[names.index(child)] >= 0:
            raise ValueError(f"joint {child!r} of the rig has two parents")
        parents[names.index(child)] = names.index(parent)
    rig = Rig(np.array(list(joints.values())).reshape(-1, 3), parents, tuple(names))
    if roots != [rig.names[rig.root]]:
        raise ValueError(f"the rig names the roots {roots}, but the joint without a parent is {rig.names[rig.root]!r}")
    return rig
