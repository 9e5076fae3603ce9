"""Video files to frames and back, by PyAV.

Knows containers, codecs, frame rates and sizes. Does not know tokens.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from girih.files import whole
from girih.names import unknown

# Suffix -> (container, codec, options); qualities at which a clip of a few seconds stays small and clean.
WRITERS: dict[str, tuple[str, str, dict[str, str]]] = {
    ".mp4": ("mp4", "libx264", {"crf": "18"}),
    ".mkv": ("matroska", "libx264", {"crf": "18"}),
    ".webm": ("webm", "libvpx-vp9", {"crf": "24", "b": "0"}),
}
MAX_BYTES = 1_000_000_000  # of frames in memory
MISSING = 0.1  # share of a video that may be absent from its end before it counts as cut short


@dataclass
class Video:
    """``frames`` uint8 ``[T, 3, H, W]``, RGB; ``fps`` frames a second."""

    frames: Tensor
    fps: float

    def clip(self, size: int) -> Tensor:
        """Float ``[1, T, 3, size, size]`` in [0, 1]: the middle square of each frame, resized."""
        height, width = self.frames.shape[2:]
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        square = self.frames[:, :, top : top + side, left : left + side].float() / 255
        resized = F.interpolate(square, (size, size), mode="bilinear", antialias=True, align_corners=False)
        return resized.clamp(0, 1)[None]


def read_video(path: str | Path, max_frames: int | None = None, size: int | None = None) -> Video:
    """The first video stream of a file, at most ``max_frames`` frames from the start.

    ``size``: keep only the middle square of each frame, resized to this side while reading, so that long films fit.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no video, cut short, not one frame, or more than 1 GB of frames.
        ImportError: PyAV is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"video file {path} does not exist")
    if max_frames is not None and max_frames < 1 or size is not None and size < 1:
        raise ValueError(f"max_frames {max_frames} and size {size} must be at least 1")
    av = _av()
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ValueError(f"{path} holds no video stream")
            stream = container.streams.video[0]
            fps = float(stream.average_rate or stream.guessed_rate or 25)
            frames: list[Tensor] = []
            ended = True
            for frame in container.decode(stream):
                if len(frames) == max_frames:
                    ended = False
                    break
                frames.append(_picture(frame, size))
                if frames[-1].shape != frames[0].shape:
                    raise ValueError(f"{path} changes its size at frame {len(frames) - 1}; give size= to read it")
                if len(frames) * frames[0].numel() > MAX_BYTES:
                    limit = f"{MAX_BYTES // 10**9} GB of frames; read fewer (max_frames) or smaller ones (size)"
                    raise ValueError(f"{path} makes more than {limit}")
            expected = _expected(container, stream, fps)
    except av.error.FFmpegError as error:
        raise ValueError(f"{path} is not a video, or is cut short: {error.strerror or error}") from error
    if not frames:
        raise ValueError(f"{path} holds no frame of video")
    if ended and len(frames) < expected * (1 - MISSING) - 1:
        raise ValueError(f"{path} is cut short: {len(frames)} of {expected} frames are there")
    return Video(torch.stack(frames), fps)


def write_video(path: str | Path, frames: Tensor, fps: float = 10.0) -> None:
    """Write ``[T, 3, H, W]``, uint8 or float in [0, 1] (clamped), as .mp4, .mkv or .webm; whole or not at all.

    Raises:
        ValueError: another suffix or shape, no frames, values that are not finite, or a rate that is not positive.
        ImportError: PyAV is not installed.
    """
    path = Path(path)
    if path.suffix.lower() not in WRITERS:
        raise unknown("video suffix", path.suffix, WRITERS)
    if frames.ndim != 4 or frames.shape[1] != 3 or 0 in frames.shape:
        raise ValueError(f"frames are {list(frames.shape)}, must be [T, 3, H, W] and not empty")
    if not 0 < fps < 1000:
        raise ValueError(f"fps is {fps}, must lie between 0 and 1000")
    if frames.is_floating_point():
        if not bool(frames.isfinite().all()):
            raise ValueError("frames hold values that are not finite")
        frames = (frames.clamp(0, 1) * 255).round().to(torch.uint8)
    av, (name, codec, options) = _av(), WRITERS[path.suffix.lower()]
    height, width = frames.shape[2:]
    pixels = "yuv444p" if height % 2 or width % 2 else "yuv420p"  # half-size colour planes need even sides
    with whole(path) as part, av.open(str(part), "w", format=name) as container:
        stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001), options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        for frame in frames.movedim(1, -1).cpu().numpy():
            for packet in stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def _av() -> Any:
    try:
        return importlib.import_module("av")
    except ImportError as error:
        raise ImportError("video files need PyAV: pip install 'girih[video]'") from error


def _picture(frame: Any, size: int | None) -> Tensor:
    picture = torch.from_numpy(frame.to_ndarray(format="rgb24")).movedim(-1, 0)
    if size is None:
        return picture
    return (Video(picture[None], 1.0).clip(size)[0, 0] * 255).round().to(torch.uint8)


def _expected(container: Any, stream: Any, fps: float) -> int:
    """How many frames the file says it has; 0 where it does not say."""
    if stream.frames:
        return int(stream.frames)
    if stream.duration and stream.time_base:
        return round(float(stream.duration * stream.time_base) * fps)
    return round(container.duration / 1e6 * fps) if container.duration else 0
