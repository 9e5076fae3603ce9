"""Pictures from prompts, classes or text features, through image tokens.

Knows the order of a call: prepare -> decode loop -> pixels. Does not know how a call is checked and prepared (call.py),
how words are read (reading.py), networks or strategies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from diffusers.image_processor import VaeImageProcessor
from diffusers.utils import BaseOutput
from PIL import Image
from torch import Tensor

from girih.generators.conditioning import Condition
from girih.generators.decoding.autoregressive import Autoregressive
from girih.generators.decoding.guidance import Guidance
from girih.generators.decoding.state import State
from girih.generators.next_token import NextTokenGenerator
from girih.names import unknown
from girih.pipelines import checks, reading
from girih.pipelines.call import Call, ClassLabels, Generators, Scorer, best, prepare
from girih.tokenizers.image import ImageTokenizer

DECODINGS = {"plain": Autoregressive}


@dataclass
class ImagePipelineOutput(BaseOutput):
    """Result of ``ImagePipeline``.

    Attributes:
        images: list of PIL pictures, np [B, H, W, 3] or pt [B, 3, H, W] in [0, 1], or tokens [B, h, w] for "latent".
        interrupted: the call was stopped; cells not known then show the mean token.
        stats: counters of the decoding.
    """

    images: list[Image.Image] | np.ndarray | Tensor
    interrupted: bool = False
    stats: dict[str, int] | None = None


class ImagePipeline(DiffusionPipeline):
    """Draws pictures with a next-token generator and an image tokenizer.

    Args:
        codec: pictures <-> tokens; None: only ``output_type="latent"``.
        generator: predicts tokens. decoding: how; see ``girih.generators.decoding``. Both None: a pipeline that only
            encodes prompts.
        tokenizer, text_encoder: for models that read words (or T5, for LlamaGen's text models); else None.
        styles, backgrounds: names a caption may end with; the first background is the default one.
        flip_share: share of seeds that draw mirrored where the prompt leaves it open.
        defaults: ``guidance_scale``, ``temperature``, ``top_k``, ``top_p`` where a call gives none.
    """

    model_cpu_offload_seq = "text_encoder->generator->codec"
    _optional_components = ["codec", "tokenizer", "text_encoder"]
    _callback_tensor_inputs = ["latents", "known"]

    def __init__(self, codec: ImageTokenizer | None, generator: NextTokenGenerator | None,
                 decoding: Autoregressive | None, tokenizer: Any = None, text_encoder: Any = None,
                 styles: list[str] | None = None, backgrounds: list[str] | None = None, flip_share: float = 0.0,
                 defaults: dict[str, float] | None = None) -> None:
        super().__init__()
        checks.components(codec, generator)
        self.register_modules(codec=codec, generator=generator, decoding=decoding, tokenizer=tokenizer,
                              text_encoder=text_encoder)
        self.register_to_config(styles=list(styles or ()), backgrounds=list(backgrounds or ()), flip_share=flip_share,
                                defaults=dict(defaults or {}))
        self.image_processor = VaeImageProcessor(vae_scale_factor=codec.downscale if codec else 1)
        self._num_timesteps = len(generator.layout) if generator is not None else 0
        self._guidance_scale = 1.0
        self._interrupt = False

    @property
    def num_timesteps(self) -> int:
        return self._num_timesteps

    @property
    def guidance_scale(self) -> float:
        return self._guidance_scale

    @property
    def do_classifier_free_guidance(self) -> bool:
        return self._guidance_scale != 1.0

    @property
    def interrupt(self) -> bool:
        return self._interrupt

    @staticmethod
    def find_decoding(decoding: Any) -> Autoregressive:
        """A decoding by name, or the object itself. Raises ValueError naming the nearest name."""
        if isinstance(decoding, str):
            if decoding not in DECODINGS:
                raise unknown("decoding", decoding, DECODINGS)
            return DECODINGS[decoding]()
        return decoding

    # --- pictures and tokens ---------------------------------------------------------------------------------------

    def encode(self, images: Tensor) -> Tensor:
        """Pictures [B, 3, H, W] in [-1, 1] -> tokens [B, h, w]."""
        return _awake(checks.need_codec(self.codec)).encode(images)

    def decode(self, tokens: Tensor) -> Tensor:
        """Tokens [B, h, w] -> pictures [B, 3, H, W], nominally [-1, 1]; one by one, so that none depends on another."""
        codec = _awake(checks.need_codec(self.codec))
        return torch.cat([codec.decode(row[None]) for row in tokens])

    def mean_token(self) -> int:
        """The token whose code vector lies nearest to the mean of all: what a cell shows before it is known."""
        quantize = _awake(checks.need_codec(self.codec)).quantize
        codes = quantize.lookup(torch.arange(quantize.vocab_size, device=self._execution_device)[None, None])[0, :, 0]
        return int((codes - codes.mean(1, keepdim=True)).square().sum(0).argmin())

    # --- the condition ---------------------------------------------------------------------------------------------

    def encode_prompt(self, prompt: str | Sequence[str] | None = None,
                      negative_prompt: str | Sequence[str] | None = None,
                      num_images_per_prompt: int = 1, style: str | None = None,
                      prompt_embeds: Tensor | None = None, negative_prompt_embeds: Tensor | None = None,
                      prompt_attention_mask: Tensor | None = None,
                      negative_prompt_attention_mask: Tensor | None = None, keys: Tensor | None = None,
                      ) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
        """(prompt_embeds, negative_prompt_embeds, prompt_attention_mask, negative_prompt_attention_mask), one row a
        picture; masks are None for models that read a prompt into one vector.

        What a prompt leaves open (style, mirroring) is drawn from ``keys`` (LongTensor, one a picture); without them it
        is the first style, not mirrored. Needs text encoder and tokenizer alone, no generator. Every row is computed
        alone, so it does not depend on the others. Where no text stands on the negative side, the generator's null
        features are masked like the prompt's.
        """
        if prompt_embeds is None:
            prompts = [prompt] if isinstance(prompt, str) else list(prompt or [])
            prompts = [text for text in prompts for _ in range(num_images_per_prompt)]
            prompt_embeds, prompt_attention_mask = reading.read(self, reading.captions(self, prompts, style, keys))
        else:
            prompt_embeds = self._repeat(prompt_embeds, num_images_per_prompt)
            prompt_attention_mask = self._repeat(prompt_attention_mask, num_images_per_prompt)
        assert prompt_embeds is not None
        rows = prompt_embeds.shape[0]
        if negative_prompt_embeds is not None:
            times = rows // negative_prompt_embeds.shape[0]
            negative_prompt_embeds = self._repeat(negative_prompt_embeds, times)
            negative_prompt_attention_mask = self._repeat(negative_prompt_attention_mask, times)
        elif negative_prompt is not None:
            texts = [negative_prompt] if isinstance(negative_prompt, str) else list(negative_prompt)
            texts = [text for text in texts for _ in range(rows // len(texts))]
            negative_prompt_embeds, negative_prompt_attention_mask = reading.read_negative(
                self, texts, prompt_attention_mask)
        else:
            negative_prompt_embeds = reading.null(self, rows)
            negative_prompt_attention_mask = prompt_attention_mask
        return prompt_embeds, negative_prompt_embeds, prompt_attention_mask, negative_prompt_attention_mask

    def _repeat(self, rows: Tensor | None, times: int) -> Tensor | None:
        return None if rows is None else rows.to(self._execution_device).repeat_interleave(times, 0)

    def condition(self, positive: Tensor, negative: Tensor | None, mask: Tensor | None = None,
                  negative_mask: Tensor | None = None) -> Condition:
        """The generator's condition for rows, below them their guided partners if ``negative`` is given. Masks of
        features (bool [rows, T], False on padding): where only one side has one, all of the other is visible."""
        generator = _awake(self.generator)
        sides = [(positive, mask)] if negative is None else [(positive, mask), (negative, negative_mask)]
        masked = any(visible is not None for _, visible in sides)
        conditions = []
        for inputs, visible in sides:
            if masked and visible is None:
                visible = inputs.new_ones(inputs.shape[:2], dtype=torch.bool)
            extra = () if visible is None else (visible,)
            conditions += [generator.condition(inputs[i : i + 1], *(e[i : i + 1] for e in extra))
                           for i in range(inputs.shape[0])]
        return Condition.concat(*conditions)

    @torch.no_grad()
    def caption_loss(self, tokens: Tensor, prompts: Sequence[str]) -> Tensor:
        """Nats a token of pictures' tokens [B, h, w] under full captions, float32 [B]."""
        embeds, mask = reading.read(self, [(prompt, "") for prompt in prompts])
        steps = self.generator.layout.to_steps(tokens.to(self._execution_device))
        return self.generator.nats(steps, self.condition(embeds, None, mask)).mean(1)

    # --- the call --------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def __call__(self, prompt: str | Sequence[str] | None = None,
                 negative_prompt: str | Sequence[str] | None = None,
                 guidance_scale: float | None = None, num_images_per_prompt: int = 1, generator: Generators = None,
                 temperature: float | None = None, top_k: int | None = None, top_p: float | None = None,
                 min_p: float | None = None, style: str | None = None, class_labels: ClassLabels = None,
                 prompt_embeds: Tensor | None = None, negative_prompt_embeds: Tensor | None = None,
                 prompt_attention_mask: Tensor | None = None, negative_prompt_attention_mask: Tensor | None = None,
                 image: Any = None, mask_image: Any = None, strength: float | None = None, best_of: int = 1,
                 scorer: Scorer | None = None, decoding: Any = None, output_type: str = "pil", return_dict: bool = True,
                 callback_on_step_end: Callable[..., dict[str, Tensor]] | None = None,
                 callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",)) -> ImagePipelineOutput | tuple:
        """Draw pictures.

        Args:
            prompt: what to draw, one or several; or ``class_labels`` (class models: numbers, or ImageNet names such as
                "goldfish"), or ``prompt_embeds`` (vectors [B, D] or features [B, T, D] with
                ``prompt_attention_mask`` [B, T]).
            negative_prompt, negative_prompt_embeds (with ``negative_prompt_attention_mask``): what guidance leads away
                from; default: no text.
            guidance_scale: 1 = none. temperature: 0 = always the likeliest token. top_k (0 = off), top_p, min_p:
                filters.
            num_images_per_prompt: pictures a prompt.
            generator: one ``torch.Generator`` (samples take its successive draws) or a list, one a picture.
            style: one of the model's styles; None = drawn from the seed.
            image, mask_image: keep the tokens of ``image`` where the mask is black.
            image, strength: keep the first ``1 - strength`` of its tokens.
            best_of, scorer: draw so many a picture and keep the one with the highest ``scorer(images, prompts)``.
            decoding: name or object, for this call only.
            output_type: "pil", "np", "pt" or "latent".
            callback_on_step_end: called as ``(pipe, step, step, tensors)`` with "latents" [B, h, w] (tokens so far)
                and "known" [B, h, w]; may return replacements and change ``pipe._guidance_scale``; setting
                ``pipe._interrupt`` stops.

        Raises:
            ValueError: naming the argument and its limit.
        """
        call = Call(
            prompt, negative_prompt, guidance_scale, num_images_per_prompt, generator, temperature, top_k, top_p, min_p,
            style, class_labels, prompt_embeds, negative_prompt_embeds, prompt_attention_mask,
            negative_prompt_attention_mask, image, mask_image, strength, best_of, scorer, decoding, output_type,
            callback_on_step_end_tensor_inputs)
        state = None
        layout = checks.need_generator(self).layout
        self._num_timesteps = len(layout)
        with self.progress_bar(total=len(layout)) as bar:
            for state, guide in self._run(call):
                bar.update(state.step - bar.n)
                if callback_on_step_end is not None:
                    self._call_back(callback_on_step_end, callback_on_step_end_tensor_inputs, state, guide)
                if self._interrupt:
                    break
        assert state is not None
        interrupted = not bool(state.known.all())
        tokens = layout.to_cells(state.tokens)
        if interrupted and self.codec is not None:
            tokens = torch.where(layout.to_cells(state.known), tokens, self.mean_token())
        if best_of > 1:
            candidates = self.image_processor.postprocess(self.decode(tokens).float(), output_type="pil")
            tokens = tokens[best(candidates, call).to(tokens.device)]
        images = tokens if output_type == "latent" else self.image_processor.postprocess(
            self.decode(tokens).float(), output_type=output_type)
        self.maybe_free_model_hooks()
        if not return_dict:
            return (images,)
        return ImagePipelineOutput(images=images, interrupted=interrupted, stats=dict(state.stats))

    def _call_back(self, callback: Callable[..., Any], names: Sequence[str], state: State, guide: Guidance) -> None:
        """Show a step to a callback and take over what it changed."""
        layout, scale = self.generator.layout, self._guidance_scale
        tensors = {"latents": layout.to_cells(state.tokens), "known": layout.to_cells(state.known)}
        changed = callback(self, state.step - 1, state.step - 1, {name: tensors[name] for name in names}) or {}
        for name, attribute in (("latents", "tokens"), ("known", "known")):
            if name in changed:
                before, after = getattr(state, attribute), layout.to_steps(changed[name])
                if not torch.equal(after, before):
                    setattr(state, attribute, after.to(before))
        if self._guidance_scale != scale:
            guide.scale = self._guidance_scale

    @torch.no_grad()
    def stream(self, prompt: str | Sequence[str] | None = None, every: int = 8,
               **options: Any) -> Iterator[tuple[int, list[Image.Image], Tensor]]:
        """Yield (step, previews, known [B, h, w]) every ``every`` steps and at the end; options as for a call."""
        allowed = [field.name for field in fields(Call)]
        if extra := sorted(set(options) - set(allowed)):
            raise unknown("option", extra[0], allowed)
        call = Call(prompt, **options)
        if call.best_of != 1:
            raise ValueError("best_of picks among finished pictures; it cannot be streamed")
        if every < 1:
            raise ValueError(f"every must be at least 1, got {every}")
        layout, mean = checks.need_generator(self).layout, self.mean_token()
        for state, _ in self._run(call):
            if state.step % every == 0 or state.step == len(layout):
                known = layout.to_cells(state.known)
                shown = self.decode(torch.where(known, layout.to_cells(state.tokens), mean))
                yield state.step, self.image_processor.postprocess(shown.float(), output_type="pil"), known
            if self._interrupt:
                break
        self.maybe_free_model_hooks()

    def _run(self, call: Call) -> Iterator[tuple[State, Guidance]]:
        """Prepare and decode: yields the call's state and guidance after each step."""
        decoding, state, guide = prepare(self, call)
        for now in decoding({"generator": self.generator}, state, guide):
            yield now, guide


def _awake(model: Any) -> Any:
    """The model, on its device: offloading moves a model there at ``forward``, and these calls are other methods."""
    hook = getattr(model, "_hf_hook", None)
    if hook is not None:
        hook.pre_forward(model)
    return model
