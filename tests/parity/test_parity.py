"""The recorded cases hold: those in the repository always, all known ones under $GIRIH_PARITY where that is set."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
from run import FAMILIES, compare, family_of, run_case  # noqa: E402

PLACES = [HERE / "cases", *([Path(os.environ["GIRIH_PARITY"])] if os.environ.get("GIRIH_PARITY") else [])]
CASES = [folder for place in PLACES for folder in sorted(place.iterdir()) if family_of(folder)]


@pytest.mark.parametrize("folder", CASES, ids=lambda folder: f"{folder.parent.name}-{folder.name}")
def test_recorded_case_holds(folder: Path) -> None:
    if FAMILIES[family_of(folder)].alone:
        done = subprocess.run([sys.executable, str(HERE / "run.py"), str(folder)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return
    _, compared = run_case(folder)
    assert compared
    assert [one for one in compared if not one.holds] == []


@pytest.mark.parametrize("name", ["llamagen_vq", "llamagen_gpt_c2i", "llamagen_gpt_t2i"])
def test_disturbed_expectations_fail(name: str, tmp_path: Path) -> None:
    folder = shutil.copytree(HERE / "cases" / name, tmp_path / name)
    recorded = load_file(folder / "io.safetensors")
    _, compared = run_case(folder)
    for one in compared[::2]:  # every other output; the rest must go on holding
        flat = recorded[one.name].flatten()
        flat[-1] += 1 if one.tolerance == "exact" else 0.05
        recorded[one.name] = flat.reshape(recorded[one.name].shape)
    save_file(recorded, folder / "io.safetensors")
    failed = [other.name for other in run_case(folder)[1] if not other.holds]
    assert failed == [one.name for one in compared[::2]]


def test_outputs_do_not_depend_on_what_was_recorded(tmp_path: Path) -> None:
    folder = shutil.copytree(HERE / "cases" / "llamagen_gpt_c2i", tmp_path / "llamagen_gpt_c2i_other")
    recorded = load_file(folder / "io.safetensors")
    save_file({**recorded, "logits": recorded["logits"] * 0}, folder / "io.safetensors")
    made, _ = run_case(folder)
    again, _ = run_case(HERE / "cases" / "llamagen_gpt_c2i")
    assert bool((made["logits"] == again["logits"]).all())


def test_command_says_what_it_did(tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, str(HERE / "run.py"), *arguments], capture_output=True, text=True)

    done = run(str(HERE / "cases" / "llamagen_gpt_c2i"), "--out", str(tmp_path / "out.safetensors"))
    assert done.returncode == 0 and "logits" in done.stdout
    assert "greedy_cfg" in load_file(tmp_path / "out.safetensors")
    (tmp_path / "unheard_of").mkdir()
    assert run(str(tmp_path / "unheard_of")).returncode == 2


def test_tolerances() -> None:
    import torch

    recorded = torch.tensor([1.0, 100.0])
    assert compare("x", recorded + 0.01, recorded, "atol 0.02").holds
    assert not compare("x", recorded + 0.03, recorded, "atol 0.02").holds
    assert compare("x", recorded * 1.001, recorded, "rtol 1e-2").holds
    assert not compare("x", recorded * 1.001, recorded, "exact").holds
    assert not compare("x", recorded * float("nan"), recorded, "atol 1").holds
    with pytest.raises(ValueError, match="not understood"):
        compare("x", recorded, recorded, "roughly")
