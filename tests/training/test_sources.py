"""One's own pictures as a generator's and as a codec's data: what is read, held out, skipped and said."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from girih.tokenizers.image import ImageTokenizer
from girih.training.sources import FolderSource
from girih.training.tokenizer import Drawings

SIZE = 16


@pytest.fixture
def codec() -> ImageTokenizer:
    torch.manual_seed(0)
    return ImageTokenizer(sample_size=SIZE, encoder_widths=[8, 8], decoder_widths=[8, 8, 8], z_channels=8).eval()


def paint(folder: Path, count: int, captions: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        Image.new("RGB", (20, 20), (10 * i % 256, 40, 200)).save(folder / f"{i:02d}.png")
        if captions:
            (folder / f"{i:02d}.txt").write_text(f"picture {i}")


def test_a_folder_gives_tokens_and_captions_and_holds_one_in_twenty_out(tmp_path, codec):
    paint(tmp_path, 41, captions=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        source = FolderSource(tmp_path, codec)
    assert source.tokens.shape == (39, 2, 2) and len(source.texts()) == 39
    assert [caption for _, caption in source.held_out] == ["picture 19", "picture 39"]
    image = torch.from_numpy(np.array(Image.open(tmp_path / "20.png").resize((SIZE, SIZE)))).permute(2, 0, 1)
    place = source.texts().index("picture 20")
    assert torch.equal(torch.from_numpy(source.tokens[place]).long(), codec.encode(image[None] / 127.5 - 1)[0])
    assert source.caption(place, np.random.default_rng(0)) == "picture 20"


def test_a_folder_says_what_it_skips(tmp_path, codec):
    paint(tmp_path, 5, captions=True)
    (tmp_path / "01.txt").unlink()
    (tmp_path / "02.png").write_bytes(b"no picture")
    with pytest.warns(UserWarning, match="skipped 1 without a caption, 1 unreadable pictures"):
        source = FolderSource(tmp_path, codec)
    assert source.texts() == ["picture 0", "picture 3", "picture 4"]


@pytest.mark.parametrize("names", ["", "metadata.csv"])
def test_bare_pictures_are_enough_for_a_codec(tmp_path, names):
    paint(tmp_path, 3, captions=False)
    paint(tmp_path / "more", 2, captions=True)
    if names:  # captions play no part, not even broken ones
        (tmp_path / names).write_text("title\nx\n")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.warns(UserWarning, match="skipped 1 unreadable pictures"):
        drawings = Drawings.open(tmp_path, SIZE)
    assert drawings.rgba.shape == (5, SIZE, SIZE, 4) and "more/01.png" in drawings.concepts


def test_a_folder_without_a_picture_is_refused(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"no picture that can be read in .* \(1 unreadable pictures\)"):
        Drawings.open(tmp_path, SIZE)
