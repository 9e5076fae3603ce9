"""Opens emoji packages: what their drawings are called and how each becomes pixels.

Knows the layouts of emojibase, iconify and picture-file packages, how they join on code points, and the rasteriser.
Does not know which packages there are or what is done with the pictures (emoji.py).
"""

from __future__ import annotations

import io
import json
import multiprocessing
import tarfile
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

# Group numbers of emojibase. Left out: 2 (component: skin tones, hair) and 9 (flags: near-identical rectangles).
GROUPS = {
    0: "smileys", 1: "people", 3: "nature", 4: "food", 5: "travel", 6: "activities", 7: "objects", 8: "symbols",
}  # fmt: skip
# Subgroups whose pictures are lettering, not drawings: key caps and "AB button"-like signs.
LETTERING = {"keycap", "alphanum"}
# A drawing on its way to the rasteriser: SVG text or the bytes of a picture file, and whether it is mirrored.
Drawing = tuple[str | bytes, bool]


def _plain(code: str) -> str:
    """Code points as the join key: upper-case hex joined by '-', without the variation selector FE0F."""
    return "-".join(part for part in code.upper().split("-") if part != "FE0F")


def concepts(tarball: Path) -> list[dict[str, Any]]:
    """Every base emoji that is a real drawing: label, hexcode (join key), tags, group."""
    with tarfile.open(tarball) as tar:
        emoji = json.load(_member(tar, "package/en/data.json"))
        subgroups = {int(entry["order"]): entry["key"] for entry in
                     json.load(_member(tar, "package/en/messages.json"))["subgroups"]}  # fmt: skip
    return [
        {
            "label": entry["label"],
            "hexcode": _plain(entry["hexcode"]),
            "tags": entry.get("tags", []),
            "group": GROUPS[entry["group"]],
        }
        for entry in emoji
        if entry.get("group") in GROUPS and subgroups.get(entry.get("subgroup", -1)) not in LETTERING
    ]


def _member(tar: tarfile.TarFile, name: str) -> io.BufferedReader:
    file = tar.extractfile(name) if name in tar.getnames() else None
    if file is None:
        raise ValueError(f"{tar.name!s} holds no {name}")
    return file  # type: ignore[return-value]


def vectors(tarball: Path, names: Path) -> dict[str, Drawing]:
    """Drawings of an iconify set by join key (code points by the `names` package's chars.json) and by icon name."""
    with tarfile.open(tarball) as tar:
        icons = json.load(_member(tar, "package/icons.json"))
    with tarfile.open(names) as tar:
        characters: dict[str, str] = json.load(_member(tar, "package/chars.json"))
    found: dict[str, Drawing] = {}
    for name in [*icons["icons"], *icons.get("aliases", {})]:
        entry, mirrored = name, False
        while (alias := icons.get("aliases", {}).get(entry)) is not None:
            entry, mirrored = alias["parent"], mirrored ^ alias.get("hFlip", False)
        icon = icons["icons"][entry]
        if icon.get("hidden"):
            continue
        box = [icon.get(key, icons.get(key, default))
               for key, default in (("left", 0), ("top", 0), ("width", 16), ("height", 16))]  # fmt: skip
        found[name] = (
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'width="SIZE" height="SIZE" viewBox="{" ".join(map(str, box))}">{icon["body"]}</svg>',
            mirrored,
        )
    found.update({_plain(code): found[name] for code, name in characters.items() if name in found})
    return found


def rasters(tarball: Path) -> dict[str, Drawing]:
    """Picture files of a package by join key (the file name is the code points)."""
    with tarfile.open(tarball) as tar:
        return {
            _plain(Path(member.name).stem): (tar.extractfile(member).read(), False)  # type: ignore[union-attr]
            for member in tar
            if member.isfile() and member.name.endswith((".webp", ".png"))
        }


def draw(drawings: list[Drawing], size: int, processes: int) -> Iterable[np.ndarray | None]:
    """Rasterise in order; small sets in this process, because starting workers costs more."""
    if processes < 2 or len(drawings) < 200:
        yield from (rasterise(drawing, size) for drawing in drawings)
        return
    # Spawned, not forked: the caller may have threads. The rasteriser holds the GIL, so threads would not help.
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(rasterise, drawings, [size] * len(drawings), chunksize=16)


def rasterise(drawing: Drawing, size: int) -> np.ndarray | None:
    """uint8 [size,size,4] straight-alpha RGBA of one drawing, centred in a square; None if it cannot be drawn."""
    import resvg_py

    content, mirrored = drawing
    if isinstance(content, str):
        try:
            content = resvg_py.svg_to_bytes(svg_string=content.replace("SIZE", str(size), 2), skip_system_fonts=True)
        except ValueError:
            return None
    image = Image.open(io.BytesIO(content)).convert("RGBA")
    if image.size != (size, size):
        image.thumbnail((size, size), Image.Resampling.LANCZOS)
        square = Image.new("RGBA", (size, size))
        square.paste(image, ((size - image.width) // 2, (size - image.height) // 2))
        image = square
    pixels = np.asarray(image)
    return np.ascontiguousarray(pixels[:, ::-1] if mirrored else pixels)
