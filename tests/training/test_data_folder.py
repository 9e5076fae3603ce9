"""One's own pictures: three conventions for captions, and what is wrong with real folders."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from girih.training.data.folder import ImageFolder


def _picture(path: Path, colour: tuple[int, ...] = (200, 10, 10), size: tuple[int, int] = (40, 30)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGBA" if len(colour) == 4 else "RGB", size, colour).save(path)
    return path


def _names(folder: ImageFolder) -> dict[str, str]:
    return {path.relative_to(folder.folder).as_posix(): text for path, text in folder.items}


def test_text_beside_pictures(tmp_path: Path) -> None:
    for name in ("b.png", "a.jpg", "deep/c.webp", "alone.png", ".hidden.png"):
        _picture(tmp_path / name)
    (tmp_path / "a.txt").write_text("A red   square\nof paint\n")
    (tmp_path / "b.txt").write_bytes("\ufeffun carré rouge".encode())  # UTF-8 with a mark
    (tmp_path / "deep/c.txt").write_bytes("ein Quadrat".encode("utf-16"))
    folder = ImageFolder(tmp_path, 16)
    assert _names(folder) == {"a.jpg": "A red square of paint", "b.png": "un carré rouge", "deep/c.webp": "ein Quadrat"}
    assert folder.skipped == {"without a caption": 1} and folder.report() == "1 without a caption"


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv"])
@pytest.mark.parametrize("column", ["text", "caption"])
def test_metadata(tmp_path: Path, name: str, column: str) -> None:
    _picture(tmp_path / "x/one.png")
    _picture(tmp_path / "two.png")
    rows = [("x/one.png", "one, with a comma"), ("two.png", "zwei Äpfel"), ("gone.png", "gone"), ("two.png", "")]
    if name.endswith("csv"):
        lines = [f"file_name,{column}", *(f'{file},"{text}"' for file, text in rows)]
    else:
        lines = [json.dumps({"file_name": file, column: text}) for file, text in rows]
    (tmp_path / name).write_text("\n".join(lines) + "\n", "utf-8")
    folder = ImageFolder(tmp_path, 16)
    assert _names(folder) == {"x/one.png": "one, with a comma", "two.png": "zwei Äpfel"}
    assert folder.skipped == {"missing pictures": 1, "without a caption": 1}


def test_class_folders(tmp_path: Path) -> None:
    for name in ("maine_coon-cat/1.png", "maine_coon-cat/2.png", "dog/1.JPG", "cover.png"):
        _picture(tmp_path / name)
    folder = ImageFolder(tmp_path, 16)
    assert list(_names(folder).values()) == ["dog", "maine coon cat", "maine coon cat"]
    assert folder.skipped == {"without a caption": 1}


def test_damaged_files_are_skipped_and_counted(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (200, 200, 3), dtype=np.uint8)).save(tmp_path / "cut.jpg")
    whole = (tmp_path / "cut.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "empty.png").write_bytes(b"")
    for name in ("good.png", "latin.png", "binary.png"):
        _picture(tmp_path / name)
    for name in ("cut", "text", "empty", "good"):
        (tmp_path / f"{name}.txt").write_text(name)
    (tmp_path / "latin.txt").write_bytes("caf\xe9".encode("latin-1"))
    (tmp_path / "binary.txt").write_bytes(b"a\0b")
    folder = ImageFolder(tmp_path, 16)
    assert _names(folder) == {"good.png": "good"}
    assert folder.skipped == {"unreadable pictures": 3, "captions in an unknown encoding": 2}


def test_broken_metadata(tmp_path: Path) -> None:
    _picture(tmp_path / "a.png")
    table = tmp_path / "metadata.jsonl"
    table.write_text('{"file_name": "a.png", "text": "a"}\n{broken\n[1]\n{"text": "no file"}\n')
    folder = ImageFolder(tmp_path, 16)
    assert folder.skipped == {"broken metadata lines": 2, "metadata lines without a file_name": 1}
    table.write_text('{"path": "a.png"}\n')
    with pytest.raises(ValueError, match=r"must have file_name and text \(or caption\); it has \['path'\]"):
        ImageFolder(tmp_path, 16)
    table.write_bytes(b"\xff\xff\xff")
    with pytest.raises(ValueError, match="neither UTF-8 nor UTF-16"):
        ImageFolder(tmp_path, 16)


def test_nothing_left_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="it holds no pictures"):
        ImageFolder(tmp_path, 16)
    _picture(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"no picture with a caption in .* \(1 without a caption\)"):
        ImageFolder(tmp_path, 16)
    with pytest.raises(ValueError, match="is not a folder"):
        ImageFolder(tmp_path / "nowhere", 16)
    with pytest.raises(ValueError, match="size is 4; it must be between 16 and 2048"):
        ImageFolder(tmp_path, 4)


def test_load_crops_the_centre_and_scales(tmp_path: Path) -> None:
    pixels = np.zeros((32, 96, 3), np.uint8)
    pixels[:, :32], pixels[:, 32:64], pixels[:, 64:] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    (tmp_path / "wide").mkdir()
    Image.fromarray(pixels).save(tmp_path / "wide/a.png")
    loaded = ImageFolder(tmp_path, 16).load(0)
    assert loaded.shape == (3, 16, 16) and loaded.dtype == np.uint8 and loaded.flags["C_CONTIGUOUS"]
    assert (loaded[1, :, 2:-2] > 250).all() and (loaded[0, :, 2:-2] < 5).all() and (loaded[2, :, 2:-2] < 5).all()


def test_load_other_kinds_of_pictures(tmp_path: Path) -> None:
    _picture(tmp_path / "k/1_clear.png", (0, 0, 0, 0))  # transparent: white, not black
    Image.fromarray(np.full((20, 20), 32768, np.uint16)).save(tmp_path / "k/2_deep.png")  # 16 bits a pixel
    Image.new("P", (20, 20)).save(tmp_path / "k/3_palette.gif")
    turned = Image.new("RGB", (20, 20), (255, 255, 255))
    turned.paste((255, 0, 0), (0, 0, 20, 10))  # red above; the camera was held upside down
    exif = Image.Exif()
    exif[0x0112] = 3
    turned.save(tmp_path / "k/4_turned.png", exif=exif)
    folder = ImageFolder(tmp_path, 16)
    clear, deep, palette, upright = (folder.load(i) for i in range(4))
    assert (clear == 255).all() and (deep == 128).all() and palette.shape == (3, 16, 16)
    assert (upright[1, :6] == 255).all() and (upright[1, 10:] == 0).all()
