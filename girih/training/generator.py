"""The next-token generator's training objective: predict the tokens of captioned pictures.

Knows the codec (frozen), the text encoder, history corruption and caption drop-out. Does not know the loop (trainer.py)
or where pictures come from: a *source* gives tokens and captions (emoji scenes, or a folder of pictures).
Loss of specs: token loss + 0.5 x the plan's own token loss; corrupted history; whole captions dropped for guidance.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from girih.generators.conditioning import TextEncoder
from girih.generators.next_token import NextTokenGenerator
from girih.spec import digits, from_digits
from girih.tokenizers.image import ImageTokenizer
from girih.tokenizers.text import NULL
from girih.training import lora
from girih.training.sources import EmojiSource, FolderSource
from girih.training.text import build_text_encoder, open_text_encoder, word_ids
from girih.training.tokenizer import open_codec
from girih.training.trainer import Objective

MAX_FILE = "15MB"


class Source(Protocol):
    """Token grids with captions.

    ``tokens``: int16 / int32 array [n, h, w]; ``caption(i, rng)`` a training caption of picture i, drawn anew at each
    call; ``held_out``: pairs of (tokens [h, w], caption) that are never trained on; ``texts()``: captions to build the
    vocabulary from; ``styles``, ``backgrounds``: named variations that a pipeline may fill in (may be empty).
    """

    tokens: np.ndarray
    held_out: list[tuple[np.ndarray, str]]
    styles: tuple[str, ...]
    backgrounds: tuple[str, ...]

    def caption(self, i: int, rng: np.random.Generator) -> str: ...

    def texts(self) -> list[str]: ...


@dataclass
class Losses:
    """``tokens``: weight of the token loss; 0 leaves the transformer out, a first stage in which the plan sees twenty
    times as many pictures a minute. ``plan``: weight of the plan's own token loss. ``noise``: mean share of history
    tokens that are replaced, half by a neighbour code (each digit moved by -1, 0 or 1), half by a token of another
    picture of the batch. ``drop``: share of captions left out as a whole."""

    tokens: float = 1.0
    plan: float = 0.5
    noise: float = 0.3
    drop: float = 0.1


def neighbours(tokens: Tensor, levels: tuple[int, ...]) -> Tensor:
    """Each digit of each token moved by -1, 0 or 1, kept within its levels; LongTensor of the same shape."""
    split = digits(tokens, levels)
    moved = split + torch.randint(-1, 2, split.shape, device=tokens.device)
    highest = torch.tensor(levels, device=tokens.device) - 1
    return from_digits(moved.clamp(min=0).minimum(highest), levels)


def corrupt(tokens: Tensor, noise: float, levels: tuple[int, ...] | None) -> Tensor:
    """Tokens [rows, N] with a share of them replaced; the share is drawn per row from [0, 2 noise]."""
    rate = torch.rand(tokens.shape[0], 1, device=tokens.device) * 2 * noise
    replaced = torch.rand(tokens.shape, device=tokens.device) < rate
    strangers = tokens.flatten()[torch.randint(tokens.numel(), tokens.shape, device=tokens.device)]
    near = strangers if levels is None else neighbours(tokens, levels)
    wrong = torch.where(torch.rand(tokens.shape, device=tokens.device) < 0.5, near, strangers)
    return torch.where(replaced, wrong, tokens)


class GeneratorObjective(Objective):
    """Text encoder and generator, trained together on a source's tokens."""

    options = {"": ("lora",), "loss": tuple(field.name for field in fields(Losses))}

    def __init__(self, source: Source, codec: ImageTokenizer, generator: NextTokenGenerator, text_encoder: TextEncoder,
                 tokenizer: Any, losses: Losses, pipeline: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.pipeline = pipeline or {}
        self.source, self.losses, self.tokenizer = source, losses, tokenizer
        self.generator, self.text_encoder = generator, text_encoder
        self._frozen = [codec.requires_grad_(False).eval()]  # in a list: not part of what is trained or saved
        self._tokens = torch.from_numpy(np.ascontiguousarray(source.tokens)).flatten(1)

    @classmethod
    def from_recipe(cls, recipe: dict[str, Any]) -> GeneratorObjective:
        """Build everything a recipe names: ``[data]`` folder, tokenizer (a codec folder), text_encoder (a trained text
        encoder's folder, whose reading is then kept as it is) and the source's own keys;
        ``[generator]``, ``[text]``; ``[pipeline]``: what the pipeline does where a call does not say; ``init``: a
        model to start from, its codec and vocabulary included; ``lora``: train adapters of this rank on it and nothing
        else.

        Raises:
            ValueError: for what is missing or does not fit.
        """
        data = dict(recipe["data"])
        folder = Path(data.pop("folder"))
        init, rank = None, recipe.get("lora")
        if recipe.get("init"):
            from girih.pipelines.loading import load

            init = load(recipe["init"])
            parts = ("codec", "generator", "text_encoder", "tokenizer")
            if lacking := [name for name in parts if getattr(init, name, None) is None]:
                raise ValueError(f"{recipe['init']} cannot be trained on: it has no {lacking[0]}")
        elif rank is not None:
            raise ValueError("lora adapts a finished model: give --init MODEL")
        place, reading = data.pop("tokenizer", None), data.pop("text_encoder", None)
        if not init and place is None:
            raise ValueError("a generator needs a codec: give --tokenizer DIR (or --init MODEL, which brings its own)")
        codec = init.codec if init else open_codec(place)
        emoji = (folder / "pictures.npy").is_file()
        source: Source = EmojiSource(folder, codec, **data) if emoji else FolderSource(folder, codec)
        if init:
            generator, text_encoder, tokenizer = init.generator, init.text_encoder, init.tokenizer
            if rank is not None:
                lora.add_adapters(generator, rank)
                text_encoder.requires_grad_(False)
        else:
            if reading is None or not emoji:  # one's own captions have words of their own
                text_encoder, tokenizer = build_text_encoder(source.texts(), recipe["text"])
            else:
                text_encoder, tokenizer = open_text_encoder(reading)
            spec = codec.spec
            generator = NextTokenGenerator(vocab_size=spec.vocab_size, shape=spec.shape, levels=spec.levels,
                                           factorised=spec.levels is not None, learned_positions=True,
                                           **recipe["generator"])
        losses = Losses(**recipe.get("loss", {}))
        return cls(source, codec, generator, text_encoder, tokenizer, losses, recipe.get("pipeline"))

    def batch(self, step: int, process: int, size: int) -> dict[str, Tensor]:
        rng = np.random.default_rng((self.seed, step, process))
        picked = rng.integers(len(self._tokens), size=size)
        captions = [NULL if rng.random() < self.losses.drop else self.source.caption(int(i), rng) for i in picked]
        return {"tokens": self._tokens[picked].long(), "words": word_ids(self.tokenizer, captions)}

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        tokens = self.generator.layout.to_steps(batch["tokens"])
        condition = self.generator.condition(self.text_encoder(batch["words"]))
        plan = self.generator.plan_nats(tokens, condition).mean()
        if not self.losses.tokens:
            return plan, {"plan_nats": plan}
        seen = corrupt(tokens, self.losses.noise, self.generator.spec.levels)
        nats = self.generator.nats(tokens, condition, seen).mean()
        return self.losses.tokens * nats + self.losses.plan * plan, {"nats": nats, "plan_nats": plan}

    def evaluate(self) -> dict[str, float]:
        """Nats a token on 256 training and all held-out pictures, with right captions and with another picture's."""
        rng = np.random.default_rng(0)
        picked = rng.choice(len(self._tokens), min(256, len(self._tokens)), replace=False)
        trained = [(self._tokens[i].numpy(), self.source.caption(int(i), rng)) for i in picked]
        report = {}
        for name, pairs in (("train", trained), ("held_out", self.source.held_out)):
            if not pairs:
                continue
            tokens = torch.from_numpy(np.stack([t.reshape(-1) for t, _ in pairs]).astype(np.int64))
            captions = [caption for _, caption in pairs]
            report[f"{name}_right"] = self._nats(tokens, captions)
            report[f"{name}_shuffled"] = self._nats(tokens, captions[1:] + captions[:1])
        return report

    def samples(self) -> Image.Image:
        """48 pictures by training captions, likeliest tokens, no guidance."""
        from girih.generators.decoding.autoregressive import greedy

        rng = np.random.default_rng(1)
        picked = rng.choice(len(self._tokens), min(48, len(self._tokens)), replace=False)
        words = word_ids(self.tokenizer, [self.source.caption(int(i), rng) for i in picked]).to(self._device)
        tokens = greedy(self.generator, self.generator.condition(self.text_encoder(words).float()))
        codec = self._frozen[0].to(self._device)
        made = codec.decode(self.generator.layout.to_cells(tokens)).float().clamp(-1, 1)
        made = torch.cat((made, made.new_ones((-len(made)) % 12, *made.shape[1:])))
        sheet = made.unflatten(0, (-1, 12)).permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1)
        return Image.fromarray((sheet * 127.5 + 127.5).round().to(torch.uint8).cpu().numpy())

    def export(self, folder: Path) -> None:
        """A whole pipeline into ``folder``, float16 weights: what ``girih.load(folder)`` draws with. Adapters are
        merged into the weights, and stand beside them in ``lora/``."""
        from girih.generators.decoding.autoregressive import Autoregressive
        from girih.pipelines.image import ImagePipeline

        copies = []
        for part in (self.generator, self.text_encoder, self._frozen[0]):
            copy = type(part).from_config(part.config)
            copy.load_state_dict(lora.merged(part))
            nn.Module.half(copy)  # diffusers' own `half` warns about an empty list of float32 modules
            copies.append(copy)
        pipe = ImagePipeline(codec=copies[2], generator=copies[0], text_encoder=copies[1], tokenizer=self.tokenizer,
                             decoding=Autoregressive(), styles=list(self.source.styles),
                             backgrounds=list(self.source.backgrounds), **self.pipeline)
        pipe.save_pretrained(folder, max_shard_size=MAX_FILE)
        if lora.adapted(self.generator):
            lora.save_adapters(self.generator, folder / "lora")

    @property
    def _device(self) -> torch.device:
        return next(self.generator.parameters()).device

    def _nats(self, tokens: Tensor, captions: list[str]) -> float:
        total = 0.0
        for first in range(0, len(captions), 64):
            words = word_ids(self.tokenizer, captions[first : first + 64]).to(self._device)
            steps = self.generator.layout.to_steps(tokens[first : first + 64].to(self._device))
            nats = self.generator.nats(steps, self.generator.condition(self.text_encoder(words)))
            total += float(nats.mean(1).sum())
        return total / len(captions)
