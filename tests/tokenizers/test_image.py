"""The image tokenizer: shapes, both published compositions, saving, and refusals."""

import pytest
import torch

from girih.tokenizers.image import ImageTokenizer, llamagen_config

SMALL = {
    "sample_size": 32,
    "encoder_widths": [8, 16],
    "encoder_blocks": [1, 1],
    "decoder_widths": [16, 8, 8],
    "decoder_blocks": [1, 1, 1],
    "z_channels": 8,
}
LLAMAGEN = {"ch": 32, "encoder_ch_mult": [1, 1], "decoder_ch_mult": [1, 2], "z_channels": 32, "codebook_size": 64}


@pytest.fixture(params=["fsq", "vq", "vq-plain"])
def codec(request):
    torch.manual_seed(0)
    if request.param == "fsq":
        return ImageTokenizer(**SMALL).eval()
    extra = {"codebook_l2_norm": request.param == "vq", "codebook_show_usage": request.param == "vq"}
    return ImageTokenizer(**llamagen_config(**LLAMAGEN, **extra, sample_size=16)).eval()


def test_encode_and_decode_have_the_promised_shapes(codec):
    f = codec.downscale
    images = torch.rand(2, 3, 4 * f, 6 * f) * 2 - 1
    with torch.no_grad():
        tokens = codec.encode(images)
        assert tokens.dtype == torch.int64 and tokens.shape == (2, 4, 6)
        assert 0 <= tokens.min() and tokens.max() < codec.spec.vocab_size
        decoded = codec.decode(tokens)
        assert decoded.shape == images.shape
        torch.testing.assert_close(decoded, codec(images).sample, atol=1e-5, rtol=1e-4)


def test_save_and_load_give_the_same_codec(codec, tmp_path):
    images = torch.rand(1, 3, codec.config.sample_size, codec.config.sample_size) * 2 - 1
    codec.save_pretrained(tmp_path)
    again = ImageTokenizer.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert again.spec == codec.spec
        assert torch.equal(again.encode(images), codec.encode(images))
        assert torch.equal(again(images).sample, codec(images).sample)


def test_half_precision_weights_load_as_float32(tmp_path):
    torch.nn.Module.half(ImageTokenizer(**SMALL)).save_pretrained(tmp_path)
    codec = ImageTokenizer.from_pretrained(tmp_path, torch_dtype=torch.float32)
    assert codec.dtype == torch.float32
    assert torch.isfinite(codec.decode(codec.encode(torch.zeros(1, 3, 32, 32)))).all()


def test_default_is_the_small_codec():
    codec = ImageTokenizer()
    assert codec.downscale == 8 and codec.spec.shape == (16, 16)
    assert codec.spec.vocab_size == 4375 and codec.spec.levels == (7, 5, 5, 5, 5)
    assert sum(p.numel() for p in codec.parameters()) < 2_000_000


def test_training_reaches_every_parameter():
    torch.manual_seed(0)
    codec = ImageTokenizer(**SMALL)
    # The last 1x1 of a light block starts at zero and would hide the gradient of what lies before it.
    for parameter in codec.parameters():
        torch.nn.init.normal_(parameter, std=0.1) if parameter.ndim > 1 else None
    codec(torch.rand(2, 3, 32, 32)).sample.square().mean().backward()
    assert [name for name, p in codec.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_llamagen_first_level_may_be_wider_than_the_stem():
    sizes = {"ch": 32, "encoder_ch_mult": [2, 1], "decoder_ch_mult": [2, 1], "z_channels": 32, "codebook_size": 8}
    state = ImageTokenizer(**llamagen_config(**sizes)).state_dict()
    assert state["encoder.conv_in.weight"].shape[0] == 32
    assert state["encoder.conv_blocks.0.res.0.nin_shortcut.weight"].shape[:2] == (64, 32)
    assert state["encoder.conv_blocks.1.attn.1.q.weight"].shape[0] == 32
    assert state["decoder.conv_blocks.1.res.2.conv2.weight"].shape[0] == 64


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"block": "lite"}, "did you mean 'light'"),
        ({"resample": "bilinear"}, "resample 'bilinear'"),
        ({"encoder_widths": [8]}, "equally long"),
        ({"encoder_widths": [8, 12]}, "width 12 is not a multiple of norm_groups 8"),
        ({"decoder_patch": 4}, "shrinks 8 times, but the decoder grows 16 times"),
        ({"sample_size": 30}, "sample_size 30 is not a multiple of 8"),
        ({"levels": [2, 5]}, "levels"),
    ],
)
def test_config_that_does_not_fit_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        ImageTokenizer(**{**SMALL, **change})


def test_inputs_that_do_not_fit_are_refused():
    codec = ImageTokenizer(**SMALL)
    with pytest.raises(ValueError, match="multiples of 8, got 30 x 32"):
        codec.encode(torch.zeros(1, 3, 30, 32))
    with pytest.raises(ValueError, match=r"\[batch, 3, height, width\], got \[3, 32, 32\]"):
        codec.encode(torch.zeros(3, 32, 32))
    with pytest.raises(ValueError, match=r"in \[0, 4374\], got 0 to 4375"):
        codec.decode(torch.tensor([[[0, 4375]]]))
    with pytest.raises(ValueError, match="batch, height, width"):
        codec.decode(torch.zeros(4, 4, dtype=torch.long))
