"""Which tokenizer reads a file: by name, by saved folder, or by the file's type.

Knows the tokenizers by name and looks into files that may hold several things. Does not know what the modalities do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import girih
from girih import catalog
from girih.apps.modalities import modality
from girih.names import unknown

MAX_HEADER = 2**24  # bytes of a .glb's description that are looked at


@dataclass(frozen=True)
class Entry:
    """A tokenizer by name. ``place``: the shipped folder of a learned one; ``settings``: other than the defaults."""

    modality: str
    cls: str
    place: str | None = None
    settings: Mapping[str, Any] | None = None


TOKENIZERS = {
    "triangles": Entry("mesh", "TriangleTokenizer"),
    "adjacent": Entry("mesh", "AdjacentTokenizer"),
    "block-patch": Entry("mesh", "BlockPatchTokenizer"),
    "quads": Entry("mesh", "QuadTokenizer"),
    "hair": Entry("hair", "HairTokenizer"),
    "skeleton": Entry("rig", "SkeletonTokenizer"),
    "unirig": Entry("rig", "UniRigTokenizer"),
    "cad": Entry("cad", "CadTokenizer"),
    "cad-vectors": Entry("cad", "CadVectorTokenizer"),
    "parts": Entry("cad", "PartTokenizer"),
    "scene": Entry("scene", "SceneTokenizer"),
    "words": Entry("text", "WordByteTokenizer", settings={"num_words": 2**16}),
    "actions": Entry("actions", "ActionTokenizer", place="actions-fast"),
    "image": Entry("picture", "ImageTokenizer", place="image/codec"),
}
# Class -> modality; the last ones have weights of their own and come as a folder.
CLASSES = {entry.cls: entry.modality for entry in TOKENIZERS.values()} | {
    "LookupFreeTokenizer": "picture", "MultiscaleTokenizer": "picture", "AudioTokenizer": "sound",
    "VideoTokenizer": "video",
}  # fmt: skip
LEARNED = ("picture", "sound", "video")
# Ending -> tokenizer that is taken; "" = one must be given. .glb and .txt may hold several things and are looked into.
DEFAULTS = {
    **dict.fromkeys((".ply", ".stl", ".off", ".gltf", ".glb"), "triangles"), ".obj": "quads", ".json": "cad",
    ".txt": "words", ".md": "words", **dict.fromkeys((".npy", ".csv", ".parquet"), "actions"),
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".webp", ".bmp"), "image"),
    **dict.fromkeys((".wav", ".flac", ".ogg", ".mp3", ".mp4", ".mkv", ".webm", ".mov", ".avi", ".gif"), ""),
}  # fmt: skip


@dataclass(frozen=True)
class Chosen:
    """A tokenizer with its modality; ``source``: the name or folder it was loaded from, None where settings say all."""

    tokenizer: Any
    modality: str
    source: str | None

    @property
    def cls(self) -> str:
        return type(self.tokenizer).__name__

    @property
    def settings(self) -> dict[str, Any]:
        """The tokenizer's config as plain JSON."""
        return {k: v for k, v in json.loads(self.tokenizer.to_json_string()).items() if not k.startswith("_")}


def choose(file: Path, name: str | None = None) -> Chosen:
    """The tokenizer ``name`` (or of the folder ``name``) for a file; None: the one that the file's type asks for.

    Raises ValueError for an unknown name or ending, a folder without a tokenizer, or one that reads other files.
    """
    ending = file.suffix.lower()
    if name is None:
        if ending not in DEFAULTS:
            raise unknown("file ending", ending, DEFAULTS)
        name = DEFAULTS[ending] if ending not in (".glb", ".txt") else _look_into(file)
        if not name:
            raise ValueError(f"no tokenizer for {ending} files ships with girih: give --tokenizer FOLDER of one with "
                             f"weights")
    chosen = load(name)
    reads = modality(chosen.modality).reads
    if ending not in reads:
        raise ValueError(f"the tokenizer {name} reads {', '.join(reads)} files, not {ending or file.name!r}")
    return chosen


def load(name: str) -> Chosen:
    """A tokenizer by name or folder. Raises ValueError where there is none."""
    if name in TOKENIZERS:
        entry = TOKENIZERS[name]
        if entry.place is None:
            return Chosen(getattr(girih, entry.cls)(**(entry.settings or {})), entry.modality, None)
        shipped, *inside = entry.place.split("/")
        folder, source = catalog.find(shipped).joinpath(*inside), name
    elif Path(name).is_dir():
        folder, source = Path(name), str(Path(name).resolve())
    else:
        raise unknown("tokenizer", name, TOKENIZERS)
    try:
        configs = [file for part in ("config.json", "scheduler_config.json") if (file := folder / part).is_file()]
        cls = json.loads(configs[0].read_text("utf-8")).get("_class_name") if configs else None
        if cls not in CLASSES:
            raise ValueError(f"{name} holds {f'a {cls}' if cls else 'no config.json'}; `girih tokens` works with "
                             f"{', '.join(CLASSES)}")
        learned = CLASSES[cls] in LEARNED
        tokenizer = getattr(girih, cls).from_pretrained(folder, **({"use_safetensors": True} if learned else {}))
    except (OSError, RuntimeError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise ValueError(f"the tokenizer {name} cannot be loaded: {error}") from error
    if learned:
        tokenizer.eval().float()
    return Chosen(tokenizer, CLASSES[cls], source if learned else None)


def _look_into(file: Path) -> str:
    """The tokenizer that the content of a .glb or .txt file asks for."""
    with file.open("rb") as stream:
        head = stream.read(20)
        if file.suffix.lower() == ".txt":
            word = (head + stream.read(4096)).decode("utf-8", "replace").split(",")[0].split()[:1]
            return {"joints": "skeleton", "root": "skeleton"}.get("".join(word)) or (
                "scene" if "".join(word).startswith("make_") else "words")
        text = stream.read(min(int.from_bytes(head[12:16], "little"), MAX_HEADER))
    try:
        scene = json.loads(text)
        if scene.get("skins"):
            return "skeleton"
        names = [str(node.get("name")) for node in scene.get("nodes", []) if "mesh" in node]
    except (ValueError, AttributeError, TypeError):
        return "triangles"  # the reader says what is wrong with it
    return "hair" if names and all(name.startswith("card_") for name in names) else "triangles"
