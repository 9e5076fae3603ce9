"""The generator's objective: what its stages train, and what it starts from."""

from __future__ import annotations

import numpy as np
import torch

from girih.training.generator import GeneratorObjective, Losses
from girih.training.text import start_names
from tests.pipelines.tiny import make_pipeline


class Pictures:
    """A source of random tokens with two captions."""

    styles = backgrounds = ()
    held_out: list = []

    def __init__(self, shape: tuple[int, ...], values: int) -> None:
        self.tokens = np.random.default_rng(0).integers(values, size=(6, *shape), dtype=np.int32)

    def caption(self, i: int, rng: np.random.Generator) -> str:
        return ("a red apple", "a cat")[i % 2]

    def texts(self) -> list[str]:
        return ["a red apple", "a cat"]


def objective(**losses: float) -> GeneratorObjective:
    pipe = make_pipeline()
    source = Pictures(pipe.generator.spec.shape, pipe.generator.spec.vocab_size)
    made = GeneratorObjective(source, pipe.codec, pipe.generator, pipe.text_encoder, pipe.tokenizer, Losses(**losses))
    for parameter in (*made.generator.parameters(), *made.text_encoder.parameters()):
        parameter.requires_grad_(True)
    return made


def test_the_first_stage_trains_the_plan_and_not_the_transformer():
    made = objective(tokens=0.0)
    loss, parts = made(made.batch(0, 0, 4))
    loss.backward()
    assert set(parts) == {"plan_nats"} and torch.equal(loss, parts["plan_nats"])
    assert all(p.grad is None for p in made.generator.core.layers.parameters())
    assert made.generator.conditioner.spread.weight.grad.abs().sum() > 0
    assert made.text_encoder.words.weight.grad.abs().sum() > 0


def test_the_whole_loss_is_tokens_and_plan_by_weight():
    made = objective(tokens=2.0, plan=0.25)
    loss, parts = made(made.batch(0, 0, 4))
    torch.testing.assert_close(loss, 2 * parts["nats"] + 0.25 * parts["plan_nats"])
    loss.backward()
    assert all(p.grad is not None for p in made.generator.core.layers[0].mixer.parameters())


def test_names_start_with_things_large_and_nothing_at_zero():
    from girih.generators.conditioning import TextEncoder

    encoder = TextEncoder(20, 8, 64, 1, 2, slots=[5, 5, 4])
    start_names(encoder, {"thing": {}, "second": {}, "style": {}})
    thing, second, style = encoder.names.weight.split(encoder.config.slots, dim=1)
    assert thing[:, :-1].std() > 2 * style[:, :-1].std() and second[:, :-1].std() > 2 * style[:, :-1].std()
    assert not thing[:, -1].any() and not style[:, -1].any()
