"""The text-to-CAD generator's training objective: predict the tokens of described parts.

Knows the sampler of described parts, the parts language and the generator. Does not know the loop (trainer.py) or
meshes. There is no data set: every batch is drawn anew, so nothing is seen twice and held-out parts never.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from girih.generators.next_token import NextTokenGenerator
from girih.pipelines.cad import CadPipeline, read_words, spaced
from girih.tokenizers.shape.part_facts import measure
from girih.tokenizers.shape.part_room import LENGTHS
from girih.tokenizers.shape.parts import PartTokenizer
from girih.tokenizers.text import train_text_tokenizer
from girih.training.data.parts import DescribedPart, sample
from girih.training.trainer import Objective

HELD_OUT = 128  # parts that an evaluation makes
VOCABULARY_PARTS = 20_000  # descriptions that the words are taken from


class CadObjective(Objective):
    """Next tokens of a part given its description. ``export`` writes a whole ``CadPipeline``, float16 weights."""

    def __init__(self, codec: PartTokenizer, tokenizer: Any, generator: NextTokenGenerator,
                 defaults: dict[str, float] | None = None) -> None:
        super().__init__()
        self.codec, self.tokenizer, self.generator = codec, tokenizer, generator
        self.defaults = defaults or {}

    @classmethod
    def from_recipe(cls, recipe: dict[str, Any]) -> CadObjective:
        """Sections ``[codec]``, ``[text] vocab_size, max_length``, ``[generator]`` and ``[pipeline]`` of a recipe."""
        codec = PartTokenizer(**recipe.get("codec", {}))
        rng = np.random.default_rng(0)
        texts = [spaced(sample(rng).text) for _ in range(VOCABULARY_PARTS)]
        texts.append(" ".join(map(str, range(LENGTHS))))  # every number, however rarely it is drawn
        tokenizer = train_text_tokenizer(texts, **recipe["text"])
        words = {"kind": "words", "vocab_size": len(tokenizer), "tokens": tokenizer.model_max_length}
        generator = NextTokenGenerator(vocab_size=codec.spec.vocab_size, shape=codec.spec.shape, condition=words,
                                       learned_positions=True, **recipe["generator"])
        return cls(codec, tokenizer, generator, recipe.get("pipeline", {}).get("defaults"))

    def batch(self, step: int, process: int, size: int) -> dict[str, Tensor]:
        rng = np.random.default_rng((self.seed, step, process))
        return self._read([sample(rng) for _ in range(size)])

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        nats = self._nats(batch)
        return nats, {"nats": nats}

    def evaluate(self) -> dict[str, float]:
        """Nats a token of held-out parts with their own and with another part's description; of the likeliest parts
        made from ``HELD_OUT`` held-out descriptions, the share of the right kind and with every stated number met."""
        rng = np.random.default_rng(1)
        parts = [sample(rng, held_out=True) for _ in range(HELD_OUT)]
        batch = self._read(parts)
        report = {"right": float(self._nats(batch)),
                  "shuffled": float(self._nats({**batch, "words": batch["words"].roll(1, 0)}))}  # fmt: skip
        made: Any = self._pipeline()([part.text for part in parts], temperature=0.0, output_type="program")
        seen = [measure(program) for program in made.programs]
        kinds = [kind == part.kind for (kind, _), part in zip(seen, parts, strict=True)]
        met = [right and all(abs(facts.get(name, -1e9) - value) <= 0.5 for name, value in part.facts.items())
               for right, (_, facts), part in zip(kinds, seen, parts, strict=True)]  # fmt: skip
        return {**report, "right_kind": float(np.mean(kinds)), "all_facts_met": float(np.mean(met))}

    def export(self, folder: Path) -> None:
        generator = NextTokenGenerator.from_config(self.generator.config)
        generator.load_state_dict(self.generator.state_dict())
        nn.Module.half(generator)  # diffusers' own `half` warns about an empty list of float32 modules
        self._pipeline(generator).save_pretrained(folder, max_shard_size="15MB")

    def _pipeline(self, generator: NextTokenGenerator | None = None) -> CadPipeline:
        from girih.generators.decoding.autoregressive import Autoregressive

        pipe = CadPipeline(self.codec, generator or self.generator, Autoregressive(), self.tokenizer, self.defaults)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def _read(self, parts: list[DescribedPart]) -> dict[str, Tensor]:
        words = read_words(self.tokenizer, [part.text for part in parts])
        return {"words": words, "tokens": self.codec.encode([part.program for part in parts])}

    def _nats(self, batch: dict[str, Tensor]) -> Tensor:
        """Mean over real tokens; the first, bos, is given by the language and not counted."""
        tokens, words = (batch[name].to(self.generator.device) for name in ("tokens", "words"))
        nats = self.generator.nats(tokens, self.generator.condition(words))
        pad = self.codec.spec.pad
        assert pad is not None
        real = tokens.ne(pad)
        real[:, 0] = False
        return nats[real].mean()
