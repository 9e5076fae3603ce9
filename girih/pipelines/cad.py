"""Parts from descriptions: words -> tokens of a CAD language, under its grammar -> programs -> closed meshes.

Knows the order of a call: check -> words -> keys -> decode loop -> programs -> meshes. Does not know the language,
geometry, networks or strategies.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DiffusionPipeline
from diffusers.utils import BaseOutput
from torch import Tensor

from girih.generators.conditioning import Condition
from girih.generators.decoding.autoregressive import Autoregressive
from girih.generators.decoding.guidance import Guidance
from girih.generators.decoding.noise import sample_keys
from girih.generators.decoding.sampling import Sampling
from girih.generators.decoding.state import State
from girih.generators.next_token import NextTokenGenerator
from girih.names import unknown
from girih.pipelines import checks
from girih.pipelines.image import ImagePipeline
from girih.tokenizers.shape.parts import PartTokenizer

OUTPUT_TYPES = ("mesh", "program", "latent")
_DEFAULTS = {"guidance_scale": 1.0, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}


@dataclass
class CadPipelineOutput(BaseOutput):
    """Result of ``CadPipeline``, one entry a part.

    Attributes:
        tokens: LongTensor [parts, longest], padded behind each end.
        programs: sketch-and-extrude programs in millimetres; None for "latent", and for a part that was interrupted.
        meshes: closed ``trimesh.Trimesh`` in millimetres, only for "mesh"; None like its program.
        interrupted: the call was stopped before every part had ended.
        stats: counters of the decoding.
    """

    tokens: Tensor
    programs: list[Any] | None = None
    meshes: list[Any] | None = None
    interrupted: bool = False
    stats: dict[str, int] | None = None


def spaced(text: str) -> str:
    """A description whose numbers are words of their own: "60x7.5mm" -> "60 x 7 point 5 mm"."""
    whole = re.sub(r"(?<=\d)\.(?=\d)", " point ", text)
    return re.sub(r"(?<=\d)(?=[^\W\d])|(?<=[^\W\d])(?=\d)", " ", whole)


def read_words(tokenizer: Any, texts: Sequence[str]) -> Tensor:
    """Word ids LongTensor [texts, max length], padded on the right with 0.

    A text too long is cut with a warning that shows what is dropped, unknown words are named in a warning. Raises
    ValueError for a text without a word.
    """
    length, rows = tokenizer.model_max_length, []
    for text in map(spaced, texts):
        read = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        if not read.input_ids:
            raise ValueError(f"the prompt {text!r} holds no word")
        places = [text[start:end] for start, end in read.offset_mapping]
        strange = [word for word, i in zip(places, read.input_ids, strict=True) if i == tokenizer.unk_token_id]
        if strange:
            warnings.warn(f"the model does not know these words: {', '.join(dict.fromkeys(strange))}", stacklevel=2)
        if len(read.input_ids) > length:
            dropped = text[read.offset_mapping[length][0] :]
            warnings.warn(f"the model reads {length} words of this prompt; dropped: {dropped!r}", stacklevel=2)
        ids = read.input_ids[:length]
        rows.append(ids + [0] * (length - len(ids)))
    return torch.tensor(rows)


class CadPipeline(DiffusionPipeline):
    """Makes parts with a next-token generator under the grammar of a CAD language.

    Args:
        codec: parts <-> tokens, and the grammar. generator: predicts tokens from words. decoding: how.
        tokenizer: text -> word ids.
        defaults: ``guidance_scale``, ``temperature``, ``top_k``, ``top_p``, ``min_p`` where a call gives none.
    """

    model_cpu_offload_seq = "generator"
    _callback_tensor_inputs = ["latents", "known"]

    def __init__(self, codec: PartTokenizer, generator: NextTokenGenerator, decoding: Autoregressive, tokenizer: Any,
                 defaults: dict[str, float] | None = None) -> None:
        super().__init__()
        checks.components(codec, generator)
        self.register_modules(codec=codec, generator=generator, decoding=decoding, tokenizer=tokenizer)
        self.register_to_config(defaults=dict(defaults or {}))
        self._num_timesteps = len(generator.layout)
        self._interrupt = False

    find_decoding = staticmethod(ImagePipeline.find_decoding)

    @property
    def num_timesteps(self) -> int:
        """The most tokens of a part; a call ends with its longest part."""
        return self._num_timesteps

    @property
    def interrupt(self) -> bool:
        return self._interrupt

    def encode_prompt(self, prompt: str | Sequence[str], num_parts_per_prompt: int = 1) -> Tensor:
        """Word ids LongTensor [parts, words]."""
        texts = [prompt] if isinstance(prompt, str) else list(prompt)
        return read_words(self.tokenizer, texts).repeat_interleave(num_parts_per_prompt, 0).to(self._execution_device)

    @torch.no_grad()
    def __call__(self, prompt: str | Sequence[str], guidance_scale: float | None = None, num_parts_per_prompt: int = 1,
                 generator: torch.Generator | Sequence[torch.Generator] | None = None,
                 temperature: float | None = None, top_k: int | None = None, top_p: float | None = None,
                 min_p: float | None = None, decoding: Any = None, output_type: str = "mesh", return_dict: bool = True,
                 callback_on_step_end: Callable[..., dict[str, Tensor]] | None = None,
                 callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",)) -> CadPipelineOutput | tuple:
        """Make parts.

        Args:
            prompt: descriptions, one or several; lengths in millimetres.
            guidance_scale: 1 = none. temperature: 0 = always the likeliest token. top_k (0 = off), top_p, min_p:
                filters.
            num_parts_per_prompt: parts a prompt.
            generator: one ``torch.Generator`` (parts take its successive draws) or a list, one a part.
            decoding: name or object, for this call only.
            output_type: "mesh" (programs and meshes), "program" or "latent" (tokens alone).
            callback_on_step_end: called as ``(pipe, step, step, tensors)`` with "latents" [parts, steps] (tokens so
                far) and "known" [parts, steps]; setting ``pipe._interrupt`` stops.

        Raises:
            ValueError: naming the argument and its limit.
        """
        if output_type not in OUTPUT_TYPES:
            raise unknown("output_type", str(output_type), OUTPUT_TYPES)
        names = callback_on_step_end_tensor_inputs
        if extra := [name for name in names if name not in self._callback_tensor_inputs]:
            raise unknown("callback tensor", extra[0], self._callback_tensor_inputs)
        state = None
        with self.progress_bar(total=self._num_timesteps) as bar:
            for state in self._run(prompt, num_parts_per_prompt, generator, decoding, guidance_scale=guidance_scale,
                                   temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p):
                bar.update(state.step - bar.n)
                if callback_on_step_end is not None:
                    tensors = {"latents": state.tokens, "known": state.known}
                    callback_on_step_end(self, state.step - 1, state.step - 1, {name: tensors[name] for name in names})
                if self._interrupt:
                    break
        assert state is not None
        out = self._output(state, output_type)
        self.maybe_free_model_hooks()
        return out if return_dict else (out.meshes or out.programs or out.tokens,)

    @torch.no_grad()
    def stream(self, prompt: str | Sequence[str], num_parts_per_prompt: int = 1, generator: Any = None,
               decoding: Any = None, **settings: float | None) -> Iterator[tuple[int, Tensor]]:
        """Yield (step, tokens so far [parts, step]) after each token; ``settings``: those of the sampling."""
        if extra := sorted(set(settings) - set(_DEFAULTS)):
            raise unknown("option", extra[0], _DEFAULTS)
        for state in self._run(prompt, num_parts_per_prompt, generator, decoding, **settings):
            yield state.step, state.tokens[:, : state.step].clone()
            if self._interrupt:
                break
        self.maybe_free_model_hooks()

    def _run(self, prompt: str | Sequence[str], parts: int, generator: Any, decoding: Any,
             **settings: float | None) -> Iterator[State]:
        """Prepare and decode: yields the call's state after each step."""
        given = {name: value for name, value in settings.items() if value is not None}
        chosen: dict[str, Any] = {**_DEFAULTS, **self.config.defaults, **given}
        scale = chosen.pop("guidance_scale")
        if not 0 <= scale < math.inf:
            raise ValueError(f"guidance_scale must be at least 0 and finite, got {scale}")
        if not isinstance(parts, int) or parts < 1:
            raise ValueError(f"num_parts_per_prompt must be a whole number of at least 1, got {parts}")
        if not isinstance(prompt, str) and not (isinstance(prompt, Sequence) and prompt):
            raise ValueError(f"prompt must be a text or a list of texts, got {prompt!r}")
        sampling = Sampling(**chosen)
        decoding = self.decoding if decoding is None else self.find_decoding(decoding)
        words = self.encode_prompt(prompt, parts)
        keys = sample_keys(checks.generators(generator, len(words)), len(words)).to(words.device)
        guide = Guidance(scale, decoding.config.get("guidance_interval", -1))
        self._interrupt = False
        # Row by row: a part must not depend on what else is in its batch.
        conditions = [self.generator.condition(row[None]) for row in words]
        if guide.paired:
            conditions += [self.generator.condition(self.generator.conditioner.null(1))] * len(words)
        spec = self.codec.spec
        tokens = torch.full((len(words), self._num_timesteps), spec.pad, device=words.device)
        exact = self.generator.dtype == torch.float32 and not getattr(self.generator, "approximate", False)
        state = State(tokens, torch.zeros_like(tokens, dtype=torch.bool), keys, Condition.concat(*conditions), sampling,
                      spec.grammar and spec.grammar.to(words.device), canonical=exact)
        yield from decoding({"generator": self.generator}, state, guide)

    def _output(self, state: State, output_type: str) -> CadPipelineOutput:
        tokens = state.tokens[:, : state.step].cpu()
        done = state.done.tolist()
        out = CadPipelineOutput(tokens, interrupted=not all(done), stats=dict(state.stats))
        if output_type == "latent":
            return out
        out.programs = [self.codec.decode(row[None])[0] if ended else None
                        for row, ended in zip(tokens, done, strict=True)]  # fmt: skip
        if output_type == "mesh":
            from girih.tokenizers.shape.cad_mesh import program_mesh

            out.meshes = [program and program_mesh(program) for program in out.programs]
        return out
