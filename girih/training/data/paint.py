"""Repaints a drawing of one main hue in another named colour ("a purple apple").

Knows hues. Does not know concepts, captions or backgrounds.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

# Named paints as hue in 1/256 turns, and how far brightness is lifted to white: a dark yellow would read as brown.
PAINTS: dict[str, tuple[int, float]] = {
    "red": (0, 0.0),
    "yellow": (35, 0.5),
    "green": (92, 0.0),
    "blue": (152, 0.0),
    "purple": (195, 0.0),
    "pink": (232, 0.35),
}
_NEAR = 26  # 1/256 turns (about 37 degrees): what counts as the same hue


def _hsv(rgba: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(np.ascontiguousarray(rgba[..., :3])).convert("HSV")).astype(np.int16)


def _distance(hue: np.ndarray, centre: int) -> np.ndarray:
    """Distance on the circle of 256 hues."""
    return np.abs((hue - centre + 128) % 256 - 128)


def main_hue(rgba: np.ndarray) -> int | None:
    """Hue (0-255) of a drawing uint8 [S,S,4] if one hue dominates it, else None.

    It does when half of the object is coloured at all and 80 % of the coloured pixels lie near one hue.
    """
    rgba = rgba[:: max(1, len(rgba) // 48), :: max(1, len(rgba) // 48)]  # a coarse look is enough, and quick
    hsv = _hsv(rgba)
    solid = rgba[..., 3] > 128
    coloured = solid & (hsv[..., 1] > 80) & (hsv[..., 2] > 60)
    if coloured.sum() < 0.5 * max(1, solid.sum()):
        return None
    hues = hsv[..., 0][coloured]
    counts = np.bincount(hues, minlength=256)
    window = np.convolve(np.concatenate([counts[-12:], counts, counts[:12]]), np.ones(25, int), "valid")
    peak = int(window.argmax())
    return peak if (_distance(hues, peak) <= _NEAR).mean() >= 0.8 else None


def can_paint(hue: int, colour: str) -> bool:
    """Whether painting a drawing of main hue `hue` in `colour` would change it visibly."""
    return bool(_distance(np.asarray(hue), PAINTS[colour][0]) > _NEAR)


def paint(rgba: np.ndarray, hue: int, colour: str) -> np.ndarray:
    """The drawing uint8 [S,S,4] with its pixels near `hue` turned to the paint `colour`; others (a leaf) stay."""
    target, lift = PAINTS[colour]
    hsv = _hsv(rgba)
    near = (_distance(hsv[..., 0], hue) <= _NEAR) & (hsv[..., 1] > 40)
    hsv[..., 0][near] = (hsv[..., 0][near] + target - hue) % 256
    hsv[..., 2][near] += ((255 - hsv[..., 2][near]) * lift).astype(np.int16)
    painted = np.asarray(Image.fromarray(hsv.astype(np.uint8), "HSV").convert("RGB"))
    return np.concatenate([painted, rgba[..., 3:]], axis=-1)
