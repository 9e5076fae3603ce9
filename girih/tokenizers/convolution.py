"""Convolutional blocks, encoder and decoder of image tokenizers. Knows feature maps; knows nothing of tokens or files.

A stack is composed of small classes that a config picks by name: ``BLOCKS`` (what a level repeats) and ``RESAMPLERS``
(how a level is left). Parameter names follow LlamaGen's published checkpoints, so its weights load without renaming.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from girih.names import unknown


class Norm(NamedTuple):
    """GroupNorm's two numbers, passed down a stack."""

    groups: int
    eps: float

    def __call__(self, channels: int) -> nn.GroupNorm:
        return nn.GroupNorm(self.groups, channels, eps=self.eps)


class ResidualBlock(nn.Module):
    """norm, swish, 3x3, norm, swish, 3x3, plus the input (through a 1x1 when the width changes): VQGAN's block."""

    def __init__(self, in_channels: int, out_channels: int, norm: Norm):
        super().__init__()
        self.norm1, self.norm2 = norm(in_channels), norm(out_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.nin_shortcut = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv1(F.silu(self.norm1(x)))
        return self.nin_shortcut(x) + self.conv2(F.silu(self.norm2(hidden)))


class LightBlock(nn.Module):
    """norm, SiLU, 3x3, SiLU, 1x1, plus the input: half of a residual block's cost. The last 1x1 starts at zero."""

    def __init__(self, in_channels: int, out_channels: int, norm: Norm):
        super().__init__()
        self.norm = norm(in_channels)
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.proj = nn.Conv2d(out_channels, out_channels, 1)
        for parameter in self.proj.parameters():
            nn.init.zeros_(parameter)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.proj(F.silu(self.conv(F.silu(self.norm(x)))))


class AttentionBlock(nn.Module):
    """Single-head self-attention over the ``h * w`` positions, plus the input (VQGAN)."""

    def __init__(self, channels: int, norm: Norm):
        super().__init__()
        self.norm = norm(channels)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.norm(x)
        query, key, value = (conv(hidden).flatten(2).mT.unsqueeze(1) for conv in (self.q, self.k, self.v))
        mixed = F.scaled_dot_product_attention(query, key, value).squeeze(1).mT
        return x + self.proj_out(mixed.reshape(x.shape))


class AdaptiveGroupNorm(nn.Module):
    """GroupNorm whose scale and shift are linear in the spread and the mean of the codes (Open-MAGVIT2's decoder)."""

    def __init__(self, channels: int, code_channels: int, norm: Norm):
        super().__init__()
        self.norm = nn.GroupNorm(norm.groups, channels, eps=norm.eps, affine=False)
        self.eps = norm.eps
        self.gamma, self.beta = nn.Linear(code_channels, channels), nn.Linear(code_channels, channels)

    def forward(self, x: Tensor, codes: Tensor) -> Tensor:
        flat = codes.flatten(2)
        # One position has no spread; the unbiased variance would be 0 / 0.
        variance = flat.var(-1) if flat.shape[-1] > 1 else flat.new_zeros(flat.shape[:2])
        scale, shift = self.gamma((variance + self.eps).sqrt()), self.beta(flat.mean(-1))
        return self.norm(x) * scale[..., None, None] + shift[..., None, None]


class Resampler(nn.Module):
    """How a level is left. ``widens``: it goes to the next level's width; else that level's first block does."""

    widens: bool

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()


class StridedDownsample(Resampler):
    """Halves the size: zero row and column at the bottom right, then a stride-2 3x3 (VQGAN's asymmetric padding)."""

    widens = False

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels)
        self.conv = nn.Conv2d(in_channels, out_channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class NearestUpsample(Resampler):
    """Doubles the size: each pixel four times, then a 3x3."""

    widens = False

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels)
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class ShuffleDownsample(Resampler):
    """Halves the size: space-to-depth by 2, then a 3x3 at the small size, straight to the next level's width."""

    widens = True

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels)
        self.conv = nn.Conv2d(4 * in_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pixel_unshuffle(x, 2))


class ShuffleUpsample(Resampler):
    """Doubles the size: a 3x3 at the small size to four times the next level's width, then depth-to-space by 2."""

    widens = True

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels)
        self.conv = nn.Conv2d(in_channels, 4 * out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.conv(x), 2)


class CentredDownsample(Resampler):
    """Halves the size: a stride-2 3x3, zeros all around (Open-MAGVIT2)."""

    widens = False

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels)
        self.conv = nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class SubpixelUpsample(ShuffleUpsample):
    """The same as :class:`ShuffleUpsample`, at this level's width (Open-MAGVIT2, whose checkpoints order the four
    times as many channels otherwise)."""

    widens = False


BLOCKS: dict[str, type[nn.Module]] = {"residual": ResidualBlock, "light": LightBlock}
RESAMPLERS: dict[str, tuple[type[Resampler], type[Resampler]]] = {
    "strided": (StridedDownsample, NearestUpsample),
    "shuffle": (ShuffleDownsample, ShuffleUpsample),
    "subpixel": (CentredDownsample, SubpixelUpsample),
}


def _middle(width: int, blocks: int | None, block: type[nn.Module], norm: Norm, attention: bool) -> nn.ModuleList:
    """``blocks`` blocks, by default two with attention and none without; attention after the first."""
    count = (2 if attention else 0) if blocks is None else blocks
    parts: list[nn.Module] = [block(width, width, norm) for _ in range(count)]
    return nn.ModuleList([*parts[:1], AttentionBlock(width, norm), *parts[1:]] if attention else parts)


class Level(nn.Module):
    """``num_blocks`` blocks at one size, each followed by attention where asked, then the way to the next size."""

    def __init__(
        self,
        in_channels: int,
        width: int,
        num_blocks: int,
        block: type[nn.Module],
        norm: Norm,
        attention: bool,
        downsample: nn.Module | None = None,
        upsample: nn.Module | None = None,
    ):
        super().__init__()
        self.res = nn.ModuleList([block(in_channels if i == 0 else width, width, norm) for i in range(num_blocks)])
        self.attn = nn.ModuleList([AttentionBlock(width, norm) for _ in range(num_blocks)] if attention else [])
        self.downsample, self.upsample = downsample, upsample

    def forward(self, x: Tensor) -> Tensor:
        for i, block in enumerate(self.res):
            x = block(x)
            if self.attn:
                x = self.attn[i](x)
        for way in (self.downsample, self.upsample):
            x = x if way is None else way(x)
        return x


class Encoder(nn.Module):
    """Images ``[B, in_channels, H, W]`` to features ``[B, z_channels, H / f, W / f]``, f = patch * 2^(levels - 1).

    ``widths[l]`` and ``num_blocks[l]`` describe level l from the largest size down; the first convolution, over
    ``patch`` x ``patch`` pixels folded into channels, makes ``stem_width`` channels. ``attention`` puts it after each
    block of the smallest level and in a middle of ``middle_blocks`` blocks (see :func:`_middle`).
    """

    def __init__(
        self,
        in_channels: int,
        z_channels: int,
        stem_width: int,
        widths: Sequence[int],
        num_blocks: Sequence[int],
        patch: int,
        block: str,
        resample: str,
        norm: Norm,
        attention: bool,
        middle_blocks: int | None = None,
    ):
        super().__init__()
        make, (down, _) = BLOCKS[block], RESAMPLERS[resample]
        self.patch = patch
        self.conv_in = nn.Conv2d(in_channels * patch**2, stem_width, 3, padding=1)
        self.conv_blocks = nn.ModuleList()
        width = stem_width
        for i, target in enumerate(widths):
            last = i == len(widths) - 1
            leaving = widths[i + 1] if down.widens and not last else target
            way = None if last else down(target, leaving)
            level = Level(width, target, num_blocks[i], make, norm, attention and last, downsample=way)
            self.conv_blocks.append(level)
            width = leaving
        self.mid = _middle(width, middle_blocks, make, norm, attention)
        self.norm_out = norm(width)
        self.conv_out = nn.Conv2d(width, z_channels, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        x = self.conv_in(F.pixel_unshuffle(images, self.patch))
        for part in (*self.conv_blocks, *self.mid):
            x = part(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class Decoder(nn.Module):
    """Features ``[B, z_channels, h, w]`` to images ``[B, out_channels, h * f, w * f]``, f = patch * 2^(levels - 1).

    ``widths[l]`` and ``num_blocks[l]`` describe level l from the smallest size up; otherwise as :class:`Encoder`.
    ``adaptive``: each level begins with a norm that the features themselves, as codes, scale and shift.
    """

    def __init__(
        self,
        out_channels: int,
        z_channels: int,
        widths: Sequence[int],
        num_blocks: Sequence[int],
        patch: int,
        block: str,
        resample: str,
        norm: Norm,
        attention: bool,
        middle_blocks: int | None = None,
        adaptive: bool = False,
    ):
        super().__init__()
        make, (_, up) = BLOCKS[block], RESAMPLERS[resample]
        self.patch = patch
        width = widths[0]
        self.conv_in = nn.Conv2d(z_channels, width, 3, padding=1)
        self.mid = _middle(width, middle_blocks, make, norm, attention)
        self.conv_blocks, self.adaptive = nn.ModuleList(), nn.ModuleList()
        for i, target in enumerate(widths):
            last = i == len(widths) - 1
            leaving = widths[i + 1] if up.widens and not last else target
            way = None if last else up(target, leaving)
            if adaptive:
                self.adaptive.append(AdaptiveGroupNorm(width, z_channels, norm))
            level = Level(width, target, num_blocks[i], make, norm, attention and i == 0, upsample=way)
            self.conv_blocks.append(level)
            width = leaving
        self.norm_out = norm(width)
        self.conv_out = nn.Conv2d(width, out_channels * patch**2, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        x = self.conv_in(features)
        for part in self.mid:
            x = part(x)
        for i, level in enumerate(self.conv_blocks):
            x = level(self.adaptive[i](x, features) if self.adaptive else x)
        return F.pixel_shuffle(self.conv_out(F.silu(self.norm_out(x))), self.patch)


def autoencoder(
    *,
    in_channels: int,
    out_channels: int,
    z_channels: int,
    stem_width: int | None,
    encoder_widths: Sequence[int],
    encoder_blocks: Sequence[int],
    decoder_widths: Sequence[int],
    decoder_blocks: Sequence[int],
    encoder_patch: int,
    decoder_patch: int,
    norm_groups: int,
    norm_eps: float,
    block: str,
    resample: str,
    adaptive: bool = False,
    **shared: Any,
) -> tuple[Encoder, Decoder, int]:
    """An encoder and a decoder that fit together, and how many pixels a side one cell stands for.

    ``stem_width``: channels after the first convolution; None means those of the first level. ``shared``: what both
    take by the same name.

    Raises ValueError for an unknown block or resampler, or sizes that do not fit together.
    """
    for kind, value, known in (("block", block, BLOCKS), ("resample", resample, RESAMPLERS)):
        if value not in known:
            raise unknown(kind, value, known)
    sides = (("encoder", encoder_widths, encoder_blocks), ("decoder", decoder_widths, decoder_blocks))
    for side, widths, blocks in sides:
        if not widths or len(widths) != len(blocks):
            raise ValueError(f"{side}_widths {list(widths)} and {side}_blocks {list(blocks)} must be equally long")
        for width in widths:
            if width < 1 or width % norm_groups:
                raise ValueError(f"{side} width {width} is not a multiple of norm_groups {norm_groups}")
    downscale = encoder_patch * 2 ** (len(encoder_widths) - 1)
    upscale = decoder_patch * 2 ** (len(decoder_widths) - 1)
    if downscale != upscale:
        raise ValueError(f"the encoder shrinks {downscale} times, but the decoder grows {upscale} times")
    shared = {**shared, "block": block, "resample": resample, "norm": Norm(norm_groups, norm_eps)}
    stem = stem_width or encoder_widths[0]
    encoder = Encoder(in_channels, z_channels, stem, encoder_widths, encoder_blocks, encoder_patch, **shared)
    decoder = Decoder(
        out_channels, z_channels, decoder_widths, decoder_blocks, decoder_patch, **shared, adaptive=adaptive
    )
    return encoder, decoder, downscale
