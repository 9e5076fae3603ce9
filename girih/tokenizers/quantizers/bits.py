"""Lookup-free quantization: each channel becomes its sign, and the signs are the bits of the id.

Written out, because vector-quantize-pytorch enumerates the codebook: its entropy term needs tokens x 2^bits numbers.
Here nothing is enumerated but the mean distribution, and that one only as the product of two half-tables.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from girih.names import unknown
from girih.tokenizers.quantizers.quantized import Quantized, cells_back, cells_last

BIT_ORDERS = ("little", "big")
MOST_BITS = 62  # of an id in int64
MOST_JOINT_BITS = 24  # of a group whose mean distribution is enumerated


class SignQuantizer(nn.Module):
    """Signs as codes: lookup-free quantization (Yu et al. 2023, MAGVIT-v2 section 3.1; Open-MAGVIT2) and, with
    ``spherical``, binary spherical quantization (Zhao et al. 2024).

    Channel k above zero gives +1, else -1 (zero too). The id is the sum of ``2^k`` over the channels above zero
    (``bit_order="little"``, Open-MAGVIT2) or of ``2^(dim - 1 - k)`` (``"big"``, vector-quantize-pytorch).
    ``spherical``: the feature is first normalised, and codes have length 1, so that each entry is ``+-dim^-0.5``.

    In training mode ``losses`` holds ``commit`` (times ``commit_weight``) and ``entropy``: ``certainty_weight`` times
    the mean entropy of a feature's soft assignment to all codes minus ``diversity_weight`` times the entropy of the
    mean assignment, in nats. Both are exact; with ``entropy_groups`` > 1, for more bits than can be enumerated, the
    second is the sum over that many groups of channels, an upper bound.

    Raises ValueError for an unknown bit order, or more bits than an id or an entropy group can hold.
    """

    def __init__(
        self,
        dim: int,
        bit_order: str = "little",
        spherical: bool = False,
        certainty_weight: float = 1.0,
        diversity_weight: float = 1.0,
        commit_weight: float = 0.25,
        temperature: float = 0.01,
        entropy_groups: int = 1,
    ):
        super().__init__()
        if bit_order not in BIT_ORDERS:
            raise unknown("bit order", bit_order, BIT_ORDERS)
        if not 1 <= dim <= MOST_BITS:
            raise ValueError(f"an id has 1 to {MOST_BITS} bits, got {dim} channels")
        if not 1 <= entropy_groups <= dim or -(-dim // entropy_groups) > MOST_JOINT_BITS:
            raise ValueError(f"{dim} bits in {entropy_groups} entropy groups: a group has 1 to {MOST_JOINT_BITS} bits")
        self.dim, self.vocab_size, self.bit_order = dim, 2**dim, bit_order
        self.spherical, self.scale = spherical, dim**-0.5 if spherical else 1.0
        self.certainty_weight, self.diversity_weight = certainty_weight, diversity_weight
        self.commit_weight, self.temperature, self.entropy_groups = commit_weight, temperature, entropy_groups

    def forward(self, features: Tensor) -> Quantized:
        rows = self._rows(features)
        signs = rows > 0
        codes = torch.where(signs, self.scale, -self.scale)
        tokens = (signs * self._weights(rows.device)).sum(-1).view(len(features), *features.shape[2:])
        losses = {}
        if self.training:
            certainty, diversity = self._entropies(rows)
            losses = {
                "commit": self.commit_weight * F.mse_loss(rows, codes),
                "entropy": self.certainty_weight * certainty - self.diversity_weight * diversity,
            }
        return Quantized(cells_back(rows + (codes - rows).detach(), features), tokens, losses)

    def lookup(self, tokens: Tensor) -> Tensor:
        """Ids ``[B, *cells]`` to code vectors ``[B, dim, *cells]``, float32."""
        signs = tokens.unsqueeze(-1) & self._weights(tokens.device) != 0
        return torch.where(signs, self.scale, -self.scale).movedim(-1, 1)

    def entropies(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Of features ``[B, dim, *cells]``, in nats: (mean entropy of a soft assignment, entropy of the mean one)."""
        return self._entropies(self._rows(features))

    def _rows(self, features: Tensor) -> Tensor:
        rows = cells_last(features)
        return F.normalize(rows, dim=-1) if self.spherical else rows

    def _weights(self, device: torch.device) -> Tensor:
        places = torch.arange(self.dim, device=device)
        return 2 ** (places if self.bit_order == "little" else places.flip(0))

    def _entropies(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        # softmax over all codes c of 2 x.c / temperature is a product over the bits, of which this is the logit.
        logits = 4 * self.scale * rows / self.temperature
        certainty = bit_entropy(logits).sum(-1).mean()
        groups = torch.sigmoid(logits).tensor_split(self.entropy_groups, dim=-1)
        return certainty, sum((entropy_of_mean(group) for group in groups), rows.new_zeros(()))


def bit_entropy(logits: Tensor) -> Tensor:
    """Entropy in nats of bits that are 1 with probability ``sigmoid(logits)``, elementwise and finite everywhere."""
    return F.softplus(logits) - logits * torch.sigmoid(logits)


def entropy_of_mean(probabilities: Tensor) -> Tensor:
    """Entropy in nats of the mean over rows of independent bits' joint distributions: ``[N, bits]`` to a scalar.

    The mean's table of ``2^bits`` numbers is one product of the tables of the first and the second half of the bits.
    ``1e-5`` inside the logarithm is Open-MAGVIT2's.
    """
    first, second = (_joint(half) for half in probabilities.tensor_split(2, dim=-1))
    mean = first.mT @ second / len(probabilities)
    return -(mean * (mean + 1e-5).log()).sum()


def _joint(probabilities: Tensor) -> Tensor:
    """Probabilities that each bit is 1, ``[N, bits]``, to those of all their values, ``[N, 2^bits]``."""
    table = probabilities.new_ones(len(probabilities), 1)
    for one in probabilities.unbind(-1):
        table = torch.cat([table * (1 - one).unsqueeze(-1), table * one.unsqueeze(-1)], -1)
    return table
