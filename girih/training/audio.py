"""The audio codec's training objective: reconstruct sounds, of one's own folder or made by code.

Knows sounds, the codec and its losses. Does not know the loop (trainer.py) or generators. The network is transformers'
``DacModel``, whose codes pass gradients straight through (EnCodec's there are for inference only).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, distributed, nn

from girih.tokenizers.audio import AudioTokenizer, files
from girih.training.tokenizer import MAX_FILE, hold_out
from girih.training.trainer import Objective

HELD_OUT = 64  # sounds
REVIVE = 20  # steps
ENDINGS = {".wav", ".flac", ".ogg", ".mp3"}
FLOOR = 1e-2  # amplitude (-40 dB) under which a spectral difference counts for little

Maker = Callable[[np.random.Generator, np.ndarray, int], np.ndarray]  # (random, seconds [n], samples a second) -> [n]


@dataclass
class LossWeights:
    """``spectral``: :func:`spectral_distance` at ``windows`` samples; ``wave``: mean absolute difference."""

    spectral: float = 1.0
    wave: float = 20.0
    windows: Sequence[int] = field(default_factory=lambda: [1024, 512, 256, 128])


def spectral_distance(made: Tensor, real: Tensor, windows: Sequence[int]) -> Tensor:
    """Mean over window lengths of the L1 distance of log magnitudes plus the spectral convergence (Yamamoto et al.
    2020, section 3.2). Waves ``[B, 1, samples]``; a sine of amplitude 1 has magnitude 0.5 in every resolution."""
    total = made.new_zeros(())
    for n in windows:
        window = torch.hann_window(n, device=made.device)
        both = torch.cat([made, real]).flatten(0, 1).float()
        spectrum = torch.stft(both, n, n // 4, window=window, return_complex=True)
        power = spectrum.real.square() + spectrum.imag.square()
        a, b = ((power + 1e-12).sqrt() / window.sum()).chunk(2)
        logs = ((a + FLOOR).log() - (b + FLOOR).log()).abs().mean()
        total = total + logs + (a - b).norm() / b.norm().clamp_min(1e-3)
    return total / len(windows)


def si_sdr(made: Tensor, real: Tensor) -> Tensor:
    """Scale-invariant signal-to-distortion ratio (Le Roux et al. 2019) in dB, one a row of waves ``[B, 1, n]``."""
    made, real = made.flatten(1).double(), real.flatten(1).double()
    target = (made * real).sum(1, keepdim=True) / real.square().sum(1, keepdim=True).clamp_min(1e-12) * real
    noise = (made - target).square().sum(1).clamp_min(1e-12)
    return 10 * torch.log10(target.square().sum(1).clamp_min(1e-12) / noise)


def level_weights(model: nn.Module) -> None:
    """Initial weights of convolutions that keep the level of a signal on its way, residual branches at a tenth. (The
    published ones, std 0.02 under weight norm, let it fade to nothing in a small model without.)"""
    for name, layer in model.named_modules():
        if isinstance(layer, (nn.Conv1d, nn.ConvTranspose1d)):
            taps = layer.kernel_size[0] * layer.in_channels
            taps = taps // layer.stride[0] if isinstance(layer, nn.ConvTranspose1d) else taps
            branch = "res_unit" in name and name.endswith("conv2")
            nn.init.normal_(layer.weight, std=(0.1 if branch else 1.0) / math.sqrt(taps))
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]


# --- Sounds made by code ----------------------------------------------------------------------------------------------


def _tone(random: np.random.Generator, t: np.ndarray, rate: int) -> np.ndarray:
    """A few harmonics of 80 to 1,000 Hz with vibrato and a soft beginning."""
    pitch = 80 * 12.5 ** random.random()
    depth, speed = random.uniform(0, 0.01), random.uniform(3, 7)
    phase = 2 * np.pi * pitch * (t - depth / (2 * np.pi * speed) * np.cos(2 * np.pi * speed * t))
    parts = range(1, 1 + min(int(random.integers(1, 9)), int(0.45 * rate / pitch)))
    wave = sum(np.sin(k * phase + random.uniform(0, 2 * np.pi)) / k ** random.uniform(0.7, 2) for k in parts)
    return wave * np.minimum(1, t / random.uniform(0.005, 0.1))


def _chord(random: np.random.Generator, t: np.ndarray, rate: int) -> np.ndarray:
    """Three or four notes of a scale, begun together."""
    root, degrees = 110 * 4 ** random.random(), random.choice([0, 3, 4, 5, 7, 9, 10, 12], random.integers(3, 5), False)
    notes = [root * 2 ** (degree / 12) for degree in degrees]
    decay = np.exp(-t * random.uniform(0.2, 3))
    phases = [2 * np.pi * f * t + random.uniform(0, 2 * np.pi) for f in notes]
    return sum(np.sin(phase) + 0.3 * np.sin(2 * phase) for phase in phases) * decay


def _burst(random: np.random.Generator, t: np.ndarray, rate: int) -> np.ndarray:
    """Short bursts of filtered noise."""
    low = random.uniform(0.02, 0.9)  # a one-pole low-pass, as a short convolution
    kernel = low * (1 - low) ** np.arange(64)
    noise = np.convolve(random.standard_normal(len(t)), kernel, mode="same")
    envelope = np.zeros_like(t)
    for begin in random.uniform(0, t[-1] + 1e-6, random.integers(1, 5)):
        envelope += np.where(t >= begin, np.exp(-(t - begin) * random.uniform(8, 60)), 0)
    return noise * envelope


def _pluck(random: np.random.Generator, t: np.ndarray, rate: int) -> np.ndarray:
    """A plucked string (Karplus and Strong 1983): a burst of noise goes round a loop that averages neighbours."""
    wave = np.zeros_like(t)
    for begin in random.integers(0, max(1, len(t) // 2), random.integers(1, 4)):
        period = int(rate / (80 * 8 ** random.random()))
        loop, rounds = random.uniform(-1, 1, period), []
        for _ in range(math.ceil((len(t) - begin) / period)):
            rounds.append(loop)
            loop = 0.498 * (loop + np.roll(loop, 1))
        wave[begin:] += np.concatenate(rounds)[: len(t) - begin]
    return wave


MAKERS: tuple[Maker, ...] = (_tone, _chord, _burst, _pluck)


def made_sound(random: np.random.Generator, samples: int, rate: int) -> np.ndarray:
    """A tone, chord, noise bursts or plucked strings, ``[samples]`` float32 with a peak of 0.1 to 0.9."""
    maker = MAKERS[random.integers(len(MAKERS))]
    wave = maker(random, np.arange(samples) / rate, rate)
    return (wave / max(1e-6, np.abs(wave).max()) * random.uniform(0.1, 0.9)).astype(np.float32)


class MadeSounds:
    """Endless sounds made by code; the held-out ones come from seeds that training does not use."""

    def __init__(self, samples: int, rate: int):
        self.samples, self.rate = samples, rate

    def draw(self, random: np.random.Generator) -> np.ndarray:
        return made_sound(random, self.samples, self.rate)

    def held_out(self) -> np.ndarray:
        # Training's seeds are three numbers, the same as four of which the last is 0.
        randoms = [np.random.default_rng((0, 0, 0, row + 1)) for row in range(HELD_OUT)]
        return np.stack([self.draw(random) for random in randoms])


class SoundFolder:
    """Crops of the sound files under a folder, kept in memory at one rate, mixed to mono; some files are held out.

    Raises:
        ValueError: no folder, or fewer than two files that can be read.
    """

    def __init__(self, folder: str | Path, samples: int, rate: int):
        if not Path(folder).is_dir():
            raise ValueError(f"{folder} is not a folder")
        self.samples, names, waves = samples, [], []
        for path in sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in ENDINGS):
            wave = files.read(path, rate, 1).wave[0].numpy()
            waves.append(np.pad(wave, (0, max(0, samples - len(wave)))))
            names.append(path.relative_to(folder).as_posix())
        if len(names) < 2:
            raise ValueError(f"{folder} holds {len(names)} sound files ({', '.join(sorted(ENDINGS))}), 2 are needed")
        train, held = hold_out(names, max(1, min(HELD_OUT, len(names) // 5)))
        self.waves, self.held = [waves[i] for i in train], [waves[i] for i in held]

    def draw(self, random: np.random.Generator) -> np.ndarray:
        wave = self.waves[random.integers(len(self.waves))]
        begin = random.integers(len(wave) - self.samples + 1)
        return wave[begin : begin + self.samples]

    def held_out(self) -> np.ndarray:
        """The middle of each held-out file."""
        begins = [(len(wave) - self.samples) // 2 for wave in self.held]
        return np.stack([wave[b : b + self.samples] for b, wave in zip(begins, self.held, strict=True)])


# --- The objective ----------------------------------------------------------------------------------------------------


class AudioObjective(Objective):
    """Reconstruction of sounds by a DAC-like :class:`AudioTokenizer`; ``export`` writes ``codec/`` in float16."""

    def __init__(self, codec: AudioTokenizer, sounds: MadeSounds | SoundFolder, weights: LossWeights):
        super().__init__()
        if codec.config.codec != "dac":
            raise ValueError(f"codec {codec.config.codec!r} cannot be trained here; use dac")
        if sounds.samples < max(weights.windows, default=1):
            raise ValueError(f"clips of {sounds.samples} samples are shorter than the windows {list(weights.windows)}")
        self.codec, self.sounds, self.weights = codec, sounds, weights
        self.idle: Tensor  # steps since a code was chosen, [codebooks, codes]; at first all are due
        self.register_buffer("idle", torch.full((codec.codebooks, codec.spec.vocab_size or 0), REVIVE))
        self.held_out = torch.from_numpy(sounds.held_out())[:, None]

    @classmethod
    def from_recipe(cls, recipe: dict[str, Any]) -> AudioObjective:
        """Sections ``[data] folder, seconds``, ``[codec]`` (DAC's settings), ``[loss]``. No folder: sounds made by
        code. ``init``: a trained codec to start from, instead of ``[codec]``."""
        data, settings = recipe.get("data", {}), recipe.get("codec", {})
        if recipe.get("init"):
            place = Path(recipe["init"])
            codec = AudioTokenizer.from_pretrained(place / "codec" if (place / "codec").is_dir() else place).float()
        else:
            codec = AudioTokenizer(codec="dac", settings=settings)
            level_weights(codec)
        samples = math.ceil(data.get("seconds", 0.5) * codec.frame_rate) * codec.hop_length
        place = data.get("folder")
        sounds = SoundFolder(place, samples, codec.sampling_rate) if place else MadeSounds(samples, codec.sampling_rate)
        objective = cls(codec, sounds, LossWeights(**recipe.get("loss", {})))
        objective.idle.mul_(not recipe.get("init"))  # a trained codec keeps its codes
        return objective

    def batch(self, step: int, process: int, size: int) -> dict[str, Tensor]:
        random = np.random.default_rng((self.seed, step, process))
        return {"wave": torch.from_numpy(np.stack([self.sounds.draw(random) for _ in range(size)]))[:, None]}

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        real = batch["wave"]
        if self.training and int(self.idle.max()) >= REVIVE:
            self._revive(real)
        out = self.codec(real)
        self.idle.add_(1).scatter_(1, out.tokens.movedim(1, 0).flatten(1), 0)
        made = out.sample.float()
        parts = {
            "spectral": spectral_distance(made, real, self.weights.windows),
            "wave": (made - real).abs().mean(),
        }
        loss = self.weights.spectral * parts["spectral"] + self.weights.wave * parts["wave"]
        return loss + sum(out.losses.values()), {**parts, **out.losses}

    @torch.no_grad()
    def _revive(self, wave: Tensor) -> None:
        """Codes that no frame chose for ``REVIVE`` steps move to where frames of this batch are (Dhariwal et al. 2020,
        Jukebox, section 3); at the first step that sets all of them."""
        residual = self.codec.features(wave)
        coder: Any = self.codec.coder
        for book, idle in zip(coder.model.quantizer.quantizers, self.idle, strict=True):
            latents = book.in_proj(residual).mT.flatten(0, 1)
            due = torch.nonzero(idle >= REVIVE)[:, 0]
            codes = book.codebook.weight
            codes[due] = latents[torch.randint(len(latents), (len(due),), device=latents.device)].to(codes.dtype)
            if distributed.is_available() and distributed.is_initialized():
                distributed.broadcast(codes, 0)
            residual = residual - book(residual)[0]
        self.idle.masked_fill_(self.idle >= REVIVE, 0)

    def evaluate(self) -> dict[str, float]:
        """On held-out sounds: spectral distance (also with one codebook, and of silence, to compare), SI-SDR in dB, and
        how the codes are used, as the mean over codebooks."""
        real = self.held_out.to(self.codec.device)
        tokens = torch.cat([self.codec.encode(part) for part in real.split(8)])
        made, coarse = (self._decode(tokens[:, :n]) for n in (self.codec.codebooks, 1))
        size = self.codec.spec.vocab_size or 1
        counts = torch.stack([torch.bincount(book.flatten(), minlength=size) for book in tokens.unbind(1)]).double()
        share = counts / counts.sum(1, keepdim=True)
        entropy = -(share * share.clamp_min(1e-12).log()).sum(1)
        windows = self.weights.windows
        return {
            "spectral": float(spectral_distance(made, real, windows)),
            "spectral_1_codebook": float(spectral_distance(coarse, real, windows)),
            "spectral_of_silence": float(spectral_distance(torch.zeros_like(real), real, windows)),
            "si_sdr": float(si_sdr(made, real).mean()),
            "codes_used": float((counts > 0).double().mean()),
            "perplexity": float(entropy.exp().mean()),
        }

    def _decode(self, tokens: Tensor) -> Tensor:
        made = torch.cat([self.codec.decode(part) for part in tokens.split(8)]).float()
        return F.pad(made, (0, self.held_out.shape[-1] - made.shape[-1]))  # odd strides make some samples fewer

    def samples(self) -> Image.Image:
        """Spectrograms of eight held-out sounds over those of their reconstructions, low frequencies below."""
        real = self.held_out[:8].to(self.codec.device)
        rows = []
        for waves in (real, self.codec(real).sample.float()):
            spectrum = torch.stft(waves[:, 0], 512, 128, window=torch.hann_window(512, device=waves.device),
                                  return_complex=True)  # fmt: skip
            decibel = 20 * torch.log10(spectrum.abs() / 256 + 1e-4)  # -80 dB to 0
            rows.append(F.pad((decibel / 80 + 1).clamp(0, 1).flip(1), (0, 4)).movedim(0, 1).flatten(1))
        return Image.fromarray((torch.cat(rows) * 255).round().to(torch.uint8).cpu().numpy())

    def export(self, folder: Path) -> None:
        codec = AudioTokenizer.from_config(self.codec.config)
        codec.load_state_dict(self.codec.state_dict())
        nn.Module.half(codec)  # diffusers' own `half` warns about an empty list of float32 modules
        codec.save_pretrained(folder / "codec", max_shard_size=MAX_FILE)
