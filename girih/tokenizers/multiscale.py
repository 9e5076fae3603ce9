"""The multi-scale image tokenizer: a picture to token maps of rising size, each coding what the coarser ones left.

Knows pictures and rows of ids. Does not know the residual sum (quantizers/scales.py) or what predicts the ids.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from girih.spec import TokenSpec
from girih.tokenizers.convolution import autoencoder
from girih.tokenizers.image import ConvolutionalTokenizer, check_sample_size
from girih.tokenizers.quantizers import MultiscaleQuantizer, check_ids


class MultiscaleTokenizer(ConvolutionalTokenizer):
    """VAR's multi-scale residual VQ tokenizer (Tian et al. 2024; FoundationVision/VAR), of any schedule of scales.

    Tokens are ``[B, L]``: the maps of all scales in order, each row by row, ``L = sum(side^2)``. Leading scales alone
    decode to a coarser picture of full size.

    Args:
        sample_size: side in pixels; the last scale times ``downscale``.
        encoder_widths, encoder_blocks, decoder_widths, decoder_blocks, norm_groups, norm_eps, attention, z_channels:
            see :class:`girih.tokenizers.image.ImageTokenizer`; the convolutions are VQGAN's.
        quant_kernel: side of the convolutions before and after quantization.
        scales, codebook_size, blends, blend, cosine, commit_weight, resample: see
            :class:`girih.tokenizers.quantizers.MultiscaleQuantizer`.

    Raises:
        ValueError: sizes that do not fit together.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: int = 256,
        in_channels: int = 3,
        out_channels: int = 3,
        stem_width: int | None = None,
        encoder_widths: Sequence[int] = (160, 160, 320, 320, 640),
        encoder_blocks: Sequence[int] = (2, 2, 2, 2, 2),
        decoder_widths: Sequence[int] = (640, 320, 320, 160, 160),
        decoder_blocks: Sequence[int] = (3, 3, 3, 3, 3),
        norm_groups: int = 32,
        norm_eps: float = 1e-6,
        attention: bool = True,
        z_channels: int = 32,
        quant_kernel: int = 3,
        scales: Sequence[int] = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16),
        codebook_size: int = 4096,
        blends: int = 4,
        blend: float = 0.5,
        cosine: bool = False,
        commit_weight: float = 0.25,
        resample: str = "area",
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
            encoder_patch=1,
            decoder_patch=1,
            norm_groups=norm_groups,
            norm_eps=norm_eps,
            block="residual",
            resample="strided",
            attention=attention,
        )
        check_sample_size(sample_size, self.downscale)
        self.quantize = MultiscaleQuantizer(
            scales, codebook_size, z_channels, blends, blend, cosine, commit_weight, resample
        )
        if scales[-1] * self.downscale != sample_size:
            raise ValueError(
                f"the last scale {scales[-1]} at {self.downscale} pixels a cell does not make sample_size {sample_size}"
            )
        if quant_kernel < 1 or quant_kernel % 2 == 0:
            raise ValueError(f"quant_kernel must be odd, got {quant_kernel}")
        padding = quant_kernel // 2
        self.quant_conv = nn.Conv2d(z_channels, z_channels, quant_kernel, padding=padding)
        self.post_quant_conv = nn.Conv2d(z_channels, z_channels, quant_kernel, padding=padding)

    @property
    def spec(self) -> TokenSpec:
        """Vocabulary and ``(L,)``; which of the L cells belong to which scale is ``config.scales``."""
        return TokenSpec(self.quantize.vocab_size, (self.quantize.ends[-1],))

    def features(self, images: Tensor) -> Tensor:
        """Pictures ``[B, 3, S, S]`` in [-1, 1], S = ``sample_size``, to what the quantizer sees, ``[B, z, P, P]``."""
        side = self.config.sample_size
        if images.ndim != 4 or images.shape[-2:] != (side, side):
            raise ValueError(f"pictures must be [batch, {self.config.in_channels}, {side}, {side}] for these scales, "
                             f"got {list(images.shape)}")  # fmt: skip
        return super().features(images)

    def decode(self, tokens: Tensor, keep: int | None = None) -> Tensor:
        """Ids ``[B, n]`` of whole leading scales to pictures ``[B, 3, S, S]``, unclamped, nominally in [-1, 1].

        ``keep``: use so many leading scales only. Raises ValueError for another n, another ``keep``, ids out of range.
        """
        check_ids(tokens, self.quantize.vocab_size)
        given = len(self.quantize.split(tokens))
        if keep is not None:
            if not 1 <= keep <= given:
                raise ValueError(f"keep must be 1 to {given}, the number of scales given, got {keep}")
            tokens = tokens[:, : self.quantize.ends[keep - 1]]
        return self.reconstruct(self.quantize.lookup(tokens).to(self.dtype))

    def feed(self) -> Callable[[Tensor], Tensor]:
        """What a next-scale generator reads: ids of leading scales ``[B, n]`` to the inputs of the scales after the
        first, ``[B, cells, z_channels]`` (see ``MultiscaleQuantizer.inputs``)."""
        return self.quantize.inputs
