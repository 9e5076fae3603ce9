"""A tiny whole pipeline with random weights: every part is real, nothing is trained."""

from __future__ import annotations

from typing import Any

import torch

from girih.generators.conditioning import TextEncoder
from girih.generators.decoding.autoregressive import Autoregressive
from girih.generators.next_token import NextTokenGenerator
from girih.pipelines.image import ImagePipeline
from girih.tokenizers.image import ImageTokenizer
from girih.tokenizers.text import train_text_tokenizer

STYLES, BACKGROUNDS = ["flat", "noto", "twemoji"], ["white", "blue", "red"]
CAPTIONS = [
    "a flipped small red apple in flat style on a white background",
    "a blue car in noto style on a blue background",
    "a cat beside a tree in twemoji style on a red background",
]
LEVELS = (4, 3, 3)
SIDE = 4


def stir(model: torch.nn.Module, seed: int) -> Any:
    """Every parameter random and large enough to matter: a fresh model's zeros would hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        spread = 0.2 if parameter.ndim < 2 else parameter[0].numel() ** -0.5
        parameter.data = torch.randn(parameter.shape, generator=generator) * spread
    return model.eval()


def make_components() -> dict[str, Any]:
    """codec (8 px a token, 4 x 4 tokens), generator, decoding, tokenizer and text encoder."""
    tokenizer = train_text_tokenizer(CAPTIONS, 64)
    codec = ImageTokenizer(sample_size=8 * SIDE, encoder_widths=[8, 16], encoder_blocks=[1, 1],
                           decoder_widths=[16, 8, 8], decoder_blocks=[1, 1, 1], z_channels=8, levels=LEVELS)
    text_encoder = TextEncoder(len(tokenizer), max_length=24, dim=16, num_layers=1, num_heads=2)
    generator = NextTokenGenerator(
        vocab_size=36, levels=LEVELS, shape=(SIDE, SIDE), factorised=True, learned_positions=True,
        transformer={"dim": 24, "num_layers": 2, "num_heads": 2, "feed_forward_dim": 32},
        condition={"kind": "plan", "vector_dim": 16, "plan_dim": 4, "hidden": 16})
    return {"codec": stir(codec, 1), "generator": stir(generator, 2), "decoding": Autoregressive(),
            "tokenizer": tokenizer, "text_encoder": stir(text_encoder, 3)}


def make_pipeline(**options: Any) -> ImagePipeline:
    pipe = ImagePipeline(**make_components(), **options)
    pipe.set_progress_bar_config(disable=True)
    return pipe
