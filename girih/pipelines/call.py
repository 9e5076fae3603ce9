"""What a call of the image pipeline asks for, and how it begins: checked, keyed, conditioned.

Knows the order of the preparation: settings -> checks -> keys -> condition -> given tokens -> state. Does not know how
tokens are decoded or shown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.image_processor import VaeImageProcessor
from PIL import Image
from torch import Tensor

from girih.generators.decoding.guidance import Guidance
from girih.generators.decoding.noise import sample_keys
from girih.generators.decoding.sampling import Sampling
from girih.generators.decoding.state import State
from girih.pipelines import checks
from girih.pipelines.imagenet import class_numbers

Generators = torch.Generator | Sequence[torch.Generator] | None
Scorer = Callable[[list[Image.Image], list[str | None]], Sequence[float]]
ClassLabels = int | str | Sequence[int | str] | Tensor | None
_DEFAULTS = {"guidance_scale": 1.0, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
_KEY_STEP = 7919  # between the keys of the candidates of one picture


@dataclass
class Call:
    """The arguments of a call that decide its pictures, see ``ImagePipeline.__call__``."""

    prompt: str | Sequence[str] | None = None
    negative_prompt: str | Sequence[str] | None = None
    guidance_scale: float | None = None
    num_images_per_prompt: int = 1
    generator: Generators = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    style: str | None = None
    class_labels: ClassLabels = None
    prompt_embeds: Tensor | None = None
    negative_prompt_embeds: Tensor | None = None
    prompt_attention_mask: Tensor | None = None
    negative_prompt_attention_mask: Tensor | None = None
    image: Any = None
    mask_image: Any = None
    strength: float | None = None
    best_of: int = 1
    scorer: Scorer | None = None
    decoding: Any = None
    output_type: str = "pil"
    callback_names: Sequence[str] = ()


def prepare(pipe: Any, call: Call) -> tuple[Any, State, Guidance]:
    """(decoding, state, guidance) a call starts from. Raises ValueError naming what is wrong."""
    chosen = {name: value if getattr(call, name) is None else getattr(call, name)
              for name, value in {**_DEFAULTS, **pipe.config.defaults}.items()}
    scale = chosen.pop("guidance_scale")
    sampling = Sampling(**chosen)
    decoding = pipe.decoding if call.decoding is None else pipe.find_decoding(call.decoding)
    count = checks.inputs(pipe, call, scale)
    generators = checks.generators(call.generator, count)
    pipe._interrupt, pipe._guidance_scale = False, scale
    keys = sample_keys(generators, count)
    device = pipe._execution_device
    mask = negative_mask = None
    if call.class_labels is not None:
        labels = class_numbers(call.class_labels, pipe.generator.conditioner.num_classes)
        positive = torch.tensor(labels, device=device).repeat_interleave(call.num_images_per_prompt)
        negative = pipe.generator.conditioner.null(count)
    else:
        positive, negative, mask, negative_mask = pipe.encode_prompt(
            call.prompt, call.negative_prompt, call.num_images_per_prompt, call.style, call.prompt_embeds,
            call.negative_prompt_embeds, call.prompt_attention_mask, call.negative_prompt_attention_mask, keys)
    if scale != 1 and negative is None:
        raise ValueError("guidance needs negative_prompt_embeds: this pipeline has no text encoder to make them")
    guide = Guidance(scale, decoding.config.get("guidance_interval", -1))
    condition = pipe.condition(positive, negative if guide.paired else None, mask, negative_mask)
    tokens, known = given(pipe, call, count, device)
    if call.best_of > 1:
        rows = torch.arange(count, device=device).repeat_interleave(call.best_of)
        both = torch.cat((rows, rows + count)) if guide.paired else rows
        condition, tokens, known = condition.select(both), tokens[rows], known[rows]
        keys = torch.stack([keys + _KEY_STEP * i for i in range(call.best_of)], 1).flatten()
    exact = pipe.generator.dtype == torch.float32 and not getattr(pipe.generator, "approximate", False)
    return decoding, State(tokens, known, keys.to(device), condition, sampling, canonical=exact), guide


def given(pipe: Any, call: Call, count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(tokens, known) [count, steps] by step: what an input picture fixes."""
    layout = pipe.generator.layout
    tokens = torch.zeros(count, len(layout), dtype=torch.long, device=device)
    known = torch.zeros_like(tokens, dtype=torch.bool)
    if call.image is None:
        return tokens, known
    prompts = count // call.num_images_per_prompt
    height, width = (side * pipe.codec.downscale for side in layout.shape)
    pixels = pipe.image_processor.preprocess(call.image, height=height, width=width).to(device, pipe.codec.dtype)
    checks.as_many("pictures to change", len(pixels), prompts)
    tokens = layout.to_steps(pipe.encode(pixels))
    tokens = tokens.repeat_interleave(count // len(pixels), 0)
    if call.mask_image is not None:
        processor = VaeImageProcessor(1, do_normalize=False, do_binarize=True, do_convert_grayscale=True)
        mask = processor.preprocess(call.mask_image, height=height, width=width).to(device)
        checks.as_many("masks", len(mask), prompts)
        redraw = F.max_pool2d(mask[:, :1].float(), pipe.codec.downscale)[:, 0] > 0
        keep = layout.to_steps(~redraw)
        known = keep.repeat_interleave(count // len(mask), 0)
    if call.strength is not None:
        known[:, : round((1 - call.strength) * len(layout))] = True
    return tokens, known


def best(images: list[Image.Image], call: Call) -> Tensor:
    """Rows of the pictures that the call's scorer likes best, one among every ``best_of``."""
    assert call.scorer is not None
    prompts = [call.prompt] if isinstance(call.prompt, str) or call.prompt is None else list(call.prompt)
    repeated = [text for text in prompts for _ in range(len(images) // len(prompts))]
    scores = torch.as_tensor(call.scorer(images, repeated), dtype=torch.float64).flatten()
    if len(scores) != len(images):
        raise ValueError(f"the scorer gave {len(scores)} scores for {len(images)} pictures")
    scores = scores.reshape(-1, call.best_of)
    return scores.argmax(1) + torch.arange(len(scores)) * call.best_of
