"""EnCodec and DAC: waves to residual codes and back, by transformers' own models.

Knows transformers' two codecs and nothing else of it. The class that people use is in tokenizer.py; what is here has
its inner call shape: ``features encode lookup decode forward`` and the numbers that describe a codec.

Sources: Defossez et al. 2022 (EnCodec), Kumar et al. 2023 (DAC); the maths is transformers' ``EncodecModel`` and
``DacModel``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DacConfig, DacModel, EncodecConfig, EncodecModel

from girih.names import unknown


def _config(kind: Any, values: Mapping[str, Any]) -> Any:
    """A transformers config of these values. Raises ValueError for a name or value it does not take."""
    known = kind().to_dict()
    for name in values:
        if name not in known:
            raise unknown(f"{kind.model_type} setting", name, known)
    try:
        return kind(**values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{kind.model_type}: {' '.join(str(error).split())}") from error
    except Exception as error:  # huggingface_hub's strict dataclasses raise a class of their own
        if type(error).__module__.startswith("huggingface_hub"):
            raise ValueError(f"{kind.model_type}: {' '.join(str(error).split())}") from error
        raise


class Encodec(nn.Module):
    """EnCodec. With chunks (the 48 kHz model) the frames of all chunks follow one another; with loudness normalisation
    a chunk's scale is no token: it comes from :meth:`scales` and goes to :meth:`decode`."""

    prefixes = True  # the leading codebooks decode without the others

    def __init__(self, **values: Any):
        super().__init__()
        config = _config(EncodecConfig, values)
        self.model = EncodecModel(config)
        self.sampling_rate, self.channels = config.sampling_rate, config.audio_channels
        self.hop_length, self.vocab_size = config.hop_length, config.codebook_size
        self.codebooks = config.num_quantizers
        self.chunk, self.stride = config.chunk_length, config.chunk_stride
        if self.chunk is not None and self.stride is None:
            raise ValueError("encodec: chunk_length_s needs overlap, the share of a chunk that the next one repeats")
        if self.codebooks < 1:
            raise ValueError(f"encodec: bandwidth {config.target_bandwidths[-1]} is too low for one codebook")

    def chunks(self, wave: Tensor) -> Sequence[Tensor]:
        """The pieces that are encoded apart: all of it, or chunks of one length, the last filled up with zeros."""
        if self.chunk is None or self.stride is None:
            return [wave]
        count = 1 + max(0, math.ceil((wave.shape[-1] - self.chunk) / self.stride))
        wave = F.pad(wave, (0, (count - 1) * self.stride + self.chunk - wave.shape[-1]))
        return [wave[..., i * self.stride : i * self.stride + self.chunk] for i in range(count)]

    def scales(self, wave: Tensor) -> Tensor:
        """``[B, chunks]``: what each chunk is divided by, ones without normalisation."""
        chunks = self.chunks(wave)
        if not self.model.config.normalize:
            return wave.new_ones(len(wave), len(chunks))
        return torch.stack([chunk.mean(1).square().mean(-1).sqrt() + 1e-8 for chunk in chunks], dim=1)

    def features(self, wave: Tensor) -> Tensor:
        scaled = zip(self.chunks(wave), self.scales(wave).unbind(1), strict=True)
        return torch.cat([self.model.encoder(chunk / scale[:, None, None]) for chunk, scale in scaled], dim=-1)

    def encode(self, wave: Tensor, codebooks: int) -> Tensor:
        return self.model.quantizer.encode(self.features(wave)).movedim(0, 1)[:, :codebooks]

    def lookup(self, tokens: Tensor) -> Tensor:
        return self.model.quantizer.decode(tokens.movedim(1, 0))

    def decode(self, tokens: Tensor, scales: Tensor | None = None) -> Tensor:
        frames = tokens.shape[-1] if self.chunk is None else math.ceil(self.chunk / self.hop_length)
        if tokens.shape[-1] % frames:
            raise ValueError(f"{tokens.shape[-1]} frames are no whole number of chunks of {frames}")
        pieces = torch.stack(tokens.split(frames, dim=-1))
        if scales is None:
            scales = torch.ones(len(tokens), len(pieces), device=tokens.device)
        return self.model.decode(pieces, [one[:, None] for one in scales.unbind(1)]).audio_values

    def forward(self, wave: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        tokens = self.encode(wave, self.codebooks)
        return self.decode(tokens, self.scales(wave)), tokens, {}


class Dac(nn.Module):
    """DAC. The wave is filled up with zeros to whole frames. Trainable: gradients pass its codes straight through."""

    prefixes = True

    def __init__(self, **values: Any):
        super().__init__()
        config = _config(DacConfig, values)
        self.model = DacModel(config)
        self.sampling_rate, self.channels = config.sampling_rate, 1
        self.hop_length, self.vocab_size, self.codebooks = config.hop_length, config.codebook_size, config.n_codebooks

    def features(self, wave: Tensor) -> Tensor:
        return self.model.encoder(F.pad(wave, (0, -wave.shape[-1] % self.hop_length)))

    def encode(self, wave: Tensor, codebooks: int) -> Tensor:
        return self.model.quantizer(self.features(wave), codebooks)[1][:, :codebooks]

    def lookup(self, tokens: Tensor) -> Tensor:
        return self.model.quantizer.from_codes(tokens)[0]

    def decode(self, tokens: Tensor) -> Tensor:
        return self.model.decoder(self.lookup(tokens))

    def forward(self, wave: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        vectors, tokens, _, commit, codebook = self.model.quantizer(self.features(wave))
        config, losses = self.model.config, {}
        if self.training:
            losses = {
                "commit": config.commitment_loss_weight * commit.mean(),
                "codebook": config.codebook_loss_weight * codebook.mean(),
            }
        return self.model.decoder(vectors), tokens, losses
