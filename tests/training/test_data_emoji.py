"""Building a picture set from tiny made-up packages; no network."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from girih.training.data import drawings, emoji, npm
from girih.training.data.pictures import PictureSet

RED_LEFT_HALF = '<rect x="0" y="0" width="8" height="16" fill="#ff0000"/>'


def _pack(path: Path, files: dict[str, object]) -> str:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            data = json.dumps(content).encode()
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _entry(label: str, code: str, group: int, subgroup: int = 1) -> dict[str, object]:
    return {"label": label, "hexcode": code, "group": group, "subgroup": subgroup, "tags": ["thing"]}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache that holds two packages of the real layouts, pinned in place of the real ones; npm is not called."""
    folder = tmp_path / "cache"
    folder.mkdir()
    labels = emoji.LABELS
    table = [
        _entry("fox", "1F98A", 3),
        _entry("heart suit", "2665-FE0F", 6),  # joins without its FE0F
        _entry("mirrored fox", "AAAA", 3),
        _entry("ghost", "1F47B", 0),  # only by its slug
        _entry("blank", "BBBB", 7),  # comes out empty
        _entry("secret", "CCCC", 7),  # hidden in the set
        _entry("flag: France", "1F1EB-1F1F7", 9),
        _entry("light skin tone", "1F3FB", 2),
        _entry("keycap: 1", "31-FE0F-20E3", 8, subgroup=2),
        {"label": "regional indicator A", "hexcode": "1F1E6"},
    ]
    subgroups = [{"key": "other", "order": 1}, {"key": "keycap", "order": 2}]
    sha = _pack(folder / labels.tarball, {"en/data.json": table, "en/messages.json": {"subgroups": subgroups}})
    monkeypatch.setattr(emoji, "LABELS", dataclasses.replace(labels, sha256=sha))

    names = {"fox", "heart", "ghost", "flag-france", "light-skin-tone", "keycap-1"}
    icons = {name: {"body": RED_LEFT_HALF} for name in sorted(names)}
    icons["blank"] = {"body": ""}
    icons["secret"] = {"body": RED_LEFT_HALF, "hidden": True}
    icons["tall"] = {"body": RED_LEFT_HALF, "height": 32}
    package = {
        "icons.json": {
            "width": 16, "height": 16, "icons": icons, "aliases": {"xof": {"parent": "fox", "hFlip": True}}
        },  # fmt: skip
        "chars.json": {"1f98a": "fox", "2665": "heart", "aaaa": "xof", "bbbb": "blank", "cccc": "secret",
                       "1f1eb-1f1f7": "flag-france", "1f3fb": "light-skin-tone", "31-20e3": "keycap-1"},
    }  # fmt: skip
    styles = {}
    for style in ("flat", "noto"):
        source = emoji.STYLES[style]
        styles[style] = dataclasses.replace(source, sha256=_pack(folder / source.tarball, package))
    monkeypatch.setattr(emoji, "STYLES", styles)
    monkeypatch.setattr(npm.shutil, "which", lambda name: None)
    return folder


def test_build_joins_draws_and_credits(cache: Path, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    out = emoji.build(tmp_path / "set", 32, ("flat", "noto"), cache, lambda *step: seen.append(step))
    pictures = PictureSet(out)
    assert list(pictures.of) == ["fox", "heart suit", "mirrored fox", "ghost"]  # no flags, tones, key caps, blanks
    assert pictures.styles == ("flat", "noto") and pictures.size == 32 and len(pictures) == 8
    fox, mirrored = (pictures.rgba[pictures.of[label]["noto"]] for label in ("fox", "mirrored fox"))
    assert (fox[:, :16] == [255, 0, 0, 255]).all() and (fox[:, 16:, 3] == 0).all()
    np.testing.assert_array_equal(fox[:, ::-1], mirrored)
    row = pictures.rows[pictures.of["heart suit"]["flat"]]
    assert (row.hexcode, row.style, row.tags, row.group) == ("2665", "flat", ("thing",), "activities")
    assert seen[-1] == ("noto", 5, 5)
    credits = (out / "CREDITS.md").read_text()
    assert "Microsoft" in credits and "Google" in credits and "Twitter" not in credits
    assert {s["package"] for s in json.loads((out / "sources.json").read_text())} == {
        "emojibase-data", "@iconify-json/fluent-emoji-flat", "@iconify-json/noto"
    }  # fmt: skip
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cache", "set"]  # no temporary leftovers


def test_finished_styles_are_reused_and_a_set_is_replaced(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = emoji.build(tmp_path / "set", 32, ("flat",), cache)

    def fail(*args: object) -> None:
        raise AssertionError("drawn again")

    monkeypatch.setattr(drawings, "rasterise", fail)
    emoji.build(out, 32, ("flat",), cache)
    with pytest.raises(AssertionError, match="drawn again"):  # another style is not there yet
        emoji.build(out, 32, ("flat", "noto"), cache)
    assert len(PictureSet(out)) == 4  # and the old set still stands, whole
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cache", "set"]


def test_bad_input_is_one_clear_line(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="size is 8; it must be between 16 and 512"):
        emoji.build(tmp_path / "set", 8, ("flat",), cache)
    with pytest.raises(ValueError, match="unknown style 'oil'"):
        emoji.build(tmp_path / "set", 32, ("oil",), cache)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "letter.txt").write_text("dear")
    with pytest.raises(ValueError, match="is not a picture set"):
        emoji.build(mine, 32, ("flat",), cache)
    (cache / emoji.STYLES["flat"].tarball).write_bytes(b"changed")
    with pytest.raises(ValueError, match="sha256 .*, expected"):
        emoji.build(tmp_path / "set", 32, ("flat",), cache)
    (cache / emoji.STYLES["noto"].tarball).unlink()
    with pytest.raises(FileNotFoundError, match="npm was not found"):
        emoji.build(tmp_path / "set", 32, ("noto",), cache)
    assert not (tmp_path / "set").exists()


def test_a_failing_npm_says_why(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "npm"
    script.write_text("#!/bin/sh\necho 'npm error 404 no such package' >&2\nexit 1\n")
    script.chmod(0o755)
    monkeypatch.setattr(npm.shutil, "which", lambda name: str(script))
    (cache / emoji.STYLES["noto"].tarball).unlink()
    with pytest.raises(OSError, match="npm pack @iconify-json/noto@.* failed: npm error 404 no such package"):
        npm.fetch(emoji.STYLES["noto"], cache)


def test_pinned_sources_are_complete() -> None:
    for source in [emoji.LABELS, *emoji.STYLES.values()]:
        assert len(source.sha256) == 64 and int(source.sha256, 16)
        assert source.licence.split("-")[0] in source.credit.replace(" ", "-")
    assert emoji.STYLES["flat"].tarball == "iconify-json-fluent-emoji-flat-1.2.6.tgz"


def test_a_picture_that_is_not_square_is_centred() -> None:
    tall = '<svg xmlns="http://www.w3.org/2000/svg" width="SIZE" height="SIZE" viewBox="0 0 10 20">'
    picture = drawings.rasterise((tall + '<rect width="10" height="20" fill="blue"/></svg>', False), 32)
    assert picture is not None and picture.shape == (32, 32, 4)
    assert (picture[:, 8:24, 3] == 255).all() and (picture[:, :8, 3] == 0).all() and (picture[:, 24:, 3] == 0).all()
    assert drawings.rasterise(("<svg", False), 32) is None


def test_a_folder_that_is_no_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no pictures.npy"):
        PictureSet(tmp_path)
    np.save(tmp_path / "pictures.npy", np.zeros((2, 16, 16, 4), np.uint8))
    (tmp_path / "index.jsonl").write_text("")
    with pytest.raises(ValueError, match="has 0 lines"):
        PictureSet(tmp_path)
