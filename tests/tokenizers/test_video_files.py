"""Videos come back as they were written, and what is no whole video is said in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

av = pytest.importorskip("av")

from girih.tokenizers.video_files import WRITERS, Video, read_video, write_video  # noqa: E402


def moving(frames: int = 12, height: int = 48, width: int = 64) -> torch.Tensor:
    """A bright square on a dark gradient, moving right: uint8 [T, 3, H, W]."""
    clip = torch.linspace(20, 90, width).expand(frames, 3, height, width).clone()
    for t in range(frames):
        clip[t, 0, 10:26, 2 + 3 * t : 18 + 3 * t] = 230
    return clip.round().to(torch.uint8)


@pytest.mark.parametrize("suffix", list(WRITERS))
def test_round_trip(suffix: str, tmp_path: Path) -> None:
    clip, path = moving(), tmp_path / f"clip{suffix}"
    write_video(path, clip, fps=10)
    video = read_video(path)
    assert video.frames.shape == clip.shape and video.fps == pytest.approx(10, rel=0.01)
    error = (video.frames.float() - clip.float()).square().mean()
    assert 10 * torch.log10(255**2 / error) > 28  # dB
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_sizes_lengths_and_float_frames(tmp_path: Path) -> None:
    clip = moving(7, 33, 45)
    write_video(tmp_path / "odd.mp4", clip.float() / 255 * 1.2 - 0.05, fps=29.97)
    video = read_video(tmp_path / "odd.mp4", max_frames=4)
    assert video.frames.shape == (4, 3, 33, 45) and video.fps == pytest.approx(29.97, rel=0.01)
    small = read_video(tmp_path / "odd.mp4", size=16)
    assert small.frames.shape == (7, 3, 16, 16)
    whole = read_video(tmp_path / "odd.mp4").clip(16)
    assert whole.shape == (1, 7, 3, 16, 16) and 0 <= whole.min() and whole.max() <= 1
    torch.testing.assert_close(small.frames[None].float() / 255, whole, atol=0.6 / 255, rtol=0)


def test_the_middle_square_is_kept() -> None:
    frames = torch.zeros(1, 3, 10, 30, dtype=torch.uint8)
    frames[..., 10:20] = 255
    assert (Video(frames, 1.0).clip(5) == 1).all()


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.8])
def test_cut_files_are_refused_in_one_line(suffix: str, share: float, tmp_path: Path) -> None:
    path = tmp_path / f"clip{suffix}"
    noise = torch.randint(0, 255, (30, 3, 64, 64), dtype=torch.uint8)
    write_video(path, noise)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ValueError, match="cut short|no frame|no video") as caught:
        read_video(path)
    assert "\n" not in str(caught.value) and path.name in str(caught.value)


def test_what_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_video(path)
    for content in (b"", b"hello " * 100, bytes(5000)):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="a.mp4 is not a video, or is cut short"):
            read_video(path)
    with av.open(str(tmp_path / "sound.mkv"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        sound = av.AudioFrame(format="s16", layout="mono", samples=800)
        sound.sample_rate = 8000
        container.mux([packet for frame in (sound, None) for packet in stream.encode(frame)])
    with pytest.raises(ValueError, match="sound.mkv holds no video stream"):
        read_video(tmp_path / "sound.mkv")


def test_bad_arguments(tmp_path: Path) -> None:
    clip = moving(2)
    with pytest.raises(ValueError, match="unknown video suffix '.mp5'; did you mean '.mp4'"):
        write_video(tmp_path / "a.mp5", clip)
    with pytest.raises(ValueError, match=r"frames are \[2, 48, 64\]"):
        write_video(tmp_path / "a.mp4", clip[:, 0])
    with pytest.raises(ValueError, match="not empty"):
        write_video(tmp_path / "a.mp4", clip[:0])
    with pytest.raises(ValueError, match="not finite"):
        write_video(tmp_path / "a.mp4", clip.float() * float("nan"))
    with pytest.raises(ValueError, match="fps is 0"):
        write_video(tmp_path / "a.mp4", clip, fps=0)
    with pytest.raises(ValueError, match="max_frames 0"):
        write_video(tmp_path / "a.mp4", clip)
        read_video(tmp_path / "a.mp4", max_frames=0)
    assert [file.name for file in tmp_path.iterdir()] == ["a.mp4"]


def test_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "a.mp4", moving())
    monkeypatch.setattr("girih.tokenizers.video_files.MAX_BYTES", 50_000)
    with pytest.raises(ValueError, match="read fewer"):
        read_video(tmp_path / "a.mp4")
    assert read_video(tmp_path / "a.mp4", size=16).frames.shape[0] == 12


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fuzz") / "clip.mp4"
    write_video(path, moving())
    return path


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=20))
@settings(max_examples=50)
def test_damaged_files_are_read_or_refused(encoded: Path, damage: list[tuple[int, int]]) -> None:
    content = bytearray(encoded.read_bytes())
    for place, value in damage:
        content[place % len(content)] = value
    path = encoded.with_name("damaged.mp4")
    path.write_bytes(content)
    try:
        assert read_video(path, max_frames=64).frames.ndim == 4
    except ValueError as error:
        assert "\n" not in str(error)
