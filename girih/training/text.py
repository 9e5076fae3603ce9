"""The text encoder's training objective: say what a caption names.

Knows scenes and their slots, the text tokenizer and the encoder. Does not know the loop (trainer.py) or pictures.
A generator that learns to read from pictures alone sees each wording of a concept a few times at best; naming needs no
picture, so a minute of it shows every wording hundreds of times. The generator then trains on the finished reading.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from girih.generators.conditioning import TextEncoder
from girih.tokenizers.text import MAX_LENGTH, NULL, train_text_tokenizer
from girih.training.data.captions import full_caption
from girih.training.scenes import Scenes
from girih.training.trainer import Objective

EMPTY = 0.02  # share of captions left out: they name nothing
# Size of the names' vectors at the start of a generator's training. Eight slots of one size left what is drawn an
# eighth of the vector, and a plan learned concepts at a third of the speed.
THINGS, OTHERS = 0.3, 0.1


def build_text_encoder(texts: list[str], settings: dict[str, Any]) -> tuple[TextEncoder, Any]:
    """A new encoder and the tokenizer of ``texts``; ``settings``: vocab_size and the encoder's sizes."""
    tokenizer = train_text_tokenizer(texts, settings["vocab_size"])
    encoder = TextEncoder(**{**settings, "vocab_size": len(tokenizer), "max_length": MAX_LENGTH})
    read = tokenizer(texts, truncation=True, return_token_type_ids=False).input_ids
    counts = torch.bincount(torch.tensor([i for ids in read for i in ids]), minlength=len(tokenizer))
    encoder.weigh(counts.float())
    return encoder, tokenizer


@torch.no_grad()
def start_names(encoder: TextEncoder, slots: dict[str, Any]) -> None:
    """Scale the fresh vectors of the names: things large, what is said about them small, "nothing" zero."""
    for slot, columns in zip(slots, encoder.names.weight.split(encoder.config.slots, dim=1), strict=True):
        columns.mul_(THINGS if slot in ("thing", "second") else OTHERS)
        columns[:, -1] = 0


def open_text_encoder(folder: str | Path) -> tuple[TextEncoder, Any]:
    """The encoder and tokenizer of a text training's folder, in float32; its reading is frozen.

    Raises ValueError where there is none.
    """
    from transformers import AutoTokenizer

    folder = Path(folder)
    if not (folder / "text_encoder" / "config.json").is_file():
        raise ValueError(f"{folder} holds no trained text encoder (`girih train text` makes one)")
    encoder = TextEncoder.from_pretrained(folder / "text_encoder").float()
    encoder.freeze_reading()
    return encoder, AutoTokenizer.from_pretrained(folder / "tokenizer")


def word_ids(tokenizer: Any, captions: list[str]) -> Tensor:
    """LongTensor [captions, MAX_LENGTH], padded on the right with 0."""
    return tokenizer(captions, padding="max_length", truncation=True, max_length=MAX_LENGTH, return_tensors="pt",
                     return_token_type_ids=False).input_ids  # fmt: skip


class TextObjective(Objective):
    """Cross-entropy of every slot of a scene from its caption. ``export`` writes ``text_encoder/``, ``tokenizer/``."""

    def __init__(self, scenes: Scenes, settings: dict[str, Any]) -> None:
        super().__init__()
        self.scenes = scenes
        slots = [len(names) + 1 for names in scenes.slots.values()]
        self.encoder, self.tokenizer = build_text_encoder(scenes.texts(), {**settings, "slots": slots})
        start_names(self.encoder, scenes.slots)

    @classmethod
    def from_recipe(cls, recipe: dict[str, Any]) -> TextObjective:
        """Sections ``[data]`` (folder, scenes and the options of :class:`Scenes`) and ``[text]`` of a recipe."""
        data = dict(recipe["data"])
        return cls(Scenes(data.pop("folder"), data.pop("scenes"), **data), recipe["text"])

    def batch(self, step: int, process: int, size: int) -> dict[str, Tensor]:
        rng = np.random.default_rng((self.seed, step, process))
        captions, names = [], []
        for i in rng.integers(len(self.scenes.scenes), size=size):
            empty = rng.random() < EMPTY
            captions.append(NULL if empty else self.scenes.caption(int(i), rng))
            names.append([len(n) for n in self.scenes.slots.values()] if empty else self.scenes.names(int(i)))
        return {"words": word_ids(self.tokenizer, captions), "names": torch.tensor(names)}

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        logits = self.encoder.name(batch["words"])
        parts = {slot: F.cross_entropy(rows.float(), names)
                 for slot, rows, names in zip(self.scenes.slots, logits, batch["names"].T, strict=True)}  # fmt: skip
        return torch.stack(list(parts.values())).sum(), parts

    def evaluate(self) -> dict[str, float]:
        """Share of concepts that are the first, or among the first five, names for their held-out phrase (never
        part of a caption), and for their label."""
        named = [label for label in self.scenes.concepts if label in self.scenes.phrases]
        report = {}
        for kind, texts in (("phrase", [self.scenes.phrases[label].held_out for label in named]), ("label", named)):
            words = word_ids(self.tokenizer, [full_caption(t, self.scenes.styles[0], "white") for t in texts])
            best = self.encoder.name(words.to(self.encoder.device))[0].topk(5).indices.cpu()
            right = best == torch.tensor([self.scenes.slots["thing"][label] for label in named])[:, None]
            report[f"{kind}_top1"] = float(right[:, 0].float().mean())
            report[f"{kind}_top5"] = float(right.any(1).float().mean())
        return report

    def export(self, folder: Path) -> None:
        encoder = TextEncoder.from_config(self.encoder.config)
        encoder.load_state_dict(self.encoder.state_dict())
        nn.Module.half(encoder)  # diffusers' own `half` warns about an empty list of float32 modules
        encoder.save_pretrained(folder / "text_encoder")
        self.tokenizer.save_pretrained(folder / "tokenizer")
