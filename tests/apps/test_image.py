"""`girih image`: which pictures are drawn, where they go, and that each can be drawn again from its own file."""

from __future__ import annotations

import json
import os
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from PIL import Image

from girih.apps.drawing import Request, grid, read_request, save, slug
from tests.apps.conftest import FakePipeline, Run


def pixels(file: str | Path) -> np.ndarray:
    with Image.open(file) as picture:
        return np.asarray(picture.convert("RGB"))


def test_one_picture_is_one_file(run: Run, pipeline: FakePipeline) -> None:
    code, out, err = run("image", "a red apple", "--seed", "3", "--out", "x.png")
    assert (code, err) == (0, "")
    assert out == "x.png  a red apple, seed 3\n"
    assert os.listdir() == ["x.png"]


def test_several_pictures_are_a_grid_and_singles(run: Run, pipeline: FakePipeline) -> None:
    code, out, _ = run("image", "a red apple", "--n", "4", "--out", "x.png")
    assert code == 0
    assert sorted(os.listdir()) == ["x-1.png", "x-2.png", "x-3.png", "x-4.png", "x.png"]
    sheet = pixels("x.png")
    assert sheet.shape == (34, 34, 3)
    np.testing.assert_array_equal(sheet[18:, :16], pixels("x-3.png"))
    assert (sheet[16:18] == 255).all()


def test_a_folder_takes_names_from_prompts_and_seeds(run: Run, pipeline: FakePipeline) -> None:
    assert run("image", "A red apple!", "a cat", "--n", "2", "--out", "demo/")[0] == 0
    names = ["a-cat-0.png", "a-cat-1.png", "a-red-apple-0.png", "a-red-apple-1.png", "grid.png"]
    assert sorted(os.listdir("demo")) == names
    np.testing.assert_array_equal(pixels("demo/grid.png")[18:, 18:], pixels("demo/a-cat-1.png"))


def test_prompts_of_one_name_do_not_replace_each_other(run: Run, pipeline: FakePipeline) -> None:
    assert run("image", "a cat", "a cat!")[0] == 0
    assert sorted(os.listdir()) == ["a-cat-0-2.png", "a-cat-0.png", "grid.png"]


def test_picture_i_of_seed_s_is_picture_0_of_seed_s_plus_i(run: Run, pipeline: FakePipeline) -> None:
    run("image", "a cat", "a dog", "--n", "12", "--seed", "5", "--out", "many/")
    run("image", "a dog", "--seed", "16", "--out", "one.png")
    np.testing.assert_array_equal(pixels("many/a-dog-16.png"), pixels("one.png"))


def test_only_given_options_reach_the_pipeline(run: Run, pipeline: FakePipeline) -> None:
    run("image", "a cat", "--top-k", "5", "--guidance", "2.5", "--negative", "a dog", "--style", "noto")
    expected = {"top_k": 5, "guidance_scale": 2.5, "negative_prompt": ["a dog"], "style": "noto", "output_type": "pil"}
    assert pipeline.calls == [{"prompt": ["a cat"], **expected}]


def test_json_report(run: Run, pipeline: FakePipeline) -> None:
    code, out, err = run("image", "a cat", "--n", "2", "--seed", "4", "--json")
    report = json.loads(out)
    assert (code, err) == (0, "")
    assert report["pictures"] == [
        {"file": "a-cat-4.png", "prompt": "a cat", "seed": 4},
        {"file": "a-cat-5.png", "prompt": "a cat", "seed": 5},
    ]
    assert report["grid"] == "a-cat-grid.png" and report["model"] == "image" and report["seconds"] >= 0


@pytest.mark.parametrize("extra", [[], ["--int8"], ["--style", "noto", "--temperature", "0.7", "--top-p", "0.9"]])
@pytest.mark.parametrize("file", ["x.png", "x-2.png"])
def test_from_draws_the_same_again(run: Run, pipeline: FakePipeline, extra: list[str], file: str) -> None:
    run("image", "a cat", "--n", "3", "--seed", "7", "--out", "x.png", *extra)
    code, _, err = run("image", "--from", file, "--out", "again.png")
    assert (code, err) == (0, "")
    np.testing.assert_array_equal(pixels(file), pixels("again.png"))
    assert read_request(file) == read_request("again.png")


def test_options_beside_from_win(run: Run, pipeline: FakePipeline) -> None:
    run("image", "a cat", "--seed", "7", "--style", "noto", "--out", "x.png")
    run("image", "--from", "x.png", "--style", "flat", "--out", "y.png")
    assert read_request("y.png") == Request(("a cat",), seed=7, style="flat")


def test_from_with_an_input_picture(run: Run, pipeline: FakePipeline) -> None:
    Image.new("RGB", (16, 16), "red").save("in.png")
    assert run("image", "a cat", "--image", "in.png", "--strength", "0.5", "--out", "x.png")[0] == 0
    assert pipeline.calls[0]["image"].getpixel((0, 0)) == (255, 0, 0) and pipeline.calls[0]["strength"] == 0.5
    assert run("image", "--from", "x.png", "--out", "y.png")[0] == 0
    Image.new("RGB", (16, 16), "blue").save("in.png")
    code, _, err = run("image", "--from", "x.png", "--out", "z.png")
    assert code == 2 and "in.png is no longer the file that x.png was drawn from" in err
    assert not Path("z.png").exists()


def test_another_version_warns(run: Run, pipeline: FakePipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    run("image", "a cat", "--out", "x.png")
    monkeypatch.setattr("girih.__version__", "9.9")
    code, _, err = run("image", "--from", "x.png", "--out", "y.png")
    assert code == 0
    assert err.startswith("girih: warning: x.png was drawn with girih ") and err.count("\n") == 1


texts = st.text(min_size=1).filter(str.strip)
numbers = st.none() | st.floats(allow_nan=False, allow_infinity=False)


@hypothesis.given(
    request_=st.builds(
        Request,
        prompts=st.lists(texts, min_size=1, max_size=3).map(tuple),
        n=st.integers(1, 9),
        seed=st.integers(0, 2**62),
        style=st.none() | texts,
        negative=st.none() | st.text(),
        guidance=numbers,
        temperature=numbers,
        top_k=st.none() | st.integers(),
        int8=st.booleans(),
    )
)
def test_a_png_gives_back_the_request_it_holds(tmp_path_factory: pytest.TempPathFactory, request_: Request) -> None:
    path = tmp_path_factory.getbasetemp() / "round-trip.png"
    save(Image.new("RGB", (2, 2)), request_, path)
    assert read_request(str(path)) == request_


@hypothesis.given(st.integers(1, 20), st.integers(1, 5))
def test_every_picture_stands_in_the_grid(count: int, columns: int) -> None:
    pictures = [Image.new("RGB", (3, 5), (i, 0, 0)) for i in range(count)]
    sheet = np.asarray(grid(pictures, columns))
    reds = sheet[..., 0][sheet[..., 1] == 0]
    assert sorted(reds.tolist()) == sorted(i for i in range(count) for _ in range(15))


@pytest.mark.parametrize(
    ("prompt", "name"),
    [("A red apple!", "a-red-apple"), ("../../etc", "etc"), ("!?", "picture"), ("Köln 東京", "köln-東京")],
)
def test_slug(prompt: str, name: str) -> None:
    assert slug(prompt) == name
