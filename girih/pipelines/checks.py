"""What a pipeline call must satisfy: one clear line for each thing that is wrong.

Knows arguments and limits. Does not draw.
"""

from __future__ import annotations

import math
import re
from typing import Any

import torch

from girih.names import unknown
from girih.pipelines.imagenet import class_numbers

OUTPUT_TYPES = ("pil", "np", "pt", "latent")


def components(codec: Any, generator: Any) -> None:
    """Codec and generator must speak the same tokens."""
    if codec is not None and generator is not None and codec.spec.vocab_size != generator.spec.vocab_size:
        sizes = codec.spec.vocab_size, generator.spec.vocab_size
        raise ValueError(f"the codec has {sizes[0]} token values, the generator {sizes[1]}")


def need_codec(codec: Any) -> Any:
    if codec is None:
        raise ValueError("this pipeline has no codec: pass codec=..., or ask for output_type='latent'")
    return codec


def need_generator(pipe: Any) -> Any:
    if pipe.generator is None or pipe.decoding is None:
        raise ValueError("this pipeline has no generator or no decoding: it can only encode prompts")
    return pipe.generator


def as_many(name: str, found: int, prompts: int) -> None:
    """One of a thing for all, or as many as prompts."""
    if found not in (1, prompts):
        raise ValueError(f"{found} {name} for {prompts} prompts; give one, or as many as prompts")


def inputs(pipe: Any, call: Any, guidance_scale: float) -> int:
    """Number of pictures of a call (before ``best_of``). Raises ValueError naming what is wrong."""
    if call.output_type not in OUTPUT_TYPES:
        raise unknown("output_type", str(call.output_type), OUTPUT_TYPES)
    if call.output_type != "latent" or call.image is not None:
        need_codec(pipe.codec)
    if not isinstance(call.num_images_per_prompt, int) or call.num_images_per_prompt < 1:
        given = call.num_images_per_prompt
        raise ValueError(f"num_images_per_prompt must be a whole number of at least 1, got {given}")
    if not 0 <= guidance_scale < math.inf:
        raise ValueError(f"guidance_scale must be at least 0 and finite, got {guidance_scale}")
    if extra := [name for name in call.callback_names if name not in pipe._callback_tensor_inputs]:
        raise unknown("callback tensor", extra[0], pipe._callback_tensor_inputs)
    if call.style is not None and call.style not in pipe.config.styles:
        raise unknown("style", call.style, pipe.config.styles)
    prompts = _rows(pipe, call.prompt, call.class_labels, call.prompt_embeds)
    negative = call.negative_prompt
    if negative is not None and (pipe.text_encoder is None or pipe.tokenizer is None):
        raise ValueError("negative_prompt needs a text encoder, and this model has none")
    if isinstance(negative, (list, tuple)):
        as_many("negative prompts", len(negative), prompts)
    if call.negative_prompt_embeds is not None:
        as_many("negative_prompt_embeds", embeds("negative_prompt_embeds", pipe.generator.conditioner,
                                                 call.negative_prompt_embeds), prompts)
    for name in ("prompt", "negative_prompt"):
        mask, features = getattr(call, f"{name}_attention_mask"), getattr(call, f"{name}_embeds")
        if mask is not None and (features is None or features.ndim != 3 or mask.shape != features.shape[:2]):
            raise ValueError(
                f"{name}_attention_mask must be [pictures, tokens], beside {name}_embeds [pictures, tokens, D]")
    if call.image is None and (call.mask_image is not None or call.strength is not None):
        raise ValueError("mask_image and strength change a picture: give it as image=")
    if call.image is not None and call.mask_image is None and call.strength is None:
        raise ValueError("image needs mask_image (what to redraw) or strength in [0, 1] (how much)")
    if call.strength is not None and not 0 <= call.strength <= 1:
        raise ValueError(f"strength must be between 0 and 1, got {call.strength}")
    if not isinstance(call.best_of, int) or call.best_of < 1:
        raise ValueError(f"best_of must be a whole number of at least 1, got {call.best_of}")
    if call.best_of > 1 and call.scorer is None:
        raise ValueError(f"best_of={call.best_of} needs a scorer")
    return prompts * call.num_images_per_prompt


def _rows(pipe: Any, prompt: Any, class_labels: Any, prompt_embeds: Any) -> int:
    given = [name for name, value in (("prompt", prompt), ("class_labels", class_labels),
                                      ("prompt_embeds", prompt_embeds)) if value is not None]
    if len(given) != 1:
        raise ValueError(f"give one of prompt, class_labels and prompt_embeds, got {' and '.join(given) or 'none'}")
    if class_labels is not None:
        classes = getattr(pipe.generator.conditioner, "num_classes", None)
        if classes is None:
            raise ValueError("this model is not conditioned on classes: give a prompt")
        return len(class_numbers(class_labels, classes))
    if prompt_embeds is not None:
        return embeds("prompt_embeds", pipe.generator.conditioner, prompt_embeds)
    prompts = [prompt] if isinstance(prompt, str) else prompt
    if not isinstance(prompts, (list, tuple)) or not all(isinstance(text, str) for text in prompts):
        raise ValueError(f"prompt must be a string or a list of strings, got {type(prompt).__name__}")
    if not prompts or not all(text.strip() for text in prompts):
        raise ValueError("a prompt must not be empty")
    if wordless := [text for text in prompts if not re.search(r"\w", text)]:
        raise ValueError(f"the prompt {wordless[0]!r} holds no word")
    if pipe.text_encoder is None or pipe.tokenizer is None:
        raise ValueError("this model has no text encoder: give class_labels or prompt_embeds")
    return len(prompts)


def embeds(name: str, conditioner: Any, given: Any) -> int:
    """Number of rows of text vectors [B, D] or features [B, T, D]; they must fit the model."""
    if hasattr(conditioner, "num_classes"):
        raise ValueError(f"this model is conditioned on classes: give class_labels, not {name}")
    width = getattr(conditioner, "vector_dim", None)
    wanted = [width] if width else list(conditioner.null_features.shape)
    if not isinstance(given, torch.Tensor) or list(given.shape[1:]) != wanted or not len(given):
        shape = list(given.shape) if isinstance(given, torch.Tensor) else type(given).__name__
        raise ValueError(f"{name} must be [pictures, {', '.join(map(str, wanted))}], got {shape}")
    return len(given)


def generators(generator: Any, count: int) -> list[torch.Generator | None]:
    """One generator, or as many as pictures."""
    several = isinstance(generator, (list, tuple))
    for one in generator if several else [generator]:
        if one is not None and not isinstance(one, torch.Generator):
            raise ValueError(f"generator must be a torch.Generator or a list of them, got {one!r}")
    if not several:
        return [generator]
    if len(generator) != count:
        raise ValueError(f"{len(generator)} generators for {count} pictures; give one, or as many as pictures")
    return list(generator)
