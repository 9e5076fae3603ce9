"""Sound files: any rate and channels, notes on what was found, one clear line for what cannot be read."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from girih.tokenizers.audio import files

soundfile = pytest.importorskip("soundfile")
pytest.importorskip("scipy")


def tone(samples=4000, rate=8000, hertz=440.0, channels=1):
    wave = 0.5 * torch.sin(2 * math.pi * hertz * torch.arange(samples) / rate)
    return wave.expand(channels, -1).clone()


def test_wav_and_flac_keep_16_bits_and_ogg_the_length(tmp_path):
    for ending, error in ((".wav", 2**-15), (".flac", 2**-15), (".ogg", 0.1)):
        path = tmp_path / f"tone{ending}"
        files.write(path, tone(channels=2), 8000)
        sound = files.read(path)
        assert sound.wave.shape == (2, 4000) and sound.wave.dtype == torch.float32 and sound.notes == ()
        assert sound.sampling_rate == 8000 and sound.seconds == 0.5
        assert float((sound.wave - tone(channels=2)).abs().max()) <= error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tone.flac", "tone.ogg", "tone.wav"]


def test_what_is_too_loud_is_cut_when_written(tmp_path):
    files.write(tmp_path / "loud.wav", 3 * tone(), 8000)
    assert 0.99 < float(files.read(tmp_path / "loud.wav").wave.abs().max()) <= 1


@given(st.sampled_from([8000, 11025, 16000, 22050, 44100, 48000]), st.sampled_from([8000, 16000, 24000, 44100]))
def test_resampling_keeps_tone_and_duration(rate, wanted):
    hertz = 700.0
    made = files.resample(tone(rate // 2, rate, hertz), rate, wanted)
    assert made.shape == (1, math.ceil(rate // 2 * wanted / rate))
    right = tone(made.shape[1], wanted, hertz)
    edge = wanted // 50
    assert float((made - right)[:, edge:-edge].abs().max()) < 5e-3


def test_rate_and_channels_change_with_a_note(tmp_path):
    path = tmp_path / "eight.wav"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, (4000, 8)), 8000)
    sound = files.read(path, sampling_rate=24000, channels=1)
    assert sound.wave.shape == (1, 12000)
    assert sound.notes == (
        "8 channels mixed down to 1",
        "resampled from 8000 to 24000 Hz, holds nothing above 4000 Hz",
    )
    torch.testing.assert_close(files.read(path, channels=1).wave, files.read(path).wave.mean(0, keepdim=True))
    stereo = files.convert(tone(), 8000, channels=2)
    assert stereo.wave.shape == (2, 4000) and stereo.notes == ()
    assert "nothing left above 4000 Hz" in files.convert(tone(rate=16000), 16000, 8000).notes[0]
    with pytest.raises(ValueError, match="channels must be 1 or more, got 0"):
        files.convert(tone(), 8000, channels=0)


@pytest.mark.parametrize(
    ("wave", "note"),
    [
        (torch.zeros(1, 100), "silent"),
        (3 * tone(), "peak 1.5 is above full scale"),
        ((3 * tone()).clamp(-1, 1), "clipped"),
        (tone(), None),
        (2 * tone(), None),  # touches full scale, stays nowhere
        (torch.tensor([[0.0]]), "silent"),
    ],
)
def test_levels_are_noted_not_refused(wave, note):
    notes = files.convert(wave, 8000).notes
    assert notes == () if note is None else len(notes) == 1 and notes[0].startswith(note)


def bad_files(folder):
    soundfile.write(folder / "empty.wav", np.zeros((0, 1)), 8000)
    soundfile.write(folder / "nan.wav", np.array([0, 1, np.nan], np.float32), 8000, subtype="FLOAT")
    soundfile.write(folder / "inf.wav", np.array([[0, 0], [0, np.inf]], np.float32), 8000, subtype="FLOAT")
    soundfile.write(folder / "slow.wav", np.zeros(10), 10)
    (folder / "text.wav").write_text("this is no sound")
    (folder / "nothing.flac").write_bytes(b"")
    files.write(folder / "whole.flac", tone(), 8000)
    (folder / "half.flac").write_bytes((folder / "whole.flac").read_bytes()[:900])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("empty.wav", "holds 0 samples"),
        ("nan.wav", "sample 2 of channel 0 is nan"),
        ("inf.wav", "sample 1 of channel 1 is inf"),
        ("slow.wav", "1000 to 1000000 Hz, got 10"),
        ("text.wav", "is not a sound file"),
        ("nothing.flac", "is not a sound file"),
        ("half.flac", "broken"),
    ],
)
def test_bad_files_are_one_clear_line(name, message, tmp_path):
    bad_files(tmp_path)
    with pytest.raises(ValueError, match=message) as caught:
        files.read(tmp_path / name, 16000, 1)
    assert "\n" not in str(caught.value) and name in str(caught.value)


def test_missing_and_too_long_files(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"none\.wav does not exist"):
        files.read(tmp_path / "none.wav")
    files.write(tmp_path / "tone.wav", tone(), 8000)
    monkeypatch.setattr(files, "MAX_SAMPLES", 5000)
    with pytest.raises(ValueError, match="more than 5000"):
        files.read(tmp_path / "tone.wav", 48000)
    monkeypatch.setattr(files, "MAX_SAMPLES", 100)
    with pytest.raises(ValueError, match="holds 4000 samples of 1 channels, more than 100"):
        files.read(tmp_path / "tone.wav")


@pytest.mark.parametrize(
    ("name", "wave", "message"),
    [
        ("x.mp4", tone(), r"not '\.mp4'"),
        ("x", tone(), "not 'x'"),
        ("x.flac", tone(channels=9), "cannot hold 9 channels"),
        ("x.wav", tone()[0], r"\[channels, samples\]"),
        ("x.wav", tone()[:, :0], "0 samples"),
        ("x.wav", tone() * math.nan, "is nan"),
    ],
)
def test_what_cannot_be_written_leaves_no_file(name, wave, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        files.write(tmp_path / name, wave, 8000)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", [".wav", ".flac", ".ogg"])
def test_broken_bytes_give_a_sound_or_a_clear_error(ending, tmp_path):
    fuzz(ending, tmp_path, 50)


@pytest.mark.slow
@pytest.mark.parametrize("ending", [".wav", ".flac", ".ogg"])
def test_many_broken_bytes(ending, tmp_path):
    fuzz(ending, tmp_path, 2000)


def fuzz(ending, folder, count):
    random, path = np.random.default_rng(0), folder / f"broken{ending}"
    files.write(path, tone(3000), 8000)
    good = path.read_bytes()
    for _ in range(count):
        content = bytearray(good[: random.integers(1, len(good) + 1)] if random.random() < 0.3 else good)
        for _ in range(random.integers(1, 6)):  # most in the header, where they hurt
            content[random.integers(min(len(content), 60 if random.random() < 0.7 else 10**9))] = random.integers(256)
        path.write_bytes(content)
        try:
            sound = files.read(path, 16000, 1)
            assert sound.wave.shape[0] == 1 and bool(torch.isfinite(sound.wave).all())
        except ValueError as error:
            assert "\n" not in str(error)
