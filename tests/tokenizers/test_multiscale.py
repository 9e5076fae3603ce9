"""Multi-scale tokens: the scales add up to the map, leading scales are a coarser code, bands of frequency are ideal."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from girih.tokenizers.multiscale import MultiscaleTokenizer
from girih.tokenizers.quantizers import MultiscaleQuantizer
from girih.tokenizers.quantizers.scales import blend_of, fourier_basis, spectral

SMALL = {
    "sample_size": 16,
    "encoder_widths": [8, 16],
    "encoder_blocks": [1, 1],
    "decoder_widths": [16, 8],
    "decoder_blocks": [2, 2],
    "norm_groups": 8,
    "z_channels": 4,
    "scales": [1, 2, 3, 5, 8],
    "codebook_size": 32,
}
SCALES = st.lists(st.integers(1, 9), min_size=1, max_size=5, unique=True).map(sorted)


def quantizer(scales, seed=0, spread=1.0, **options):
    torch.manual_seed(seed)
    made = MultiscaleQuantizer(scales, vocab_size=24, dim=3, **options)
    torch.nn.init.normal_(made.embedding.weight, std=spread)
    return made.eval()


@pytest.fixture
def codec():
    torch.manual_seed(0)
    made = MultiscaleTokenizer(**SMALL).eval()
    torch.nn.init.normal_(made.quantize.embedding.weight)
    return made


# --- The quantizer ----------------------------------------------------------------------------------------------------


@given(scales=SCALES, blends=st.integers(0, 5), cosine=st.booleans(), resample=st.sampled_from(["area", "spectral"]),
       seed=st.integers(0, 2**31))  # fmt: skip
def test_scales_add_up_to_the_quantised_map(scales, blends, cosine, resample, seed):
    made = quantizer(scales, seed, blends=blends, cosine=cosine, resample=resample)
    features = torch.randn(2, 3, scales[-1], scales[-1])
    with torch.no_grad():
        quantized = made(features)
        assert quantized.tokens.shape == (2, sum(side**2 for side in scales))
        torch.testing.assert_close(made.lookup(quantized.tokens), quantized.codes, atol=1e-4, rtol=1e-4)
        parts = [made.grow(ids, number) for number, ids in enumerate(made.split(quantized.tokens))]
        for count, total in enumerate(made.sums(quantized.tokens), 1):
            torch.testing.assert_close(total, sum(parts[:count]), atol=1e-5, rtol=1e-5)
            kept = quantized.tokens[:, : made.ends[count - 1]]
            torch.testing.assert_close(made.lookup(kept), total, atol=1e-5, rtol=1e-5)


@given(scales=SCALES, seed=st.integers(0, 2**31))
def test_each_scale_takes_the_nearest_code_of_what_is_left(scales, seed):
    made = quantizer(scales, seed)
    rest = torch.randn(1, 3, scales[-1], scales[-1])
    with torch.no_grad():
        tokens = made(rest).tokens
        for number, ids in enumerate(made.split(tokens)):
            small = F.adaptive_avg_pool2d(rest, scales[number])
            rows = small.movedim(1, -1).reshape(-1, 3)
            chosen = (rows - made.embedding.weight[ids.flatten()]).norm(dim=1)
            assert (chosen <= torch.cdist(rows, made.embedding.weight).min(1).values + 1e-4).all()
            rest = rest - made.grow(ids, number)


def test_a_zero_code_never_makes_the_last_scale_worse():
    # A residual law that holds for any features: with the zero vector among the codes, the full-size scale, which
    # neither shrinks nor blends, cannot raise the error.
    for seed in range(5):
        made = quantizer([1, 2, 4, 6], seed, blends=0)
        made.embedding.weight.data[0] = 0
        features = torch.randn(2, 3, 6, 6)
        errors = [F.mse_loss(total, features).item() for total in made.sums(made(features).tokens)]
        assert errors[-1] <= errors[-2]


def test_training_moves_the_codes_and_makes_every_scale_add_detail():
    torch.manual_seed(0)
    made = MultiscaleQuantizer([1, 2, 4, 8], vocab_size=64, dim=3, commit_weight=0.25)
    torch.nn.init.normal_(made.embedding.weight, std=0.5)
    rough = torch.randn(32, 3, 4, 4)
    features = F.interpolate(rough, size=8, mode="bicubic").requires_grad_()
    optimiser = torch.optim.Adam(made.parameters(), 0.02)
    for _ in range(60):
        losses = made.train()(features).losses
        optimiser.zero_grad()
        losses["vq"].backward()
        optimiser.step()
    assert features.grad is None  # "vq" moves codes and convolutions only
    made(features).losses["commit"].backward()
    assert features.grad.abs().sum() > 0
    with torch.no_grad():
        errors = [F.mse_loss(total, features).item() for total in made.sums(made.eval()(features).tokens)]
    assert all(later < earlier for earlier, later in itertools.pairwise(errors)) and errors[-1] < 0.5 * errors[0]


def test_gradients_pass_straight_through():
    features = torch.randn(1, 3, 4, 4, requires_grad=True)
    quantizer([1, 2, 4]).train()(features).codes.sum().backward()
    torch.testing.assert_close(features.grad, torch.ones_like(features))


def test_shared_convolutions_are_chosen_as_published():
    # Ten scales and four convolutions, as read in the published code.
    assert [blend_of(scale, 10, 4) for scale in range(10)] == [0, 0, 1, 1, 1, 2, 2, 3, 3, 3]
    assert [blend_of(scale, 7, 1) for scale in range(7)] == [0] * 7
    assert [blend_of(scale, 6, 6) for scale in range(6)] == list(range(6))
    assert blend_of(0, 1, 4) == 0


@given(scales=SCALES.filter(lambda scales: len(scales) > 1), seed=st.integers(0, 2**31))
def test_inputs_are_the_shrunk_sums_and_do_not_see_later_scales(scales, seed):
    made = quantizer(scales, seed)
    tokens = torch.randint(24, (2, made.ends[-1]))
    with torch.no_grad():
        inputs = made.inputs(tokens)
        assert inputs.shape == (2, made.ends[-1] - made.ends[0], 3)
        first = F.adaptive_avg_pool2d(next(made.sums(tokens)), scales[1]).flatten(2).mT
        torch.testing.assert_close(inputs[:, : first.shape[1]], first)
        for end, following in itertools.pairwise(made.ends):
            part = made.inputs(tokens[:, :end])
            torch.testing.assert_close(part, inputs[:, : following - made.ends[0]], atol=1e-5, rtol=1e-5)


# --- Bands of frequency -----------------------------------------------------------------------------------------------


@given(small=st.integers(1, 12), large=st.integers(1, 12), seed=st.integers(0, 2**31))
def test_spectral_resampling_is_an_ideal_low_pass(small, large, seed):
    small, large = sorted((small, large))
    torch.manual_seed(seed)
    maps = torch.randn(1, 2, large, large, dtype=torch.float64)
    coarse = spectral(maps, small)
    torch.testing.assert_close(spectral(spectral(coarse, large), small), coarse)
    low = spectral(coarse, large)
    torch.testing.assert_close(spectral(spectral(low, small), large), low)
    assert abs((low * (maps - low)).sum()) < 1e-9  # an orthogonal projection: what is left holds none of the band


@given(points=st.integers(1, 20), data=st.data())
def test_fourier_basis_is_orthonormal(points, data):
    basis = fourier_basis(points, data.draw(st.integers(1, points)))
    torch.testing.assert_close(basis.T @ basis, torch.eye(basis.shape[1], dtype=torch.float64))


def test_spectral_resampling_keeps_waves_below_the_border_and_drops_those_above():
    at = torch.arange(16) * (2 * torch.pi / 16)
    for frequency, kept in ((2, True), (5, False)):
        wave = torch.cos(frequency * at).expand(1, 1, 16, 16)
        again = spectral(spectral(wave, 7), 16)  # 7 cells hold frequencies up to 3
        torch.testing.assert_close(again, wave if kept else torch.zeros_like(wave), atol=1e-5, rtol=0)
    torch.testing.assert_close(spectral(torch.ones(1, 1, 5, 5), 9), torch.ones(1, 1, 9, 9))


def test_partial_sums_of_bands_have_no_energy_above_their_band():
    made = quantizer([1, 3, 5, 8], blends=0, resample="spectral")
    tokens = torch.randint(24, (1, made.ends[-1]))
    for side, total in zip(made.scales, made.sums(tokens), strict=True):
        torch.testing.assert_close(spectral(spectral(total, side), 8), total, atol=1e-4, rtol=1e-4)


# --- The tokenizer ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size, scales", [(8, [1, 4]), (16, [1, 2, 4, 8]), (24, [2, 6, 12])])
def test_encode_and_decode_have_the_promised_shapes(size, scales):
    made = MultiscaleTokenizer(**{**SMALL, "sample_size": size, "scales": scales}).eval()
    images = torch.rand(2, 3, size, size) * 2 - 1
    with torch.no_grad():
        tokens = made.encode(images)
        assert tokens.dtype == torch.int64 and tokens.shape == (2, *made.spec.shape)
        assert made.spec.cells == sum(side**2 for side in scales)
        decoded = made.decode(tokens)
        assert decoded.shape == images.shape
        torch.testing.assert_close(decoded, made(images).sample, atol=1e-4, rtol=1e-4)


def test_leading_scales_decode_alone(codec):
    with torch.no_grad():
        tokens = codec.encode(torch.rand(1, 3, 16, 16) * 2 - 1)
        for keep, end in enumerate(codec.quantize.ends, 1):
            torch.testing.assert_close(codec.decode(tokens, keep=keep), codec.decode(tokens[:, :end]))
        assert not torch.allclose(codec.decode(tokens, keep=1), codec.decode(tokens))


def test_save_and_load_give_the_same_codec(codec, tmp_path):
    images = torch.rand(1, 3, 16, 16) * 2 - 1
    codec.save_pretrained(tmp_path)
    again = MultiscaleTokenizer.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert again.spec == codec.spec
        assert torch.equal(again.encode(images), codec.encode(images))
        assert torch.equal(again(images).sample, codec(images).sample)
        assert torch.equal(again.feed()(again.encode(images)), codec.feed()(codec.encode(images)))


def test_half_precision_weights_choose_codes_in_float32(codec):
    torch.nn.Module.bfloat16(codec)
    with torch.no_grad():
        tokens = codec.encode((torch.rand(1, 3, 16, 16) * 2 - 1).bfloat16())
        assert torch.isfinite(codec.decode(tokens)).all() and codec.decode(tokens).dtype == torch.bfloat16


def test_training_lowers_the_loss(codec):
    images = torch.rand(4, 3, 16, 16) * 2 - 1
    optimiser = torch.optim.Adam(codec.train().parameters(), 3e-3)
    losses = []
    for _ in range(12):
        out = codec(images)
        assert out.losses.keys() == {"commit", "vq"}
        loss = F.mse_loss(out.sample, images) + sum(out.losses.values())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"scales": [1, 2, 4]}, "last scale 4 at 2 pixels a cell does not make sample_size 16"),
        ({"scales": []}, "must be sides that rise"),
        ({"scales": [1, 8, 8]}, "must be sides that rise"),
        ({"scales": [0, 8]}, "must be sides that rise"),
        ({"resample": "aera"}, "unknown resampler 'aera'; did you mean 'area'"),
        ({"quant_kernel": 2}, "quant_kernel must be odd"),
        ({"sample_size": 15}, "sample_size 15 is not a multiple of 2"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        MultiscaleTokenizer(**{**SMALL, **change})


def test_foreign_pictures_and_tokens_are_refused(codec):
    with pytest.raises(ValueError, match=r"must be \[batch, 3, 16, 16\]"):
        codec.encode(torch.zeros(1, 3, 32, 32))
    with pytest.raises(ValueError, match="whole leading scales"):
        codec.decode(torch.zeros(1, 6, dtype=torch.long))
    with pytest.raises(ValueError, match=r"in \[0, 31\], got 32 to 32"):
        codec.decode(torch.full((1, 1), 32))
    with pytest.raises(ValueError, match="must be integers"):
        codec.decode(torch.zeros(1, 1))
    for keep in (0, 3):
        with pytest.raises(ValueError, match=f"keep must be 1 to 2, the number of scales given, got {keep}"):
            codec.decode(torch.zeros(1, 5, dtype=torch.long), keep=keep)
    with pytest.raises(ValueError, match="8 cells high and wide"):
        codec.quantize(torch.zeros(1, 4, 4, 4))
