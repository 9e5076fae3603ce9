"""The one transformer of girih.

Knows: a stack of layers, each a mixer, an optional cross-attention and a feed-forward between norms, and how to run it
over a whole sequence or a staged piece of one. Does not know tokens, conditions or heads: it maps vectors to features.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from girih.generators.core.attention import Attention, CrossAttention, Stream
from girih.generators.core.cache import Cache
from girih.generators.core.layers import FEED_FORWARD, AdaLN, make_norm, modulate

Modulation = list[tuple[Tensor, ...]]


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes and parts of a ``Transformer``.

    Attributes:
        dim, num_layers, num_heads: width, depth, query heads.
        num_kv_heads: key/value heads; None = num_heads.
        head_dim: None = dim / num_heads.
        feed_forward: "swiglu" or "gelu"; feed_forward_dim: its hidden width.
        norm: "rms" or "layer"; norm_eps: its epsilon.
        qk_norm: RMSNorm on queries and keys.
        rope_interleaved: rotary pair convention, see ``positions.rotate``.
        condition_dim: width of the vector that modulates every layer (adaLN); None = no modulation.
        context_dim: width of the context every layer cross-attends to; None = no cross-attention.
        bias: biases on attention and feed-forward projections.

    Raises:
        ValueError: sizes that do not divide, or an unknown part.
    """

    dim: int
    num_layers: int
    num_heads: int
    feed_forward_dim: int
    num_kv_heads: int | None = None
    head_dim: int | None = None
    feed_forward: str = "swiglu"
    norm: str = "rms"
    norm_eps: float = 1e-5
    qk_norm: bool = False
    rope_interleaved: bool = True
    condition_dim: int | None = None
    context_dim: int | None = None
    bias: bool = False

    def __post_init__(self) -> None:
        if self.head_dim is None and self.dim % self.num_heads:
            raise ValueError(f"dim {self.dim} is not divisible by num_heads {self.num_heads}")
        if self.num_heads % self.kv_heads:
            raise ValueError(f"num_heads {self.num_heads} is not a multiple of num_kv_heads {self.kv_heads}")
        if self.feed_forward not in FEED_FORWARD:
            raise ValueError(f"feed_forward {self.feed_forward!r} is not one of {sorted(FEED_FORWARD)}")
        if self.norm not in ("rms", "layer"):
            raise ValueError(f"norm {self.norm!r} is not 'rms' or 'layer'")

    @property
    def kv_heads(self) -> int:
        return self.num_kv_heads or self.num_heads

    @property
    def head_width(self) -> int:
        return self.head_dim or self.dim // self.num_heads


class Layer(nn.Module):
    """Pre-norm residual layer: mixer, optional cross-attention, feed-forward, optionally modulated."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        modulated = config.condition_dim is not None
        norm = (config.norm, config.dim, config.norm_eps, not modulated)
        self.mixer_norm = make_norm(*norm)
        self.mixer = Attention(config.dim, config.num_heads, config.kv_heads, config.head_width, config.qk_norm,
                               config.rope_interleaved, config.bias)
        self.feed_forward_norm = make_norm(*norm)
        self.feed_forward = FEED_FORWARD[config.feed_forward](config.dim, config.feed_forward_dim, config.bias)
        self.modulation = AdaLN(config.dim, config.condition_dim, parts=2) if config.condition_dim else None
        self.cross = None
        if config.context_dim is not None:
            self.cross_norm = make_norm(config.norm, config.dim, config.norm_eps, True)
            self.cross = CrossAttention(config.dim, config.context_dim, config.num_heads, config.head_width,
                                        config.bias)

    def forward(self, x: Tensor, stream: Stream, modulation: tuple[Tensor, ...] | None, index: int) -> Tensor:
        """x [rows, n, dim] -> [rows, n, dim]; ``index`` is the layer's number in the cache."""
        normed = self.mixer_norm(x)
        if modulation is not None:
            shift, scale, gate, ff_shift, ff_scale, ff_gate = modulation
            normed = modulate(normed, shift, scale)
        if stream.cache is None:
            mixed = self.mixer(normed, stream)
        else:
            mixed = self.mixer.step(normed, stream, stream.cache, index)
        x = x + mixed if modulation is None else x.addcmul(mixed, gate)
        if self.cross is not None:
            x = x + self.cross(self.cross_norm(x), stream)
        normed = self.feed_forward_norm(x)
        if modulation is None:
            return x + self.feed_forward(normed)
        return x.addcmul(self.feed_forward(modulate(normed, ff_shift, ff_scale)), ff_gate)


class Transformer(nn.Module):
    """A stack of layers with a final norm: vectors [rows, n, dim] -> features [rows, n, dim]."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_layers))
        self.norm = make_norm(config.norm, config.dim, config.norm_eps, config.condition_dim is None)
        self.modulation = (
            AdaLN(config.dim, config.condition_dim, parts=1, gated=False) if config.condition_dim else None
        )

    def modulations(self, vector: Tensor) -> Modulation:
        """What a condition vector [rows, condition_dim] does to every layer and the final norm; once a call."""
        modules = (*(layer.modulation for layer in self.layers), self.modulation)
        return [module(vector) for module in modules if isinstance(module, AdaLN)]

    def new_cache(self, rows: int, slots: int) -> Cache:
        """An empty cache for ``rows`` rows of up to ``slots`` slots, of this model's dtype and device."""
        weight = next(self.parameters())
        return Cache(list(range(self.config.num_layers)), rows, self.config.kv_heads, slots, self.config.head_width,
                     weight.dtype, weight.device)

    def forward(self, x: Tensor, stream: Stream, modulation: Modulation | None = None) -> Tensor:
        """Run all layers over x [rows, n, dim]: the staged slots with ``stream.cache``, else the whole sequence."""
        for index, layer in enumerate(self.layers):
            x = layer(x, stream, None if modulation is None else modulation[index], index)
        x = self.norm(x)
        return x if modulation is None else modulate(x, *modulation[-1])
