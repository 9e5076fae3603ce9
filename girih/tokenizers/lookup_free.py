"""The lookup-free image tokenizer: a picture to a grid of ids whose bits are the signs of the features, and back.

Knows pictures and ids. Does not know how signs become ids (quantizers/bits.py) or what predicts them.
"""

from __future__ import annotations

from collections.abc import Sequence

from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from girih.spec import TokenSpec
from girih.tokenizers.convolution import autoencoder
from girih.tokenizers.image import ConvolutionalTokenizer, check_sample_size
from girih.tokenizers.quantizers import SignQuantizer


class LookupFreeTokenizer(ConvolutionalTokenizer):
    """Open-MAGVIT2's image tokenizer (Luo et al. 2024; TencentARC/SEED-Voken): residual convolutions without
    attention, one sign for each of ``sum(bits)`` channels, a decoder whose norms follow the signs' mean and spread.

    An id is one number of ``sum(bits)`` bits. Factorised into sub-tokens it is
    ``girih.spec.digits(tokens, spec.levels)``, the lowest ``bits[0]`` bits first; ``from_digits`` is the way back.

    Args:
        sample_size: side in pixels of the pictures it was made for; any multiple of ``downscale`` works.
        encoder_widths, encoder_blocks, decoder_widths, decoder_blocks, norm_groups, norm_eps: see
            :class:`girih.tokenizers.image.ImageTokenizer`; ``middle_blocks``: blocks between levels and codes.
        bits: sizes in bits of the sub-tokens; one number is no factorisation.
        bit_order, spherical, certainty_weight, diversity_weight, commit_weight, entropy_groups: see
            :class:`girih.tokenizers.quantizers.SignQuantizer`.

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
        encoder_widths: Sequence[int] = (128, 128, 256, 256, 512),
        encoder_blocks: Sequence[int] = (4, 4, 4, 4, 4),
        decoder_widths: Sequence[int] = (512, 256, 256, 128, 128),
        decoder_blocks: Sequence[int] = (4, 4, 4, 4, 4),
        middle_blocks: int = 4,
        norm_groups: int = 32,
        norm_eps: float = 1e-6,
        bits: Sequence[int] = (6, 12),
        bit_order: str = "little",
        spherical: bool = False,
        certainty_weight: float = 0.1,
        diversity_weight: float = 0.1,
        commit_weight: float = 0.25,
        entropy_groups: int = 1,
    ):
        super().__init__()
        if not bits or min(bits) < 1:
            raise ValueError(f"bits must be a list of sub-token sizes >= 1, got {list(bits)}")
        channels = sum(bits)
        self.encoder, self.decoder, self.downscale = autoencoder(
            in_channels=in_channels,
            out_channels=out_channels,
            z_channels=channels,
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
            resample="subpixel",
            attention=False,
            middle_blocks=middle_blocks,
            adaptive=True,
        )
        check_sample_size(sample_size, self.downscale)
        self.quant_conv, self.post_quant_conv = nn.Identity(), nn.Identity()
        self.quantize = SignQuantizer(
            channels,
            bit_order,
            spherical,
            certainty_weight,
            diversity_weight,
            commit_weight,
            entropy_groups=entropy_groups,
        )

    @property
    def spec(self) -> TokenSpec:
        """Vocabulary, the ``(h, w)`` grid of a picture of ``sample_size``, ``levels`` where ids are factorised."""
        side = self.config.sample_size // self.downscale
        levels = tuple(2**size for size in self.config.bits)
        return TokenSpec(self.quantize.vocab_size, (side, side), levels if len(levels) > 1 else None)

    def reconstruct(self, codes: Tensor) -> Tensor:
        """Code vectors ``[B, sum(bits), h, w]`` to pictures ``[B, 3, H, W]``, unclamped."""
        # With channels last, torch's GroupNorm on a CPU takes the variance as a difference of two means. Where the
        # adaptive norm leaves a channel with little spread about a large mean, that costs three digits.
        return super().reconstruct(codes.contiguous())
