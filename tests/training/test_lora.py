"""Adapters on a finished generator: few weights train, the result is an ordinary pipeline and peft files."""

from __future__ import annotations

import json
import sys
import warnings

import pytest
import torch
from PIL import Image
from torch import nn

import girih
from girih.training import lora
from girih.training.recipe import train
from tests.generators.models import CONFIGS, condition, make
from tests.pipelines.tiny import BACKGROUNDS, STYLES, make_pipeline

peft = pytest.importorskip("peft")
PROMPT = "a red apple"


def spread(model: nn.Module) -> None:
    """Adapters away from their start, where they have no effect."""
    torch.manual_seed(5)
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            nn.init.normal_(parameter, std=0.3)


@pytest.mark.parametrize("name", CONFIGS)
def test_adapters_stand_at_every_attention_and_feed_forward_layer(name):
    model = make(name)
    tokens, given = torch.randint(model.spec.vocab_size, (2, 5)), condition(model, 2)
    before = model.logits(tokens, given)
    lora.add_adapters(model, 2)
    assert torch.equal(model.logits(tokens, given), before)  # no effect at the start
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    linears = {name for name, part in make(name).core.layers.named_modules()
               if isinstance(part, nn.Linear) and "modulation" not in name}
    assert trained == {f"core.layers.{layer}.lora_{side}.default.weight" for layer in linears for side in "AB"}
    spread(model)
    after = model.logits(tokens, given)
    assert not torch.allclose(after, before, atol=1e-2)
    plain = make(name)
    plain.load_state_dict(lora.merged(model))
    torch.testing.assert_close(plain.logits(tokens, given), after, atol=1e-4, rtol=1e-4)


def test_peft_reads_the_adapters(tmp_path):
    name = "plan, layer norm, gelu, biases"
    model = make(name)
    lora.add_adapters(model, 3)
    spread(model)
    lora.save_adapters(model, tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["r"] == 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = peft.PeftModel.from_pretrained(make(name), tmp_path)
    tokens, given = torch.randint(model.spec.vocab_size, (2, 5)), condition(model, 2)
    assert torch.equal(again.base_model.model.logits(tokens, given), model.logits(tokens, given))


@pytest.fixture
def folders(tmp_path):
    """A finished model, and eight captioned pictures it has not seen."""
    make_pipeline(styles=STYLES, backgrounds=BACKGROUNDS).save_pretrained(tmp_path / "model")
    (tmp_path / "my").mkdir()
    for i in range(8):
        Image.new("RGB", (40, 40), (30 * i, 90, 200)).save(tmp_path / "my" / f"{i}.png")
        (tmp_path / "my" / f"{i}.txt").write_text(PROMPT)
    return tmp_path


SHORT = ["minutes=0", "steps=20", "batch_size=4", "warmup_steps=1", "eval_every=20", "sample_every=20",
         "log_every=1", "precision=fp32", "lr=3e-2", "noise=0.0", "drop=0.0"]


def test_a_short_training_makes_an_ordinary_model(folders):
    report = train("image", data=str(folders / "my"), init=str(folders / "model"), out=str(folders / "m"),
                   settings=[*SHORT, "lora=4"])
    before, after = girih.load(folders / "model"), girih.load(folders / "m")
    assert json.loads((folders / "m" / "lora" / "adapter_config.json").read_text())["r"] == 4
    for name in ("codec", "text_encoder"):
        old, new = (getattr(pipe, name).half().state_dict() for pipe in (before, after))
        assert all(torch.equal(old[key], new[key]) for key in old)
    old, new = before.generator.state_dict(), after.generator.state_dict()
    assert old.keys() == new.keys()
    moved = {key for key in old if not torch.allclose(old[key], new[key], atol=2e-3, rtol=2e-3)}
    assert moved and all(".mixer." in key or ".feed_forward." in key for key in moved)
    first = json.loads((folders / "m" / "metrics.jsonl").read_text().splitlines()[0])
    assert report["train_right"] < first["nats"] - 0.3
    after.set_progress_bar_config(disable=True)
    assert after(PROMPT, output_type="latent").images.shape == (1, 4, 4)


@pytest.mark.parametrize(("options", "settings", "message"), [
    ({"init": "model"}, ["lora=0"], "a whole number of at least 1, got 0"),
    ({"init": "model"}, ["lora=x"], "a whole number of at least 1, got 'x'"),
    ({"tokenizer": "model"}, ["lora=4"], "lora adapts a finished model: give --init MODEL"),
    ({"init": "model/codec"}, ["lora=4"], "cannot be trained on: it has no codec"),
    ({"init": "model"}, ["lorra=4"], "unknown setting 'lorra'; did you mean 'lora'"),
])
def test_what_cannot_be_adapted_is_refused(folders, options, settings, message):
    options = {name: str(folders / value) for name, value in options.items()}
    with pytest.raises(ValueError, match=message):
        train("image", data=str(folders / "my"), out=str(folders / "m"), settings=[*SHORT, *settings], **options)
    assert not (folders / "m").exists()


def test_one_line_where_peft_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ValueError, match=r"^LoRA needs peft: pip install 'girih\[lora\]'$"):
        lora.add_adapters(make("grouped heads"), 4)
