"""LlamaGen's kind of generator in the pipeline: classes by number and name, and text features with their masks."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
from transformers import T5Config, T5EncoderModel

from girih.generators.decoding.autoregressive import Autoregressive
from girih.generators.next_token import NextTokenGenerator
from girih.pipelines.image import ImagePipeline
from girih.pipelines.imagenet import class_names, class_numbers
from tests.pipelines.test_image import PROMPT, draw
from tests.pipelines.tiny import SIDE, make_components, stir

FEATURES = {"kind": "features", "feature_dim": 10, "tokens": 4}


def other(condition: dict[str, Any], **options: Any) -> ImagePipeline:
    """LlamaGen's kind of generator behind the same codec."""
    transformer = {"dim": 24, "num_layers": 1, "num_heads": 2, "feed_forward_dim": 32}
    generator = NextTokenGenerator(vocab_size=36, shape=(SIDE, SIDE), transformer=transformer, condition=condition,
                                   rope_base=10000.0, rope_prefix="zero")
    stir(generator, 4).head.output.weight.data *= 20  # else the noise of the draws drowns the condition
    pipe = ImagePipeline(make_components()["codec"], generator, Autoregressive(), **options)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_classes():
    pipe = other({"kind": "class", "num_classes": 5})
    found = draw(pipe, None, 1, 2, class_labels=[0, 4])
    assert torch.equal(found[1], draw(pipe, None, 2, class_labels=4)[0])
    assert torch.equal(found, draw(pipe, None, 1, 2, class_labels=torch.tensor([0, 4])))
    assert not torch.equal(draw(pipe, None, 2, class_labels=3)[0], found[1])
    for wrong, message in ((5, "class label 5 is not a whole number from 0 to 4"), (-1, "class label -1"),
                           ([], "must not be empty"), (1.5, "class label 1.5 is not"), ([None], "class label None is"),
                           (["goldfish"], "'goldfish' is a name, .* this model has 5 classes of its own")):
        with pytest.raises(ValueError, match=message):
            pipe(class_labels=wrong)
    with pytest.raises(ValueError, match="give class_labels or prompt_embeds"):
        pipe(PROMPT)
    with pytest.raises(ValueError, match="conditioned on classes: give class_labels"):
        pipe(prompt_embeds=torch.zeros(1, 24))
    with pytest.raises(ValueError, match="negative_prompt needs a text encoder"):
        pipe(class_labels=1, negative_prompt="a cat")


def test_text_features():
    pipe = other(FEATURES)
    features, mask = torch.randn(2, 4, 10), torch.tensor([[False, True, True, True], [True] * 4])
    found = draw(pipe, None, 1, 2, prompt_embeds=features, prompt_attention_mask=mask)
    alone = draw(pipe, None, 1, prompt_embeds=features[:1], prompt_attention_mask=mask[:1])
    assert torch.equal(alone[0], found[0])
    hidden = features.clone()
    hidden[0, 0] += 5  # behind the mask
    assert torch.equal(draw(pipe, None, 1, 2, prompt_embeds=hidden, prompt_attention_mask=mask), found)
    with pytest.raises(ValueError, match=r"prompt_embeds must be \[pictures, 4, 10\], got \[1, 3, 10\]"):
        pipe(prompt_embeds=torch.zeros(1, 3, 10))
    with pytest.raises(ValueError, match="prompt_attention_mask must be"):
        pipe(prompt_embeds=features, prompt_attention_mask=mask[:1])


def test_classes_by_imagenet_name():
    pipe = other({"kind": "class", "num_classes": 1000})
    by_name = draw(pipe, None, 1, 2, 3, class_labels=["goldfish", "Golden Retriever", 207])
    assert torch.equal(by_name, draw(pipe, None, 1, 2, 3, class_labels=[1, 207, 207]))
    assert torch.equal(by_name[:1], draw(pipe, None, 1, class_labels="goldfish"))
    with pytest.raises(ValueError, match="unknown ImageNet class 'goldfisch'; did you mean 'goldfish'") as raised:
        pipe(class_labels="goldfisch")
    assert len(str(raised.value)) < 120


@pytest.mark.parametrize(("name", "number"), [
    ("tench", 0), ("carassius auratus", 1), ("great_white shark", 2), ("missile", 657), ("tank suit", 639),
    ("toilet  tissue", 999)])
def test_a_class_is_known_by_each_of_its_words(name, number):
    assert class_numbers(name, 1000) == [number]


def test_a_name_of_two_classes_is_not_guessed():
    with pytest.raises(ValueError, match=r"'panda' means several: 387 \(lesser panda.*\) and 388 \(giant panda"):
        class_numbers("panda", 1000)


def test_nearly_every_class_has_a_name_of_its_own():
    nameless = []
    for number, line in enumerate(class_names()):
        found = []
        for word in line.split(","):
            with contextlib.suppress(ValueError):
                found += class_numbers(word, 1000)
        if number not in found:
            nameless.append(line)
    assert len(class_names()) == 1000 and nameless == ["crane", "cardigan", "crane", "maillot"]


# --- text features and their masks ------------------------------------------------------------------------------------


def left_padded(*lengths: int) -> torch.Tensor:
    return torch.arange(4).expand(len(lengths), -1) >= 4 - torch.tensor(lengths)[:, None]


def test_negative_features_keep_their_own_mask():
    pipe = other(FEATURES)
    features, mask = torch.randn(2, 4, 10), left_padded(3, 4)
    away, away_mask = torch.randn(2, 4, 10), left_padded(1, 2)
    options = {"prompt_embeds": features, "prompt_attention_mask": mask, "negative_prompt_embeds": away}
    found = draw(pipe, None, 1, 2, **options, negative_prompt_attention_mask=away_mask)
    hidden = torch.where(away_mask[..., None], away, away + 5)
    again = draw(pipe, None, 1, 2, **{**options, "negative_prompt_embeds": hidden},
                 negative_prompt_attention_mask=away_mask)
    assert torch.equal(again, found)
    assert not torch.equal(draw(pipe, None, 1, 2, **options), found)  # without a mask all of it is seen
    condition = pipe.condition(features, away, mask, away_mask)
    assert torch.equal(condition.visible, torch.cat((mask, away_mask)))
    with pytest.raises(ValueError, match="^negative_prompt_attention_mask must be"):
        pipe(**options, negative_prompt_attention_mask=away_mask[:, :2])


def test_null_features_are_masked_like_the_prompt():
    """As LlamaGen does: the unconditional half uses the conditional half's mask."""
    pipe = other(FEATURES)
    mask = left_padded(1, 3)
    embeds, nothing, positive, negative = pipe.encode_prompt(
        prompt_embeds=torch.randn(2, 4, 10), prompt_attention_mask=mask, num_images_per_prompt=2)
    assert torch.equal(positive, negative) and torch.equal(positive, mask.repeat_interleave(2, 0))
    assert torch.equal(nothing, pipe.generator.conditioner.null(4)) and len(embeds) == 4


@pytest.fixture
def reader() -> ImagePipeline:
    """With a T5 encoder of random weights that gives features of the generator's width."""
    pipe = other(FEATURES)
    tokenizer = make_components()["tokenizer"]
    config = T5Config(vocab_size=len(tokenizer), d_model=10, d_kv=4, d_ff=12, num_layers=1, num_heads=2)
    text = {"tokenizer": tokenizer, "text_encoder": stir(T5EncoderModel(config), 7)}
    whole = ImagePipeline(**{**pipe.components, **text})
    whole.set_progress_bar_config(disable=True)
    return whole


def test_a_t5_encoder_reads_prompts_and_negative_prompts(reader):
    _, negative, mask, negative_mask = reader.encode_prompt(["a red apple", "a cat"], ["a tree in red", ""])
    assert mask.sum(1).tolist() == [3, 2] and negative_mask.sum(1).tolist() == [4, 2]
    assert torch.equal(mask, left_padded(3, 2))
    null = reader.generator.conditioner.null(1)
    assert torch.equal(negative[1:], null) and not torch.equal(negative[:1], null)
    assert torch.equal(reader.encode_prompt("a tree in red")[0][0], negative[0])
    both = draw(reader, [PROMPT, "a cat"], 1, 2, negative_prompt="a tree in red")
    assert torch.equal(both[1], draw(reader, "a cat", 2, negative_prompt="a tree in red")[0])
    assert not torch.equal(both, draw(reader, [PROMPT, "a cat"], 1, 2))
    embeds = dict(zip(("prompt_embeds", "negative_prompt_embeds", "prompt_attention_mask",
                       "negative_prompt_attention_mask"),
                      reader.encode_prompt([PROMPT, "a cat"], "a tree in red"), strict=True))
    assert torch.equal(draw(reader, None, 1, 2, **embeds), both)
