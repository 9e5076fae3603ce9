"""Sound files: read at any rate and number of channels, written whole. Knows soundfile's formats (wav, flac, ogg, mp3),
resampling and mixing. Does not know codecs.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from girih.files import whole

MAX_SAMPLES = 2**26  # of all channels: 12 minutes of stereo at 44.1 kHz, 46 minutes at 24 kHz; 0.25 GB
SILENT = 1e-4  # peak, -80 dB
FULL_SCALE = 1 - 2**-15  # what a clipped 16-bit sample comes to
CLIPPED_RUN = 3  # neighbours at the peak, full scale or more, that count as clipping
WRITTEN = {".wav": "PCM_16", ".flac": "PCM_16", ".ogg": "VORBIS"}


@dataclass(frozen=True)
class Sound:
    """``wave [channels, samples]`` float32 at ``sampling_rate``; ``notes``: what was found and what was changed, one
    line each ("8 channels mixed down to 1")."""

    wave: Tensor
    sampling_rate: int
    notes: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        return self.wave.shape[-1] / self.sampling_rate


def read(path: str | os.PathLike[str], sampling_rate: int | None = None, channels: int | None = None) -> Sound:
    """A sound file, resampled and mixed where ``sampling_rate`` or ``channels`` ask for something else than it has.

    Silence, clipping and levels above full scale are noted, not refused.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a sound file or a broken one, no samples, a sample that is not finite, longer than
            ``MAX_SAMPLES``, or soundfile is not installed.
    """
    path, soundfile = Path(path), _soundfile()
    if not path.is_file():
        raise FileNotFoundError(f"sound file {path} does not exist")
    try:
        with soundfile.SoundFile(path) as file:
            if file.frames * file.channels > MAX_SAMPLES:
                raise ValueError(
                    f"{path} holds {file.frames} samples of {file.channels} channels, more than {MAX_SAMPLES} in all"
                )
            samples, rate = file.read(dtype="float32", always_2d=True), file.samplerate
    except (soundfile.LibsndfileError, TypeError, OverflowError) as error:
        raise ValueError(f"{path} is not a sound file, or is broken: {' '.join(str(error).split())}") from error
    return convert(torch.from_numpy(samples.T.copy()), rate, sampling_rate, channels, str(path))


def write(path: str | os.PathLike[str], wave: Tensor, sampling_rate: int) -> None:
    """``wave [channels, samples]``, cut to [-1, 1], to a ``.wav`` or ``.flac`` (16 bit) or ``.ogg`` file, whole or not
    at all. Raises ValueError for another ending, another shape or a sample that is not finite."""
    path, soundfile = Path(path), _soundfile()
    if path.suffix.lower() not in WRITTEN:
        raise ValueError(f"sound files are written as {', '.join(WRITTEN)}, not {path.suffix or path.name!r}")
    _check(wave, str(path))
    samples = wave.detach().float().clamp(-1, 1).cpu().numpy().T
    kind = path.suffix.lower()[1:].upper()
    with whole(path) as part:
        try:
            soundfile.write(part, samples, sampling_rate, subtype=WRITTEN[path.suffix.lower()], format=kind)
        except (soundfile.LibsndfileError, TypeError) as error:
            raise ValueError(f"{path} cannot hold {len(wave)} channels at {sampling_rate} Hz") from error


def convert(
    wave: Tensor, rate: int, sampling_rate: int | None = None, channels: int | None = None, source: str = "the wave"
) -> Sound:
    """``wave [channels, samples]`` at ``rate`` Hz with another rate and number of channels, and notes on it.

    Several channels become others by their mean. Raises ValueError for another shape, no samples, a sample that is not
    finite, a rate outside 1,000 to 1,000,000 Hz, or no channels.
    """
    _check(wave, source)
    for value in (rate, sampling_rate or rate):
        if not 1000 <= value <= 1_000_000:
            raise ValueError(f"{source}: sampling rates must be 1000 to 1000000 Hz, got {value}")
    if channels is not None and channels < 1:
        raise ValueError(f"channels must be 1 or more, got {channels}")
    notes = _levels(wave)
    if channels is not None and channels != len(wave):
        if len(wave) > 1:
            repeated = "" if channels == 1 else f", repeated {channels} times"
            notes.append(f"{len(wave)} channels mixed down to 1{repeated}")
        wave = wave.mean(0, keepdim=True).expand(channels, -1).contiguous()
    if sampling_rate is not None and sampling_rate != rate:
        if math.ceil(wave.shape[-1] * sampling_rate / rate) * len(wave) > MAX_SAMPLES:
            raise ValueError(f"{source} at {sampling_rate} Hz would hold more than {MAX_SAMPLES} samples")
        lost = "" if sampling_rate > rate else f", nothing left above {sampling_rate // 2} Hz"
        held = f", holds nothing above {rate // 2} Hz" if sampling_rate > rate else ""
        notes.append(f"resampled from {rate} to {sampling_rate} Hz{lost}{held}")
        wave = resample(wave, rate, sampling_rate)
    return Sound(wave, sampling_rate or rate, tuple(notes))


def resample(wave: Tensor, rate: int, sampling_rate: int) -> Tensor:
    """``wave [channels, samples]`` from ``rate`` to ``sampling_rate`` Hz, ``ceil(samples * sampling_rate / rate)``
    samples (scipy's polyphase filter, Kaiser window)."""
    if rate == sampling_rate:
        return wave
    try:
        from scipy.signal import resample_poly
    except ImportError as error:
        raise ValueError("resampling needs scipy: pip install 'girih[audio]'") from error

    common = math.gcd(rate, sampling_rate)
    made = resample_poly(wave.numpy(), sampling_rate // common, rate // common, axis=-1)
    return torch.from_numpy(np.ascontiguousarray(made, np.float32))


def _levels(wave: Tensor) -> list[str]:
    """What there is to say of a wave's level."""
    notes, size = [], wave.abs()
    peak = float(size.max())
    if peak < SILENT:
        notes.append("silent")
    if peak > 1:
        notes.append(f"peak {peak:.3g} is above full scale")
    if peak >= FULL_SCALE and wave.shape[-1] >= CLIPPED_RUN:
        runs = size.unfold(-1, CLIPPED_RUN, 1).amin(-1)
        if clipped := int((runs >= peak - (1 - FULL_SCALE)).sum()):
            notes.append(f"clipped: {clipped} runs of {CLIPPED_RUN} samples at the peak of {peak:.3g}")
    return notes


def _check(wave: Tensor, source: str) -> None:
    if wave.ndim != 2 or not len(wave):
        raise ValueError(f"{source}: a wave must be [channels, samples], got {list(wave.shape)}")
    if not wave.shape[-1]:
        raise ValueError(f"{source} holds 0 samples")
    finite = torch.isfinite(wave)
    if not finite.all():
        channel, sample = (int(value) for value in torch.nonzero(~finite)[0])
        raise ValueError(f"{source}: sample {sample} of channel {channel} is {float(wave[channel, sample])}")


def _soundfile() -> Any:
    try:
        import soundfile
    except (ImportError, OSError) as error:  # OSError: the library inside the package does not load
        raise ValueError("sound files need soundfile: pip install 'girih[audio]'") from error
    return soundfile
