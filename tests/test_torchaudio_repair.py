"""torchaudio, transformers and diffusers import side by side, whether or not torchaudio's compiled part loads."""

import subprocess
import sys
from pathlib import Path

import pytest

ORDERS = {
    "torchaudio first": "import girih, torchaudio",
    "torchaudio failed before girih": (
        "try:\n    import torchaudio\nexcept (OSError, RuntimeError):\n    pass\nimport girih, torchaudio"
    ),
    "transformers first": "import transformers, girih",
}


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("order", ORDERS)
def test_transformers_and_diffusers_import_beside_torchaudio(order: str) -> None:
    pytest.importorskip("torchaudio")
    run(f"{ORDERS[order]}\nfrom transformers import MusicgenForCausalLM\nfrom diffusers import DiffusionPipeline")


def test_the_python_part_of_torchaudio_works() -> None:
    pytest.importorskip("torchaudio")
    code = (
        "import girih, math, torch, torchaudio\n"
        "wave = torch.sin(2 * math.pi * 440 * torch.arange(16000) / 16000)\n"
        "up = torchaudio.functional.resample(wave, 16000, 24000)\n"
        "want = torch.sin(2 * math.pi * 440 * torch.arange(24000) / 24000)\n"
        "print(float((up - want)[1000:-1000].abs().max()))"
    )
    assert float(run(code)) < 1e-3


def fake_torchaudio(folder: Path, body: str) -> None:
    """A package of torchaudio's shape whose compiled part runs `body`."""
    package = folder / "torchaudio"
    (package / "_extension").mkdir(parents=True)
    (package / "_extension" / "__init__.py").write_text(body)
    (package / "__init__.py").write_text(
        "from torchaudio._extension import _IS_TORCHAUDIO_EXT_AVAILABLE, fail_if_no_align\n"
        "@fail_if_no_align\ndef forced_align(): return 'aligned'\n"
    )


@pytest.mark.parametrize("error", ["OSError('libc10_cuda.so')", "ImportError('symbol')", "RuntimeError('CUDA 12, 13')"])
def test_a_compiled_part_that_fails_is_replaced(tmp_path: Path, error: str) -> None:
    fake_torchaudio(tmp_path, f"raise {error}")
    out = run(
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\nimport girih, torchaudio\n"
        "print(torchaudio._IS_TORCHAUDIO_EXT_AVAILABLE)\n"
        "try: torchaudio.forced_align()\nexcept RuntimeError as error: print(error)"
    )
    assert out.splitlines()[0] == "False"
    assert "forced_align needs torchaudio's compiled library" in out


def test_a_compiled_part_that_loads_is_left_alone(tmp_path: Path) -> None:
    fake_torchaudio(tmp_path, "_IS_TORCHAUDIO_EXT_AVAILABLE = True\ndef fail_if_no_align(function): return function\n")
    path = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
    assert run(f"{path}import girih, torchaudio\nprint(torchaudio.forced_align())").strip() == "aligned"
