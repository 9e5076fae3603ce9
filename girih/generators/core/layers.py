"""The small parts of a layer: feed-forward, norm, modulation.

Knows: width-preserving maps of one call shape each. Does not know sequences.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SwiGLU(nn.Module):
    """``down(silu(gate x) * up x)`` (Shazeer 2020, "GLU Variants Improve Transformer")."""

    def __init__(self, dim: int, hidden: int, bias: bool = False) -> None:
        super().__init__()
        self.gate = nn.Linear(dim, hidden, bias=bias)
        self.up = nn.Linear(dim, hidden, bias=bias)
        self.down = nn.Linear(hidden, dim, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class GELU(nn.Module):
    """``down(gelu(up x))`` with the tanh approximation."""

    def __init__(self, dim: int, hidden: int, bias: bool = False) -> None:
        super().__init__()
        self.up = nn.Linear(dim, hidden, bias=bias)
        self.down = nn.Linear(hidden, dim, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x), approximate="tanh"))


FEED_FORWARD = {"swiglu": SwiGLU, "gelu": GELU}


def make_norm(kind: str, dim: int, eps: float, affine: bool) -> nn.Module:
    """``rms`` or ``layer`` norm; without its own scale where modulation supplies one."""
    if kind == "rms":
        return nn.RMSNorm(dim, eps=eps, elementwise_affine=affine)
    return nn.LayerNorm(dim, eps=eps, elementwise_affine=affine)


class AdaLN(nn.Module):
    """Shift, scale and gate of ``parts`` sub-layers from a condition vector (Peebles & Xie 2022, DiT, section 3.2).

    Scale and gate are returned as ``1 + value`` and the map starts at zero, so that a fresh layer is an ordinary
    pre-norm layer. They depend on the condition alone: computed once a call, not once a token.
    """

    def __init__(self, dim: int, condition_dim: int, parts: int, gated: bool = True) -> None:
        super().__init__()
        self.chunks = parts * (3 if gated else 2)
        self.gated = gated
        self.map = nn.Linear(condition_dim, self.chunks * dim)
        nn.init.zeros_(self.map.weight)
        nn.init.zeros_(self.map.bias)

    def forward(self, condition: Tensor) -> tuple[Tensor, ...]:
        """[rows, condition_dim] -> per part (shift, 1 + scale, 1 + gate), flat, each [rows, 1, dim]."""
        chunks = self.map(F.silu(condition))[:, None].chunk(self.chunks, dim=-1)
        per_part = 3 if self.gated else 2
        return tuple(c if i % per_part == 0 else c + 1 for i, c in enumerate(chunks))


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """``x * scale + shift``."""
    return torch.addcmul(shift, x, scale)
