"""The lookup-free tokenizer: shapes at several sizes, sub-tokens, saving, and refusals."""

import pytest
import torch
import torch.nn.functional as F

from girih.spec import digits, from_digits
from girih.tokenizers.lookup_free import LookupFreeTokenizer

SMALL = {
    "sample_size": 16,
    "encoder_widths": [8, 16],
    "encoder_blocks": [1, 1],
    "decoder_widths": [16, 8],
    "decoder_blocks": [1, 1],
    "middle_blocks": 1,
    "norm_groups": 8,
    "bits": [2, 4],
}


@pytest.fixture
def codec():
    torch.manual_seed(0)
    return LookupFreeTokenizer(**SMALL).eval()


def pictures(*shape):
    return torch.rand(*shape) * 2 - 1


@pytest.mark.parametrize("height, width", [(16, 16), (8, 24), (2, 2), (32, 6)])
def test_encode_and_decode_have_the_promised_shapes(codec, height, width):
    images = pictures(2, 3, height, width)
    with torch.no_grad():
        tokens = codec.encode(images)
        assert tokens.dtype == torch.int64 and tokens.shape == (2, height // 2, width // 2)
        decoded = codec.decode(tokens)
        assert decoded.shape == images.shape and torch.isfinite(decoded).all()
        torch.testing.assert_close(decoded, codec(images).sample, atol=1e-4, rtol=1e-4)


def test_sub_tokens_are_the_low_and_the_high_bits(codec):
    assert codec.spec.vocab_size == 64 and codec.spec.shape == (8, 8) and codec.spec.levels == (4, 16)
    with torch.no_grad():
        images = pictures(1, 3, 16, 16)
        tokens, signs = codec.encode(images), codec.features(images) > 0
    split = digits(tokens, codec.spec.levels)
    assert torch.equal(split[..., 0], signs[:, 0] * 1 + signs[:, 1] * 2)
    assert torch.equal(split[..., 1], sum(signs[:, 2 + k] * 2**k for k in range(4)))
    assert torch.equal(from_digits(split, codec.spec.levels), tokens)


def test_one_sub_token_is_no_factorisation():
    assert LookupFreeTokenizer(**{**SMALL, "bits": [6]}).spec.levels is None


@pytest.mark.parametrize("order, spherical", [("little", False), ("big", True)])
def test_save_and_load_give_the_same_codec(order, spherical, tmp_path):
    codec = LookupFreeTokenizer(**SMALL, bit_order=order, spherical=spherical).eval()
    images = pictures(1, 3, 16, 16)
    codec.save_pretrained(tmp_path)
    again = LookupFreeTokenizer.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert again.spec == codec.spec
        assert torch.equal(again.encode(images), codec.encode(images))
        assert torch.equal(again(images).sample, codec(images).sample)


def test_the_decoder_follows_the_spread_of_the_signs(codec):
    # The adaptive norms read statistics of the whole map, so a far sign changes a near pixel.
    tokens = torch.zeros(1, 8, 8, dtype=torch.long)
    other = tokens.clone()
    other[0, -1, -1] = 63
    with torch.no_grad():
        assert not torch.equal(codec.decode(tokens)[..., 0, 0], codec.decode(other)[..., 0, 0])


def test_training_lowers_the_loss(codec):
    images = pictures(4, 3, 16, 16)
    optimiser = torch.optim.Adam(codec.train().parameters(), 3e-3)
    losses = []
    for _ in range(12):
        out = codec(images)
        assert out.losses.keys() == {"commit", "entropy"}
        loss = F.mse_loss(out.sample, images) + sum(out.losses.values())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"bits": []}, "bits must be a list of sub-token sizes"),
        ({"bits": [4, 0]}, "bits must be a list of sub-token sizes"),
        ({"bits": [32, 31]}, "1 to 62 bits, got 63"),
        ({"bit_order": "middle"}, "unknown bit order 'middle'"),
        ({"decoder_widths": [16], "decoder_blocks": [1]}, "encoder shrinks 2 times, but the decoder grows 1 times"),
        ({"sample_size": 15}, "sample_size 15 is not a multiple of 2"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        LookupFreeTokenizer(**{**SMALL, **change})


def test_foreign_pictures_and_tokens_are_refused(codec):
    with pytest.raises(ValueError, match=r"must be \[batch, 3, height, width\]"):
        codec.encode(torch.zeros(1, 1, 16, 16))
    with pytest.raises(ValueError, match="multiples of 2, got 15 x 16"):
        codec.encode(torch.zeros(1, 3, 15, 16))
    with pytest.raises(ValueError, match="multiples of 2, got 0 x 16"):
        codec.encode(torch.zeros(1, 3, 0, 16))
    with pytest.raises(ValueError, match=r"in \[0, 63\], got -1 to 64"):
        codec.decode(torch.tensor([[[-1, 64]]]))
    with pytest.raises(ValueError, match=r"must be \[batch, height, width\]"):
        codec.decode(torch.zeros(1, 4, dtype=torch.long))
