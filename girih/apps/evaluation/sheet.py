"""A contact sheet: many prompts chosen by seed, each with the picture it gave.

Knows how a sheet is laid out. Does not choose pictures by how they look, and knows no measure.
"""

from __future__ import annotations

import random
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from girih.apps.evaluation import pictures as through
from girih.files import whole

COLUMNS, GAP, LINES = 10, 8, 3


def contact_sheet(
    pipe: Any, prompts: Sequence[str], seed: int, path: Path | str, count: int = 60,
    progress: through.Progress | None = None, **options: Any,
) -> list[str]:  # fmt: skip
    """Draw `count` of the prompts, picked by `seed`, picture i with seed `seed + i`, as one PNG at `path` with the
    prompt below each picture; `options` go to the pipeline. Returns the prompts in the order of the sheet.

    Raises ValueError for no prompts, OSError for a path that cannot be written.
    """
    if not prompts or count < 1:
        raise ValueError(
            f"a contact sheet needs prompts and a positive count, got {len(prompts)} prompts, count {count}"
        )
    chosen = random.Random(seed).sample(list(prompts), min(count, len(prompts)))
    images = through.draw(pipe, chosen, [seed + i for i in range(len(chosen))], progress, "contact sheet", **options)
    with whole(path) as part:
        compose(images, chosen).save(part, format="PNG", optimize=True)
    return chosen


def compose(images: np.ndarray, captions: Sequence[str]) -> Image.Image:
    """uint8 pictures [n,3,S,S] in rows of ten with captions below; small pictures are enlarged to at least 128 px."""
    size = images.shape[-1]
    side = size * max(1, -(-128 // size))
    font = ImageFont.load_default(11)
    columns = min(COLUMNS, len(images))
    height = side + GAP + 13 * LINES
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * (side + GAP) + GAP, rows * (height + GAP) + GAP), "white")
    pen = ImageDraw.Draw(sheet)
    letters = int(side / font.getlength("abcdefghijklmnopqrstuvwxyz ") * 25)
    for i, (image, caption) in enumerate(zip(images, captions, strict=True)):
        x, y = GAP + i % columns * (side + GAP), GAP + i // columns * (height + GAP)
        drawing = Image.fromarray(image.transpose(1, 2, 0)).resize((side, side), Image.Resampling.NEAREST)
        sheet.paste(drawing, (x, y))
        pen.rectangle((x - 1, y - 1, x + side, y + side), outline=(220, 220, 220))
        lines = textwrap.wrap(caption, letters, max_lines=LINES, placeholder=" ...")
        pen.multiline_text((x, y + side + 4), "\n".join(lines), (40, 40, 40), font, spacing=1)
    return sheet
