"""Files as tokens and back, for `girih tokens` and `girih untokens`.

Knows token files and what a round trip through one costs. Does not know which tokenizer reads what, or what the
modalities do (apps/modalities).

A token file (.npz or .json) holds the tokens, the tokenizer's class and settings, for a learned one the name or folder
that it was loaded from, and what the modality keeps beside tokens. It is read as foreign data: no pickle, every value
checked, settings of a size that cannot fill the memory.
"""

from __future__ import annotations

import inspect
import json
import math
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import girih
from girih.apps.modalities import Loss, Side, modality
from girih.apps.modalities.choice import CLASSES, LEARNED, TOKENIZERS, Chosen, choose, load
from girih.files import whole
from girih.names import unknown

FORMAT = "girih tokens 1"
MAX_BYTES = 2**27  # of a token file, unpacked
MAX_TOKENS = 2**22


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
    """Every number in a JSON value, however deep."""
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, (int, float)):
            yield part
        elif isinstance(part, (list, dict)):
            waiting += part.values() if isinstance(part, dict) else part


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
