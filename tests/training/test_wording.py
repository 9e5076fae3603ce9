"""The wording stage draws free captions to the plain caption's vector and leaves the plain ones where they were."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import girih
from girih.tokenizers.text import train_text_tokenizer
from girih.training.data.pictures import PictureSet
from girih.training.trainer import Trainer, TrainSettings
from girih.training.wording import WordingObjective
from tests.pipelines.tiny import make_components


@pytest.fixture
def pictures(tmp_path: Path) -> PictureSet:
    """Two concepts of the vocabulary in three styles, flat colours for drawings."""
    rows = [(label, style) for label in ("cat", "pizza") for style in ("flat", "twemoji", "noto")]
    folder = tmp_path / "set"
    folder.mkdir()
    np.save(folder / "pictures.npy", np.full((len(rows), 32, 32, 4), 200, np.uint8))
    lines = [json.dumps({"label": label, "hexcode": "1", "style": style, "tags": ["tag"], "group": "nature"})
             for label, style in rows]  # fmt: skip
    (folder / "index.jsonl").write_text("\n".join(lines) + "\n")
    return PictureSet(folder)


def test_free_captions_move_to_the_plain_one(pictures: PictureSet, tmp_path: Path) -> None:
    torch.manual_seed(0)
    words = ["a kitten kitty cat pizza slice with cheese small flipped in flat noto twemoji style on background"] * 2
    parts = make_components()
    parts["tokenizer"] = train_text_tokenizer(words, 64)
    parts["text_encoder"] = girih.TextEncoder(vocab_size=len(parts["tokenizer"]), max_length=24, dim=16, num_layers=1,
                                             num_heads=2)  # fmt: skip
    pipe = girih.ImagePipeline(**parts, styles=["flat", "twemoji", "noto"], backgrounds=["white"])
    objective = WordingObjective(pictures, pipe)
    before = objective.evaluate()
    assert before["kept"] == 0 and before["free"] > 0.01
    settings = TrainSettings(steps=60, batch_size=16, lr=1e-2, weight_decay=0.0, ema=0.0, eval_every=60,
                             sample_every=60)  # fmt: skip
    after = Trainer(objective, settings, tmp_path / "out").fit()
    assert after["free"] < 0.8 * before["free"]
    assert after["kept"] < 0.1 * before["free"]
    again = girih.load(tmp_path / "out")
    assert torch.equal(again.generator.head.output.weight, pipe.generator.head.output.weight)
    assert not torch.equal(again.text_encoder.words.weight, pipe.text_encoder.words.weight)


def test_wording_needs_a_model() -> None:
    with pytest.raises(ValueError, match="--init"):
        WordingObjective.from_recipe({"data": {"folder": "x"}})
