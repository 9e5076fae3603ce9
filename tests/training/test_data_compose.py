"""Scenes are drawn exactly, sampled by a seed, and never trained on when held out."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from girih.training.data.captions import BODY, caption, concept_list, full_caption, plural, read_phrases
from girih.training.data.compose import (
    COLOURS,
    COUNTS,
    MIX,
    PLACES,
    Item,
    Picture,
    Sampler,
    is_held_out,
    render,
    scene,
    without_colour,
)
from girih.training.data.paint import main_hue
from girih.training.data.pictures import PictureSet

SIZE = 32
STYLES = ("flat", "noto")
KINDS = tuple(MIX)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> PictureSet:
    """40 made-up concepts in two styles: an opaque left half (red, or patterned), a half-transparent right half."""
    folder = tmp_path_factory.mktemp("set")
    rng = np.random.default_rng(0)
    rgba, index = [], []
    for style in STYLES:
        for number in range(40):
            drawing = np.zeros((SIZE, SIZE, 4), np.uint8)
            drawing[..., :3] = (220, 20, 20)
            if number % 2 == 0:
                drawing[..., :3] = rng.integers(0, 256, (SIZE, SIZE, 3))
            drawing[:, : SIZE // 2, 3], drawing[:, SIZE // 2 :, 3] = 255, 128
            rgba.append(drawing)
            group = "symbols" if number == 0 else "food"
            index.append({"label": f"thing {number}", "hexcode": f"{number:X}", "tags": ["round", "good"],
                          "group": group, "style": style})  # fmt: skip
    np.save(folder / "pictures.npy", np.stack(rgba))
    (folder / "index.jsonl").write_text("".join(json.dumps(row) + "\n" for row in index))
    return PictureSet(folder)


@given(row=st.integers(0, 79), background=st.sampled_from(list(COLOURS)), flip=st.booleans())
@settings(max_examples=25, deadline=None)
def test_a_single_drawing_is_blended_exactly(pictures: PictureSet, row: int, background: str, flip: bool) -> None:
    drawn = render(Picture((Item(row, flip=flip),), background), pictures)
    assert drawn.shape == (3, SIZE, SIZE) and drawn.dtype == np.uint8
    rgba = np.asarray(pictures.rgba[row]).astype(float)
    rgba = rgba[:, ::-1] if flip else rgba
    alpha = rgba[..., 3:] / 255
    expected = rgba[..., :3] * alpha + np.array(COLOURS[background]) * (1 - alpha)
    np.testing.assert_allclose(drawn.transpose(1, 2, 0), expected, atol=0.51)


@pytest.mark.parametrize("relation", PLACES)
def test_objects_of_a_scene_stand_where_the_relation_says(pictures: PictureSet, relation: str) -> None:
    rows = [1, 3, 5][: len(PLACES[relation])]
    drawn = render(scene(rows, relation, (0, 0, 255)), pictures)
    covered = np.zeros((SIZE, SIZE), bool)
    half = SIZE // 2
    for x, y in PLACES[relation]:
        left, top = round(x * SIZE - half / 2), round(y * SIZE - half / 2)
        covered[top : top + half, left : left + half] = True
        assert drawn[0, top : top + half, left + 1].min() > 200  # its opaque left side is red
    assert (drawn[:, ~covered] == np.array([0, 0, 255])[:, None]).all()  # and all else is background
    assert covered.sum() == len(rows) * half * half  # none covers another


def test_first_named_object_is_on_the_named_side(pictures: PictureSet) -> None:
    for relation, (axis, sign) in {"left of": (0, -1), "right of": (0, 1), "above": (1, -1), "below": (1, 1)}.items():
        first, second = PLACES[relation]
        assert np.sign(first[axis] - second[axis]) == sign
    with pytest.raises(ValueError, match="relation 'two' with 3 drawings"):
        scene([1, 1, 1], "two")


def test_a_drawing_over_the_edge_is_cut_and_one_outside_refused(pictures: PictureSet) -> None:
    drawn = render(Picture((Item(1, centre=(1.0, 0.5)),), (0, 0, 255)), pictures)
    assert (drawn[2, :, : SIZE // 2] == 255).all() and (drawn[0, :, SIZE // 2 :] == 220).all()
    with pytest.raises(ValueError, match="outside the picture"):
        render(Picture((Item(1, centre=(2.0, 0.5)),)), pictures)


def test_paint_turns_the_main_hue_only(pictures: PictureSet) -> None:
    plain, blue = (render(Picture((Item(1, paint=paint),)), pictures) for paint in (None, "blue"))
    assert plain[0, 0, 0] == 220 and blue[2, 0, 0] > 200 and blue[0, 0, 0] < 60
    assert main_hue(np.zeros((SIZE, SIZE, 4), np.uint8)) is None
    with pytest.raises(ValueError, match="no main hue"):
        render(Picture((Item(0, paint="blue"),)), pictures)
    assert without_colour("red apple") == "apple" and without_colour("orange") == ""


def test_samples_follow_the_seed_and_are_never_held_out(pictures: PictureSet) -> None:
    sampler = Sampler(pictures)
    one, two = ([sampler.sample(rng) for _ in range(800)] for rng in map(np.random.default_rng, (7, 7)))
    assert one == two
    assert not any(is_held_out(picture, pictures) for picture in one)
    assert {p.relation for p in one} >= {None, "left of", "above", "two", "three"}
    assert any(p.items[0].paint for p in one) and any(p.items[0].flip for p in one)
    assert not any(p.items[0].flip and pictures.rows[p.items[0].row].group == "symbols" for p in one)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_can_be_sampled_held_out(pictures: PictureSet, kind: str) -> None:
    picture = Sampler(pictures).sample_held_out(np.random.default_rng(1), kind)
    assert is_held_out(picture, pictures)
    render(picture, pictures)


def test_the_hold_out_law(pictures: PictureSet) -> None:
    named = [name for name in COLOURS if name != "white"]
    triples = {(row, name): is_held_out(Picture((Item(row),), name), pictures)
               for row in range(len(pictures)) for name in named}  # fmt: skip
    assert 0.15 < np.mean(list(triples.values())) < 0.25
    assert not any(is_held_out(Picture((Item(row),)), pictures) for row in range(len(pictures)))  # white is trained
    for (row, name), held in triples.items():  # a triple is held out in whatever scene it stands
        assert is_held_out(Picture((Item(row, flip=True, scale=0.625),), name), pictures) == held
        assert is_held_out(scene((row, row), "two", name), pictures) == held
    pairs = {(a, b): is_held_out(scene((a, b), "left of"), pictures) for a in range(40) for b in range(a)}
    assert 0.02 < np.mean(list(pairs.values())) < 0.09
    for (a, b), held in pairs.items():  # whichever is named first, in whatever style and relation
        assert is_held_out(scene((b + 40, a + 40), "above"), pictures) == held


def test_the_hold_out_never_changes(pictures: PictureSet) -> None:
    """Another hash would put pictures that a shipped model was trained on into its evaluation."""
    held = [row for row in range(40) if is_held_out(Picture((Item(row),), "blue"), pictures)]
    assert held == [4, 5, 6, 10, 15, 26, 27, 29, 33, 36]


def test_sampler_refuses_unknown_names(pictures: PictureSet) -> None:
    for arguments, message in (
        ({"styles": ["oil"]}, "unknown style 'oil'"),
        ({"concepts": ["unicorn"]}, "no concept 'unicorn'"),
        ({"concepts": []}, "no drawing"),
        ({"mix": {"triple": 1.0}}, "unknown kind of picture 'triple'"),
        ({"mix": {"single": 0.0}}, "no positive weight"),
    ):
        with pytest.raises(ValueError, match=message):
            Sampler(pictures, **arguments)


def test_captions_name_what_is_drawn(pictures: PictureSet) -> None:
    sampler, rng = Sampler(pictures, concept_list(pictures)), np.random.default_rng(3)
    counted: Counter[str] = Counter()
    for _ in range(1500):
        picture = sampler.sample(rng)
        text = caption(picture, pictures, {}, rng)
        row, words = pictures.rows[picture.items[0].row], text.split()
        assert text == text.lower() and len(words) <= 24
        assert f"in {row.style} style" in text and picture.background in words
        assert bool({"flipped", "mirrored"} & set(words)) <= picture.items[0].flip or "<unk>" in words
        counted["<unk>"] += "<unk>" in words
        if picture.relation in COUNTS:
            counted["things"] += "<unk>" in words or "thing" in text
        if picture.items[0].paint and "<unk>" not in words:
            assert picture.items[0].paint in words
        if picture.items[0].scale == 0.625 and "<unk>" not in words:
            assert {"small", "tiny", "little"} & set(words)
    assert 150 < counted["<unk>"] < 330 and counted["things"]
    with pytest.raises(ValueError, match="no name to write"):
        caption(Picture((Item(0),), (1, 2, 3)), pictures, {}, rng)


def test_a_held_out_phrase_is_never_a_caption(pictures: PictureSet, tmp_path: Path) -> None:
    table = tmp_path / "phrases.tsv"
    table.write_text("label\tsynonyms\tphrases\theld_out\nthing 1\ta gadget; Secret Name\tsecret name ; a red lump\t"
                     "secret name\n")  # fmt: skip
    phrases = read_phrases(table)
    assert phrases["thing 1"].synonyms == ("a gadget",) and phrases["thing 1"].phrases == ("a red lump",)
    sampler, rng = Sampler(pictures, ["thing 1"]), np.random.default_rng(0)
    texts = " | ".join(caption(sampler.single(rng), pictures, phrases, rng) for _ in range(300))
    assert "gadget" in texts and "red lump" in texts and "secret" not in texts
    for content, message in (
        ("label\tphrases\n", "must name the columns"),
        ("label\tsynonyms\tphrases\theld_out\na\tb\n", "line 2: 2 columns"),
    ):
        table.write_text(content)
        with pytest.raises(ValueError, match=message):
            read_phrases(table)


def test_the_shipped_phrase_table_keeps_its_promise() -> None:
    phrases = read_phrases()
    assert len(phrases) > 300
    for label, entry in phrases.items():
        assert entry.held_out, label
        assert entry.held_out not in (*entry.synonyms, *entry.phrases), label


def test_concept_list_wants_every_style_and_no_clocks(tmp_path: Path) -> None:
    rows = [("fox", "nature", STYLES), ("rare", "nature", STYLES[:1]), ("nine o’clock", "travel", STYLES),
            ("man", "people", STYLES), (BODY[0], "people", STYLES), ("plus", "symbols", STYLES)]  # fmt: skip
    index = [{"label": label, "hexcode": "1", "tags": [], "group": group, "style": style}
             for label, group, styles in rows for style in styles]  # fmt: skip
    np.save(tmp_path / "pictures.npy", np.zeros((len(index), 16, 16, 4), np.uint8))
    (tmp_path / "index.jsonl").write_text("".join(json.dumps(row) + "\n" for row in index))
    assert concept_list(PictureSet(tmp_path)) == ["fox", BODY[0]]
    assert concept_list(PictureSet(tmp_path), ["symbols"]) == [BODY[0], "plus"]


def test_words_in_the_plain_form() -> None:
    assert full_caption("A  Red apple", "noto", "blue") == "a red apple in noto style on a blue background"
    assert full_caption("the fox", "flat", "white", small=True, flipped=True) == (
        "the small flipped fox in flat style on a white background"
    )
    singular = ["apple", "slice of pizza", "fox", "mouse", "strawberry", "glasses", "tomato", "cat with hat"]
    assert [plural(text) for text in singular] == [
        "apples", "slices of pizza", "foxes", "mice", "strawberries", "glasses", "tomatoes", "cats with hat"
    ]  # fmt: skip
