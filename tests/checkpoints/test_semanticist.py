"""Semanticist's tokenizer files: names, compiled names, missing fixed positions, the autoencoder, and refusals."""

import re

import pytest
import torch
from diffusers import AutoencoderKL

from girih.checkpoints.semanticist import convert_tokenizer, load_tokenizer
from girih.tokenizers.ordered import OrderedTokenizer

CONFIG = {
    "sample_size": 16,
    "patch_size": 4,
    "encoder_dim": 16,
    "encoder_layers": 2,
    "encoder_heads": 2,
    "num_tokens": 5,
    "token_dim": 4,
    "latent_channels": 4,
    "latent_size": 8,
    "decoder_patch": 2,
    "decoder_dim": 32,
    "decoder_layers": 1,
    "decoder_heads": 4,
}
HEADS = {"encoder_heads": 2, "decoder_heads": 4}
THEIRS = [
    (r"^to_token\.", "encoder2slot."),
    (r"^encoder\.patch_embed\.", "encoder.patch_embed.proj."),
    (r"^decoder\.patch_embed\.", "decoder.x_embedder.proj."),
    (r"^decoder\.time_embed\.", "decoder.t_embedder.mlp."),
    (r"^decoder\.token_embed\.", "decoder.autoenc_cond_embedder."),
    (r"^decoder\.null_tokens$", "decoder.null_cond"),
    (r"^decoder\.output\.", "decoder.final_layer.linear."),
    (r"^decoder\.modulation\.", "decoder.final_layer.adaLN_modulation.1."),
    (r"^(decoder\.blocks\.\d+)\.modulation\.", r"\1.adaLN_modulation.1."),
    (r"^decoder\.", "dit."),
]


def peer(prefix=""):
    torch.manual_seed(0)
    codec = OrderedTokenizer(**CONFIG).eval()
    state = {}
    for name, tensor in codec.state_dict().items():
        for pattern, new in THEIRS:
            name = re.sub(pattern, new, name)
        state[prefix + name] = tensor
    return codec, {**state, "nested_sampler.arange": torch.arange(5)}


def outputs(codec):
    generator = torch.Generator().manual_seed(1)
    images, noisy = torch.rand(2, 3, 16, 16, generator=generator), torch.randn(2, 4, 8, 8, generator=generator)
    with torch.no_grad():
        tokens = codec.encode(images)
        return tokens, codec.decoder(noisy, torch.tensor([1, 500]), tokens)


def loaded(path, **known):
    config, state = load_tokenizer(path, **HEADS, **known)
    codec = OrderedTokenizer.from_config(config).eval()
    codec.load_state_dict(state)
    return codec


@pytest.mark.parametrize("prefix", ["", "_orig_mod."])
def test_published_names_give_the_same_tokens_and_decoder(prefix, tmp_path):
    codec, state = peer(prefix)
    torch.save(state, tmp_path / "tok.pkl")
    for made, wanted in zip(outputs(loaded(tmp_path / "tok.pkl")), outputs(codec), strict=True):
        assert torch.equal(made, wanted)


def test_fixed_positions_that_a_file_of_trained_tensors_lacks_are_made(tmp_path):
    codec, state = peer()
    del state["dit.pos_embed"]
    AutoencoderKL(latent_channels=4, block_out_channels=[8, 8], norm_num_groups=4,
                  down_block_types=["DownEncoderBlock2D"] * 2,
                  up_block_types=["UpDecoderBlock2D"] * 2).save_pretrained(tmp_path / "vae")  # fmt: skip
    torch.save(state, tmp_path / "tok.pkl")
    again = loaded(tmp_path / "tok.pkl", vae=tmp_path / "vae")
    assert again.config.latent_size == 8  # the autoencoder halves once
    for made, wanted in zip(outputs(again), outputs(codec), strict=True):
        torch.testing.assert_close(made, wanted)


def test_convert_writes_a_folder_that_loads_with_its_autoencoder(tmp_path):
    codec, state = peer()
    vae = AutoencoderKL(latent_channels=4, block_out_channels=[8, 8], norm_num_groups=4,
                        down_block_types=["DownEncoderBlock2D"] * 2,
                        up_block_types=["UpDecoderBlock2D"] * 2)  # fmt: skip
    vae.save_pretrained(tmp_path / "vae")
    torch.save(state, tmp_path / "tok.pkl")
    convert_tokenizer(tmp_path / "tok.pkl", tmp_path / "out", {**HEADS, "vae": str(tmp_path / "vae"), "steps": 2})
    again = OrderedTokenizer.from_pretrained(tmp_path / "out").eval()
    assert torch.equal(outputs(again)[0], outputs(codec)[0])
    with torch.no_grad():
        assert again.decode(outputs(codec)[0], keep=2).shape == (2, 3, 16, 16)
    weights = again.autoencoder.state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in vae.state_dict().items())


def test_published_conventions_are_in_the_config(tmp_path):
    torch.save(peer()[1], tmp_path / "tok.pkl")
    config, _ = load_tokenizer(tmp_path / "tok.pkl", **HEADS)
    assert (config["shortest_prefix"], config["steps"], config["guidance_scale"]) == (1, 250, 3.0)


def test_what_does_not_fit_is_said_in_one_line(tmp_path):
    _, state = peer()
    path = tmp_path / "tok.pkl"

    def refuses(message, changed=state, **known):
        torch.save(changed, path)
        with pytest.raises(ValueError, match=message) as caught:
            load_tokenizer(path, **known)
        assert "\n" not in str(caught.value)

    refuses("no published encoder has width 16; give encoder_heads")
    refuses("no published decoder has width 32; give decoder_heads", encoder_heads=2)
    refuses("unknown Semanticist setting 'encoder_head'", encoder_head=2)
    refuses("is no folder of a diffusers AutoencoderKL", **HEADS, vae=tmp_path)
    without = {name: t for name, t in state.items() if name != "dit.null_cond"}
    refuses("lacks tensor dit.null_cond; it is no Semanticist tokenizer", without, **HEADS)
    refuses("has tensor repa.weight that the model has no place for", {**state, "repa.weight": torch.zeros(2)}, **HEADS)
