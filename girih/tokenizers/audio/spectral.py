"""Firefly: log-mel spectrogram, ConvNeXt encoder, grouped scalar codes, wave generator.

Knows waves [B, 1, samples] and codes [B, codebooks, frames]. Has the inner call shape of residual.py.

Source: fishaudio/fish-speech v1.5.1 (Apache-2.0), ``FireflyArchitecture``; the defaults are its released sizes
(44.1 kHz, 8 codebooks of 1000, 21.5 frames/s).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.audio_utils import mel_filter_bank

from girih.tokenizers.audio.grouped import StridedScalarQuantizer
from girih.tokenizers.audio.layers import CausalConv, ChannelNorm, ConvNeXtBlock
from girih.tokenizers.audio.vocoder import WaveGenerator


class LogMel(nn.Module):
    """Waves ``[B, 1, samples]`` to log-mel spectrograms ``[B, bins, samples // hop]``: Slaney's mel scale, magnitudes
    sqrt(re^2 + im^2 + 1e-6), natural log of at least 1e-5."""

    def __init__(self, sampling_rate: int = 44100, n_fft: int = 2048, hop_length: int = 512, bins: int = 160):
        super().__init__()
        self.n_fft, self.hop_length = n_fft, hop_length
        filters = mel_filter_bank(
            n_fft // 2 + 1, bins, 0.0, float(sampling_rate // 2), sampling_rate, norm="slaney", mel_scale="slaney"
        )
        self.register_buffer("filters", torch.from_numpy(filters).float(), persistent=False)
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)

    def forward(self, wave: Tensor) -> Tensor:
        edge = self.n_fft - self.hop_length
        wave = F.pad(wave, (edge // 2, edge - edge // 2), mode="reflect")[:, 0]
        window: Any = self.window
        spectrum = torch.stft(
            wave, self.n_fft, self.hop_length, window=window.to(wave.dtype), center=False, return_complex=True
        )
        magnitude = (spectrum.real.square() + spectrum.imag.square() + 1e-6).sqrt()
        filters: Any = self.filters
        return (magnitude.mT @ filters.to(wave.dtype)).mT.clamp_min(1e-5).log()


class ConvNeXtEncoder(nn.Module):
    """Stages of ConvNeXt blocks at one frame rate, ``[B, bins, frames]`` to ``[B, widths[-1], frames]``."""

    def __init__(self, bins: int, depths: Sequence[int], widths: Sequence[int], kernel: int):
        super().__init__()
        stem = nn.Sequential(CausalConv(bins, widths[0], 7), ChannelNorm(widths[0], eps=1e-6))
        between = [
            nn.Sequential(ChannelNorm(before, eps=1e-6), nn.Conv1d(before, width, 1))
            for before, width in zip(widths[:-1], widths[1:], strict=True)
        ]
        self.downsample_layers = nn.ModuleList([stem, *between])
        self.stages = nn.ModuleList(
            nn.Sequential(*(ConvNeXtBlock(width, kernel) for _ in range(depth)))
            for depth, width in zip(depths, widths, strict=True)
        )
        self.norm = ChannelNorm(widths[-1], eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        for enter, stage in zip(self.downsample_layers, self.stages, strict=True):
            x = stage(enter(x))
        return self.norm(x)


class Firefly(nn.Module):
    """The codec of Fish-Speech 1.4 and 1.5.

    Args:
        sampling_rate, n_fft, mel_hop, bins: of the log-mel spectrogram.
        depths, widths, kernel: of the encoder.
        quantizer, generator: settings of :class:`StridedScalarQuantizer` and :class:`WaveGenerator`; their ``dim`` is
            the encoder's last width.

    The wave is filled up with zeros to whole frames (the peer drops what is left over).
    """

    prefixes = False  # groups: every code is needed
    channels = 1

    def __init__(
        self,
        sampling_rate: int = 44100,
        n_fft: int = 2048,
        mel_hop: int = 512,
        bins: int = 160,
        depths: Sequence[int] = (3, 3, 9, 3),
        widths: Sequence[int] = (128, 256, 384, 512),
        kernel: int = 7,
        quantizer: Mapping[str, Any] | None = None,
        generator: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        if not widths or len(widths) != len(depths):
            raise ValueError(f"depths {list(depths)} and widths {list(widths)} must be equally long")
        self.spectrogram = LogMel(sampling_rate, n_fft, mel_hop, bins)
        self.backbone = ConvNeXtEncoder(bins, depths, widths, kernel)
        self.quantizer = StridedScalarQuantizer(**{"dim": widths[-1], **(quantizer or {})})
        self.head = WaveGenerator(**{"dim": widths[-1], **(generator or {})})
        self.sampling_rate = sampling_rate
        self.hop_length = mel_hop * self.quantizer.shrink
        self.codebooks, self.vocab_size = self.quantizer.codebooks, self.quantizer.vocab_size
        if self.head.hop_length != mel_hop:
            raise ValueError(f"the generator makes {self.head.hop_length} samples of a {mel_hop}-sample spectrum step")
        if (n_fft - mel_hop + 1) // 2 >= self.hop_length:
            raise ValueError(f"n_fft {n_fft} is too long for frames of {self.hop_length} samples")

    def features(self, wave: Tensor) -> Tensor:
        return self.backbone(self.spectrogram(F.pad(wave, (0, -wave.shape[-1] % self.hop_length))))

    def encode(self, wave: Tensor, codebooks: int) -> Tensor:
        return self.quantizer.encode(self.features(wave))

    def lookup(self, tokens: Tensor) -> Tensor:
        return self.quantizer.decode(tokens)

    def decode(self, tokens: Tensor) -> Tensor:
        return self.head(self.lookup(tokens))

    def forward(self, wave: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        tokens = self.encode(wave, self.codebooks)
        return self.decode(tokens), tokens, {}
