"""Hairstyles for tests: swept curves like the cards of stylised characters."""

from __future__ import annotations

import numpy as np


def card(seed: int, points: int = 20) -> np.ndarray:
    """A card root to tip ``[points, 5]``: from the crown down and outwards, tapering, well inside CHARM's ranges."""
    rng = np.random.default_rng(seed)
    along = np.linspace(0, 1, points)
    angle = rng.uniform(-np.pi, np.pi) + rng.uniform(-0.8, 0.8) * along
    radius = 0.08 + rng.uniform(0.1, 0.2) * np.sin(1.3 * along)
    height = 0.33 - rng.uniform(0.2, 0.5) * along ** rng.uniform(1, 1.6)
    width = rng.uniform(0.02, 0.045) * np.sin(np.pi * (0.08 + 0.87 * along)) + 0.002
    return np.column_stack([radius * np.sin(angle), height, radius * np.cos(angle), width, 0.4 * width])


def hairdo(seed: int, cards: int = 6) -> list[np.ndarray]:
    """A style of cards of 8 to 30 points."""
    rng = np.random.default_rng(seed)
    return [card(int(rng.integers(2**31)), int(rng.integers(8, 31))) for _ in range(cards)]
