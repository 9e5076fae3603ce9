"""Builds the default picture set: named emoji drawings of several art styles, from pinned npm packages.

Knows the packages, their checksums and licences, and the files of a set. Does not know how a package is fetched
(npm.py), what is inside it and how it is drawn (drawings.py), how a finished set is read (pictures.py), or captions,
backgrounds and scenes (captions.py, compose.py).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np

from girih.training.data.drawings import concepts, draw, rasters, vectors
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
        header = {"descr": "|u1", "fortran_order": False, "shape": (count, size, size, 4)}
        # Written, not memory-mapped: a full disk is an OSError here, and would kill the process there.
        with (temporary / "pictures.npy").open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            for array in arrays:
                for picture in array:
                    file.write(picture.tobytes())
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
        drawings = rasters(fetch(source, cache))
    else:
        drawings = vectors(fetch(source, cache), fetch(sister, cache))
    jobs = []
    for concept in concepts(fetch(LABELS, cache)):
        slug = re.sub(r"[^a-z0-9]+", "-", concept["label"].lower()).strip("-")
        drawing = drawings.get(concept["hexcode"]) or drawings.get(slug)
        if drawing is not None:
            jobs.append((concept, drawing))
    kept, drawn = [], []
    pictures_drawn = draw([drawing for _, drawing in jobs], size, processes)
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
