"""The catalog finds models in the package first, then in the checkout, and names the nearest for a name it lacks."""

import json
from pathlib import Path

import pytest

from girih import catalog


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    both = (tmp_path / "package", tmp_path / "checkout")
    monkeypatch.setattr(catalog, "_PLACES", both)
    return both


def add(place: Path, name: str, size: int = 10) -> Path:
    folder = place / name
    folder.mkdir(parents=True)
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "ImagePipeline"}))
    (folder / "weights.safetensors").write_bytes(b"0" * size)
    return folder


def test_the_installed_package_comes_first(places: tuple[Path, Path]) -> None:
    package, checkout = places
    inside = add(package, "image")
    add(checkout, "image")
    outside = add(checkout, "image-64")
    assert catalog.models() == {"image": inside, "image-64": outside}
    assert catalog.find("image-64") == outside


def test_a_folder_without_an_index_is_no_model(places: tuple[Path, Path]) -> None:
    (places[1] / "notes").mkdir(parents=True)
    assert catalog.models() == {}


def test_unknown_model_names_the_nearest(places: tuple[Path, Path]) -> None:
    add(places[1], "image")
    with pytest.raises(ValueError, match="unknown model 'imge'; did you mean 'image'"):
        catalog.find("imge")


def test_description(places: tuple[Path, Path]) -> None:
    folder = add(places[1], "image", size=2_000_000)
    assert catalog.describe() == [catalog.ShippedModel("image", "ImagePipeline", 2.0, folder)]


@pytest.mark.parametrize("name", sorted(catalog.models()))
def test_shipped_models_are_small_safetensors(name: str) -> None:
    files = [file for file in catalog.find(name).rglob("*") if file.is_file()]
    assert max(file.stat().st_size for file in files) <= 15_000_000
    assert sum(file.stat().st_size for file in files) <= 40_000_000
    assert not [file for file in files if file.suffix in {".bin", ".pt", ".ckpt", ".pkl"}]
