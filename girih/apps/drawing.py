"""From a request (prompts, seed, options) to pictures on disk that can be drawn again.

Knows the order of pictures and seeds, what is recorded in a PNG, and how files are named. Does not know the command
line, nor how a pipeline draws.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin, UnidentifiedImageError

import girih
from girih import catalog
from girih.files import whole

CHUNK = "girih"  # keyword of the PNG text chunk that holds the record
_MAX_SEED = 2**63 - 1  # what torch.Generator.manual_seed takes
_BATCH = 8


@dataclass(frozen=True)
class Request:
    """Everything a picture depends on. None leaves an option to the model.

    Picture i (from 0) of each prompt is drawn with seed `seed + i`, whatever else is drawn with it.
    """

    prompts: tuple[str, ...]
    n: int = 1
    seed: int = 0
    model: str = "image"
    style: str | None = None
    decoding: str | None = None
    negative: str | None = None
    guidance: float | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    int8: bool = False
    image: str | None = None
    mask: str | None = None
    strength: float | None = None

    def check(self) -> None:
        """Raises ValueError for what can be told wrong without the model."""
        if not self.prompts:
            raise ValueError("nothing to draw: give a prompt, or --from FILE.png")
        if any(not prompt.strip() for prompt in self.prompts):
            raise ValueError("a prompt must not be empty")
        if self.n < 1:
            raise ValueError(f"--n must be at least 1, got {self.n}")
        if not 0 <= self.seed <= _MAX_SEED - self.n:
            raise ValueError(f"--seed must be between 0 and 2^63, got {self.seed}")
        if self.image is None and (self.mask is not None or self.strength is not None):
            raise ValueError("--mask and --strength change a picture: give it with --image FILE")
        if self.image is not None and self.mask is None and self.strength is None:
            raise ValueError("--image needs --mask FILE (what to redraw) or --strength between 0 and 1 (how much)")

    def singles(self) -> list[Request]:
        """One request a picture, in the order they are drawn: prompt by prompt, seeds rising."""
        return [
            replace(self, prompts=(prompt,), n=1, seed=self.seed + i) for prompt in self.prompts for i in range(self.n)
        ]


def draw(request: Request, quiet: bool = True) -> Iterator[tuple[Request, Image.Image]]:
    """Draws the pictures of `request`, each with the request that draws it alone. Raises what the pipeline does."""
    import diffusers
    import torch

    request.check()
    given = {"image": _open(request.image), "mask_image": _open(request.mask)}  # before the slow part
    loading = {} if request.decoding is None else {"decoding": request.decoding}
    if quiet:
        diffusers.utils.logging.disable_progress_bar()
    pipe = girih.load(request.model, **loading)
    if not hasattr(pipe, "set_progress_bar_config"):  # a tokenizer's folder, say
        raise ValueError(f"{request.model} holds a {type(pipe).__name__} alone, which draws nothing from prompts")
    if request.int8:
        pipe = girih.optimize(pipe, int8=True)
    pipe.set_progress_bar_config(disable=quiet)
    options = {
        "style": request.style,
        "guidance_scale": request.guidance,
        "temperature": request.temperature,
        "top_k": request.top_k,
        "top_p": request.top_p,
        "strength": request.strength,
        **given,
    }
    options = {name: value for name, value in options.items() if value is not None}
    singles = request.singles()
    # In int8 only the same call gives the same result, so a picture that shall come again alone is drawn alone.
    size = 1 if request.int8 else _BATCH
    for start in range(0, len(singles), size):
        part = singles[start : start + size]
        negative = {} if request.negative is None else {"negative_prompt": [request.negative] * len(part)}
        out = pipe(
            prompt=[single.prompts[0] for single in part],
            generator=[torch.Generator().manual_seed(single.seed) for single in part],
            output_type="pil",
            **negative,
            **options,
        )
        yield from zip(part, out.images, strict=True)


def _open(file: str | None) -> Image.Image | None:
    """The picture in `file`, read whole. Raises ValueError where it is not one."""
    if file is None:
        return None
    try:
        picture = Image.open(file)
        picture.load()
    except (UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise ValueError(f"{file} is not a picture that can be read") from error
    except OSError as error:
        if error.errno is not None:  # no such file, no permission: says so itself
            raise
        raise ValueError(f"{file} is damaged: {error}") from error
    return picture


def grid(pictures: list[Image.Image], columns: int, gap: int = 2) -> Image.Image:
    """One picture with all of them in rows of `columns`, white between."""
    width, height = pictures[0].size
    rows = math.ceil(len(pictures) / columns)
    sheet = Image.new("RGB", (columns * (width + gap) - gap, rows * (height + gap) - gap), "white")
    for i, picture in enumerate(pictures):
        sheet.paste(picture, (i % columns * (width + gap), i // columns * (height + gap)))
    return sheet


def save(picture: Image.Image, request: Request, path: Path) -> None:
    """Writes a PNG that holds, as text, the request that draws it. Appears whole or not at all; raises OSError."""
    import torch

    record: dict[str, Any] = {"version": girih.__version__, "torch": torch.__version__, **asdict(request)}
    if request.model not in catalog.models() and Path(request.model).is_dir():
        record["model"] = str(Path(request.model).resolve())
    for name in ("image", "mask"):
        if record[name] is not None:
            record[name] = str(Path(record[name]).resolve())
            record[f"{name}_sha256"] = _digest(record[name])
    text = PngImagePlugin.PngInfo()
    text.add_text(CHUNK, json.dumps(record))
    text.add_text("Description", "; ".join(request.prompts))
    text.add_text("Software", f"girih {girih.__version__}")
    with whole(path) as part:
        picture.save(part, format="PNG", pnginfo=text)


def read_request(path: str) -> Request:
    """The request recorded in a PNG that girih wrote. Raises ValueError if there is none, or if an input changed."""
    text = getattr(_open(path), "text", {}).get(CHUNK)
    if text is None:
        raise ValueError(f"{path} holds no girih record: girih did not draw it, or another program saved it anew")
    try:
        record = json.loads(text)
        version, torch_version = record.pop("version"), record.pop("torch")
        digests = {name: record.pop(f"{name}_sha256", None) for name in ("image", "mask")}
        known = {field.name for field in fields(Request)}
        if extra := sorted(set(record) - known):
            raise ValueError(f"{path} was drawn by girih {version} with options this one does not have: {extra}")
        request = Request(**{**record, "prompts": tuple(record["prompts"])})
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the girih record in {path} is damaged: {error}") from error
    for name, digest in digests.items():
        if digest is not None and _digest(getattr(request, name)) != digest:
            raise ValueError(f"{getattr(request, name)} is no longer the file that {path} was drawn from")
    here = _versions()
    if (version, torch_version) != here:
        warnings.warn(
            f"{path} was drawn with girih {version} and torch {torch_version}; this is girih {here[0]} and torch "
            f"{here[1]}, so the picture may differ",
            stacklevel=2,
        )
    return request


def _versions() -> tuple[str, str]:
    import torch

    return girih.__version__, torch.__version__


def _digest(file: str) -> str:
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()


def slug(prompt: str) -> str:
    """A file name for a prompt: lower-case words joined by dashes, at most 60 characters."""
    return re.sub(r"[\W_]+", "-", prompt.lower()).strip("-")[:60].rstrip("-") or "picture"
