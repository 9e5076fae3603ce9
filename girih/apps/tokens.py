"""Files as tokens and back, for `girih tokens` and `girih untokens`.

Knows the tokenizers by name, which one a file's type asks for, and token files. Does not know what the modalities do
(apps/modalities).

A token file (.npz or .json) holds the tokens, the tokenizer's class and settings, for a learned one the name or folder
that it was loaded from, and what the modality keeps beside tokens. It is read as foreign data: no pickle, every value
checked, settings of a size that cannot fill the memory.
"""

from __future__ import annotations

import inspect
import json
import math
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import girih
from girih import catalog
from girih.apps.modalities import Loss, Side, modality
from girih.files import whole
from girih.names import unknown

FORMAT = "girih tokens 1"
MAX_BYTES = 2**27  # of a token file, unpacked
MAX_TOKENS = 2**22


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


@dataclass(frozen=True)
class Encoded:
    """What `girih tokens` found; ``report`` is what it prints."""

    chosen: Chosen
    tokens: Tensor
    side: Side
    report: dict[str, Any]
    loss: Loss

    def words(self) -> Iterator[str]:
        """The sequence in words."""
        yield from modality(self.chosen.modality).words(self.chosen.tokenizer, self.tokens)


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
        folder, source = _shipped(entry.place), name
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


@contextmanager
def _extras() -> Iterator[None]:
    """A library that is missing is the user's to install: the lines that say which are ValueErrors here."""
    try:
        yield
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError):
            raise  # the command line names its extra
        raise ValueError(str(error)) from error


@_extras()
def encode(file: Path, name: str | None = None) -> Encoded:
    """A file as tokens, and what that costs. Raises ValueError, OSError or ImportError in one line."""
    if not file.is_file():
        raise ValueError(f"there is no file {file}")
    chosen = choose(file, name)
    worker = modality(chosen.modality)
    signal = worker.read(file, chosen.tokenizer)
    tokens = worker.encode(chosen.tokenizer, signal)
    loss = worker.loss(chosen.tokenizer, signal, worker.decode(chosen.tokenizer, tokens, signal.side))
    spec = chosen.tokenizer.spec
    filled = spec.pad is not None and (tokens.shape[0] > 1 or tokens.ndim > 2)  # rows or words of several lengths
    count = int((tokens != spec.pad).sum()) if filled else tokens.numel()
    bits = count * math.log2(spec.vocab_size)
    report = {
        "file": str(file), "tokenizer": chosen.cls, "vocabulary": spec.vocab_size, "shape": list(tokens.shape),
        "spec": list(spec.shape), "tokens": count, "bits": round(bits, 1), "raw_bits": signal.bits,
        "ratio": round(signal.bits / bits, 3), "round_trip": asdict(loss), "notes": list(signal.notes),
    }  # fmt: skip
    return Encoded(chosen, tokens, signal.side, report, loss)


@_extras()
def decode(file: Path, out: Path) -> str:
    """Writes the file that a token file stands for; returns the tokenizer's class. Raises ValueError or OSError."""
    chosen, tokens, side = read_tokens(file)
    worker = modality(chosen.modality)
    if out.suffix.lower() not in worker.writes:
        raise ValueError(f"--out of {chosen.cls} writes {', '.join(worker.writes)}, not {out.suffix or out.name!r}")
    worker.write(out, worker.decode(chosen.tokenizer, tokens, side))
    return chosen.cls


def write_tokens(encoded: Encoded, path: Path) -> None:
    """A token file, whole or not at all. Raises ValueError for another ending than .npz or .json."""
    chosen, tokens = encoded.chosen, encoded.tokens.numpy()
    header = {"format": FORMAT, "class": chosen.cls, "source": chosen.source, "settings": chosen.settings,
              "side": encoded.side}  # fmt: skip
    check_ending(path)
    small = tokens.astype(np.min_scalar_type(chosen.tokenizer.spec.vocab_size - 1))
    with whole(path) as part:
        if path.suffix.lower() == ".json":
            part.write_text(json.dumps({**header, "tokens": tokens.tolist()}), "utf-8")
        else:
            with part.open("wb") as stream:
                np.savez_compressed(stream, header=np.array(json.dumps(header)), tokens=small)


def check_ending(path: Path) -> None:
    """Raises ValueError unless a token file may have this name."""
    if path.suffix.lower() not in (".npz", ".json"):
        raise ValueError(f"token files end in .npz or .json, not {path.suffix or path.name!r}")


def read_tokens(path: Path) -> tuple[Chosen, Tensor, Side]:
    """(tokenizer, tokens [rows, ...], side values) of a token file.

    Raises ValueError in one line for a damaged file, unknown settings, a learned tokenizer that is not here or another
    one, and tokens out of range or of another shape. OSError: the file cannot be opened.
    """
    check_ending(path)
    header, tokens = _raw(path)
    cls, settings, source, side = (header.get(key) for key in ("class", "settings", "source", "side"))
    if header.get("format") != FORMAT or not isinstance(settings, dict) or not isinstance(side, dict):
        raise ValueError(f"{path.name} is not a token file of girih")
    if not isinstance(cls, str) or cls not in CLASSES:
        raise unknown("tokenizer class", str(cls), CLASSES)
    kind = CLASSES[cls]
    if kind in LEARNED:
        if not isinstance(source, str) or not (source in TOKENIZERS or Path(source).is_dir()):
            raise ValueError(f"the tokenizer of {path.name} is not here: {source!r}")
        chosen = load(source)
        if (chosen.cls, chosen.settings) != (cls, settings):
            raise ValueError(f"{path.name} was made by another {cls} than the {chosen.cls} that {source!r} now is")
    else:
        chosen = Chosen(_made(cls, settings), kind, None)
    _check(tokens, chosen)
    return chosen, torch.from_numpy(tokens.astype(np.int64)), side


def _raw(path: Path) -> tuple[dict[str, Any], Any]:
    """(header, tokens as a NumPy array) of a file that may be damaged in any way."""
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path.name} has {path.stat().st_size} bytes, the limit for token files is {MAX_BYTES}")
    try:
        if path.suffix.lower() == ".json":
            header = _parse(path.read_text("utf-8"))
            tokens = np.array(header.pop("tokens"))
        else:
            with zipfile.ZipFile(path) as archive:
                if sum(part.file_size for part in archive.infolist()) > MAX_BYTES:
                    raise ValueError(f"it unpacks to more than {MAX_BYTES} bytes")
            with np.load(path, allow_pickle=False) as arrays:
                header, tokens = _parse(str(arrays["header"])), arrays["tokens"]
    except OSError as error:
        if error.strerror:
            raise
        raise ValueError(f"{path.name} is not a token file, or is damaged: {error}") from error
    except Exception as error:  # zip, zlib, NumPy and JSON each raise their own on damaged files
        raise ValueError(f"{path.name} is not a token file, or is damaged: {str(error)[:120]}") from error
    return header, tokens


def _parse(text: str) -> dict[str, Any]:
    def refuse(word: str) -> None:
        raise ValueError(f"{word} is no number")

    value = json.loads(text, parse_constant=refuse)
    if not isinstance(value, dict):
        raise ValueError(f"it holds a {type(value).__name__}")
    return value


def _made(cls: str, settings: dict[str, Any]) -> Any:
    """A rule-based tokenizer of foreign settings, none of them so large that its tables would fill the memory."""
    known = {name: item.default for name, item in inspect.signature(getattr(girih, cls).__init__).parameters.items()}
    usual = next((entry.settings for entry in TOKENIZERS.values() if entry.cls == cls), None) or {}
    for name, value in settings.items():
        if name not in known or name == "self":
            raise unknown(f"setting of {cls}", name, [one for one in known if one != "self"])
        default = usual.get(name, known[name])
        plain = isinstance(default, (int, float)) and not isinstance(default, bool)
        # Limits of length cost nothing, bins do: a block of n^3 ids grows fast.
        most = abs(default) * (16 if name == "max_faces" else 4) if plain and default else 2**10
        if isinstance(value, (int, float)) and abs(value) > most:
            raise ValueError(f"setting {name} of {cls} is {value}, the limit for token files is {most:g}")
        numbers = list(_numbers(value)) if isinstance(value, (list, dict)) else []
        if len(numbers) > 2**16 or any(abs(number) > 2**14 for number in numbers):
            raise ValueError(f"setting {name} of {cls} holds too many or too large numbers for a token file")
    try:
        return getattr(girih, cls)(**settings)
    except Exception as error:  # settings of a wrong type fail anywhere in a constructor
        raise ValueError(f"the settings of the {cls} do not fit: {error}") from error


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, (int, float)):
        yield value
    elif isinstance(value, (list, dict)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _numbers(part)


def _check(tokens: Any, chosen: Chosen) -> None:
    """Raises ValueError for what cannot be the chosen tokenizer's tokens, whatever they say."""
    spec, cls = chosen.tokenizer.spec, chosen.cls
    axes = 1 + len(spec.shape)
    if tokens.dtype.kind not in "iu" or tokens.ndim != axes or not 0 < tokens.size <= MAX_TOKENS:
        raise ValueError(f"tokens of {cls} are 1 to {MAX_TOKENS} whole numbers in {axes} axes, got {tokens.dtype} "
                         f"{list(tokens.shape)}")
    if chosen.modality != "actions" and len(tokens) != 1:
        raise ValueError(f"a token file of {cls} holds one result, this one {len(tokens)}")
    if axes == 2 and tokens.shape[1] > spec.shape[0] and chosen.modality != "video":
        raise ValueError(f"{tokens.shape[1]} tokens are more than the {spec.shape[0]} of {cls}'s settings")
    if not 0 <= int(tokens.min()) <= int(tokens.max()) < spec.vocab_size:
        wrong = int(tokens.min()) if int(tokens.min()) < 0 else int(tokens.max())
        raise ValueError(f"token {wrong} is out of range: {cls} has ids 0 .. {spec.vocab_size - 1}")


def _shipped(place: str) -> Path:
    for folder in catalog._PLACES:
        if (folder / place).is_dir():
            return Path(folder / place)
    raise ValueError(f"the tokenizer {place} does not ship with this installation")


def _look_into(file: Path) -> str:
    """The tokenizer that the content of a .glb or .txt file asks for."""
    with file.open("rb") as stream:
        head = stream.read(20)
        if file.suffix.lower() == ".txt":
            word = (head + stream.read(4096)).decode("utf-8", "replace").split(",")[0].split()[:1]
            return {"joints": "skeleton", "root": "skeleton"}.get("".join(word)) or (
                "scene" if "".join(word).startswith("make_") else "words")
        text = stream.read(min(int.from_bytes(head[12:16], "little"), MAX_BYTES))
    try:
        scene = json.loads(text)
        if scene.get("skins"):
            return "skeleton"
        names = [str(node.get("name")) for node in scene.get("nodes", []) if "mesh" in node]
    except (ValueError, AttributeError, TypeError):
        return "triangles"  # the reader says what is wrong with it
    return "hair" if names and all(name.startswith("card_") for name in names) else "triangles"
