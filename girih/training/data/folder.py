"""One's own pictures with captions, read from a folder.

Knows three conventions for where a caption stands, and skips what cannot be read. Does not know training.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
_UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)


class ImageFolder:
    """Pictures and captions of `folder`, found in the first of these ways that applies:

    1. `metadata.jsonl` or `metadata.csv` in it, with `file_name` (relative to the folder) and `text` or `caption`;
    2. a `.txt` file beside a picture, with the same name (pictures without one are skipped);
    3. sub-folders: the sub-folder's name, with "_" and "-" read as spaces, is the caption.

    With `captions=False` it is every picture in the folder and its sub-folders, each with the caption "".

    `items`: (path, caption) of every picture that can be read, in the order of their names or of the metadata.
    `skipped`: how many were left out, by reason. Captions are UTF-8, or UTF-16 with its mark; others are skipped.
    Raises ValueError when `size` (pixels) is not 16-2048, the folder is none, or nothing is left.
    """

    def __init__(self, folder: Path | str, size: int, captions: bool = True):
        if not 16 <= size <= 2048:
            raise ValueError(f"size is {size}; it must be between 16 and 2048 pixels")
        self.folder, self.size, self.captions = Path(folder), size, captions
        if not self.folder.is_dir():
            raise ValueError(f"{self.folder} is not a folder")
        self.skipped: Counter[str] = Counter()
        self.items = [
            (path, " ".join((text or "").split())) for path, text in self._find() if self._keep(path, text)
        ]
        if not self.items:
            wanted = "picture with a caption" if captions else "picture that can be read"
            raise ValueError(f"no {wanted} in {self.folder} ({self.report() or 'it holds no pictures'})")

    def __len__(self) -> int:
        return len(self.items)

    def report(self) -> str:
        """What was skipped, as one phrase: "2 unreadable pictures, 1 without a caption"; empty if nothing was."""
        return ", ".join(f"{count} {reason}" for reason, count in self.skipped.items())

    def load(self, index: int) -> np.ndarray:
        """uint8 [3,size,size] RGB: the picture's centre square, resized; transparent parts become white."""
        with Image.open(self.items[index][0]) as file:
            image = ImageOps.exif_transpose(file)
        if image.mode.startswith("I;16"):  # Pillow would clip 16 bits instead of scaling them
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        image = ImageOps.fit(image.convert("RGB"), (self.size, self.size), Image.Resampling.LANCZOS)
        return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))

    def _find(self) -> list[tuple[Path, str | None]]:
        """(picture, caption) pairs by the first convention that applies; None: its caption cannot be read."""
        for name in ("metadata.jsonl", "metadata.csv") if self.captions else ():
            if (self.folder / name).is_file():
                return self._metadata(self.folder / name)
        pictures = sorted(
            path
            for path in self.folder.rglob("*")
            if path.suffix.lower() in SUFFIXES
            and path.is_file()
            and not any(part.startswith(".") for part in path.relative_to(self.folder).parts)
        )
        if not self.captions:
            return [(path, "") for path in pictures]
        beside = {path: path.with_suffix(".txt") for path in pictures if path.with_suffix(".txt").is_file()}
        if beside:
            return [(path, _text(beside[path]) if path in beside else "") for path in pictures]
        return [
            (path, "" if path.parent == self.folder else path.parent.name.replace("_", " ").replace("-", " "))
            for path in pictures
        ]

    def _metadata(self, path: Path) -> list[tuple[Path, str | None]]:
        content = _text(path)
        if content is None:
            raise ValueError(f"{path} is neither UTF-8 nor UTF-16 text")
        entries: list[dict[str, object]] = []
        if path.suffix == ".csv":
            entries = list(csv.DictReader(io.StringIO(content)))
        else:
            for line in filter(str.strip, content.splitlines()):
                try:
                    entry = json.loads(line)
                except ValueError:
                    entry = None
                if isinstance(entry, dict):
                    entries.append(entry)
                else:
                    self.skipped["broken metadata lines"] += 1
        columns = {key for entry in entries for key in entry}
        column = next((name for name in ("text", "caption") if name in columns), None)
        if entries and ("file_name" not in columns or column is None):
            raise ValueError(f"{path} must have file_name and text (or caption); it has {sorted(map(str, columns))}")
        found: list[tuple[Path, str | None]] = []
        for entry in entries:
            name, text = entry.get("file_name"), entry.get(column or "")
            if isinstance(name, str) and name.strip():
                found.append((self.folder / name.strip(), text if isinstance(text, str) else ""))
            else:
                self.skipped["metadata lines without a file_name"] += 1
        return found

    def _keep(self, path: Path, text: str | None) -> bool:
        if text is None:
            self.skipped["captions in an unknown encoding"] += 1
            return False
        if self.captions and not text.strip():
            self.skipped["without a caption"] += 1
            return False
        if not path.is_file():
            self.skipped["missing pictures"] += 1
            return False
        try:
            with Image.open(path) as image:
                image.draft("RGB", (self.size, self.size))  # a JPEG is decoded small: quick, and still to its end
                image.load()
        except _UNREADABLE:
            self.skipped["unreadable pictures"] += 1
            return False
        return True


def _text(path: Path) -> str | None:
    """Content of a text file in UTF-8, or in UTF-16 if it is marked so; None in any other encoding."""
    content = path.read_bytes()
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text
