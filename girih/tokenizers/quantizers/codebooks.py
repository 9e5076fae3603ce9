"""Learned codebooks: nearest vector, moved by gradient or by moving averages, alone or on residuals.

The gradient codebook is written out, because LlamaGen and VAR move theirs by gradient, which vector-quantize-pytorch's
cosine mode refuses. Moving averages and residual stacks are that library's.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from vector_quantize_pytorch import ResidualVQ, VectorQuantize

from girih.tokenizers.quantizers.quantized import Quantized, cells_back, cells_last

USAGE_WINDOW = 65536  # ids that LlamaGen's usage statistic looks back on; part of its published state dict


def squared_distances(rows: Tensor, codebook: Tensor) -> Tensor:
    """Rows ``[N, C]`` and code vectors ``[V, C]`` to ``|row - code|^2`` ``[N, V]``."""
    return rows.square().sum(1, keepdim=True) + codebook.square().sum(1) - 2 * rows @ codebook.T


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
        flat = cells_last(features)
        flat = F.normalize(flat, dim=-1) if self.l2_norm else flat
        codebook = self.codebook().float()
        distance = squared_distances(flat, codebook)
        tokens = distance.argmin(1)
        codes = codebook[tokens]
        losses = self._losses(flat, codes, distance, tokens) if self.training else {}
        carried = cells_back(flat + (codes - flat).detach(), features)
        return Quantized(carried, tokens.view(len(features), *features.shape[2:]), losses)

    def lookup(self, tokens: Tensor) -> Tensor:
        """Ids ``[B, *cells]`` to code vectors ``[B, dim, *cells]``."""
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


class AveragingCodebookQuantizer(nn.Module):
    """Nearest codebook vector, the codebook moved by moving averages of what chose it (van den Oord et al. 2017,
    appendix A.1; vector-quantize-pytorch). A code whose moving count of choices a batch falls below ``dead_below`` is
    replaced by a feature. In training mode ``losses`` holds ``commit``. ``l2_norm``: cosine distance, unit codes.
    """

    def __init__(
        self,
        vocab_size: int,
        dim: int,
        l2_norm: bool = False,
        commit_weight: float = 0.25,
        decay: float = 0.99,
        dead_below: float = 0.0,
    ):
        super().__init__()
        self.vocab_size, self.dim = vocab_size, dim
        # The library's rotation trick would replace the plain straight-through gradient.
        self.vq = VectorQuantize(
            dim, vocab_size, decay=decay, commitment_weight=commit_weight, use_cosine_sim=l2_norm,
            threshold_ema_dead_code=dead_below, rotation_trick=False,
        )  # fmt: skip

    def forward(self, features: Tensor) -> Quantized:
        codes, tokens, commit = self.vq(cells_last(features)[None])
        losses = {"commit": commit.reshape(())} if self.training else {}
        return Quantized(cells_back(codes[0], features), tokens.view(len(features), *features.shape[2:]), losses)

    def lookup(self, tokens: Tensor) -> Tensor:
        """Ids ``[B, *cells]`` to code vectors ``[B, dim, *cells]``."""
        return F.embedding(tokens, self.vq.codebook).movedim(-1, 1)


class ResidualCodebookQuantizer(nn.Module):
    """``depth`` codebooks, each quantizing what the ones before left over (SoundStream, section III-C;
    vector-quantize-pytorch). Tokens are ``[B, depth, *cells]``, coarse first; any number of leading ones decodes.

    ``dropout``: in training, quantizers after a random depth are left out, so that every prefix is a good code; their
    tokens are then -1.
    """

    def __init__(
        self,
        vocab_size: int,
        dim: int,
        depth: int,
        commit_weight: float = 0.25,
        decay: float = 0.99,
        dropout: bool = False,
        kmeans_init: bool = False,
    ):
        super().__init__()
        self.vocab_size, self.dim, self.depth = vocab_size, dim, depth
        self.rvq = ResidualVQ(
            dim=dim, num_quantizers=depth, codebook_size=vocab_size, decay=decay, commitment_weight=commit_weight,
            quantize_dropout=dropout, kmeans_init=kmeans_init, rotation_trick=False,
        )  # fmt: skip

    def forward(self, features: Tensor) -> Quantized:
        codes, tokens, commit = self.rvq(cells_last(features)[None])
        tokens = tokens[0].view(len(features), *features.shape[2:], self.depth).movedim(-1, 1)
        losses = {"commit": commit.sum()} if self.training else {}
        return Quantized(cells_back(codes[0], features), tokens, losses)

    def lookup(self, tokens: Tensor) -> Tensor:
        """Ids ``[B, n <= depth, *cells]`` to the sum of their code vectors, ``[B, dim, *cells]``."""
        if not 1 <= tokens.shape[1] <= self.depth:
            raise ValueError(f"tokens must be [batch, 1 to {self.depth} codebooks, ...], got {list(tokens.shape)}")
        books = self.rvq.codebooks[: tokens.shape[1]]
        codes = [F.embedding(ids, book) for ids, book in zip(tokens.unbind(1), books, strict=True)]
        return torch.stack(codes).sum(0).movedim(-1, 1)


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
