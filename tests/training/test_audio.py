"""The audio codec's objective: sounds made by code, losses, one's own folder, and a short real training."""

import json
import math

import numpy as np
import pytest
import torch

import girih
from girih.tokenizers.audio import files
from girih.training import audio
from girih.training.audio import AudioObjective, LossWeights, MadeSounds, SoundFolder, si_sdr, spectral_distance
from girih.training.recipe import load_recipe, train

SMALL = {
    "sampling_rate": 8000, "encoder_hidden_size": 2, "downsampling_ratios": [4, 8], "decoder_hidden_size": 8,
    "n_codebooks": 2, "codebook_size": 16, "codebook_dim": 4,
}  # fmt: skip
WINDOWS = [256, 64]


def objective(sounds=None):
    codec = girih.AudioTokenizer(codec="dac", settings=SMALL)
    return AudioObjective(codec, sounds or MadeSounds(1024, 8000), LossWeights(windows=WINDOWS))


@pytest.mark.parametrize("maker", audio.MAKERS, ids=lambda maker: maker.__name__)
@pytest.mark.parametrize("rate", [8000, 44100])
def test_made_sounds_are_sounds(maker, rate):
    for seed in range(20):
        wave = maker(np.random.default_rng(seed), np.arange(rate // 2) / rate, rate)
        assert wave.shape == (rate // 2,) and np.isfinite(wave).all() and np.abs(wave).max() > 0.01


def test_batches_are_a_function_of_seed_step_and_process_and_leave_out_the_held_out():
    first, second = objective(), objective()
    for step, process in ((0, 0), (5, 1)):
        assert torch.equal(first.batch(step, process, 3)["wave"], second.batch(step, process, 3)["wave"])
    one = first.batch(0, 0, 4)["wave"]
    assert one.shape == (4, 1, 1024) and 0.05 < float(one.abs().amax((1, 2)).min())
    assert float(one.abs().max()) < 0.95
    assert not torch.equal(one, first.batch(1, 0, 4)["wave"]) and not torch.equal(one, first.batch(0, 1, 4)["wave"])
    assert not any(torch.equal(row, held) for row in one for held in first.held_out)
    second.seed = 1
    assert not torch.equal(one, second.batch(0, 0, 4)["wave"])


def test_spectral_distance_is_zero_for_the_same_and_hears_pitch_and_loudness():
    t = torch.arange(4000) / 8000
    real, other = (0.5 * torch.sin(2 * math.pi * hertz * t)[None, None] for hertz in (440, 660))
    late = torch.roll(real, 4, -1)
    assert float(spectral_distance(real, real, WINDOWS)) == 0
    shifted, retuned = (float(spectral_distance(made, real, WINDOWS)) for made in (late, other))
    assert shifted < 0.25 < 0.5 < retuned
    quieter, quietest = (float(spectral_distance(real * gain, real, WINDOWS)) for gain in (0.5, 0.1))
    assert 0 < quieter < quietest
    silence = torch.zeros_like(real, requires_grad=True)
    spectral_distance(silence, real, WINDOWS).backward()
    assert torch.isfinite(silence.grad).all()


def test_si_sdr_ignores_loudness_and_counts_noise():
    torch.manual_seed(0)
    real, noise = torch.randn(2, 1, 8000), torch.randn(2, 1, 8000)
    assert float(si_sdr(3 * real, real).min()) > 60
    assert si_sdr(real + 0.1 * noise, real).tolist() == pytest.approx([20, 20], abs=0.5)


def test_folders_of_sounds_are_cropped_and_some_held_out(tmp_path):
    for i in range(10):
        rate, channels = (8000, 1) if i % 2 else (16000, 2)
        wave = torch.full((channels, 600 if i == 3 else 4000), (i + 1) / 20)
        files.write(tmp_path / f"{i}.{'flac' if i < 5 else 'wav'}", wave, rate)
    (tmp_path / "readme.txt").write_text("no sound")
    sounds = SoundFolder(tmp_path, 1024, 8000)
    assert len(sounds.waves) == 8 and sounds.held_out().shape == (2, 1024)
    trained = objective(sounds)
    batch = trained.batch(0, 0, 50)["wave"]
    assert batch.shape == (50, 1, 1024)
    drawn = {round(20 * float(level)) for level in batch.amax((1, 2))}
    held = {round(20 * float(level)) for level in trained.held_out.amax((1, 2))}
    assert not drawn & held and len(drawn) == 8


def test_a_few_steps_make_a_codec(tmp_path):
    recipe = tmp_path / "small.toml"
    recipe.write_text(
        'objective = "audio"\n[train]\nsteps = 6\nbatch_size = 2\neval_every = 6\nsample_every = 6\nlr = 1e-2\n'
        f"[data]\nseconds = 0.1\n[loss]\nwindows = {WINDOWS}\n[codec]\n"
        + "".join(f"{name} = {value}\n" for name, value in SMALL.items())
    )
    report = train(str(recipe), out=str(tmp_path / "out"))
    lines = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert report["step"] == 6 and report["spectral"] == lines[-1]["eval/spectral"]
    assert 0 < report["codes_used"] <= 1 <= report["perplexity"] <= 16
    assert (tmp_path / "out" / "samples" / "0000006.png").is_file()
    codec = girih.AudioTokenizer.from_pretrained(tmp_path / "out" / "codec").float()
    assert codec.encode(torch.zeros(1, 1, 100)).shape == (1, 2, 4)
    again = AudioObjective.from_recipe({**load_recipe(str(recipe)), "init": str(tmp_path / "out")})
    assert torch.equal(again.codec.coder.model.decoder.conv1.weight, codec.coder.model.decoder.conv1.weight)
    again.train()(again.batch(0, 0, 2))  # its codes stay where they were
    books = [one.coder.model.quantizer.quantizers[0].codebook.weight for one in (again.codec, codec)]
    assert torch.equal(*books)


def test_idle_codes_move_to_where_frames_are():
    trained = objective().train()
    batch = trained.batch(0, 0, 4)
    codes = trained.codec.coder.model.quantizer.quantizers[1].codebook.weight
    before = codes.clone()
    trained(batch)
    assert not torch.equal(codes, before)  # at the first step all of them
    used = int((trained.idle[1] == 0).sum())
    assert 0 < used and int(trained.idle.max()) <= 1
    before = codes.clone()
    trained.idle[1, 3], trained.idle[1, 5] = audio.REVIVE, audio.REVIVE - 1
    trained(batch)
    assert (codes != before).any(1).tolist() == [row == 3 for row in range(16)]


@pytest.mark.slow
def test_two_minutes_on_a_cpu_beat_the_recorded_floor(tmp_path):
    """8 kHz, 250 frames/s, 8 kbit/s: less compression than the recipe's own, so that little training shows. Recorded on
    a slow core: 41 s of CPU time; spectral distance 0.84, with one codebook 1.03, of silence 1.20."""
    settings = [
        "minutes=0", "steps=400", "train.ema=0.98", "train.floor=0.1", "eval_every=200", "sample_every=400",
        "seconds=0.256", "windows=[512, 128]", "sampling_rate=8000", "downsampling_ratios=[4, 8]",
        "decoder_hidden_size=32",
    ]  # fmt: skip
    report = train("audio-tokenizer", out=str(tmp_path), settings=settings)
    assert report["spectral"] < 0.95 < report["spectral_1_codebook"] < report["spectral_of_silence"]
    assert report["codes_used"] > 0.8


def test_bad_data_and_codecs_are_one_clear_line(tmp_path):
    with pytest.raises(ValueError, match="is not a folder"):
        SoundFolder(tmp_path / "none", 100, 8000)
    with pytest.raises(ValueError, match="holds 0 sound files"):
        SoundFolder(tmp_path, 100, 8000)
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    with pytest.raises(ValueError, match=r"a\.wav is not a sound file"):
        SoundFolder(tmp_path, 100, 8000)
    with pytest.raises(ValueError, match="'firefly' cannot be trained here"):
        AudioObjective(girih.AudioTokenizer.from_config(_firefly()), MadeSounds(1024, 8000), LossWeights())
    with pytest.raises(ValueError, match="shorter than the windows"):
        AudioObjective(girih.AudioTokenizer(codec="dac", settings=SMALL), MadeSounds(500, 8000), LossWeights())
    with pytest.raises(ValueError, match="did you mean 'n_codebooks'"):
        AudioObjective.from_recipe({"codec": {"n_codebook": 3}})


def _firefly():
    generator = {"channels": 4, "rates": [8], "rate_kernels": [8], "kernels": [3], "dilations": [[1]]}
    settings = {"n_fft": 32, "mel_hop": 8, "bins": 2, "depths": [1], "widths": [8], "generator": generator}
    return {"codec": "firefly", "settings": settings}
