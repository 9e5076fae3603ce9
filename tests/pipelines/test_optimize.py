"""girih.optimize: the same pictures in float32, close ones in int8, and the original weights on disk."""

from __future__ import annotations

import copy

import pytest
import torch

import girih
from girih.generators.compiled import BUCKET, StaticStep
from girih.generators.core.linear import DerivedLinear, HalfLinear, Int8Linear, TransposedLinear
from girih.generators.decoding.guidance import Guidance
from girih.generators.decoding.state import State
from girih.spec import Layout


def make_pipe(shape: tuple[int, int] = (4, 4)) -> girih.ImagePipeline:
    """A small class-conditional pipeline without codec."""
    generator = girih.NextTokenGenerator(
        256, shape, {"dim": 64, "num_layers": 2, "num_heads": 4, "feed_forward_dim": 96, "qk_norm": True},
        {"kind": "class", "num_classes": 10}, rope_base=10000.0)
    pipe = girih.ImagePipeline(None, generator.eval(), girih.Autoregressive())
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(pipe: girih.ImagePipeline, labels: list[int]) -> torch.Tensor:
    generators = [torch.Generator().manual_seed(i) for i in range(len(labels))]
    return pipe(class_labels=labels, generator=generators, guidance_scale=3.0, output_type="latent").images


@pytest.fixture(scope="module")
def learned() -> girih.ImagePipeline:
    """A pipeline whose generator learned classes well enough for its scores to differ: class c counts on by c + 1."""
    torch.manual_seed(0)
    pipe = make_pipe()
    generator = pipe.generator.train()
    optimizer = torch.optim.AdamW(generator.parameters(), lr=3e-3)
    for _ in range(80):
        labels = torch.randint(10, (32,))
        tokens = (torch.randint(256, (32, 1)) + (labels[:, None] + 1) * torch.arange(16)) % 256
        loss = generator.nats(tokens, generator.condition(labels)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    generator.eval()
    return pipe


@pytest.mark.parametrize("labels", [[3], [1, 5, 7, 3]])
def test_optimised_float32_draws_the_same_tokens(learned: girih.ImagePipeline, labels: list[int]) -> None:
    pipe = copy.deepcopy(learned)
    plain = draw(pipe, labels)
    assert girih.optimize(pipe) is pipe
    assert torch.equal(draw(pipe, labels), plain)
    assert not pipe.generator.approximate
    assert isinstance(pipe.generator.head.output, TransposedLinear)


@pytest.mark.parametrize("int8", [False, True])
def test_saved_weights_are_the_original_ones(learned: girih.ImagePipeline, tmp_path, int8: bool) -> None:
    pipe = copy.deepcopy(learned)
    before = {name: value.clone() for name, value in pipe.generator.state_dict().items()}
    girih.optimize(pipe, int8=int8)
    draw(pipe, [1, 2, 3])
    after = pipe.generator.state_dict()
    assert list(after) == list(before)
    for name, value in after.items():
        assert value.is_contiguous() and value.dtype == before[name].dtype and torch.equal(value, before[name])
    pipe.save_pretrained(tmp_path)
    loaded = girih.load(tmp_path)
    for name, value in loaded.generator.state_dict().items():
        assert torch.equal(value, before[name])
    assert not any(isinstance(module, DerivedLinear) for module in loaded.generator.modules())


@pytest.mark.parametrize("int8", [False, True])
def test_new_weights_take_effect(learned: girih.ImagePipeline, int8: bool) -> None:
    other, pipe = make_pipe(), girih.optimize(copy.deepcopy(learned), int8=int8)
    draw(pipe, [1, 2, 3])  # derives copies of the old weights
    pipe.generator.load_state_dict(other.generator.state_dict())
    assert torch.equal(draw(pipe, [1, 2, 3]), draw(girih.optimize(other, int8=int8), [1, 2, 3]))


def test_int8_agrees_with_float32_on_a_learned_model(learned: girih.ImagePipeline) -> None:
    pipe = girih.optimize(copy.deepcopy(learned), int8=True)
    labels = torch.arange(10).repeat(8)
    tokens = (torch.arange(80)[:, None] * 3 + (labels[:, None] + 1) * torch.arange(16)) % 256
    with torch.no_grad():
        exact = learned.generator.logits(tokens[:, :-1], learned.generator.condition(labels))
        close = pipe.generator.logits(tokens[:, :-1], pipe.generator.condition(labels))
    assert not torch.equal(exact, close)
    divergence = (exact.softmax(-1) * (exact.log_softmax(-1) - close.log_softmax(-1))).sum(-1).mean()
    assert divergence < 0.01
    assert (exact.argmax(-1) == close.argmax(-1)).float().mean() > 0.95
    assert pipe.generator.approximate


def test_int8_head_and_condition_stay_exact(learned: girih.ImagePipeline) -> None:
    generator = girih.optimize(copy.deepcopy(learned), int8=True).generator
    kinds = {name: type(module) for name, module in generator.named_modules() if isinstance(module, DerivedLinear)}
    assert kinds.pop("head.output") is TransposedLinear
    assert set(kinds.values()) == {Int8Linear} and len(kinds) == 2 * 5


def test_int8_scales_each_row_alone() -> None:
    layer = Int8Linear.of(torch.nn.Linear(64, 48))
    x = torch.randn(2, 64)
    loud = torch.stack((x[0], x[1] * 1000))
    assert torch.allclose(layer(loud)[0], layer(torch.stack((x[0], x[0])))[0], atol=0.05)
    assert torch.equal(layer(torch.zeros(2, 64)), layer.bias.expand(2, -1))


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("sizes", [(32, 80), (80, 32)])
def test_transposed_layer_is_the_linear_layer(rows: int, sizes: tuple[int, int]) -> None:
    linear = torch.nn.Linear(*sizes)
    x = torch.randn(rows, 1, sizes[0])
    expected = linear(x).detach()
    layer = TransposedLinear.of(linear)
    assert torch.allclose(layer(x), expected, atol=1e-5)
    assert torch.allclose(copy.deepcopy(layer)(x), expected, atol=1e-5)


def test_twice_changes_nothing_and_another_way_is_refused() -> None:
    pipe = girih.optimize(make_pipe())
    layer = pipe.generator.head.output
    assert girih.optimize(pipe).generator.head.output is layer
    with pytest.raises(ValueError, match="optimised already, with exact layers"):
        girih.optimize(pipe, int8=True)


def test_no_gradient_is_asked_for() -> None:
    assert not any(p.requires_grad for p in girih.optimize(make_pipe()).generator.parameters())


def test_half_layer_keeps_dtypes_and_weights() -> None:
    linear = torch.nn.Linear(32, 16)
    x, weight = torch.randn(3, 32), linear.weight.detach().clone()
    expected = linear(x).detach()
    layer = HalfLinear.of(linear)
    assert layer(x).dtype == torch.float32 and torch.allclose(layer(x), expected, atol=0.05)
    assert torch.equal(layer.state_dict()["weight"], weight)


# --- the step that a GPU compiles, run here without a compiler and traced without code generation --------------------


def eager(step):  # type: ignore[no-untyped-def]
    return step


def traced(step):  # type: ignore[no-untyped-def]
    return torch.compile(step, backend="eager", fullgraph=True, dynamic=False)


@torch.no_grad()
def greedy_tokens(generator: girih.NextTokenGenerator, rows: int) -> torch.Tensor:
    condition = generator.condition(torch.arange(2 * rows))
    tokens = torch.zeros(rows, len(generator.layout), dtype=torch.long)
    state = State(tokens, torch.zeros_like(tokens, dtype=torch.bool), torch.arange(rows), condition)
    list(girih.Autoregressive()({"generator": generator}, state, Guidance(2.0)))
    return tokens


@pytest.mark.parametrize("compiler", [eager, traced])
def test_static_step_draws_the_same_tokens(compiler) -> None:  # type: ignore[no-untyped-def]
    generator = make_pipe((3, 24)).generator  # 72 tokens: two buckets
    assert len(Layout.raster(3, 24)) > BUCKET
    plain = greedy_tokens(generator, 2)
    static = StaticStep(generator, compiler)
    generator.forward, generator.new_cache = static.forward, static.new_cache
    assert torch.equal(greedy_tokens(generator, 2), plain)
    assert torch.equal(greedy_tokens(generator, 2), plain), "buffers left by the first call disturb the second"
    assert len(static.idle[4]) == 1, "the second call takes the buffers the first left"
