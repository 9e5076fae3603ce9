"""Teaches a finished model's text encoder more ways to say the same thing.

Knows captions and the text encoder. Does not need the codec or the generator: the vector of a free caption (synonyms,
phrases, tags) is drawn to the vector that the trained encoder gives the plain caption of the same picture.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from girih.generators.conditioning import TextEncoder
from girih.tokenizers.text import MAX_LENGTH
from girih.training.data.captions import caption, full_caption, read_phrases
from girih.training.data.compose import SMALL, Sampler
from girih.training.data.pictures import PictureSet
from girih.training.sources import core_concepts
from girih.training.trainer import Objective


class WordingObjective(Objective):
    """Student encoder towards a frozen copy of itself: free captions to plain ones, plain ones to themselves."""

    def __init__(self, pictures: PictureSet, pipe: Any) -> None:
        super().__init__()
        self.pictures, self.phrases = pictures, read_phrases()
        concepts = [concept for concept in core_concepts() if concept in pictures.of]
        self.sampler = Sampler(pictures, concepts, mix={"single": 0.8, "small": 0.1, "flipped": 0.1})
        self._pipe = [pipe]  # in a list: only the student is trained and saved
        self._teacher = [pipe.text_encoder.requires_grad_(False).eval()]
        self.student = TextEncoder.from_config(pipe.text_encoder.config)
        self.student.load_state_dict(pipe.text_encoder.state_dict())

    @classmethod
    def from_recipe(cls, recipe: dict[str, Any]) -> WordingObjective:
        """``[data]`` folder (a picture set) and ``init``, the model to start from. Raises ValueError without one."""
        if not recipe.get("init"):
            raise ValueError("wording starts from a model: give --init MODEL")
        from girih.pipelines.loading import load

        return cls(PictureSet(recipe["data"]["folder"]), load(recipe["init"]))

    def batch(self, step: int, process: int, size: int) -> dict[str, Tensor]:
        return self._pairs(np.random.default_rng((self.seed, step, process)), size)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.no_grad():
            target = self._teacher[0].to(batch["plain"].device)(batch["plain"])
        free = F.mse_loss(self.student(batch["free"]), target)
        kept = F.mse_loss(self.student(batch["plain"]), target)
        return free + kept, {"free": free, "kept": kept}

    def evaluate(self) -> dict[str, float]:
        """Mean squared error of 512 free captions, and of the plain ones that must stay where they were."""
        _, parts = self(self._pairs(np.random.default_rng(12_345), 512))
        return {name: float(value.detach()) for name, value in parts.items()}

    def export(self, folder: Path) -> None:
        """The whole model with the new text encoder, float16."""
        pipe = self._pipe[0]
        student = TextEncoder.from_config(self.student.config)
        student.load_state_dict(self.student.state_dict())
        parts = {name: part for name, part in pipe.components.items() if name != "text_encoder"}
        options = {name: pipe.config[name] for name in ("styles", "backgrounds", "flip_share", "defaults")}
        type(pipe)(**parts, text_encoder=student, **options).save_pretrained(folder, max_shard_size="15MB")

    def _pairs(self, rng: np.random.Generator, size: int) -> dict[str, Tensor]:
        free, plain = [], []
        for _ in range(size):
            scene = self.sampler.sample(rng)
            item, row = scene.items[0], self.pictures.rows[scene.items[0].row]
            free.append(caption(scene, self.pictures, self.phrases, rng))
            small, background = item.scale == SMALL, str(scene.background)
            plain.append(full_caption("a " + row.label, row.style, background, small, item.flip))
        return {"free": self._words(free), "plain": self._words(plain)}

    def _words(self, captions: list[str]) -> Tensor:
        return self._pipe[0].tokenizer(captions, padding="max_length", truncation=True, max_length=MAX_LENGTH,
                                       return_tensors="pt", return_token_type_ids=False).input_ids
