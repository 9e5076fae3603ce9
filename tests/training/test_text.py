"""The text encoder learns to name what captions say, and a generator's training starts from it."""

import json

import numpy as np
import pytest
import torch

from girih.generators.conditioning import TextEncoder
from girih.training.data.captions import read_phrases
from girih.training.data.compose import COLOURS, PAIRS
from girih.training.scenes import Scenes
from girih.training.text import TextObjective, open_text_encoder, word_ids
from girih.training.trainer import Trainer, TrainSettings

LABELS = ["cat", "dog", "pizza", "rocket", "rose", "guitar", "castle", "penguin"]
STYLES = ["flat", "noto"]
TEXT = {"vocab_size": 600, "dim": 32, "num_layers": 1, "num_heads": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Eight concepts of the phrase table in two styles; the drawings are plain squares."""
    folder = tmp_path_factory.mktemp("set")
    rows = [
        {"label": label, "hexcode": f"{i:04X}", "style": style, "tags": [f"tag{i}"], "group": "objects"}
        for style in STYLES
        for i, label in enumerate(LABELS)
    ]
    np.save(folder / "pictures.npy", np.full((len(rows), 8, 8, 4), 255, np.uint8))
    (folder / "index.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    return folder


@pytest.fixture(scope="module")
def scenes(folder):
    return Scenes(folder, 400, concepts="all", plain=0.1)


def test_names_are_those_of_the_scene(scenes):
    for i, scene in enumerate(scenes.scenes):
        said = dict(zip(scenes.slots, scenes.names(i), strict=True))
        rows = [scenes.pictures.rows[item.row] for item in scene.items]
        assert scenes.concepts[said["thing"]] == rows[0].label
        assert list(COLOURS)[said["background"]] == scene.background
        if scene.relation in PAIRS:
            assert scenes.concepts[said["second"]] == rows[1].label
        else:
            assert said["second"] == len(scenes.concepts)  # nothing


def test_naming_learns_phrases_it_never_saw(scenes, tmp_path):
    objective = TextObjective(scenes, TEXT)
    with torch.no_grad():
        before = objective.evaluate()
    settings = TrainSettings(steps=250, batch_size=32, lr=1e-2, ema=0.0, eval_every=1000, sample_every=1000)
    report = Trainer(objective, settings, tmp_path).fit()
    assert report["label_top1"] == 1.0
    assert report["phrase_top1"] >= 0.6 > before["phrase_top1"]
    held_out = {entry.held_out for entry in read_phrases().values()}
    rng = np.random.default_rng(0)
    assert not any(caption in held_out for i in range(400) for caption in [scenes.caption(i, rng)])

    encoder, tokenizer = open_text_encoder(tmp_path)
    assert {name for name, p in encoder.named_parameters() if p.requires_grad} == {
        "names.weight", "names_norm.weight", "names_norm.bias"
    }  # fmt: skip
    texts = ["a cat in flat style", "the cat in flat style", "a dog in flat style"]
    cat, same, dog = encoder(word_ids(tokenizer, texts))
    assert (cat - same).norm() < 0.5 * (cat - dog).norm()


def test_open_text_encoder_needs_one(tmp_path):
    with pytest.raises(ValueError, match="girih train text"):
        open_text_encoder(tmp_path)


def test_without_slots_the_vector_is_the_words_own():
    encoder = TextEncoder(20, 8, 16, 1, 2)
    words = torch.tensor([[3, 4, 0, 0], [5, 6, 7, 0]])
    assert torch.equal(encoder(words), encoder.read(words))
    encoder.freeze_reading()
    assert all(p.requires_grad for p in encoder.parameters())


def test_slots_make_the_vector_a_mix_of_names():
    encoder = TextEncoder(20, 8, 16, 1, 2, slots=[3, 4])
    words = torch.tensor([[3, 4, 0, 0], [5, 6, 7, 0]])
    logits = encoder.name(words)
    assert [tuple(rows.shape) for rows in logits] == [(2, 3), (2, 4)]
    table = encoder.names.weight.T
    mixed = logits[0].softmax(-1) @ table[:3] + logits[1].softmax(-1) @ table[3:]
    torch.testing.assert_close(encoder(words), encoder.names_norm(mixed))
