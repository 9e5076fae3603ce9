"""The ordered image tokenizer: a picture to a row of continuous tokens, the most telling first; any prefix decodes.

Knows pictures, tokens and prefixes. Does not know what predicts tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKL, ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor, nn

from girih.spec import TokenSpec
from girih.tokenizers.diffusion import Diffusion
from girih.tokenizers.image import check_pictures
from girih.tokenizers.vision_transformer import ConditionedDenoiser, SlotEncoder

Generators = torch.Generator | list[torch.Generator] | None


@dataclass
class OrderedTokenizerOutput(BaseOutput):
    """``tokens [B, n, token_dim]``, ``keep`` bool ``[B, n]`` (which the decoder saw), and the ``losses`` ``mse`` and
    ``vb``, whose sum is descended on."""

    tokens: Tensor
    keep: Tensor
    losses: dict[str, Tensor]


class OrderedTokenizer(ModelMixin, ConfigMixin):
    """Semanticist (Wen et al. 2025; visual-gen/semanticist): PCA-like causal tokens with a diffusion decoder.

    A transformer reads the picture into ``num_tokens`` tokens, each blind to the later ones. In training a random
    number of trailing tokens is hidden from the decoder (nested dropout), so that the first ones carry the most.

    Args:
        sample_size: side in pixels of the pictures; no other size works (positions are learned).
        patch_size, encoder_dim, encoder_layers, encoder_heads: of the encoder; encoder_hidden: width inside its
            feed-forward layers, None: four times ``encoder_dim``.
        num_tokens, token_dim: how many tokens of how many numbers; ``standardise``: each token to mean 0, deviation 1.
        latent_channels, latent_size: what is denoised: with ``vae`` its latents, without it the picture itself.
        decoder_patch, decoder_dim, decoder_layers, decoder_heads, decoder_hidden: of the decoder.
        shortest_prefix: least number of tokens kept in training. 0 also trains the decoder without any, which guidance
            needs; the published weights saw 1.
        steps, guidance_scale: of decoding, unless the call says otherwise.
        vae: config of a diffusers ``AutoencoderKL``, which is frozen and saved with this model; None: no autoencoder.

    Raises:
        ValueError: sizes that do not fit together.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: int = 256,
        in_channels: int = 3,
        patch_size: int = 16,
        encoder_dim: int = 768,
        encoder_layers: int = 12,
        encoder_heads: int = 12,
        encoder_hidden: int | None = None,
        num_tokens: int = 256,
        token_dim: int = 16,
        standardise: bool = True,
        latent_channels: int = 3,
        latent_size: int = 256,
        decoder_patch: int = 16,
        decoder_dim: int = 1024,
        decoder_layers: int = 24,
        decoder_heads: int = 16,
        decoder_hidden: int | None = None,
        shortest_prefix: int = 0,
        steps: int = 250,
        guidance_scale: float = 1.0,
        vae: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        if num_tokens < 1 or not 0 <= shortest_prefix <= num_tokens:
            raise ValueError(f"shortest_prefix {shortest_prefix} must be 0 to num_tokens {num_tokens}, and that >= 1")
        if standardise and token_dim < 2:
            raise ValueError(f"a token of {token_dim} number cannot be standardised; token_dim must be at least 2")
        self.encoder = SlotEncoder(
            sample_size,
            patch_size,
            in_channels,
            encoder_dim,
            encoder_layers,
            encoder_heads,
            encoder_hidden or 4 * encoder_dim,
            num_tokens,
        )
        self.to_token = nn.Linear(encoder_dim, token_dim)
        self.decoder = ConditionedDenoiser(
            latent_size,
            decoder_patch,
            latent_channels,
            decoder_dim,
            decoder_layers,
            decoder_heads,
            decoder_hidden or 4 * decoder_dim,
            num_tokens,
            token_dim,
        )
        self.autoencoder: Any = None
        if vae is not None:
            self.autoencoder = AutoencoderKL.from_config(dict(vae)).requires_grad_(False)
        self.diffusion = Diffusion.linear()

    @property
    def spec(self) -> TokenSpec:
        """Continuous, ``(num_tokens,)`` cells; each is ``config.token_dim`` numbers."""
        return TokenSpec(None, (self.config.num_tokens,))

    def encode(self, images: Tensor) -> Tensor:
        """Pictures ``[B, 3, S, S]`` in [-1, 1] to tokens ``[B, num_tokens, token_dim]``. The first k of them are a code
        too: drop the others as you like."""
        check_pictures(images, self.config.in_channels, 1)
        side = self.config.sample_size
        if images.shape[-2:] != (side, side):
            raise ValueError(f"pictures must be {side} x {side}, got {images.shape[-2]} x {images.shape[-1]}")
        tokens = self.to_token(self.encoder((images + 1) / 2))  # the encoder's range is [0, 1]
        return standardised(tokens) if self.config.standardise else tokens

    def decode(
        self,
        tokens: Tensor,
        keep: int | None = None,
        steps: int | None = None,
        guidance_scale: float | None = None,
        generator: Generators = None,
    ) -> Tensor:
        """Draw pictures ``[B, 3, S, S]``, nominally in [-1, 1], of which ``tokens [B, n, token_dim]`` are the first n.

        Args:
            keep: use so many of the tokens; 0 draws a picture of nothing in particular.
            steps, guidance_scale: None takes the config's; a scale of 1 is no guidance.
            generator: of the noise, one or one a picture.

        Raises:
            ValueError: tokens of another shape or not finite, or ``keep`` beyond them.
        """
        config = self.config
        if tokens.ndim != 3 or tokens.shape[1] > config.num_tokens or tokens.shape[2] != config.token_dim:
            raise ValueError(f"tokens must be [batch, up to {config.num_tokens}, {config.token_dim}], "
                             f"got {list(tokens.shape)}")  # fmt: skip
        if not torch.isfinite(tokens).all():
            raise ValueError("tokens must be finite numbers, got infinite or undefined ones")
        given = tokens.shape[1]
        if keep is not None and not 0 <= keep <= given:
            raise ValueError(f"keep must be 0 to {given}, the number of tokens given, got {keep}")
        if self.autoencoder is None and config.latent_channels != config.in_channels:
            raise ValueError(f"the decoder makes latents of {config.latent_channels} channels, and their autoencoder "
                             "is missing: convert the checkpoint together with it")  # fmt: skip
        whole = tokens.new_zeros(len(tokens), config.num_tokens, config.token_dim)
        whole[:, :given] = tokens
        lengths = torch.full((len(tokens),), given if keep is None else keep, device=tokens.device)
        kept = prefix_mask(lengths, config.num_tokens)
        scale = config.guidance_scale if guidance_scale is None else guidance_scale

        def predict(noisy: Tensor, times: Tensor) -> Tensor:
            return self.guided(noisy, times, whole.to(self.dtype), kept, scale).float()

        shape = (len(tokens), config.latent_channels, config.latent_size, config.latent_size)

        def draw() -> Tensor:
            return randn_tensor(shape, generator=generator, device=self.device, dtype=torch.float32)

        process = self.diffusion.respaced(config.steps if steps is None else steps)
        *_, latent = process.denoise(predict, draw(), (draw() for _ in process.times))
        return self.from_latents(latent.to(self.dtype))

    def guided(self, noisy: Tensor, times: Tensor, tokens: Tensor, keep: Tensor, scale: float) -> Tensor:
        """The decoder's output with its noise moved away from what no token says: ``u + scale (c - u)``."""
        noisy = noisy.to(self.dtype)
        if scale == 1:
            return self.decoder(noisy, times, tokens, keep)
        both = self.decoder(
            torch.cat([noisy, noisy]), torch.cat([times, times]), torch.cat([tokens, tokens]),
            torch.cat([keep, torch.zeros_like(keep)]),
        )  # fmt: skip
        (noise, variance), (without, _) = (half.chunk(2, dim=1) for half in both.chunk(2))
        return torch.cat([without + scale * (noise - without), variance], 1)

    def forward(self, images: Tensor, generator: Generators = None) -> OrderedTokenizerOutput:
        """One step of denoising training for pictures ``[B, 3, S, S]``: random times, random noise and, in training
        mode, a random number of tokens kept, uniform from ``shortest_prefix`` to all; in evaluation all are kept."""
        tokens, clean = self.encode(images), self.latents(images, generator)
        rows, device, count = len(images), images.device, self.config.num_tokens
        one = generator[0] if isinstance(generator, list) else generator
        lengths = torch.full((rows,), count, device=device)
        if self.training:
            lengths = torch.randint(self.config.shortest_prefix, count + 1, (rows,), generator=one, device=device)
        keep = prefix_mask(lengths, count)
        step = torch.randint(len(self.diffusion.betas), (rows,), generator=one, device=device)
        noise = randn_tensor(clean.shape, generator=generator, device=device, dtype=clean.dtype)
        noisy = self.diffusion.add_noise(clean, noise, step)
        output = self.decoder(noisy.to(tokens.dtype), step, tokens, keep).float()
        mse, bound = self.diffusion.loss(output, clean, noise, noisy, step)
        return OrderedTokenizerOutput(tokens, keep, {"mse": mse.mean(), "vb": bound.mean()})

    def latents(self, images: Tensor, generator: Generators = None) -> Tensor:
        """Pictures ``[B, 3, S, S]`` to what is denoised, ``[B, latent_channels, latent_size, latent_size]``."""
        vae = self.autoencoder
        if vae is None:
            return images
        with torch.no_grad():
            return vae.encode(images).latent_dist.sample(generator) * vae.config.scaling_factor

    def from_latents(self, latents: Tensor) -> Tensor:
        """The way back, to pictures ``[B, 3, S, S]``."""
        vae = self.autoencoder
        return latents if vae is None else vae.decode(latents / vae.config.scaling_factor).sample


def standardised(tokens: Tensor) -> Tensor:
    """Each token to mean 0 and (unbiased) standard deviation 1 over its numbers; a constant token to zeros."""
    centred = tokens - tokens.mean(-1, keepdim=True)
    return centred / tokens.std(-1, keepdim=True).clamp_min(torch.finfo(tokens.dtype).tiny)


def prefix_mask(lengths: Tensor, count: int) -> Tensor:
    """Numbers of tokens kept ``[B]`` to bool ``[B, count]``."""
    return torch.arange(count, device=lengths.device) < lengths[:, None]
