"""Ordered tokens: any prefix decodes, nested dropout keeps prefixes; after training the first tokens tell most."""

import itertools
import math

import pytest
import torch
from diffusers import AutoencoderKL, DDPMScheduler
from hypothesis import given
from hypothesis import strategies as st

from girih.tokenizers.diffusion import Diffusion
from girih.tokenizers.ordered import OrderedTokenizer, prefix_mask, standardised

SMALL = {
    "sample_size": 8,
    "patch_size": 4,
    "encoder_dim": 16,
    "encoder_layers": 1,
    "encoder_heads": 2,
    "num_tokens": 5,
    "token_dim": 4,
    "latent_channels": 3,
    "latent_size": 8,
    "decoder_patch": 2,
    "decoder_dim": 16,
    "decoder_layers": 1,
    "decoder_heads": 2,
    "steps": 4,
}
VAE = {"latent_channels": 4, "block_out_channels": [8, 8], "norm_num_groups": 4, "sample_size": 8,
       "down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2}  # fmt: skip


def make(**change):
    torch.manual_seed(0)
    codec = OrderedTokenizer(**{**SMALL, **change}).eval()
    for parameter in codec.decoder.parameters():  # what starts at zero would hide what the tokens do
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.2)
    return codec


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(count, size=8):
    return torch.rand(count, 3, size, size, generator=seeded(7)) * 2 - 1


# --- Tokens and prefixes ----------------------------------------------------------------------------------------------


def test_encode_and_decode_have_the_promised_shapes():
    for size, count in ((8, 5), (16, 3)):
        codec = make(sample_size=size, latent_size=size, num_tokens=count)
        with torch.no_grad():
            tokens = codec.encode(pictures(2, size))
            assert tokens.shape == (2, count, 4) and codec.spec.shape == (count,) and codec.spec.vocab_size is None
            assert codec.decode(tokens, generator=seeded()).shape == (2, 3, size, size)


def test_tokens_are_standardised_and_constant_ones_finite():
    codec = make()
    with torch.no_grad():
        tokens = codec.encode(pictures(3))
    torch.testing.assert_close(tokens.mean(-1), torch.zeros(3, 5), atol=1e-5, rtol=0)
    torch.testing.assert_close(tokens.std(-1), torch.ones(3, 5), atol=1e-4, rtol=0)
    assert torch.equal(standardised(torch.full((1, 1, 4), 3.0)), torch.zeros(1, 1, 4))


def test_a_token_never_depends_on_how_many_follow():
    long, short = make(num_tokens=5), make(num_tokens=2)
    state = {name: value for name, value in long.state_dict().items() if not name.startswith("decoder")}
    cut = {"encoder.slot_embed": 2, "encoder.pos_embed": 1 + 4 + 2}
    state = {name: value[:, : cut[name]] if name in cut else value for name, value in state.items()}
    short.load_state_dict(state, strict=False)
    with torch.no_grad():
        torch.testing.assert_close(short.encode(pictures(2)), long.encode(pictures(2))[:, :2])


@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_any_prefix_decodes_as_if_the_rest_had_never_been(scale):
    codec = make(guidance_scale=scale)
    with torch.no_grad():
        tokens = codec.encode(pictures(2))
        for keep in range(6):
            kept = codec.decode(tokens, keep=keep, generator=seeded())
            assert torch.equal(kept, codec.decode(tokens[:, :keep], generator=seeded()))
            other = torch.cat([tokens[:, :keep], torch.randn(2, 5 - keep, 4)], 1)
            assert torch.equal(kept, codec.decode(other, keep=keep, generator=seeded()))
        assert not torch.equal(kept, codec.decode(tokens, keep=1, generator=seeded()))


def test_a_picture_does_not_depend_on_its_batch_when_each_has_its_generator():
    codec = make()
    with torch.no_grad():
        tokens = codec.encode(pictures(3))
        together = codec.decode(tokens, generator=[seeded(i) for i in range(3)])
        alone = torch.cat([codec.decode(tokens[i : i + 1], generator=[seeded(i)]) for i in range(3)])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)


def test_guidance_of_one_is_none_and_moves_the_noise_alone():
    codec = make()
    with torch.no_grad():
        tokens, noisy, times = codec.encode(pictures(2)), pictures(2), torch.tensor([10, 900])
        keep = prefix_mask(torch.tensor([2, 4]), 5)
        plain = codec.decoder(noisy, times, tokens, keep)
        null = codec.decoder(noisy, times, tokens, keep & False)
        torch.testing.assert_close(codec.guided(noisy, times, tokens, keep, 1.0), plain)
        guided = codec.guided(noisy, times, tokens, keep, 3.0)
    torch.testing.assert_close(guided[:, :3], (null + 3 * (plain - null))[:, :3], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(guided[:, 3:], plain[:, 3:], atol=1e-5, rtol=1e-5)


# --- Training ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shortest", [0, 1, 3])
def test_nested_dropout_keeps_prefixes_of_every_length_evenly(shortest):
    codec = make(shortest_prefix=shortest).train()
    with torch.no_grad():
        out = codec(pictures(400), generator=seeded())
    assert (out.keep[:, :-1] >= out.keep[:, 1:]).all()
    counts = torch.bincount(out.keep.sum(1), minlength=6)
    expected = 400 / (6 - shortest)
    assert (counts[:shortest] == 0).all() and ((counts[shortest:] - expected).abs() < 5 * expected**0.5).all()
    assert codec.eval()(pictures(2), generator=seeded()).keep.all()


def test_hidden_tokens_get_no_gradient():
    codec = make().train()
    tokens = torch.randn(2, 5, 4, requires_grad=True)
    keep = prefix_mask(torch.tensor([0, 3]), 5)
    codec.decoder(pictures(2), torch.tensor([5, 500]), tokens, keep).sum().backward()
    reached = tokens.grad.abs().sum(-1) > 0
    assert torch.equal(reached, keep)


def test_training_is_reproducible_and_reaches_every_weight():
    codec = make().train()
    first, again = (codec(pictures(8), generator=seeded()).losses for _ in range(2))
    assert first.keys() == {"mse", "vb"}
    assert torch.equal(first["mse"], again["mse"]) and torch.equal(first["vb"], again["vb"])
    (first["mse"] + first["vb"]).backward()
    assert [name for name, p in codec.named_parameters() if p.grad is None or not p.grad.any()] == []


def blobs(count, generator, size=8):
    """A soft blob on a plain ground: both colours and the place at random, ``[count, 3, size, size]``."""
    at = (torch.arange(size) + 0.5) / size
    ground, colour = torch.rand(2, count, 3, 1, 1, generator=generator) * 2 - 1
    x, y = torch.rand(2, count, 1, 1, 1, generator=generator) * 0.6 + 0.2
    share = torch.exp(-((at - x) ** 2 + (at[:, None] - y) ** 2) / 0.05)
    return ground * (1 - share) + colour * share


@pytest.mark.slow
def test_trained_tokens_explain_less_and_less():
    """About a minute of training on one core. Recorded: errors 0.430, 0.249, 0.221, 0.210, 0.203 for 0 to 4 tokens."""
    torch.manual_seed(0)
    codec = OrderedTokenizer(
        **{**SMALL, "encoder_dim": 64, "encoder_layers": 2, "encoder_heads": 4, "num_tokens": 4, "decoder_patch": 4,
           "decoder_dim": 64, "decoder_layers": 2, "decoder_heads": 4, "steps": 20}
    ).train()  # fmt: skip
    steps, generator = 1000, seeded(1)
    optimiser = torch.optim.AdamW(codec.parameters(), 2e-3, betas=(0.9, 0.95), weight_decay=0.0)
    for step in range(1, steps + 1):
        optimiser.param_groups[0]["lr"] = 2e-3 * min(1, step / 100) * (0.02 + 0.98 * (1 - step / steps))
        loss = sum(codec(blobs(64, generator)).losses.values())
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(codec.parameters(), 1.0)
        optimiser.step()
    codec.eval()
    real = blobs(256, seeded(2))
    with torch.no_grad():
        tokens = codec.encode(real)
        errors = [(codec.decode(tokens, keep=k, generator=seeded()) - real).square().mean().item() for k in range(5)]
    # A picture drawn at random is as far from the real one as two real ones are: explained is what of that has gone.
    explained = [(before - after) / errors[0] for before, after in itertools.pairwise(errors)]
    assert all(gain > 0 for gain in explained)
    assert all(later < earlier for earlier, later in itertools.pairwise(explained))
    assert explained[0] > 0.25 and errors[-1] < 0.24


# --- Saving -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vae", [None, VAE])
def test_save_and_load_give_the_same_codec(vae, tmp_path):
    codec = make(vae=vae, **({"latent_channels": 4, "latent_size": 4} if vae else {}))
    codec.save_pretrained(tmp_path)
    again = OrderedTokenizer.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        tokens = codec.encode(pictures(2))
        assert torch.equal(again.encode(pictures(2)), tokens) and again.spec == codec.spec
        made = codec.decode(tokens, generator=seeded())
        assert made.shape == (2, 3, 8, 8)
        assert torch.equal(again.decode(tokens, generator=seeded()), made)
        losses = codec(pictures(2), generator=seeded()).losses
        assert torch.equal(again(pictures(2), generator=seeded()).losses["mse"], losses["mse"])


def test_the_autoencoder_is_frozen():
    codec = make(vae=VAE, latent_channels=4, latent_size=4).train()
    assert isinstance(codec.autoencoder, AutoencoderKL)
    assert not any(p.requires_grad for p in codec.autoencoder.parameters())
    codec(pictures(2)).losses["mse"].backward()
    assert all(p.grad is None for p in codec.autoencoder.parameters())


def test_half_precision_encodes_decodes_and_trains():
    codec = torch.nn.Module.bfloat16(make())
    images = pictures(2).bfloat16()
    with torch.no_grad():
        decoded = codec.decode(codec.encode(images), generator=seeded())
    assert decoded.dtype == torch.bfloat16 and torch.isfinite(decoded).all()
    assert torch.isfinite(sum(codec.train()(images).losses.values()))


# --- The diffusion ----------------------------------------------------------------------------------------------------


@given(steps=st.integers(2, 60), count=st.integers(1, 60), seed=st.integers(0, 2**31))
def test_respaced_steps_keep_the_noise_levels(steps, count, seed):
    whole = Diffusion.linear(steps)
    if count > steps:
        with pytest.raises(ValueError, match=f"1 to {steps} steps, got {count}"):
            whole.respaced(count)
        return
    part = whole.respaced(count)
    assert len(part.times) == count and part.times[0] == 0 and (count == 1 or part.times[-1] == steps - 1)
    torch.testing.assert_close(part.remaining, whole.remaining[part.times])


def test_steps_are_diffusers_where_it_respaces_nothing():
    process = Diffusion.linear()
    library = DDPMScheduler(1000, beta_start=1e-4, beta_end=0.02, variance_type="learned_range", clip_sample=False)
    clean, noise, output = torch.randn(3, 2, 2, 4, 4).unbind(0)
    step = torch.tensor([3, 700])
    noisy = process.add_noise(clean, noise, step)
    torch.testing.assert_close(noisy, library.add_noise(clean, noise, step), atol=1e-5, rtol=1e-5)
    output = torch.cat([output, torch.randn(2, 2, 4, 4).tanh()], 1)
    back = process.step_back(output, noisy, step)
    for row, at in enumerate(step.tolist()):
        theirs = library.step(output[row : row + 1], at, noisy[row : row + 1], generator=seeded())
        drawn = torch.randn(1, 2, 4, 4, generator=seeded())
        ours = back.mean[row : row + 1] + (0.5 * back.log_variance[row : row + 1]).exp() * drawn
        torch.testing.assert_close(theirs.prev_sample, ours, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(theirs.pred_original_sample, back.clean[row : row + 1], atol=1e-4, rtol=1e-4)


def test_a_perfect_prediction_loses_nothing_and_finds_the_clean_tensor():
    process = Diffusion.linear()
    clean, noise = torch.rand(2, 3, 4, 4) * 2 - 1, torch.randn(2, 3, 4, 4)
    step = torch.tensor([20, 999])
    noisy = process.add_noise(clean, noise, step)
    perfect = torch.cat([noise, torch.full_like(noise, -1)], 1)  # the lower bound is the true variance
    squared, bound = process.loss(perfect, clean, noise, noisy, step)
    torch.testing.assert_close(squared, torch.zeros(2))
    torch.testing.assert_close(bound, torch.zeros(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(process.step_back(perfect, noisy, step).clean, clean, atol=1e-3, rtol=1e-3)


def test_the_bound_of_the_last_step_is_bits_of_an_eight_bit_level():
    process = Diffusion.linear()
    clean = torch.randint(0, 256, (64, 1, 8, 8), generator=seeded()) / 127.5 - 1
    noise, step = torch.randn(64, 1, 8, 8, generator=seeded(1)), torch.zeros(64, dtype=torch.long)
    noisy = process.add_noise(clean, noise, step)
    perfect = torch.cat([noise, torch.full_like(noise, -1)], 1)
    _, bound = process.loss(perfect, clean, noise, noisy, step)
    _, worse = process.loss(perfect * 0.5, clean, noise, noisy, step)
    # Deviation sqrt(posterior variance of step 1) about the truth; a level is 2 / 255 wide.
    deviation = math.exp(0.5 * process.step_back(perfect, noisy, step).log_variance.mean())
    inside = math.erf(1 / 255 / deviation / 2**0.5)
    assert bound.mean().item() == pytest.approx(-math.log2(inside), rel=0.05) and (worse > bound).all()


# --- Refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change, message",
    [
        ({"num_tokens": 0}, "shortest_prefix 0 must be 0 to num_tokens 0"),
        ({"shortest_prefix": 6}, "shortest_prefix 6 must be 0 to num_tokens 5"),
        ({"token_dim": 1}, "token_dim must be at least 2"),
        ({"patch_size": 3}, "8 px does not divide into patches of 3 px"),
        ({"decoder_patch": 3}, "8 cells does not divide into patches of 3"),
        ({"encoder_heads": 3}, "width 16 is not divisible by 3 heads"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        OrderedTokenizer(**{**SMALL, **change})


def test_foreign_pictures_and_tokens_are_refused():
    codec = make()
    with pytest.raises(ValueError, match="must be 8 x 8, got 16 x 16"):
        codec.encode(pictures(1, 16))
    with pytest.raises(ValueError, match=r"must be \[batch, up to 5, 4\]"):
        codec.decode(torch.zeros(1, 6, 4))
    with pytest.raises(ValueError, match="finite"):
        codec.decode(torch.full((1, 5, 4), float("nan")))
    with pytest.raises(ValueError, match="keep must be 0 to 2, the number of tokens given, got 3"):
        codec.decode(torch.zeros(1, 2, 4), keep=3)
    with pytest.raises(ValueError, match="1 to 1000 steps, got 0"):
        codec.decode(torch.zeros(1, 2, 4), steps=0)
    with pytest.raises(ValueError, match="latents of 4 channels, and their autoencoder is missing"):
        make(latent_channels=4, latent_size=4).decode(torch.zeros(1, 2, 4))
