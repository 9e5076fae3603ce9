"""VAR's tokenizer files: every layout of the shared convolutions, what tensors say, and what is refused."""

import re

import pytest
import torch

from girih.checkpoints.var import convert_vq, load_vq
from girih.tokenizers.multiscale import MultiscaleTokenizer

SCALES = [1, 2, 3, 4]
CONFIG = {
    "sample_size": 8,
    "encoder_widths": [32, 64],
    "encoder_blocks": [1, 1],
    "decoder_widths": [64, 32],
    "decoder_blocks": [2, 2],
    "z_channels": 4,
    "scales": SCALES,
    "codebook_size": 16,
}


def peer(blends, layout):
    """A tokenizer and its weights under the peer's names. ``layout``: of the shared convolutions."""
    torch.manual_seed(0)
    codec = MultiscaleTokenizer(**{**CONFIG, "blends": blends, "blend": 0.5 if blends else 0.0}).eval()
    state = {}
    for name, tensor in codec.state_dict().items():
        if found := re.match(r"quantize\.blends\.(\d+)\.(\w+)", name):
            name = {"shared": "quantize.quant_resi.qresi_ls.{}.{}", "one": "quantize.quant_resi.qresi.{1}",
                    "each": "quantize.quant_resi.{}.{}"}[layout].format(*found.groups())  # fmt: skip
        name = name.replace(".mid.0.", ".mid.block_1.").replace(".mid.1.", ".mid.attn_1.")
        name = name.replace(".mid.2.", ".mid.block_2.").replace(".res.", ".block.")
        name = re.sub(r"^encoder\.conv_blocks\.", "encoder.down.", name)
        name = re.sub(r"^decoder\.conv_blocks\.(\d)", lambda m: f"decoder.up.{1 - int(m[1])}", name)
        state[name] = tensor
    for name in [name for name in state if ".q." in name]:
        parts = [state.pop(name.replace(".q.", f".{part}.")) for part in "qkv"]
        state[name.replace(".q.", ".qkv.")] = torch.cat(parts)
    state["quantize.ema_vocab_hit_SV"] = torch.zeros(len(SCALES), 16)
    return codec, state


@pytest.mark.parametrize("blends, layout", [(4, "shared"), (2, "shared"), (1, "one"), (4, "each"), (0, None)])
def test_published_names_give_the_same_tokens_and_pictures(blends, layout, tmp_path):
    codec, state = peer(blends, layout)
    torch.save(state, tmp_path / "vae.pth")
    config, read = load_vq(tmp_path / "vae.pth", patch_nums=SCALES)
    again = MultiscaleTokenizer.from_config(config).eval()
    again.load_state_dict(read)
    images = torch.rand(1, 3, 8, 8) * 2 - 1
    with torch.no_grad():
        assert torch.equal(again.encode(images), codec.encode(images))
        assert torch.equal(again(images).sample, codec(images).sample)


def test_half_precision_files_load_in_float32(tmp_path):
    _, state = peer(4, "shared")
    torch.save({name: tensor.half() for name, tensor in state.items()}, tmp_path / "vae.pth")
    _, read = load_vq(tmp_path / "vae.pth", patch_nums=SCALES)
    assert {tensor.dtype for tensor in read.values()} == {torch.float32}


def test_what_tensors_cannot_say_is_taken_from_the_caller(tmp_path):
    torch.save(peer(4, "shared")[1], tmp_path / "vae.pth")
    config, _ = load_vq(tmp_path / "vae.pth", patch_nums=SCALES, beta=0.5, quant_resi=-0.3, using_znorm=True)
    assert (config["commit_weight"], config["blend"], config["cosine"]) == (0.5, 0.3, True)


def test_convert_writes_a_folder_that_loads(tmp_path):
    codec, state = peer(4, "shared")
    torch.save(state, tmp_path / "vae.pth")
    convert_vq(tmp_path / "vae.pth", tmp_path / "out", {"patch_nums": SCALES})
    again = MultiscaleTokenizer.from_pretrained(tmp_path / "out").eval()
    images = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(again(images).sample, codec(images).sample)


def test_what_does_not_fit_is_said_in_one_line(tmp_path):
    _, state = peer(4, "shared")
    path = tmp_path / "vae.pth"

    def refuses(message, changed=state, **known):
        torch.save(changed, path)
        with pytest.raises(ValueError, match=message) as caught:
            load_vq(path, **known)
        assert "\n" not in str(caught.value)

    refuses("was trained with 4 scales; give patch_nums, its 4 sides")
    refuses("unknown VAR VQVAE setting 'patch_num'", patch_num=SCALES)
    without = {name: tensor for name, tensor in state.items() if name != "quant_conv.weight"}
    refuses("lacks tensor quant_conv.weight; it is no VAR tokenizer", without, patch_nums=SCALES)
    without = {name: tensor for name, tensor in state.items() if name != "encoder.norm_out.bias"}
    refuses("lacks tensor encoder.norm_out.bias", without, patch_nums=SCALES)
    refuses("word_embed.weight that the model has no place for",
            {**state, "word_embed.weight": torch.zeros(2)}, patch_nums=SCALES)  # fmt: skip
