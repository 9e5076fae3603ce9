"""Actions, pictures, sounds and videos for `girih tokens`. Does not know codecs; tokenizers/ does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from girih.apps.modalities import Loss, Side, Signal, decibels, whole_number
from girih.files import whole
from girih.tokenizers import action_files

MAX_PIXELS = 2**21
MAX_SAMPLES = 2**25
MAX_FRAMES = 256


class Actions:
    """Recordings of robot actions, cut into chunks of the tokenizer's length."""

    reads = action_files.SUFFIXES
    writes = (".npy", ".csv")

    def read(self, path: Path, tokenizer: Any) -> Signal:
        episodes = action_files.read_actions(path)
        chunks = action_files.to_chunks(episodes, tokenizer.config["horizon"])
        clipped = int(tokenizer.encode_flagged(chunks).clipped.sum())
        notes = [f"{len(episodes)} episodes, {len(chunks)} chunks of {chunks.shape[1]} steps"]
        notes += [f"{clipped} chunks held values out of range, which are clipped"] if clipped else []
        return Signal(chunks, 32 * sum(episode.size for episode in episodes), notes=tuple(notes))

    def encode(self, tokenizer: Any, signal: Signal) -> Tensor:
        tokens: Tensor = tokenizer.encode(signal.value)
        return tokens

    def decode(self, tokenizer: Any, tokens: Tensor, side: Side) -> Any:
        decoded = tokenizer.decode_flagged(tokens, dtype=torch.float64)
        if not bool(decoded.valid.all()):
            row = int((~decoded.valid).int().argmax())
            raise ValueError(f"chunk {row} does not make the {tokenizer.config['horizon']} x "
                             f"{tokenizer.config['width']} coefficients of a chunk")
        return decoded.actions.numpy()

    def loss(self, tokenizer: Any, signal: Signal, decoded: Any) -> Loss:
        off = np.abs(signal.value - decoded)
        root = float(np.sqrt((off**2).mean()))
        return Loss(root, "RMS in the data's unit", f"{root:.4g} RMS, at most {off.max():.4g}, in the data's unit")

    def words(self, tokenizer: Any, tokens: Tensor) -> Iterator[str]:
        for i, row in enumerate(tokenizer.rows(tokens)):
            values = tokenizer.symbols.decode([row])[0].tolist()
            last = max((place for place, value in enumerate(values) if value), default=-1)
            said = " ".join(f"{value:+d}" if value else "0" for value in values[: last + 1])
            yield f"chunk {i}: tokens {' '.join(map(str, row.tolist()))}; coefficients {said} then 0"

    def write(self, path: Path, decoded: Any) -> None:
        action_files.write_actions(path, decoded)


class Pictures:
    """Colour pictures; transparency is laid on white. The sides are filled up to whole tokens and cut off again."""

    reads = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
    writes = (".png", ".jpg", ".webp")

    def read(self, path: Path, tokenizer: Any) -> Signal:
        from PIL import Image, UnidentifiedImageError

        try:
            with Image.open(path) as opened:
                if opened.width * opened.height > MAX_PIXELS:
                    raise ValueError(f"{path.name} is {opened.width} x {opened.height}, more than {MAX_PIXELS} pixels")
                clear = opened.convert("RGBA")
        except (UnidentifiedImageError, SyntaxError, Image.DecompressionBombError) as error:
            raise ValueError(f"{path.name} is not a picture: {error}") from error
        except OSError as error:
            if error.strerror:
                raise
            raise ValueError(f"{path.name} is damaged: {error}") from error
        picture = Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear).convert("RGB")
        notes = []
        side = getattr(tokenizer.config, "scales", None) and tokenizer.config.sample_size
        if side and picture.size != (side, side):  # made for one size only
            notes.append(f"resized from {picture.width} x {picture.height} to {side} x {side}")
            picture = picture.resize((side, side), Image.Resampling.LANCZOS)
        values = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
        return Signal(values, 8 * values.numel(), {"height": values.shape[1], "width": values.shape[2]}, tuple(notes))

    def encode(self, tokenizer: Any, signal: Signal) -> Tensor:
        down, (height, width) = tokenizer.downscale, signal.value.shape[1:]
        images = signal.value[None].float() / 127.5 - 1
        images = F.pad(images, (0, -width % down, 0, -height % down), mode="replicate")
        with torch.inference_mode():
            tokens: Tensor = tokenizer.encode(images)
        return tokens

    def decode(self, tokenizer: Any, tokens: Tensor, side: Side) -> Any:
        if tokens.numel() * tokenizer.downscale**2 > 2 * MAX_PIXELS:
            raise ValueError(f"{tokens.numel()} tokens make more than the {MAX_PIXELS} pixels of the limit")
        with torch.inference_mode():
            images = tokenizer.decode(tokens)[0]
        height, width = (whole_number(side, name, most) for name, most in zip(("height", "width"), images.shape[1:],
                                                                              strict=True))
        return ((images.float() + 1) * 127.5).round().clamp(0, 255).byte()[:, :height, :width]

    def loss(self, tokenizer: Any, signal: Signal, decoded: Any) -> Loss:
        return decibels(signal.value, decoded, 255.0**2, "PSNR")

    def words(self, tokenizer: Any, tokens: Tensor) -> Iterator[str]:
        for i, row in enumerate(tokens[0] if tokens.ndim == 3 else tokens):
            yield f"row {i}: {' '.join(map(str, row.tolist()))}"

    def write(self, path: Path, decoded: Any) -> None:
        from PIL import Image

        picture = Image.fromarray(decoded.permute(1, 2, 0).numpy())
        kinds = {".png": "PNG", ".jpg": "JPEG", ".webp": "WEBP"}
        with whole(path) as part:
            picture.save(part, format=kinds[path.suffix.lower()])


class Sounds:
    """Sounds at the codec's rate and channels."""

    reads = (".wav", ".flac", ".ogg", ".mp3")
    writes = (".wav", ".flac", ".ogg")

    def read(self, path: Path, tokenizer: Any) -> Signal:
        from girih.tokenizers.audio import files

        sound = files.read(path)
        made = files.convert(sound.wave, sound.sampling_rate, tokenizer.sampling_rate, tokenizer.channels, path.name)
        if made.wave.numel() > MAX_SAMPLES:
            raise ValueError(f"{path.name} holds {made.wave.numel()} samples, the limit is {MAX_SAMPLES}")
        scales = tokenizer.scales(made.wave[None])
        side = {"samples": made.wave.shape[-1], "scales": None if scales is None else scales[0].tolist()}
        return Signal(made.wave, 16 * sound.wave.numel(), side, made.notes)

    def encode(self, tokenizer: Any, signal: Signal) -> Tensor:
        with torch.inference_mode():
            tokens: Tensor = tokenizer.encode(signal.value[None])
        return tokens

    def decode(self, tokenizer: Any, tokens: Tensor, side: Side) -> Any:
        frames = tokens.shape[-1] * tokenizer.hop_length
        samples, scales = whole_number(side, "samples", MAX_SAMPLES), side.get("scales")
        if frames > MAX_SAMPLES or abs(frames - samples) > 2 * tokenizer.hop_length + tokenizer.sampling_rate:
            raise ValueError(f"{tokens.shape[-1]} frames do not make the {samples} samples that the token file states")
        if scales is not None:
            scales = torch.tensor(scales, dtype=torch.float32)[None]
        with torch.inference_mode():
            wave = tokenizer.decode(tokens, scales)[0]
        wave = F.pad(wave, (0, max(0, samples - wave.shape[-1])))[..., :samples]
        return wave, tokenizer.sampling_rate

    def loss(self, tokenizer: Any, signal: Signal, decoded: Any) -> Loss:
        return decibels(signal.value, decoded[0], float(signal.value.double().square().mean()), "SNR")

    def words(self, tokenizer: Any, tokens: Tensor) -> Iterator[str]:
        for i, codes in enumerate(tokens[0].tolist()):
            yield f"codebook {i}: {' '.join(map(str, codes))}"

    def write(self, path: Path, decoded: Any) -> None:
        from girih.tokenizers.audio import files

        files.write(path, *decoded)


class Videos:
    """Clips, the middle square at the tokenizer's size."""

    reads = (".mp4", ".mkv", ".webm", ".mov", ".avi", ".gif")
    writes = (".mp4", ".mkv", ".webm")

    def read(self, path: Path, tokenizer: Any) -> Signal:
        from girih.tokenizers.video_files import read_video

        side = tokenizer.config.sample_size
        video = read_video(path, max_frames=MAX_FRAMES, size=side)
        note = f"{len(video.frames)} frames" + (", the limit" if len(video.frames) == MAX_FRAMES else "")
        return Signal(video.clip(side), 8 * video.frames.numel(), {"fps": video.fps},
                      (f"{note}, middle square at {side} x {side}",))  # fmt: skip

    def encode(self, tokenizer: Any, signal: Signal) -> Tensor:
        with torch.inference_mode():
            tokens: Tensor = tokenizer.encode(signal.value)
        return tokens

    def decode(self, tokenizer: Any, tokens: Tensor, side: Side) -> Any:
        fps = side.get("fps")
        if not isinstance(fps, (int, float)) or not 0 < fps < 1000:
            raise ValueError(f"fps of the token file must lie between 0 and 1000, got {fps!r}")
        if (frames := len(tokenizer.split(tokens)[1][0]) + tokenizer.config.context_frames) > MAX_FRAMES:
            raise ValueError(f"the tokens make {frames} frames, the limit is {MAX_FRAMES}")
        with torch.inference_mode():
            return tokenizer.decode(tokens)[0].clamp(0, 1), fps

    def loss(self, tokenizer: Any, signal: Signal, decoded: Any) -> Loss:
        return decibels(signal.value[0], decoded[0], 1.0, "PSNR")

    def words(self, tokenizer: Any, tokens: Tensor) -> Iterator[str]:
        for name, codes in zip(("context", "change"), tokenizer.split(tokens), strict=True):
            for i, frame in enumerate(codes[0].tolist()):
                yield f"{name} {i}: {' '.join(map(str, frame))}"

    def write(self, path: Path, decoded: Any) -> None:
        from girih.tokenizers.video_files import write_video

        write_video(path, *decoded)
