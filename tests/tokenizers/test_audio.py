"""The audio tokenizer over its three codecs: shapes, laws, saving, what it refuses."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import girih
from girih.checkpoints import fish_speech, transformers_codecs
from girih.tokenizers.audio.grouped import StridedScalarQuantizer

SETTINGS = {
    "encodec": {
        "sampling_rate": 8000, "num_filters": 2, "hidden_size": 8, "upsampling_ratios": [5, 2], "codebook_size": 16,
        "num_lstm_layers": 1, "target_bandwidths": [6.4, 16.0],
    },
    "dac": {
        "sampling_rate": 8000, "encoder_hidden_size": 2, "downsampling_ratios": [2, 4], "decoder_hidden_size": 16,
        "n_codebooks": 3, "codebook_size": 16, "codebook_dim": 4,
    },
    "firefly": {
        "sampling_rate": 8000, "n_fft": 64, "mel_hop": 16, "bins": 10, "depths": [1, 1], "widths": [8, 16], "kernel": 3,
        "quantizer": {"groups": 2, "factors": [2], "depth": 2},
        "generator": {
            "channels": 16, "rates": [4, 4], "rate_kernels": [8, 8], "kernels": [3], "dilations": [[1, 3]],
            "pre_kernel": 5, "post_kernel": 5,
        },
    },
}  # fmt: skip
CHUNKED = {**SETTINGS["encodec"], "audio_channels": 2, "normalize": True, "chunk_length_s": 0.05, "overlap": 0.1,
           "norm_type": "time_group_norm", "use_causal_conv": False}  # fmt: skip


def make(codec, settings=None, **options):
    """A small codec whose random weights use their codes."""
    torch.manual_seed(3)
    tokenizer = girih.AudioTokenizer(codec=codec, settings=settings or SETTINGS[codec], **options).eval()
    if codec == "encodec":
        for layer in tokenizer.coder.model.quantizer.layers:
            layer.codebook.embed.normal_()
    for parameter in tokenizer.parameters():
        parameter.data += (0.2 if codec == "dac" else 0.05) * torch.randn_like(parameter)
    return tokenizer


CODECS = {codec: make(codec) for codec in SETTINGS}


def wave(samples, batch=1, channels=1):
    return torch.rand(batch, channels, samples) - 0.5


@given(st.sampled_from(sorted(SETTINGS)), st.integers(1, 700), st.integers(1, 2))
def test_any_length_becomes_whole_frames_and_comes_back(codec, samples, batch):
    tokenizer = CODECS[codec]
    with torch.no_grad():
        tokens = tokenizer.encode(wave(samples, batch))
        frames = math.ceil(samples / tokenizer.hop_length)
        assert tokens.shape == (batch, tokenizer.codebooks, frames) and tokens.dtype == torch.long
        assert 0 <= int(tokens.min()) <= int(tokens.max()) < tokenizer.spec.vocab_size
        assert tokenizer.decode(tokens).shape == (batch, 1, frames * tokenizer.hop_length)
        assert tokenizer(wave(samples, batch)).sample.shape == (batch, 1, samples)


@pytest.mark.parametrize("codec", SETTINGS)
def test_rows_do_not_depend_on_their_batch(codec):
    tokenizer, waves = CODECS[codec], wave(320, 3)
    with torch.no_grad():
        together = tokenizer.encode(waves)
        assert torch.equal(torch.cat([tokenizer.encode(one[None]) for one in waves]), together)
    assert len(together.unique()) > 3


@pytest.mark.parametrize("codec", ["encodec", "dac"])
def test_fewer_codebooks_are_the_leading_ones(codec):
    tokenizer, sound = CODECS[codec], wave(200)
    with torch.no_grad():
        everything = tokenizer.encode(sound)
        for count in range(1, tokenizer.codebooks + 1):
            few = tokenizer.encode(sound, count)
            assert torch.equal(few, everything[:, :count])
            assert tokenizer.decode(few).shape == tokenizer.decode(everything).shape
    assert make(codec, codebooks=2).encode(sound).shape[1] == 2


def test_more_codebooks_of_a_residual_quantizer_come_nearer():
    tokenizer = CODECS["encodec"]
    book = tokenizer.coder.model.quantizer.layers
    features = torch.randn(1, 8, 50)
    with torch.no_grad():
        for level, layer in enumerate(book):
            layer.codebook.embed.normal_().mul_(0.6**level)
        codes = tokenizer.coder.model.quantizer.encode(features).movedim(0, 1)
        error = [(tokenizer.lookup(codes[:, : n + 1]) - features).square().mean() for n in range(len(book))]
    assert error[-1] < error[1] < error[0]


def test_bandwidth_and_spec():
    tokenizer = CODECS["encodec"]  # 800 frames/s of 4 bits: 3.2 kbit/s a codebook
    assert tokenizer.codebooks == 5 and tokenizer.bandwidth == pytest.approx(16.0)
    assert [tokenizer.codebooks_at(rate) for rate in (0.1, 3.2, 6.5, 16, 999)] == [1, 1, 2, 5, 5]
    assert tokenizer.spec.shape == (5, 800) and make("dac", sample_size=81).spec.shape == (3, 11)
    with pytest.raises(ValueError, match="above 0"):
        tokenizer.codebooks_at(0)
    with pytest.raises(ValueError, match="codebooks must be 4 to 4"):
        CODECS["firefly"].codebooks_at(1e-3)


@pytest.mark.parametrize("codec", SETTINGS)
def test_saved_and_loaded_it_is_the_same(codec, tmp_path):
    tokenizer, sound = make(codec, sample_size=333), wave(333)
    tokenizer.save_pretrained(tmp_path)
    loaded = girih.AudioTokenizer.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        tokens = tokenizer.encode(sound)
        assert torch.equal(loaded.encode(sound), tokens)
        assert torch.equal(loaded.decode(tokens), tokenizer.decode(tokens))
    assert loaded.spec == tokenizer.spec and loaded.sampling_rate == 8000
    assert girih.AudioTokenizer.from_config(tokenizer.config).spec == tokenizer.spec


def test_loudness_of_chunks_goes_beside_the_tokens():
    """EnCodec's 48 kHz kind: stereo, chunks that overlap, each scaled to unit loudness."""
    tokenizer, sound = make("encodec", CHUNKED), wave(1000, 2, 2)
    with torch.no_grad():
        tokens, scales = tokenizer.encode(sound), tokenizer.scales(sound)
        assert tokens.shape == (2, 5, 3 * 40) and scales.shape == (2, 3)  # 400 samples each 360: 3 chunks
        assert torch.equal(tokenizer.encode(sound * 0.25), tokens)
        quiet = tokenizer.decode(tokens, scales * 0.25)
        torch.testing.assert_close(quiet, tokenizer.decode(tokens, scales) * 0.25)
        assert quiet.shape == (2, 2, 1120) and tokenizer(sound).sample.shape == sound.shape
        with pytest.raises(ValueError, match="no whole number of chunks of 40"):
            tokenizer.decode(tokens[..., :-1])


def test_only_dac_says_losses_and_gradients_pass_its_codes():
    tokenizer = make("dac").train()
    out = tokenizer(wave(160, 2))
    (out.sample.square().mean() + sum(out.losses.values())).backward()
    gradient = tokenizer.coder.model.encoder.conv1.weight.grad
    assert set(out.losses) == {"commit", "codebook"} and float(gradient.abs().sum()) > 0
    assert tokenizer.eval()(wave(160)).losses == {}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.zeros(1, 1, 0), "at least 1 sample"),
        (torch.zeros(1, 8, 100), r"\[batch, 1, samples\], got \[1, 8, 100\]"),
        (torch.zeros(100), r"got \[100\]"),
        (torch.full((1, 1, 9), math.nan), "not finite"),
        (torch.full((1, 1, 9), math.inf), "not finite"),
    ],
)
def test_bad_waves_are_refused(bad, message):
    for tokenizer in CODECS.values():
        with pytest.raises(ValueError, match=message):
            tokenizer.encode(bad)


@pytest.mark.parametrize("codec", SETTINGS)
def test_silent_and_far_too_loud_waves_pass(codec):
    tokenizer = CODECS[codec]
    with torch.no_grad():
        for sound in (torch.zeros(1, 1, 300), torch.ones(1, 1, 300), 1e4 * wave(300)):
            assert torch.isfinite(tokenizer.decode(tokenizer.encode(sound))).all()


@pytest.mark.parametrize("codec", SETTINGS)
def test_bad_tokens_are_refused(codec):
    tokenizer = CODECS[codec]
    size = tokenizer.spec.vocab_size
    good = torch.zeros(1, tokenizer.codebooks, 5, dtype=torch.long)
    for bad, message in (
        (good[0], "must be"), (good[..., :0], "must be"), (good - 1, f"in \\[0, {size - 1}\\], got -1"),
        (good + size, f"got {size} to {size}"), (good.repeat(1, 2, 1), "codebooks must be"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            tokenizer.decode(bad)


@pytest.mark.parametrize(
    ("codec", "settings", "options", "message"),
    [
        ("decodec", {}, {}, "did you mean 'encodec'"),
        ("dac", {"n_codebook": 3}, {}, "did you mean 'n_codebooks'"),
        ("dac", {"codebook_size": "many"}, {}, "codebook_size"),
        ("dac", {**SETTINGS["dac"], "codebook_size": 100}, {}, "power of 2"),
        ("firefly", {"hop": 3}, {}, "unexpected keyword"),
        ("firefly", {**SETTINGS["firefly"], "mel_hop": 8}, {}, "16 samples of a 8-sample"),
        ("firefly", {**SETTINGS["firefly"], "quantizer": {"rounding": "up"}}, {}, "unknown rounding"),
        ("dac", SETTINGS["dac"], {"codebooks": 4}, "1 to 3, got 4"),
        ("firefly", SETTINGS["firefly"], {"codebooks": 1}, "4 to 4, got 1"),
        ("dac", SETTINGS["dac"], {"sample_size": 0}, "sample_size"),
    ],
)
def test_bad_settings_are_one_clear_line(codec, settings, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        girih.AudioTokenizer(codec=codec, settings=settings, **options)
    assert "\n" not in str(caught.value)


def test_both_roundings_share_weights_but_not_codes():
    torch.manual_seed(0)
    old, new = (StridedScalarQuantizer(16, groups=2, rounding=rounding) for rounding in ("tanh", "symmetric"))
    new.load_state_dict(old.state_dict())
    features = torch.randn(2, 16, 40)
    with torch.no_grad():
        torch.testing.assert_close(old.latents(features), new.latents(features))
        assert (old.encode(features) == new.encode(features)).float().mean() < 0.9
        odd = old(features[..., :37])
        assert odd.shape == (2, 16, 37)


def test_fish_speech_files_become_a_tokenizer(tmp_path):
    tokenizer, peer = make("firefly"), tmp_path / "codec.pth"
    config = {
        "spec_transform": {"sample_rate": 8000, "n_fft": 64, "win_length": 64, "hop_length": 16, "n_mels": 10},
        "backbone": {"input_channels": 10, "depths": [1, 1], "dims": [8, 16], "kernel_size": 3},
        "quantizer": {"input_dim": 16, "n_groups": 2, "n_codebooks": 2, "downsample_factor": [2]},
        "head": {
            "hop_length": 16, "num_mels": 16, "upsample_initial_channel": 16, "upsample_rates": [4, 4],
            "upsample_kernel_sizes": [8, 8], "resblock_kernel_sizes": [3], "resblock_dilation_sizes": [[1, 3]],
            "pre_conv_kernel_size": 5, "post_conv_kernel_size": 5,
        },
    }  # fmt: skip
    state = {}
    for name, tensor in tokenizer.state_dict().items():
        name = "generator." + name.removeprefix("coder.")
        if ".head." in name and name.endswith(".weight"):  # as the peer keeps it: length and direction apart
            stem = name.removesuffix("weight") + "parametrizations.weight.original"
            state[stem + "0"] = tensor.flatten(1).norm(dim=1)[:, None, None]
            state[stem + "1"] = tensor * 3
        else:
            state[name] = tensor
    torch.save({"state_dict": {**state, "discriminator.w": torch.zeros(3)}}, peer)
    fish_speech.convert_firefly(peer, tmp_path / "out", config)
    loaded, sound = girih.AudioTokenizer.from_pretrained(tmp_path / "out").eval(), wave(320)
    with torch.no_grad():
        assert torch.equal(loaded.encode(sound), tokenizer.encode(sound))
        torch.testing.assert_close(loaded(sound).sample, tokenizer(sound).sample)
    with pytest.raises(ValueError, match="lacks tensor coder.backbone.stages.0.1"):
        fish_speech.load_firefly(peer, {**config, "backbone": {**config["backbone"], "depths": [2, 1]}})
    with pytest.raises(ValueError, match="unknown Fish-Speech setting 'n_mel'"):
        fish_speech.load_firefly(peer, {"spec_transform": {"n_mel": 3}})
    with pytest.raises(ValueError, match="other half"):
        fish_speech.fold_weight_norm({"a.weight_g": torch.ones(1)})


def test_the_published_sizes_of_fish_speech():
    config = fish_speech.firefly_config()
    from accelerate import init_empty_weights

    with init_empty_weights():
        tokenizer = girih.AudioTokenizer.from_config(config)
    assert tokenizer.spec.vocab_size == 1000 and tokenizer.codebooks == 8
    assert tokenizer.frame_rate == pytest.approx(21.53, abs=0.01) and tokenizer.sampling_rate == 44100


def original_dac_name(name):
    """transformers' name of a layer of a DAC with two stages as descript-audio-codec has it."""
    side, _, rest = name.partition(".")
    if side == "quantizer":
        return name
    head, _, tail = rest.partition(".")
    container = "block" if side == "encoder" else "model"
    if head != "block":
        return f"{side}.{container}.{ {'conv1': 0, 'snake1': 3, 'conv2': 4}[head] }.{tail}"
    stage, layer, tail = tail.split(".", 2)
    own = {"snake1": 3, "conv1": 4} if side == "encoder" else {"snake1": 0, "conv_t1": 1}
    if layer in own:
        return f"{side}.{container}.{int(stage) + 1}.block.{own[layer]}.{tail}"
    unit, (inner, tail) = int(layer[-1]) + (-1 if side == "encoder" else 1), tail.split(".")
    inner = {"snake1": 0, "conv1": 1, "snake2": 2, "conv2": 3}[inner]
    return f"{side}.{container}.{int(stage) + 1}.block.{unit}.block.{inner}.{tail}"


def test_original_dac_files(tmp_path):
    tokenizer, state = make("dac"), {}
    for name, tensor in tokenizer.state_dict().items():
        name = original_dac_name(name.removeprefix("coder.model."))
        if name.endswith(".weight") and "codebook" not in name:
            state[name[:-6] + "weight_g"], state[name[:-6] + "weight_v"] = (
                tensor.flatten(1).norm(dim=1)[:, None, None], tensor * 2,
            )  # fmt: skip
        else:
            state[name] = tensor
    path = tmp_path / "weights_16khz.pth"
    torch.save({"state_dict": state, "metadata": {"kwargs": {"encoder_dim": 2}}}, path)
    transformers_codecs.convert(transformers_codecs.load_dac(path), tmp_path / "out")
    loaded, sound = girih.AudioTokenizer.from_pretrained(tmp_path / "out").eval(), wave(320)
    with torch.no_grad():
        assert torch.equal(loaded.encode(sound), tokenizer.encode(sound)) and loaded.sampling_rate == 16000
        torch.testing.assert_close(loaded(sound).sample, tokenizer(sound).sample)
    path.rename(tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="sampling rate is not known"):
        transformers_codecs.load_dac(tmp_path / "weights.pth")


@pytest.mark.parametrize("codec", ["encodec", "dac"])
def test_transformers_folders(codec, tmp_path):
    tokenizer, sound = make(codec), wave(200)
    tokenizer.coder.model.save_pretrained(tmp_path / "theirs")
    transformers_codecs.convert(transformers_codecs.load_folder(tmp_path / "theirs"), tmp_path / "ours")
    loaded = girih.AudioTokenizer.from_pretrained(tmp_path / "ours").eval()
    with torch.no_grad():
        assert torch.equal(loaded.encode(sound), tokenizer.encode(sound))
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        transformers_codecs.load_folder(tmp_path)
    (tmp_path / "theirs" / "config.json").write_text('{"model_type": "mimi"}')
    with pytest.raises(ValueError, match="unknown audio codec 'mimi'"):
        transformers_codecs.load_folder(tmp_path / "theirs")
    (tmp_path / "theirs" / "config.json").write_text("[1")
    with pytest.raises(ValueError, match="is no model config"):
        transformers_codecs.load_folder(tmp_path / "theirs")


def test_original_encodec_files(tmp_path):
    """Original names, and weight norm's halves under their old names."""
    tokenizer, sound, state = make("encodec"), wave(200), {}
    for name, tensor in tokenizer.coder.model.state_dict().items():
        name = name.replace("parametrizations.weight.original0", "weight_g")
        name = name.replace("parametrizations.weight.original1", "weight_v").replace(".layers.", ".model.")
        transposed = name.startswith(("decoder.model.3.", "decoder.model.6."))
        name = name.replace(".conv.", ".convtr.convtr." if transposed else ".conv.conv.")
        state[name.replace("quantizer.model.", "quantizer.vq.layers.").replace(".codebook.", "._codebook.")] = tensor
    torch.save(state, tmp_path / "encodec.th")
    config, ours = transformers_codecs.load_encodec(tmp_path / "encodec.th", SETTINGS["encodec"])
    loaded = girih.AudioTokenizer.from_config(config).eval()
    loaded.load_state_dict(ours)
    with torch.no_grad():
        assert torch.equal(loaded.encode(sound), tokenizer.encode(sound))
    with pytest.raises(ValueError, match="the config asks for|lacks tensor"):
        transformers_codecs.load_encodec(tmp_path / "encodec.th")
