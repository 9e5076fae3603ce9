"""Robot action chunks from a scripted simulator: a gripper over a table reaches, pushes and stacks blocks.

Knows a small kinematic world in NumPy, one scripted expert a task, and how to record chunks. Does not know tokens, nor
recordings of other robots (tokenizers/action_files.py reads them). An action is four numbers in [-1, 1]: velocity along
x, y, z (1 = ``SPEED`` a step) and the gripper (1 = close, -1 = open).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from girih.tokenizers.action_files import to_chunks, write_actions

SPEED = 0.05  # lengths a step at full velocity; the table is 2 x 2
HALF = 0.05  # half the side of a block
GRASP, CONTACT, NEAR = 0.06, 0.08, 0.02  # distances: to grasp, to push, and of a target that counts as reached
GAIN = 10.0  # of the experts' proportional control
MAX_STEPS = 200
HOVER = 0.35
OPEN, CLOSE = -1.0, 1.0
CREDIT = "Recorded by girih/training/data/actions.py: scripted experts in a kinematic simulation of ours. CC0 1.0."


class Table:
    """The world: ``hand [3]``, ``grip`` in [0, 1] (1 = closed), ``blocks [n, 3]`` (centres), a ``goal [3]``."""

    def __init__(self, rng: np.random.Generator, blocks: int):
        self.hand = np.append(rng.uniform(-0.8, 0.8, 2), rng.uniform(0.2, 0.6))
        self.grip, self.held = 0.0, False
        places = rng.uniform(-0.6, 0.6, (blocks + 1, 2))
        while blocks and min(np.linalg.norm(a - b) for i, a in enumerate(places) for b in places[:i]) < 0.3:
            places = rng.uniform(-0.6, 0.6, (blocks + 1, 2))
        self.blocks = np.column_stack([places[:blocks], np.full(blocks, HALF)])
        self.goal = np.append(places[-1], HALF if blocks else rng.uniform(0.1, 0.6))

    def step(self, action: np.ndarray) -> None:
        """Move by one action [4]. A closed gripper at the first block carries it; a low one pushes it."""
        before = self.hand
        self.hand = np.clip(self.hand + SPEED * action[:3], [-1, -1, HALF], 1)
        self.grip = float(np.clip(self.grip + 0.25 * action[3], 0, 1))
        if not len(self.blocks):
            return
        block = self.blocks[0]
        self.held = self.grip > 0.5 and (self.held or bool(np.linalg.norm(before - block) < GRASP))
        if self.held:
            block += self.hand - before
            return
        block[2] = self._support(block)
        away = block[:2] - self.hand[:2]
        distance = float(np.linalg.norm(away))
        if self.hand[2] < block[2] + HALF and self.grip > 0.5 and 0 < distance < CONTACT:
            block[:2] += away / distance * (CONTACT - distance)

    def _support(self, block: np.ndarray) -> float:
        """The height at which a block let go comes to rest."""
        below = [other[2] for other in self.blocks[1:] if np.abs(other[:2] - block[:2]).max() < HALF]
        return max((height + 2 * HALF for height in below), default=HALF)


Wish = tuple[np.ndarray, float]  # where the hand should go, and the gripper's action
Expert = Callable[[Table], Iterator[Wish]]


def reach(table: Table) -> Iterator[Wish]:
    """Go to the goal."""
    yield from _go(table, lambda: table.goal, OPEN)


def push(table: Table) -> Iterator[Wish]:
    """Go behind the block with a closed gripper, then shove it to the goal."""
    def behind(gap: float, height: float) -> np.ndarray:
        way = table.goal[:2] - table.blocks[0, :2]
        return np.append(table.blocks[0, :2] - way / max(np.linalg.norm(way), 1e-9) * gap, height)

    yield from _go(table, lambda: behind(0.2, HOVER), CLOSE)
    yield from _go(table, lambda: behind(0.2, HALF), CLOSE)
    while np.linalg.norm(table.blocks[0] - table.goal) > NEAR:
        yield behind(CONTACT - 0.04, HALF), CLOSE


def stack(table: Table) -> Iterator[Wish]:
    """Grasp the first block, put it on the second, let go, rise."""
    def above(block: int, height: float) -> Callable[[], np.ndarray]:
        return lambda: np.append(table.blocks[block, :2], height)

    yield from _go(table, above(0, HOVER), OPEN)
    yield from _go(table, above(0, HALF), OPEN)
    yield from _wait(table, CLOSE)
    place = table.hand.copy()
    yield from _go(table, lambda: np.append(place[:2], HOVER), CLOSE)
    yield from _go(table, above(1, HOVER), CLOSE)
    yield from _go(table, above(1, 3 * HALF), CLOSE)
    yield from _wait(table, OPEN)
    yield from _go(table, above(1, HOVER), OPEN)


# Task -> (expert, number of blocks, how far from done at the end, as a distance to be below 2 * NEAR)
TASKS: dict[str, tuple[Expert, int, Callable[[Table], float]]] = {
    "reach": (reach, 0, lambda table: float(np.linalg.norm(table.hand - table.goal))),
    "push": (push, 1, lambda table: float(np.linalg.norm(table.blocks[0] - table.goal))),
    "stack": (stack, 2, lambda table: float(np.linalg.norm(table.blocks[0] - table.blocks[1] - [0, 0, 2 * HALF]))),
}


@dataclass
class Episode:
    """One recording: ``task``, ``actions [T, 4]`` float32, and whether the task was done at its end."""

    task: str
    actions: np.ndarray
    success: bool


def record(count: int, seed: int, noise: float = 0.02) -> list[Episode]:
    """``count`` episodes, the tasks in turn; episode i of a seed does not depend on ``count``.

    ``noise``: standard deviation added to the velocities that the experts ask for.
    """
    names = list(TASKS)
    return [_episode(names[i % len(names)], np.random.default_rng([seed, i]), noise) for i in range(count)]


def record_chunks(count: int, seed: int = 0, horizon: int = 16) -> np.ndarray:
    """``count`` chunks [count, horizon, 4] float32 of successful episodes, cut without overlap."""
    episodes = record(count, seed)  # each makes a chunk or more; of so many, some succeed
    return to_chunks((one.actions for one in episodes if one.success), horizon)[:count]


def build(path: str | Path, count: int = 700, seed: int = 0, horizon: int = 16) -> None:
    """Write ``record_chunks`` to ``path`` (.npy or .csv) and the credit line beside it (same name, .md)."""
    write_actions(path, record_chunks(count, seed, horizon))
    Path(path).with_suffix(".md").write_text(CREDIT + "\n", "utf-8")


def _episode(task: str, rng: np.random.Generator, noise: float) -> Episode:
    expert, blocks, distance = TASKS[task]
    table = Table(rng, blocks)
    actions = []
    for target, grip in expert(table):
        velocity = np.clip(GAIN * (target - table.hand), -1, 1) + noise * rng.standard_normal(3)
        actions.append(np.clip(np.append(velocity, grip), -1, 1).astype(np.float32))
        table.step(actions[-1])
        if len(actions) == MAX_STEPS:
            break
    return Episode(task, np.stack(actions), distance(table) < 2 * NEAR)


def _go(table: Table, target: Callable[[], np.ndarray], grip: float) -> Iterator[Wish]:
    yield target(), grip
    while np.linalg.norm(target() - table.hand) > NEAR:
        yield target(), grip


def _wait(table: Table, grip: float, steps: int = 4) -> Iterator[Wish]:
    place = table.hand.copy()
    for _ in range(steps):
        yield place, grip
