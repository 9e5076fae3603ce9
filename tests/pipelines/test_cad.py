"""The text-to-CAD pipeline: valid parts whatever the weights, same seed same part, and one clear line for bad input."""

from __future__ import annotations

import pytest
import torch

import girih
from girih.pipelines.cad import read_words, spaced
from girih.tokenizers.text import train_text_tokenizer

WORDS = ["a plate 60 by 40 mm 5 thick", "a gear with 20 teeth 7 point 5 mm", "a shaft"]


@pytest.fixture(scope="module")
def pipe() -> girih.CadPipeline:
    pytest.importorskip("manifold3d")
    torch.manual_seed(0)
    codec = girih.PartTokenizer()
    tokenizer = train_text_tokenizer(WORDS, 100, max_length=12)
    generator = girih.NextTokenGenerator(
        vocab_size=codec.spec.vocab_size, shape=codec.spec.shape, learned_positions=True,
        transformer={"dim": 32, "num_layers": 2, "num_heads": 4, "feed_forward_dim": 48},
        condition={"kind": "words", "vocab_size": len(tokenizer), "tokens": 12}).eval()
    for parameter in generator.parameters():
        torch.nn.init.normal_(parameter, std=0.3 if parameter.ndim < 2 else parameter.shape[-1] ** -0.5)
    pipe = girih.CadPipeline(codec, generator, girih.Autoregressive(), tokenizer)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def seeds(*numbers: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(n) for n in numbers]


def test_every_part_is_a_closed_solid(pipe):
    made = pipe(WORDS, num_parts_per_prompt=4, generator=seeds(*range(12)), guidance_scale=1.5)
    assert len(made.meshes) == 12 and not made.interrupted
    assert all(mesh.is_watertight and mesh.volume > 0 for mesh in made.meshes)
    assert len({len(program.extrusions) for program in made.programs}) > 1


def test_a_part_does_not_depend_on_its_batch(pipe):
    together = pipe(WORDS * 3, generator=seeds(*range(9)), output_type="latent").tokens
    for i in (0, 4, 8):
        alone = pipe((WORDS * 3)[i], generator=seeds(i), output_type="latent").tokens[0]
        assert torch.equal(alone, together[i][: len(alone)])
        assert (together[i][len(alone) :] == pipe.codec.spec.pad).all()


def test_saved_and_loaded_it_makes_the_same_part(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    again = girih.load(tmp_path)
    again.set_progress_bar_config(disable=True)
    one, two = (p(WORDS[0], generator=seeds(3), output_type="latent").tokens for p in (pipe, again))
    assert torch.equal(one, two)


def test_interrupted_it_returns_what_is_known(pipe):
    def stop(pipe, step, timestep, tensors):
        assert tensors["latents"].shape == tensors["known"].shape
        pipe._interrupt = step == 3
        return {}

    made = pipe(WORDS[0], generator=seeds(0), callback_on_step_end=stop,
                callback_on_step_end_tensor_inputs=["latents", "known"])
    assert made.interrupted and made.programs == [None] and made.meshes == [None] and made.tokens.shape == (1, 4)


def test_stream_shows_each_token(pipe):
    steps = list(pipe.stream(WORDS[0], generator=seeds(5)))
    assert [step for step, _ in steps] == list(range(1, len(steps) + 1))
    whole = pipe(WORDS[0], generator=seeds(5), output_type="latent").tokens
    assert torch.equal(steps[-1][1], whole)


def test_numbers_are_words_of_their_own():
    assert spaced("60x40mm, 7.5 thick.") == "60 x 40 mm, 7 point 5 thick."


def test_unknown_and_dropped_words_are_named(pipe):
    with pytest.warns(UserWarning, match="does not know these words: flange"):
        read_words(pipe.tokenizer, ["a flange 60 mm"])
    with pytest.warns(UserWarning, match="reads 12 words of this prompt; dropped: 'a plate"):
        read_words(pipe.tokenizer, ["a plate " * 10])


@pytest.mark.parametrize(("options", "message"), [
    ({"prompt": ""}, "holds no word"),
    ({"prompt": []}, "prompt must be a text or a list of texts"),
    ({"prompt": None}, "prompt must be a text or a list of texts"),
    ({"num_parts_per_prompt": 0}, "at least 1, got 0"),
    ({"guidance_scale": -1.0}, "guidance_scale must be at least 0"),
    ({"temperature": -1.0}, "temperature must be at least 0"),
    ({"output_type": "pil"}, "output_type"),
    ({"decoding": "plane"}, "plain"),
    ({"generator": "three"}, "generator"),
    ({"callback_on_step_end_tensor_inputs": ["logits"]}, "callback tensor"),
])
def test_bad_input_is_refused_in_one_line(pipe, options, message):
    if options.get("generator") == "three":
        options = {"generator": seeds(1, 2, 3)}
    with pytest.raises(ValueError, match=message) as error:
        pipe(**{"prompt": WORDS[0], **options})
    assert "\n" not in str(error.value)
