"""`girih.load`: what a name may stand for, one line for what it may not, and nothing said when all is well."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from diffusers.utils import logging

import girih
from tests.pipelines.tiny import make_components, make_pipeline


@pytest.mark.parametrize(("name", "message"), [
    ("./missing", "no such folder: ./missing"),
    ("/no/where/at all", "no such folder: /no/where/at all"),
    ("missing/", "no such folder: missing/"),
    ("some/deep/place", "no such folder: some/deep/place"),
    ("owner/name", "owner/name is no folder here, and as a hub id it cannot be loaded: "),
    ("imag", "unknown model 'imag'; did you mean 'image'?"),
])
def test_what_is_not_there_is_named(name, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError) as raised:
        girih.load(name)
    assert str(raised.value).startswith(message) and "\n" not in str(raised.value)


def test_a_file_or_an_empty_folder_is_no_model(tmp_path):
    (tmp_path / "weights.pt").write_bytes(b"0")
    with pytest.raises(ValueError, match="weights.pt is a file: a model is a folder"):
        girih.load(tmp_path / "weights.pt")
    with pytest.raises(ValueError, match="holds no model: neither model_index.json nor config.json"):
        girih.load(tmp_path)


def test_loading_says_nothing(tmp_path, capfd):
    make_pipeline().save_pretrained(tmp_path / "pipe")
    make_components()["codec"].save_pretrained(tmp_path / "codec")
    verbosity = logging.get_verbosity()
    logging.set_verbosity_warning()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            girih.load(tmp_path / "pipe")
            girih.load(tmp_path / "codec")
    finally:
        logging.set_verbosity(verbosity)
        logging.enable_progress_bar()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("option", ["dtype", "torch_dtype"])
def test_the_dtype_by_either_of_its_names(option, tmp_path):
    make_pipeline().save_pretrained(tmp_path)
    assert girih.load(Path(tmp_path)).generator.dtype == torch.float32
    found = girih.load(tmp_path, **{option: torch.bfloat16})
    assert {found.codec.dtype, found.generator.dtype, found.text_encoder.dtype} == {torch.bfloat16}


@pytest.mark.parametrize("part", ["", "generator", "text_encoder"])
def test_pickled_weights_are_not_read(part, tmp_path):
    if part:
        make_pipeline().save_pretrained(tmp_path)
        for file in (tmp_path / part).glob("*.safetensors"):
            file.unlink()
    make_components()["codec" if not part else part].save_pretrained(tmp_path / part, safe_serialization=False)
    with pytest.raises(ValueError, match="cannot be loaded: .*safetensors") as raised:
        girih.load(tmp_path)
    assert "\n" not in str(raised.value)
