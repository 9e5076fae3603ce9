"""Quantizers of image tokenizers: a feature map to token ids and code vectors, and ids back to code vectors.

Knows feature maps ``[B, C, h, w]`` and ids ``[B, h, w]``. Does not know images, encoders or files.

Two maths live here. Finite scalar quantization is vector-quantize-pytorch's. The learned codebook is written out,
because LlamaGen moves its codebook by gradient, which that library's cosine mode refuses.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from vector_quantize_pytorch import FSQ

from girih.spec import digits

USAGE_WINDOW = 65536  # ids that LlamaGen's usage statistic looks back on; part of its published state dict


@dataclass
class Quantized:
    """What a quantizer makes of a feature map: ``codes [B, C, h, w]`` (straight-through), ``tokens [B, h, w]`` int64,
    and the scalar ``losses`` / statistics it adds in training mode, by name."""

    codes: Tensor
    tokens: Tensor
    losses: dict[str, Tensor] = field(default_factory=dict)


class FiniteScalarQuantizer(nn.Module):
    """Finite scalar quantization (Mentzer et al. 2023, section 3): tanh, then round each channel to its level count.

    Nothing is learned, so there is no codebook to collapse. Channel i takes values in [-1, 1] on ``levels[i]`` steps.
    """

    def __init__(self, levels: Sequence[int]):
        super().__init__()
        if not levels or min(levels) < 3:
            raise ValueError(f"levels must be a list of integers >= 3, got {list(levels)}")
        self.levels = tuple(int(level) for level in levels)
        self.dim, self.vocab_size = len(self.levels), math.prod(self.levels)
        self.fsq = FSQ(list(self.levels), channel_first=True)

    def forward(self, features: Tensor) -> Quantized:
        # Rounding decides tokens: always in float32, whatever autocast or the weights are in.
        codes, tokens = self.fsq(features.float())
        return Quantized(codes.to(features.dtype), tokens.long())

    def lookup(self, tokens: Tensor) -> Tensor:
        """Ids ``[B, h, w]`` to code vectors ``[B, len(levels), h, w]``, float32."""
        half = torch.tensor([level // 2 for level in self.levels], device=tokens.device)
        return ((digits(tokens, self.levels) - half) / half).movedim(-1, 1)


class CodebookQuantizer(nn.Module):
    """Nearest codebook vector, the codebook moved by gradient (LlamaGen ``VectorQuantizer``, VQGAN section 3).

    With ``l2_norm`` the feature and the code are both normalised at use; the normalised feature is then also the
    straight-through carrier. In training mode ``losses`` holds ``vq``, ``commit`` (times ``commit_weight``),
    ``entropy`` (times ``entropy_weight``) and, with ``track_usage``, ``usage``: distinct ids among the last 65,536 over
    ``vocab_size``.
    """

    def __init__(
        self,
        vocab_size: int,
        dim: int,
        l2_norm: bool = True,
        commit_weight: float = 0.25,
        entropy_weight: float = 0.0,
        track_usage: bool = True,
    ):
        super().__init__()
        self.vocab_size, self.dim, self.l2_norm = vocab_size, dim, l2_norm
        self.commit_weight, self.entropy_weight = commit_weight, entropy_weight
        self.embedding = nn.Embedding(vocab_size, dim)
        nn.init.uniform_(self.embedding.weight, -1.0 / vocab_size, 1.0 / vocab_size)
        self.codebook_used: Tensor | None
        # A plain tensor: the peer makes this buffer of a Parameter, whose in-place update autograd refuses on CPU.
        self.register_buffer("codebook_used", torch.zeros(USAGE_WINDOW) if track_usage else None)

    def codebook(self) -> Tensor:
        """Code vectors as used, ``[vocab_size, dim]`` (unit length with ``l2_norm``)."""
        weight = self.embedding.weight
        return F.normalize(weight, dim=-1) if self.l2_norm else weight

    def forward(self, features: Tensor) -> Quantized:
        batch, _, height, width = features.shape
        flat = features.float().movedim(1, -1).reshape(-1, self.dim)
        flat = F.normalize(flat, dim=-1) if self.l2_norm else flat
        codebook = self.codebook().float()
        distance = flat.square().sum(1, keepdim=True) + codebook.square().sum(1) - 2 * flat @ codebook.T
        tokens = distance.argmin(1)
        codes = codebook[tokens]
        losses = self._losses(flat, codes, distance, tokens) if self.training else {}
        carried = flat + (codes - flat).detach()
        carried = carried.view(batch, height, width, self.dim).movedim(-1, 1)
        return Quantized(carried.to(features.dtype), tokens.view(batch, height, width), losses)

    def lookup(self, tokens: Tensor) -> Tensor:
        """Ids ``[B, h, w]`` to code vectors ``[B, dim, h, w]``."""
        return F.embedding(tokens, self.codebook()).movedim(-1, 1)

    def _losses(self, flat: Tensor, codes: Tensor, distance: Tensor, tokens: Tensor) -> dict[str, Tensor]:
        losses = {
            "vq": F.mse_loss(codes, flat.detach()),
            "commit": self.commit_weight * F.mse_loss(flat, codes.detach()),
            "entropy": flat.new_zeros(()),
        }
        if self.entropy_weight:
            losses["entropy"] = self.entropy_weight * assignment_entropy(-distance)
        if self.codebook_used is not None:
            recent = tokens[-USAGE_WINDOW:].to(self.codebook_used)
            self.codebook_used.copy_(torch.cat([self.codebook_used[len(recent) :], recent]))
            losses["usage"] = flat.new_tensor(self.codebook_used.unique().numel() / self.vocab_size)
        return losses


def assignment_entropy(affinity: Tensor, temperature: float = 0.01) -> Tensor:
    """Mean entropy of each row's soft assignment minus the entropy of the mean assignment, in nats.

    ``affinity [N, vocab]``. Low when every feature is sure of its code and all codes are used (LlamaGen).
    """
    logits = affinity / temperature
    probabilities = logits.softmax(-1)
    mean = probabilities.mean(0)
    of_rows = -(probabilities * (logits + 1e-5).log_softmax(-1)).sum(-1).mean()
    of_mean = -(mean * (mean + 1e-5).log()).sum()
    return of_rows - of_mean
