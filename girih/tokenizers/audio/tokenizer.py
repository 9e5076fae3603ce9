"""The audio tokenizer: waves to codes and back. Knows nothing of files (files.py) or of models that predict codes.

One class over three codecs: EnCodec and DAC (residual.py, transformers' models) and Firefly (spectral.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput
from torch import Tensor

from girih.names import unknown
from girih.spec import TokenSpec
from girih.tokenizers.audio.residual import Dac, Encodec
from girih.tokenizers.audio.spectral import Firefly

CODECS: dict[str, type[Encodec] | type[Dac] | type[Firefly]] = {"encodec": Encodec, "dac": Dac, "firefly": Firefly}


@dataclass
class AudioTokenizerOutput(BaseOutput):
    """``sample [B, channels, samples]`` reconstruction, ``tokens [B, codebooks, frames]``, ``losses`` in training."""

    sample: Tensor
    tokens: Tensor
    losses: dict[str, Tensor]


class AudioTokenizer(ModelMixin, ConfigMixin):
    """Waves in [-1, 1] at ``sampling_rate`` to ``codebooks`` parallel streams of codes and back.

    Args:
        codec: ``"encodec"``, ``"dac"`` or ``"firefly"``.
        settings: the codec's own: those of transformers' ``EncodecConfig`` or ``DacConfig``, or of
            :class:`girih.tokenizers.audio.spectral.Firefly`. None = its defaults.
        codebooks: how many of the codec's codebooks are used; None = all. The leading ones of EnCodec and DAC decode
            alone, so fewer is a lower bit rate.
        sample_size: samples of the clips it is for; sets ``spec.shape``. Any other length works too. None = 1 second.

    Raises:
        ValueError: an unknown codec or setting, or sizes that do not fit together.
    """

    @register_to_config
    def __init__(
        self,
        *,  # diffusers takes a positional value for a default and forgets it in `from_config`
        codec: str = "dac",
        settings: Mapping[str, Any] | None = None,
        codebooks: int | None = None,
        sample_size: int | None = None,
    ):
        super().__init__()
        if codec not in CODECS:
            raise unknown("audio codec", codec, CODECS)
        try:
            self.coder = CODECS[codec](**(settings or {}))
        except TypeError as error:
            raise ValueError(f"{codec} settings: {error}") from error
        self.codebooks = self._codebooks(codebooks if codebooks is not None else self.coder.codebooks)
        if sample_size is not None and sample_size < 1:
            raise ValueError(f"sample_size must be 1 or more, got {sample_size}")

    @property
    def sampling_rate(self) -> int:
        """Samples a second."""
        return self.coder.sampling_rate

    @property
    def channels(self) -> int:
        """Channels of its waves: 1 or 2."""
        return self.coder.channels

    @property
    def hop_length(self) -> int:
        """Samples a frame."""
        return self.coder.hop_length

    @property
    def frame_rate(self) -> float:
        """Frames a second."""
        return self.sampling_rate / self.hop_length

    @property
    def bandwidth(self) -> float:
        """kbit/s of its tokens."""
        return self.codebooks * math.log2(self.coder.vocab_size) * self.frame_rate / 1000

    @property
    def spec(self) -> TokenSpec:
        """Codes a codebook, and the ``(codebooks, frames)`` of a clip of ``sample_size``."""
        frames = math.ceil((self.config.sample_size or self.sampling_rate) / self.hop_length)
        return TokenSpec(self.coder.vocab_size, (self.codebooks, frames))

    def codebooks_at(self, bandwidth: float) -> int:
        """How many codebooks fit ``bandwidth`` kbit/s: at least 1, at most all. EnCodec's rule, frames a second rounded
        up. Raises ValueError for a bandwidth that is not above 0, or a codec that needs all its codebooks."""
        if not bandwidth > 0:
            raise ValueError(f"bandwidth must be above 0 kbit/s, got {bandwidth}")
        a_codebook = math.log2(self.coder.vocab_size) * math.ceil(self.frame_rate)
        return self._codebooks(max(1, min(self.coder.codebooks, math.floor(1000 * bandwidth / a_codebook))))

    def encode(self, wave: Tensor, codebooks: int | None = None) -> Tensor:
        """Waves ``[B, channels, samples]`` in [-1, 1] to codes ``[B, codebooks, ceil(samples / hop_length)]``, int64.
        ``codebooks``: so many of them; None = the config's. Any level is taken; a codec was trained on [-1, 1].

        Raises:
            ValueError: another shape, no samples, or a sample that is not finite.
        """
        self._check(wave)
        return self.coder.encode(wave, self._codebooks(codebooks if codebooks is not None else self.codebooks))

    def features(self, wave: Tensor) -> Tensor:
        """Waves ``[B, channels, samples]`` to what the quantizer sees, ``[B, dim, frames]`` (Firefly: of the
        spectrogram)."""
        self._check(wave)
        return self.coder.features(wave)

    def lookup(self, tokens: Tensor) -> Tensor:
        """Codes ``[B, codebooks, frames]`` to what the decoder sees, as long as :meth:`features`."""
        self._check_tokens(tokens)
        return self.coder.lookup(tokens)

    def scales(self, wave: Tensor) -> Tensor | None:
        """``[B, chunks]`` loudness that a normalising EnCodec takes out of its chunks; None where tokens say all."""
        self._check(wave)
        if isinstance(self.coder, Encodec) and self.coder.model.config.normalize:
            return self.coder.scales(wave)
        return None

    def decode(self, tokens: Tensor, scales: Tensor | None = None) -> Tensor:
        """Codes ``[B, codebooks, frames]`` to waves ``[B, channels, frames * hop_length]``, nominally in [-1, 1]; DAC
        with odd strides makes some samples fewer, EnCodec's chunks overlap.

        ``scales``: of :meth:`scales`; None = every chunk at unit loudness.
        """
        self._check_tokens(tokens)
        if isinstance(self.coder, Encodec):
            return self.coder.decode(tokens, scales)
        if scales is not None:
            raise ValueError(f"{self.config.codec} takes no scales")
        return self.coder.decode(tokens)

    def forward(self, wave: Tensor) -> AudioTokenizerOutput:
        """Reconstruct waves ``[B, channels, samples]``, the same length, through all codebooks."""
        self._check(wave)
        made, tokens, losses = self.coder(wave)
        made = F.pad(made, (0, max(0, wave.shape[-1] - made.shape[-1])))[..., : wave.shape[-1]]
        return AudioTokenizerOutput(made, tokens, losses)

    def _codebooks(self, count: int) -> int:
        least = 1 if self.coder.prefixes else self.coder.codebooks
        if not least <= count <= self.coder.codebooks:
            raise ValueError(f"codebooks must be {least} to {self.coder.codebooks}, got {count}")
        return count

    def _check(self, wave: Tensor) -> None:
        if wave.ndim != 3 or wave.shape[1] != self.channels:
            raise ValueError(f"waves must be [batch, {self.channels}, samples], got {list(wave.shape)}")
        if not wave.shape[-1]:
            raise ValueError("a wave needs at least 1 sample, got 0")
        if not torch.isfinite(wave).all():
            raise ValueError("a wave has samples that are not finite")

    def _check_tokens(self, tokens: Tensor) -> None:
        if tokens.ndim != 3 or not tokens.shape[-1]:
            raise ValueError(f"codes must be [batch, codebooks, frames], got {list(tokens.shape)}")
        self._codebooks(tokens.shape[1])
        if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < self.coder.vocab_size:
            low, high = (int(value) for value in tokens.aminmax())
            raise ValueError(f"codes must be in [0, {self.coder.vocab_size - 1}], got {low} to {high}")
