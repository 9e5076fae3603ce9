"""The image tokenizer: pictures to a grid of token ids and back. Knows nothing of the models that predict the ids.

One convolutional class, composed by its config. Two published shapes of it:

* LlamaGen's VQ (Sun et al. 2024; FoundationVision/LlamaGen ``tokenizer_image``): residual blocks, attention at the
  smallest size, strided resampling, a learned codebook. :func:`llamagen_config` spells it in the peer's own terms.
* girih's own small codec: pixels folded by 4, light blocks, no attention, finite scalar quantization (the defaults).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput
from torch import Tensor, nn

from girih.spec import TokenSpec
from girih.tokenizers.convolution import Decoder, Encoder, autoencoder
from girih.tokenizers.quantizers import CodebookQuantizer, FiniteScalarQuantizer, Quantized, check_ids


@dataclass
class ImageTokenizerOutput(BaseOutput):
    """``sample [B, 3, H, W]`` unclamped reconstruction, ``tokens`` as ``encode`` gives them, ``losses`` in training."""

    sample: Tensor
    tokens: Tensor
    losses: dict[str, Tensor]


class ConvolutionalTokenizer(ModelMixin, ConfigMixin):
    """What image tokenizers made of an encoder, a quantizer and a decoder have in common.

    A subclass sets ``encoder``, ``decoder``, ``downscale``, ``quantize`` (see :mod:`girih.tokenizers.quantizers`) and
    the convolutions between, ``quant_conv`` and ``post_quant_conv``; its config has ``in_channels``.
    """

    encoder: Encoder
    decoder: Decoder
    quantize: Any
    quant_conv: nn.Module
    post_quant_conv: nn.Module
    downscale: int

    def features(self, images: Tensor) -> Tensor:
        """Pictures ``[B, 3, H, W]`` in [-1, 1] to what the quantizer sees, ``[B, code_dim, h, w]``."""
        check_pictures(images, self.config.in_channels, self.downscale)
        return self.quant_conv(self.encoder(images))

    def reconstruct(self, codes: Tensor) -> Tensor:
        """Code vectors ``[B, code_dim, h, w]`` to pictures ``[B, 3, H, W]``, unclamped."""
        return self.decoder(self.post_quant_conv(codes))

    def encode(self, images: Tensor) -> Tensor:
        """Pictures ``[B, 3, H, W]`` in [-1, 1] to token ids ``[B, H / downscale, W / downscale]``, int64."""
        quantized: Quantized = self.quantize(self.features(images))
        return quantized.tokens

    def decode(self, tokens: Tensor) -> Tensor:
        """Token ids ``[B, h, w]`` to pictures ``[B, 3, H, W]``, unclamped, nominally in [-1, 1]."""
        if tokens.ndim != 3:
            raise ValueError(f"tokens must be [batch, height, width], got {list(tokens.shape)}")
        check_ids(tokens, self.quantize.vocab_size)
        return self.reconstruct(self.quantize.lookup(tokens).to(self.dtype))

    def forward(self, images: Tensor) -> ImageTokenizerOutput:
        """Reconstruct pictures ``[B, 3, H, W]``; gradients pass the quantizer straight through."""
        quantized: Quantized = self.quantize(self.features(images))
        return ImageTokenizerOutput(self.reconstruct(quantized.codes), quantized.tokens, quantized.losses)


def check_pictures(images: Tensor, channels: int, downscale: int) -> None:
    """Refuse what is no batch of pictures with ``channels``, or whose sides are no multiples of ``downscale``."""
    if images.ndim != 4 or images.shape[1] != channels:
        raise ValueError(f"pictures must be [batch, {channels}, height, width], got {list(images.shape)}")
    height, width = images.shape[2:]
    if height % downscale or width % downscale or not height * width:
        raise ValueError(f"picture height and width must be multiples of {downscale}, got {height} x {width}")


def check_sample_size(sample_size: int, downscale: int) -> None:
    """Refuse a side in pixels that is no multiple of ``downscale``."""
    if sample_size < 1 or sample_size % downscale:
        raise ValueError(f"sample_size {sample_size} is not a multiple of {downscale}, the size of one token")


class ImageTokenizer(ConvolutionalTokenizer):
    """Convolutional image tokenizer.

    Args:
        sample_size: side in pixels of the pictures it was made for; sets ``spec.shape``. Other multiples of
            ``downscale`` work too.
        stem_width: channels after the first convolution; None means those of the first level.
        encoder_widths, encoder_blocks: channels and number of blocks of each level, largest size first.
        decoder_widths, decoder_blocks: the same for the decoder, smallest size first.
        encoder_patch, decoder_patch: pixels folded into channels before the first (after the last) convolution.
        block: ``"light"`` or ``"residual"``. resample: ``"shuffle"``, ``"strided"`` or ``"subpixel"``.
        norm_groups, norm_eps: GroupNorm everywhere.
        attention: after each block of the smallest level, and a middle of block, attention, block.
        z_channels: features between the convolutions and the quantizer's 1x1 projections.
        levels: finite scalar quantization with these level counts; ``None`` means a learned codebook of
            ``codebook_size`` vectors of ``codebook_dim``, see :class:`girih.tokenizers.quantizers.CodebookQuantizer`.

    Raises:
        ValueError: an unknown block or resampler, or sizes that do not fit together.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: int = 128,
        in_channels: int = 3,
        out_channels: int = 3,
        stem_width: int | None = None,
        encoder_widths: Sequence[int] = (64, 128),
        encoder_blocks: Sequence[int] = (2, 2),
        decoder_widths: Sequence[int] = (128, 64, 32),
        decoder_blocks: Sequence[int] = (3, 2, 1),
        encoder_patch: int = 4,
        decoder_patch: int = 2,
        block: str = "light",
        resample: str = "shuffle",
        norm_groups: int = 8,
        norm_eps: float = 1e-5,
        attention: bool = False,
        z_channels: int = 32,
        levels: Sequence[int] | None = (7, 5, 5, 5, 5),
        codebook_size: int = 4096,
        codebook_dim: int = 8,
        codebook_l2_norm: bool = True,
        codebook_track_usage: bool = True,
        commit_weight: float = 0.25,
        entropy_weight: float = 0.0,
    ):
        super().__init__()
        self.encoder, self.decoder, self.downscale = autoencoder(
            in_channels=in_channels,
            out_channels=out_channels,
            z_channels=z_channels,
            stem_width=stem_width,
            encoder_widths=encoder_widths,
            encoder_blocks=encoder_blocks,
            decoder_widths=decoder_widths,
            decoder_blocks=decoder_blocks,
            encoder_patch=encoder_patch,
            decoder_patch=decoder_patch,
            norm_groups=norm_groups,
            norm_eps=norm_eps,
            block=block,
            resample=resample,
            attention=attention,
        )
        check_sample_size(sample_size, self.downscale)
        self.quantize: FiniteScalarQuantizer | CodebookQuantizer
        if levels is not None:
            self.quantize = FiniteScalarQuantizer(levels)
        else:
            self.quantize = CodebookQuantizer(
                codebook_size, codebook_dim, codebook_l2_norm, commit_weight, entropy_weight, codebook_track_usage
            )
        self.quant_conv = nn.Conv2d(z_channels, self.quantize.dim, 1)
        self.post_quant_conv = nn.Conv2d(self.quantize.dim, z_channels, 1)

    @property
    def spec(self) -> TokenSpec:
        """Vocabulary, the ``(h, w)`` grid of a picture of ``sample_size``, ``levels`` where scalars are quantized."""
        side = self.config.sample_size // self.downscale
        levels = self.config.levels
        return TokenSpec(self.quantize.vocab_size, (side, side), None if levels is None else tuple(levels))


def llamagen_config(
    ch: int = 128,
    encoder_ch_mult: Sequence[int] = (1, 1, 2, 2, 4),
    decoder_ch_mult: Sequence[int] = (1, 1, 2, 2, 4),
    num_res_blocks: int = 2,
    z_channels: int = 256,
    codebook_size: int = 16384,
    codebook_embed_dim: int = 8,
    codebook_l2_norm: bool = True,
    codebook_show_usage: bool = True,
    commit_loss_beta: float = 0.25,
    entropy_loss_ratio: float = 0.0,
    in_channels: int = 3,
    out_channels: int = 3,
    sample_size: int = 256,
) -> dict[str, Any]:
    """:class:`ImageTokenizer` config of LlamaGen's ``VQModel`` (defaults: VQ-16), in the peer's own argument names.

    The decoder has one block a level more than the encoder and walks ``decoder_ch_mult`` backwards.
    """
    return {
        "sample_size": sample_size,
        "in_channels": in_channels,
        "out_channels": out_channels,
        "stem_width": ch,
        "encoder_widths": [ch * m for m in encoder_ch_mult],
        "encoder_blocks": [num_res_blocks] * len(encoder_ch_mult),
        "decoder_widths": [ch * m for m in reversed(decoder_ch_mult)],
        "decoder_blocks": [num_res_blocks + 1] * len(decoder_ch_mult),
        "encoder_patch": 1,
        "decoder_patch": 1,
        "block": "residual",
        "resample": "strided",
        "norm_groups": 32,
        "norm_eps": 1e-6,
        "attention": True,
        "z_channels": z_channels,
        "levels": None,
        "codebook_size": codebook_size,
        "codebook_dim": codebook_embed_dim,
        "codebook_l2_norm": codebook_l2_norm,
        "codebook_track_usage": codebook_show_usage,
        "commit_weight": commit_loss_beta,
        "entropy_weight": entropy_loss_ratio,
    }
