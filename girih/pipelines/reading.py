"""From the words of a call to what a generator is conditioned on.

Knows two kinds of text encoder: girih's own (one vector a caption) and T5 as LlamaGen's text models use it (features a
token, with a mask). Does not know how captions are completed (prompts.py) or pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from girih.generators.conditioning import PlanConditioner, TextEncoder
from girih.generators.decoding.noise import uniform
from girih.pipelines.prompts import complete, tokenize

LLAMAGEN_TEXT_TOKENS = 120  # text features before the image in its published models
_VARIATION = 1  # noise component of what a prompt leaves open


def captions(pipe: Any, prompts: Sequence[str], style: str | None, keys: Tensor | None) -> list[tuple[str, str]]:
    """(description, ending) of each prompt; what they leave open is drawn from ``keys``, see ``encode_prompt``."""
    styles, backgrounds = pipe.config.styles, pipe.config.backgrounds
    if not styles or not backgrounds:
        return [(prompt, "") for prompt in prompts]
    draws = [(0.0, 1.0)] * len(prompts)
    if keys is not None:
        draws = uniform(keys, torch.zeros_like(keys), 2, component=_VARIATION).tolist()
    return [
        complete(prompt, style or styles[int(which * len(styles))], backgrounds[0], mirror < pipe.config.flip_share,
                 styles, backgrounds)
        for prompt, (which, mirror) in zip(prompts, draws, strict=True)
    ]


def read(pipe: Any, pairs: Sequence[tuple[str, str]]) -> tuple[Tensor, Tensor | None]:
    """Vectors [rows, D] and None, or features [rows, T, D] and their mask bool [rows, T], of (description, ending)
    pairs; every row alone."""
    device = pipe._execution_device
    if isinstance(pipe.text_encoder, TextEncoder):
        words = tokenize(pipe.tokenizer, pairs).to(device)
        return torch.cat([pipe.text_encoder(row[None]) for row in words]), None
    tokens = pipe.generator.conditioner.tokens if pipe.generator else LLAMAGEN_TEXT_TOKENS
    found = pipe.tokenizer([text + ending for text, ending in pairs], padding="max_length", truncation=True,
                           max_length=tokens, return_tensors="pt").to(device)
    features = [pipe.text_encoder(input_ids=ids[None], attention_mask=mask[None])[0]
                for ids, mask in zip(found.input_ids, found.attention_mask, strict=True)]
    # LlamaGen stands the real tokens at the end of the prefix, zeros before them.
    order = found.attention_mask.argsort(dim=1, stable=True)
    visible = found.attention_mask.gather(1, order)
    left = torch.cat(features).gather(1, order[..., None].expand(-1, -1, features[0].shape[-1]))
    return left * visible[..., None], visible.bool()


def read_negative(pipe: Any, texts: Sequence[str], partners: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """The same of negative prompts. An empty one stands for no text, masked like its row of ``partners`` (the mask of
    the prompts): LlamaGen's null features have no padding of their own."""
    embeds, masks = [], []
    for row, text in enumerate(texts):
        if text.strip():
            vectors, mask = read(pipe, [(text, "")])
        else:
            nothing = null(pipe, 1)
            if nothing is None:
                raise ValueError("an empty negative_prompt needs the generator's null condition, which is not loaded")
            vectors, mask = nothing, None if partners is None else partners[row : row + 1]
            if mask is None and nothing.ndim == 3:
                mask = nothing.new_ones(nothing.shape[:2], dtype=torch.bool)
        embeds.append(vectors)
        masks.append(mask)
    return torch.cat(embeds), None if masks[0] is None else torch.cat([m for m in masks if m is not None])


def null(pipe: Any, rows: int) -> Tensor | None:
    """Inputs that stand for no text, one row a picture; None where the parts at hand do not know them."""
    if isinstance(pipe.text_encoder, TextEncoder):
        words = torch.zeros(1, pipe.tokenizer.model_max_length, dtype=torch.long, device=pipe._execution_device)
        words[0, 0] = pipe.tokenizer.convert_tokens_to_ids("<null>")
        return pipe.text_encoder(words).expand(rows, -1)
    if pipe.generator is None or isinstance(pipe.generator.conditioner, PlanConditioner):
        return None
    return pipe.generator.conditioner.null(rows).to(pipe._execution_device)
