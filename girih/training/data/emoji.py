"""Builds the default picture set: named emoji drawings of several art styles, from pinned npm packages.

Knows the packages, their checksums and licences, how their drawings join the Unicode labels, and how to rasterise them.
Does not know how a package is fetched (npm.py), captions, backgrounds or scenes (captions.py, compose.py), nor how a
finished set is read (pictures.py).
"""

from __future__ import annotations

import hashlib
import io
import json
import multiprocessing
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from girih.training.data.npm import Source, fetch

LABELS = Source(
    "emojibase-data",
    "17.0.0",
    "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a",
    "MIT",
    "Names and keywords: emojibase, (c) Miles Johnson, MIT; labels from Unicode CLDR (Unicode License).",
)
STYLES = {
    "flat": Source(
        "@iconify-json/fluent-emoji-flat",
        "1.2.6",
        "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175",
        "MIT",
        "Fluent Emoji (flat), (c) Microsoft Corporation, MIT, https://github.com/microsoft/fluentui-emoji",
    ),
    "twemoji": Source(
        "@iconify-json/twemoji",
        "1.2.5",
        "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7",
        "CC-BY-4.0",
        "Twemoji, (c) Twitter, Inc and other contributors, CC BY 4.0 "
        "(https://creativecommons.org/licenses/by/4.0/), https://github.com/jdecked/twemoji; rasterised and recomposed",
    ),
    "noto": Source(
        "@iconify-json/noto",
        "1.2.9",
        "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad",
        "Apache-2.0",
        "Noto Emoji, (c) Google Inc, Apache-2.0, https://github.com/googlefonts/noto-emoji",
    ),
    "blob": Source(
        "@iconify-json/noto-v1",
        "1.2.5",
        "2bf62c26c2c2884aa99e90aec942cdaee17a5921f05690694f4978ad4b017c37",
        "Apache-2.0",
        "Noto Emoji (version 1), (c) Google Inc, Apache-2.0, https://github.com/googlefonts/noto-emoji",
    ),
    "3d": Source(
        "@lobehub/fluent-emoji-3d",
        "1.1.0",
        "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
        "MIT",
        "Fluent Emoji (3D), (c) Microsoft Corporation, MIT, packaged by LobeHub, "
        "https://github.com/microsoft/fluentui-emoji",
    ),
}
# This set ships no code point table of its own; it shares the names of a sister set.
SISTER = {"blob": "noto"}

# Group numbers of emojibase. Left out: 2 (component: skin tones, hair) and 9 (flags: near-identical rectangles).
GROUPS = {
    0: "smileys", 1: "people", 3: "nature", 4: "food", 5: "travel", 6: "activities", 7: "objects", 8: "symbols",
}  # fmt: skip
# Subgroups whose pictures are lettering, not drawings: key caps and "AB button"-like signs.
LETTERING = {"keycap", "alphanum"}
DRAWING_VERSION = 1  # raise it when the same package would give other pixels, so that cached parts are redrawn
Progress = Callable[[str, int, int], None]


def build(
    out: Path,
    size: int = 128,
    styles: tuple[str, ...] = ("flat", "twemoji", "noto"),
    cache: Path | None = None,
    progress: Progress | None = None,
    processes: int = 2,
) -> Path:
    """Build the picture set `out`: pictures.npy uint8 [n,size,size,4] (straight-alpha RGBA), index.jsonl (label,
    hexcode, style, tags, group; same order), CREDITS.md, sources.json. `out` appears whole or not at all; a finished
    style is kept in `cache` (default: the user's cache folder) and reused. `progress(style, done, total)` is called
    now and then. Base emoji only: no skin tones, no flags.

    Raises ValueError (bad size or style, wrong checksum, foreign files in `out`) or OSError (no npm, no network).
    """
    if not 16 <= size <= 512:
        raise ValueError(f"size is {size}; it must be between 16 and 512 pixels")
    for style in styles:
        if style not in STYLES:
            raise ValueError(f"unknown style {style!r}; known: {', '.join(STYLES)}")
    if not styles or len(set(styles)) != len(styles):
        raise ValueError(f"styles must be one or more different names, got {list(styles)}")
    out = Path(out).absolute()
    if out.exists() and not (out.is_dir() and ((out / "sources.json").exists() or not any(out.iterdir()))):
        raise ValueError(f"{out} exists and is not a picture set; choose another folder")
    cache = Path(cache) if cache else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "girih/emoji"
    cache.mkdir(parents=True, exist_ok=True)
    parts = [_part(style, size, cache, progress, processes) for style in styles]

    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        arrays = [np.load(pictures, mmap_mode="r") for pictures, _ in parts]
        count = sum(map(len, arrays))
        merged = np.lib.format.open_memmap(temporary / "pictures.npy", "w+", np.uint8, (count, size, size, 4))
        np.concatenate(arrays, out=merged)
        merged.flush()
        del merged
        (temporary / "index.jsonl").write_text("".join(rows.read_text("utf-8") for _, rows in parts), "utf-8")
        sources = [LABELS, *(STYLES[style] for style in styles)]
        (temporary / "CREDITS.md").write_text(
            "# Credits of this picture set\n\n" + "".join(f"- {source.credit}\n" for source in sources), "utf-8"
        )
        (temporary / "sources.json").write_text(json.dumps([asdict(s) for s in sources], indent=1) + "\n", "utf-8")
        temporary.chmod(0o755)  # mkdtemp makes it private
        _move_into_place(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return out


def _move_into_place(new: Path, out: Path) -> None:
    """Rename `new` to `out`; an older set there is moved aside first and removed afterwards."""
    if not out.exists():
        os.replace(new, out)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{out.name}.old.", dir=out.parent))
    os.replace(out, old)
    os.replace(new, out)
    shutil.rmtree(old)


def _part(style: str, size: int, cache: Path, progress: Progress | None, processes: int) -> tuple[Path, Path]:
    """Pictures and index rows of one style as two files in the cache; drawn only if they are not there yet."""
    source = STYLES[style]
    sister = STYLES[SISTER.get(style, style)]
    key = hashlib.sha256(f"{source.sha256} {sister.sha256} {LABELS.sha256} {DRAWING_VERSION}".encode()).hexdigest()[:12]
    pictures, rows = cache / f"{style}-{size}-{key}.npy", cache / f"{style}-{size}-{key}.jsonl"
    if pictures.exists() and rows.exists():
        return pictures, rows
    if style == "3d":
        drawings = _rasters(fetch(source, cache))
    else:
        drawings = _vectors(fetch(source, cache), fetch(sister, cache))
    jobs = []
    for concept in _concepts(fetch(LABELS, cache)):
        slug = re.sub(r"[^a-z0-9]+", "-", concept["label"].lower()).strip("-")
        drawing = drawings.get(concept["hexcode"]) or drawings.get(slug)
        if drawing is not None:
            jobs.append((concept, drawing))
    kept, drawn = [], []
    pictures_drawn = _draw([drawing for _, drawing in jobs], size, processes)
    for done, ((concept, _), picture) in enumerate(zip(jobs, pictures_drawn, strict=True), 1):
        # A drawing that comes out (nearly) empty is a rasteriser failure, not a picture.
        if picture is not None and picture[..., 3].mean() >= 5:
            kept.append({**concept, "style": style})
            drawn.append(picture)
        if progress and (done % 100 == 0 or done == len(jobs)):
            progress(style, done, len(jobs))
    if not drawn:
        raise ValueError(f"no drawing of {source.package} {source.version} matches an emoji label")
    with _whole(rows) as temporary:  # the pictures last: where both files stand, both are complete
        temporary.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept), "utf-8")
    with _whole(pictures) as temporary, temporary.open("wb") as file:
        np.save(file, np.stack(drawn))
    return pictures, rows


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that becomes `path` only when the block ends well."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _plain(code: str) -> str:
    """Code points as the join key: upper-case hex joined by '-', without the variation selector FE0F."""
    return "-".join(part for part in code.upper().split("-") if part != "FE0F")


def _concepts(tarball: Path) -> list[dict[str, Any]]:
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
        raise ValueError(f"{tar.name} holds no {name}")
    return file  # type: ignore[return-value]


# A drawing on its way to the rasteriser: SVG text or the bytes of a picture file, and whether it is mirrored.
Drawing = tuple[str | bytes, bool]


def _vectors(tarball: Path, names: Path) -> dict[str, Drawing]:
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


def _rasters(tarball: Path) -> dict[str, Drawing]:
    """Picture files of a package by join key (the file name is the code points)."""
    with tarfile.open(tarball) as tar:
        return {
            _plain(Path(member.name).stem): (tar.extractfile(member).read(), False)  # type: ignore[union-attr]
            for member in tar
            if member.isfile() and member.name.endswith((".webp", ".png"))
        }


def _draw(drawings: list[Drawing], size: int, processes: int) -> Iterable[np.ndarray | None]:
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
