"""What a diffusers user expects of a pipeline, and what girih promises beyond: the same seed is the same picture."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import girih
from girih.generators.next_token import NextTokenGenerator
from girih.pipelines import reading
from girih.pipelines.image import ImagePipeline
from tests.pipelines.tiny import BACKGROUNDS, SIDE, STYLES, make_components, make_pipeline

PROMPT = "a red apple"


def seeded(*seeds: int) -> Any:
    made = [torch.Generator().manual_seed(seed) for seed in seeds]
    return made if len(made) > 1 else made[0]


def draw(pipe: ImagePipeline, prompt: Any = PROMPT, *seeds: int, **options: Any) -> Tensor:
    """Tokens [B, 4, 4] of a guided call."""
    options = {"guidance_scale": 3.0, "output_type": "latent", "generator": seeded(*(seeds or (0,))), **options}
    return pipe(prompt, **options).images


def picture(seed: int = 3) -> Tensor:
    return torch.rand(1, 3, 8 * SIDE, 8 * SIDE, generator=torch.Generator().manual_seed(seed))


# --- same seed, same picture ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [
    {}, {"guidance_scale": 1.0}, {"top_k": 5, "temperature": 0.7}, {"top_p": 0.8}, {"temperature": 0.0}])
def test_a_picture_does_not_depend_on_its_batch(pipe, options):
    """Bit for bit, whatever stands beside it, wherever it stands, for every batch size."""
    prompts = ["a blue car", PROMPT, "a cat", "a tree in noto style", "a small car on a red background"]
    alone = [pipe(text, generator=seeded(i), output_type="np", **{"guidance_scale": 3.0, **options}).images[0]
             for i, text in enumerate(prompts)]
    for picked in ([0, 1, 2, 3, 4], [4, 2, 0], [3, 1], [1, 1, 4, 0]):
        together = pipe([prompts[i] for i in picked], generator=seeded(*picked), output_type="np",
                        **{"guidance_scale": 3.0, **options}).images
        for place, i in enumerate(picked):
            assert np.array_equal(together[place], alone[i]), f"picture {i} at place {place} of {picked}"


def test_near_ties_are_settled_alone(monkeypatch, pipe):
    """With every step taken for a near tie, the pictures are the same and each step of each row is asked again."""
    plain = pipe([PROMPT, "a cat"], generator=seeded(1, 2), guidance_scale=3.0, output_type="latent")
    monkeypatch.setattr("girih.generators.decoding.sampling.NEAR", 1e9)
    settled = pipe([PROMPT, "a cat"], generator=seeded(1, 2), guidance_scale=3.0, output_type="latent")
    assert torch.equal(settled.images, plain.images)
    assert settled.stats == {"target_calls": SIDE**2, "settled_alone": 2 * SIDE**2}


def test_one_generator_gives_successive_pictures_and_a_list_one_each(pipe):
    several = draw(pipe, PROMPT, 7, num_images_per_prompt=3)
    assert several.shape == (3, SIDE, SIDE) and not torch.equal(several[0], several[1])
    assert torch.equal(several[0], draw(pipe, PROMPT, 7)[0])
    assert torch.equal(draw(pipe, PROMPT, 7, num_images_per_prompt=3), several)
    each = draw(pipe, PROMPT, 7, 8, num_images_per_prompt=2)
    assert torch.equal(each[1], draw(pipe, PROMPT, 8)[0])


def test_pictures_of_one_prompt_stand_together(pipe):
    found = draw(pipe, [PROMPT, "a cat"], 1, 2, 3, 4, num_images_per_prompt=2)
    for place, (text, seed) in enumerate([(PROMPT, 1), (PROMPT, 2), ("a cat", 3), ("a cat", 4)]):
        assert torch.equal(found[place], draw(pipe, text, seed)[0])


def test_without_a_generator_the_global_seed_decides(pipe):
    torch.manual_seed(5)
    first = draw(pipe, generator=None)
    second = draw(pipe, generator=None)
    torch.manual_seed(5)
    assert torch.equal(draw(pipe, generator=None), first) and not torch.equal(first, second)


# --- outputs ----------------------------------------------------------------------------------------------------------


def test_output_types_show_the_same_picture(pipe):
    outputs = {kind: pipe(PROMPT, generator=seeded(1), output_type=kind).images
               for kind in ("pil", "np", "pt", "latent")}
    array, side = outputs["np"], 8 * SIDE
    assert array.shape == (1, side, side, 3) and 0 <= array.min() and array.max() <= 1
    assert outputs["pt"].shape == (1, 3, side, side)
    np.testing.assert_allclose(outputs["pt"].permute(0, 2, 3, 1).numpy(), array)
    assert isinstance(outputs["pil"][0], Image.Image)
    assert np.abs(np.asarray(outputs["pil"][0]) / 255 - array[0]).max() <= 0.5 / 255 + 1e-6
    assert outputs["latent"].dtype == torch.int64 and outputs["latent"].shape == (1, SIDE, SIDE)
    decoded = (pipe.decode(outputs["latent"]) / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(decoded, outputs["pt"])


def test_a_tuple_instead_of_an_output(pipe):
    found = pipe(PROMPT, generator=seeded(1), output_type="np", return_dict=False)
    assert type(found) is tuple and len(found) == 1
    assert np.array_equal(found[0], pipe(PROMPT, generator=seeded(1), output_type="np").images)


def test_encode_and_decode_are_the_codecs(pipe):
    images = picture() * 2 - 1
    assert torch.equal(pipe.encode(images), pipe.codec.encode(images))
    tokens = torch.randint(36, (2, SIDE, SIDE))
    torch.testing.assert_close(pipe.decode(tokens), pipe.codec.decode(tokens), atol=1e-4, rtol=1e-4)


# --- parts, saving, devices -------------------------------------------------------------------------------------------


def test_a_saved_pipeline_draws_the_same(pipe, tmp_path):
    named = {"styles": STYLES, "backgrounds": BACKGROUNDS, "flip_share": 0.5}
    make_pipeline(**named, defaults={"temperature": 0.2}).save_pretrained(tmp_path)
    again = girih.load(tmp_path)
    again.set_progress_bar_config(disable=True)
    assert type(again) is ImagePipeline and again.config.styles == STYLES
    assert again.config.flip_share == 0.5 and again.config.defaults == {"temperature": 0.2}
    assert torch.equal(draw(again, top_k=9), draw(pipe, temperature=0.2, top_k=9))
    assert not torch.equal(draw(again), draw(pipe))  # the saved default is in use


def test_the_parts_make_another_pipeline(pipe):
    assert set(pipe.components) == {"codec", "generator", "decoding", "tokenizer", "text_encoder"}
    again = ImagePipeline(**pipe.components)
    again.set_progress_bar_config(disable=True)
    full = "a red apple in noto style on a white background"
    plain = make_pipeline()
    assert torch.equal(draw(again, full), draw(plain, full))


def test_optional_parts_stay_away_after_loading(tmp_path):
    pipe = ImagePipeline(**{**make_components(), "codec": None, "tokenizer": None, "text_encoder": None})
    pipe.set_progress_bar_config(disable=True)
    vectors = {"prompt": None, "prompt_embeds": torch.randn(2, 16), "negative_prompt_embeds": torch.randn(1, 16)}
    before = draw(pipe, **vectors)
    pipe.save_pretrained(tmp_path)
    again = ImagePipeline.from_pretrained(tmp_path)
    assert again.codec is None and again.tokenizer is None and again.text_encoder is None
    again.set_progress_bar_config(disable=True)
    assert torch.equal(draw(again, **vectors), before)
    with pytest.raises(ValueError, match="no codec"):
        again(prompt_embeds=vectors["prompt_embeds"])
    with pytest.raises(ValueError, match="no text encoder"):
        again(PROMPT, output_type="latent")
    with pytest.raises(ValueError, match="guidance needs negative_prompt_embeds"):
        again(prompt_embeds=vectors["prompt_embeds"], guidance_scale=2.0, output_type="latent")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_draws(dtype):
    pipe = make_pipeline().to(dtype)
    assert {pipe.codec.dtype, pipe.generator.dtype, pipe.text_encoder.dtype} == {dtype}
    found = pipe(PROMPT, generator=seeded(1), output_type="np", guidance_scale=2.0)
    assert np.isfinite(found.images).all() and found.stats["settled_alone"] == 0
    again = pipe(PROMPT, generator=seeded(1), output_type="np", guidance_scale=2.0)
    assert np.array_equal(found.images, again.images)


def test_offloading_wakes_the_models_that_are_asked():
    """accelerate's hooks run at ``forward``; the pipeline also asks models by other names."""
    pipe, woken = make_pipeline(), set()

    class Hook:
        def __init__(self, name: str) -> None:
            self.name = name

        def pre_forward(self, module: torch.nn.Module, *inputs: Any) -> None:
            woken.add(self.name)

    for name in ("codec", "generator"):
        getattr(pipe, name)._hf_hook = Hook(name)
    pipe.decode(torch.zeros(1, SIDE, SIDE, dtype=torch.long))
    pipe.condition(torch.zeros(1, 16), None)
    assert woken == {"codec", "generator"}


def test_model_offloading_on_a_machine_without_a_device(pipe):
    before = draw(pipe)
    offloaded = make_pipeline(styles=pipe.config.styles, backgrounds=pipe.config.backgrounds, flip_share=0.5)
    try:
        offloaded.enable_model_cpu_offload(device="cpu")
    except RuntimeError as error:
        pytest.skip(f"accelerate: {error}")
    assert torch.equal(draw(offloaded), before) and torch.equal(draw(offloaded), before)


# --- prompts ----------------------------------------------------------------------------------------------------------


def test_encode_prompt_needs_the_text_parts_alone():
    parts = make_components()
    alone = {"codec": None, "generator": None, "decoding": None}
    reader = ImagePipeline(**{**parts, **alone})
    embeds, negative, *masks = reader.encode_prompt([PROMPT, "a cat"], "a car", num_images_per_prompt=2)
    assert embeds.shape == negative.shape == (4, 16) and masks == [None, None]
    drawer = ImagePipeline(**{**parts, "tokenizer": None, "text_encoder": None})
    drawer.set_progress_bar_config(disable=True)
    seeds = 1, 2, 3, 4
    from_vectors = draw(drawer, None, *seeds, prompt_embeds=embeds, negative_prompt_embeds=negative)
    whole = make_pipeline()
    from_words = draw(whole, [PROMPT, "a cat"], *seeds, negative_prompt="a car", num_images_per_prompt=2)
    assert torch.equal(from_vectors, from_words)
    with pytest.raises(ValueError, match="only encode prompts"):
        reader(PROMPT)


def test_rows_of_a_prompt_are_read_alone(pipe):
    both, nothing, *_ = pipe.encode_prompt([PROMPT, "a cat in noto style"], style=None)
    assert torch.equal(both[1], pipe.encode_prompt("a cat in noto style")[0][0])
    assert torch.equal(nothing[0], nothing[1]) and torch.equal(nothing[:1], pipe.encode_prompt("a tree")[1])


def test_the_negative_prompt_matters_and_an_empty_one_is_none(pipe):
    plain = draw(pipe)
    assert not torch.equal(draw(pipe, negative_prompt="a blue car"), plain)
    assert torch.equal(draw(pipe, negative_prompt=""), plain)
    assert torch.equal(draw(pipe, [PROMPT] * 2, 0, 0, negative_prompt=["", "a blue car"])[0], plain[0])
    assert torch.equal(draw(pipe, negative_prompt="a blue car", guidance_scale=1.0), draw(pipe, guidance_scale=1.0))


def test_styles_are_drawn_from_the_seed_unless_named(pipe, monkeypatch):
    read: list[str] = []
    original = reading.read
    monkeypatch.setattr(reading, "read", lambda pipe, pairs: read.extend(map("".join, pairs)) or original(pipe, pairs))
    draw(pipe, PROMPT, *range(16), num_images_per_prompt=16, guidance_scale=1.0)
    found = {style for style in STYLES for caption in read if f"in {style} style on a white background" in caption}
    assert found == set(STYLES)
    assert 0 < sum("a flipped red apple" in caption for caption in read) < 16
    read.clear()
    named = draw(pipe, PROMPT, *range(4), num_images_per_prompt=4, style="noto", guidance_scale=1.0)
    assert len(read) == 4 and all("in noto style" in caption for caption in read)
    assert torch.equal(named[2], draw(pipe, PROMPT, 2, style="noto", guidance_scale=1.0)[0])


def test_words_it_cannot_read_are_named(pipe):
    with pytest.warns(UserWarning, match="'zebra', 'piano'"):
        draw(pipe, "a zebra with a piano")
    with pytest.warns(UserWarning, match="reads .* words of this prompt; dropped: '.*car cat blue'"):
        draw(pipe, "red apple " * 9 + "car cat blue", style="noto")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="the model")
        draw(pipe, "a small red apple, please")
        draw(pipe, "red " * 16, style="noto")


# --- steps ------------------------------------------------------------------------------------------------------------


def test_the_callback_sees_what_it_asks_for(pipe):
    seen: list[tuple[int, set[str], int]] = []

    def look(asked: ImagePipeline, step: int, time: int, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        assert asked is pipe and step == time and asked.num_timesteps == SIDE**2
        known = int(tensors["known"].sum()) if "known" in tensors else -1
        seen.append((step, set(tensors), known))
        return tensors

    plain = draw(pipe)
    for names in (["latents"], ["latents", "known"], []):
        seen.clear()
        assert torch.equal(draw(pipe, callback_on_step_end=look, callback_on_step_end_tensor_inputs=names), plain)
        known = "known" in names
        assert seen == [(step, set(names), step + 1 if known else -1) for step in range(SIDE**2)]


def test_the_callback_may_change_tokens(pipe):
    def end(asked: Any, step: int, time: int, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"latents": torch.zeros_like(tensors["latents"])} if step == asked.num_timesteps - 1 else {}

    assert not draw(pipe, callback_on_step_end=end).any()

    def middle(asked: Any, step: int, time: int, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        if step == 7:
            tensors["latents"][:, 0] = 5  # what was drawn long ago, and is in the cache
            tensors["latents"][:, 3] = 11
            tensors["known"][:, 3] = True
        return tensors

    found = draw(pipe, callback_on_step_end=middle, callback_on_step_end_tensor_inputs=["latents", "known"])
    assert found[0, 0].tolist() == [5] * SIDE and found[0, 3].tolist() == [11] * SIDE
    # What follows is drawn as if these tokens had stood there from the beginning.
    plain = draw(pipe)
    given = torch.cat((torch.full((1, SIDE), 5), plain[0, 1][None], found[0, 2:]), 0)[None]
    assert torch.equal(found, complete_from(pipe, given, 8))


def complete_from(pipe: ImagePipeline, tokens: Tensor, first: int) -> Tensor:
    """Tokens with the first ones given: set by a callback before anything is drawn."""
    def fill(asked: Any, step: int, time: int, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        if step == 0:
            tensors["latents"].view(1, -1)[:, :first] = tokens.view(1, -1)[:, :first]
            tensors["known"].view(1, -1)[:, :first] = True
            tensors["latents"][:, 3], tensors["known"][:, 3] = tokens[:, 3], True
        return tensors

    return draw(pipe, callback_on_step_end=fill, callback_on_step_end_tensor_inputs=["latents", "known"])


def test_the_callback_may_change_guidance(pipe):
    def more(asked: Any, step: int, time: int, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        asked._guidance_scale += 1.0
        return tensors

    changed = draw(pipe, guidance_scale=2.0, callback_on_step_end=more)
    assert pipe.guidance_scale == 2.0 + pipe.num_timesteps
    assert not torch.equal(changed, draw(pipe, guidance_scale=2.0)) and pipe.guidance_scale == 2.0


def test_an_interrupted_call_shows_what_is_known(pipe):
    def stop(asked: ImagePipeline, step: int, time: int, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        asked._interrupt = step == 5
        return tensors

    options = {"guidance_scale": 3.0, "generator": seeded(0), "output_type": "latent"}
    found = pipe(PROMPT, callback_on_step_end=stop, **options)
    assert found.interrupted and found.stats["target_calls"] == 6
    whole = pipe(PROMPT, **{**options, "generator": seeded(0)})
    assert not whole.interrupted and not pipe.interrupt
    assert torch.equal(found.images.flatten()[:6], whole.images.flatten()[:6])
    assert (found.images.flatten()[6:] == pipe.mean_token()).all()


def test_the_mean_token_is_the_one_nearest_to_all(pipe):
    codes = pipe.codec.quantize.lookup(torch.arange(36)[None, None])[0, :, 0].T
    distances = (codes - codes.mean(0)).norm(dim=1)
    assert distances[pipe.mean_token()] <= distances.min() + 1e-6


def test_a_stream_shows_the_way_and_ends_with_the_picture(pipe):
    shown = list(pipe.stream(PROMPT, every=5, generator=seeded(1), guidance_scale=2.0))
    assert [step for step, _, _ in shown] == [5, 10, 15, 16]
    assert [int(known.sum()) for _, _, known in shown] == [5, 10, 15, 16]
    final = pipe(PROMPT, generator=seeded(1), guidance_scale=2.0).images[0]
    assert np.array_equal(np.asarray(shown[-1][1][0]), np.asarray(final))
    with pytest.raises(ValueError, match="unknown option 'temprature'; did you mean 'temperature'"):
        next(pipe.stream(PROMPT, temprature=1.0))
    with pytest.raises(ValueError, match="every must be at least 1, got 0"):
        next(pipe.stream(PROMPT, every=0))


def test_the_progress_bar_counts_tokens(capsys):
    pipe = make_pipeline()
    pipe.set_progress_bar_config(disable=False)
    draw(pipe)
    assert "16/16" in capsys.readouterr().err
    pipe.set_progress_bar_config(disable=True)
    draw(pipe)
    assert capsys.readouterr().err == ""


# --- pictures to change -----------------------------------------------------------------------------------------------


def test_in_painting_keeps_what_is_outside_the_mask(pipe):
    mask = torch.zeros(1, 1, 8 * SIDE, 8 * SIDE)
    mask[:, :, 9:15, 17:30] = 1  # touches row 1, columns 2 and 3
    source = pipe.encode(picture() * 2 - 1)
    found = draw(pipe, [PROMPT, "a cat"], 1, 2, image=picture(), mask_image=mask)
    redrawn = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    redrawn[1, 2:] = True
    assert (found == source)[:, ~redrawn].all() and not (found == source)[:, redrawn].all()
    assert torch.equal(draw(pipe, "a cat", 2, image=picture(), mask_image=mask)[0], found[1])
    as_pil = Image.fromarray((mask[0, 0].numpy() * 255).astype(np.uint8))
    assert torch.equal(draw(pipe, "a cat", 2, image=picture(), mask_image=as_pil)[0], found[1])


def test_pictures_of_every_kind_are_read_alike(pipe):
    as_pil = Image.fromarray((picture()[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8))
    exact = torch.from_numpy(np.array(as_pil)).permute(2, 0, 1)[None] / 255
    kinds = [as_pil, exact, exact.permute(0, 2, 3, 1).numpy(), [as_pil]]
    found = [draw(pipe, image=kind, strength=0.0) for kind in kinds]
    assert all(torch.equal(tokens, found[0]) for tokens in found)
    assert torch.equal(found[0], pipe.encode(exact * 2 - 1))


@pytest.mark.parametrize(("strength", "kept"), [(0.0, 16), (0.25, 12), (0.5, 8), (1.0, 0)])
def test_strength_keeps_the_first_share(pipe, strength, kept):
    source = pipe.encode(picture() * 2 - 1).flatten(1)
    found = pipe(PROMPT, image=picture(), strength=strength, generator=seeded(1), output_type="latent")
    assert torch.equal(found.images.flatten(1)[:, :kept], source[:, :kept])
    assert found.stats["target_calls"] == 16 - kept
    if strength == 1:
        assert torch.equal(found.images, draw(pipe, PROMPT, 1, guidance_scale=1.0))


def test_the_best_of_several_is_what_the_scorer_likes(pipe):
    asked: list[Any] = []

    def bright(images: list[Image.Image], prompts: list[str]) -> list[float]:
        asked.append(prompts)
        return [float(np.asarray(image).mean()) for image in images]

    def first(images: list[Image.Image], prompts: list[str]) -> list[float]:
        return [-i for i in range(len(images))]

    prompts = [PROMPT, "a cat"]
    options = {"generator": seeded(1, 2), "guidance_scale": 2.0, "output_type": "np"}
    best = pipe(prompts, best_of=8, scorer=bright, **options).images
    assert asked == [[PROMPT] * 8 + ["a cat"] * 8] and len(best) == 2
    options["generator"] = seeded(1, 2)
    plain = pipe(prompts, **options).images
    assert all(b.mean() >= p.mean() - 1 / 255 for b, p in zip(best, plain, strict=True))
    assert not np.array_equal(best, plain)
    options["generator"] = seeded(1, 2)
    assert np.array_equal(pipe(prompts, best_of=3, scorer=first, **options).images, plain)
    with pytest.raises(ValueError, match="the scorer gave 1 scores for 2 pictures"):
        pipe(PROMPT, best_of=2, scorer=lambda images, prompts: [1.0])


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("options", "message"), [
    ({"prompt": ""}, "a prompt must not be empty"),
    ({"prompt": "  "}, "a prompt must not be empty"),
    ({"prompt": []}, "a prompt must not be empty"),
    ({"prompt": [PROMPT, ""]}, "a prompt must not be empty"),
    ({"prompt": None}, "give one of prompt, class_labels and prompt_embeds, got none"),
    ({"prompt_embeds": torch.zeros(1, 16)}, "got prompt and prompt_embeds"),
    ({"prompt": 3}, "prompt must be a string or a list of strings, got int"),
    ({"prompt": "?!"}, "holds no word"),
    ({"prompt": None, "class_labels": 1}, "not conditioned on classes"),
    ({"prompt": None, "prompt_embeds": torch.zeros(1, 15)}, r"prompt_embeds must be \[pictures, 16\], got \[1, 15\]"),
    ({"negative_prompt_embeds": torch.zeros(3, 16)}, "3 negative_prompt_embeds for 1 prompts"),
    ({"negative_prompt": ["a", "b"]}, "2 negative prompts for 1 prompts"),
    ({"num_images_per_prompt": 0}, "num_images_per_prompt must be a whole number of at least 1, got 0"),
    ({"num_images_per_prompt": -2}, "at least 1, got -2"),
    ({"generator": [torch.Generator()] * 2}, "2 generators for 1 pictures"),
    ({"generator": 5}, "generator must be a torch.Generator or a list of them, got 5"),
    ({"guidance_scale": -1.0}, "guidance_scale must be at least 0 and finite, got -1.0"),
    ({"guidance_scale": float("nan")}, "guidance_scale must be at least 0"),
    ({"guidance_scale": float("inf")}, "guidance_scale must be at least 0"),
    ({"temperature": -1.0}, "temperature must be at least 0"),
    ({"top_k": -1}, "top_k must be"),
    ({"top_p": 0.0}, "top_p must be"),
    ({"style": "noot"}, "unknown style 'noot'; did you mean 'noto'"),
    ({"output_type": "pill"}, "unknown output_type 'pill'; did you mean 'pil'"),
    ({"decoding": "plane"}, "unknown decoding 'plane'; did you mean 'plain'"),
    ({"callback_on_step_end_tensor_inputs": ["latent"]}, "unknown callback tensor 'latent'; did you mean 'latents'"),
    ({"mask_image": picture()}, "give it as image="),
    ({"strength": 0.5}, "give it as image="),
    ({"image": picture()}, "image needs mask_image"),
    ({"image": picture(), "strength": 1.5}, "strength must be between 0 and 1, got 1.5"),
    ({"image": torch.cat([picture()] * 2), "strength": 0.5}, "2 pictures to change for 1 prompts"),
    ({"best_of": 0}, "best_of must be"),
    ({"best_of": 2}, "best_of=2 needs a scorer"),
])
def test_bad_input_is_one_clear_line(pipe, options, message):
    with pytest.raises(ValueError, match=message) as raised:
        pipe(**{"prompt": PROMPT, **options})
    assert "\n" not in str(raised.value)


def test_parts_that_do_not_fit_are_refused():
    parts = make_components()
    del parts["generator"]
    generator = NextTokenGenerator(vocab_size=35, shape=(2, 2), condition={"kind": "class", "num_classes": 2},
                                   transformer={"dim": 8, "num_layers": 1, "num_heads": 2, "feed_forward_dim": 8})
    with pytest.raises(ValueError, match="the codec has 36 token values, the generator 35"):
        ImagePipeline(generator=generator, **parts)
