"""Open-MAGVIT2's checkpoints: names and forms of the tokenizer's tensors, moving averages, and what is refused."""

import re

import pytest
import torch

from girih.checkpoints.openmagvit2 import convert_vq, load_vq
from girih.tokenizers.lookup_free import LookupFreeTokenizer

CONFIG = {
    "sample_size": 8,
    "encoder_widths": [64, 32],
    "encoder_blocks": [1, 1],
    "decoder_widths": [32, 64],
    "decoder_blocks": [1, 1],
    "middle_blocks": 2,
    "stem_width": 32,
    "bits": [2, 3],
}


def peer():
    """A tokenizer without the biases that the peer has not, and its weights under the peer's names and forms."""
    torch.manual_seed(0)
    codec = LookupFreeTokenizer(**CONFIG).eval()
    state = {}
    for name, tensor in codec.state_dict().items():
        unbiased = ".res." in name or ".mid." in name or name.startswith("encoder.conv_in.")
        if unbiased and re.search(r"(conv\w*|nin_shortcut)\.bias$", name):
            tensor.zero_()
            continue
        if name == "encoder.conv_out.weight":
            tensor[:, :, [0, 0, 0, 1, 1, 2, 2, 2], [0, 1, 2, 0, 2, 0, 1, 2]] = 0
            tensor = tensor[:, :, 1:2, 1:2]
        if ".upsample." in name:  # ours: channel, row, column; the peer's: row, column, channel
            tensor = tensor.unflatten(0, (-1, 2, 2)).movedim(0, 2).flatten(0, 2)
            name = name.replace(".upsample.conv.", ".upsample.conv1.")
        name = name.replace(".mid.", ".mid_block.").replace(".res.", ".block.")
        name = name.replace("downsample.conv.", "downsample.").replace("encoder.conv_blocks.", "encoder.down.")
        name = re.sub(r"decoder\.conv_blocks\.(\d)", lambda m: f"decoder.up.{1 - int(m[1])}", name)
        name = re.sub(r"adaptive\.(\d)", lambda m: f"adaptive.{1 - int(m[1])}", name)
        state[name] = tensor.clone()
    return codec, state


@pytest.mark.parametrize("prefix", ["", "first_stage_model."])
def test_published_names_give_the_same_tokens_and_pictures(prefix, tmp_path):
    codec, state = peer()
    training = {"loss.discriminator.weight": torch.zeros(3), "global_step": torch.zeros(1)}
    torch.save({"state_dict": {**{prefix + name: t for name, t in state.items()}, **training}}, tmp_path / "a.ckpt")
    config, read = load_vq(tmp_path / "a.ckpt", bits=[2, 3], sample_size=8)
    again = LookupFreeTokenizer.from_config(config).eval()
    again.load_state_dict(read)
    images = torch.rand(2, 3, 8, 12) * 2 - 1
    with torch.no_grad():
        assert torch.equal(again.encode(images), codec.encode(images))
        torch.testing.assert_close(again.decode(again.encode(images)), codec.decode(codec.encode(images)))


def test_moving_averages_are_preferred_and_can_be_refused(tmp_path):
    _, state = peer()
    averages = {"model_ema." + name.replace(".", ""): tensor + 1 for name, tensor in state.items()}
    averages["model_ema.decay"] = torch.tensor(0.999)
    torch.save({**state, **averages}, tmp_path / "a.ckpt")
    averaged, plain = (load_vq(tmp_path / "a.ckpt", averaged=choice)[1] for choice in (True, False))
    torch.testing.assert_close(averaged["decoder.norm_out.weight"], plain["decoder.norm_out.weight"] + 1)


def test_bits_are_the_published_ones_where_nobody_says(tmp_path):
    torch.save(peer()[1], tmp_path / "a.ckpt")
    assert load_vq(tmp_path / "a.ckpt")[0]["bits"] == [5]


def test_convert_writes_a_folder_that_loads(tmp_path):
    codec, state = peer()
    torch.save(state, tmp_path / "a.ckpt")
    convert_vq(tmp_path / "a.ckpt", tmp_path / "out", {"sample_size": 8})
    again = LookupFreeTokenizer.from_pretrained(tmp_path / "out").eval()
    images = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(again(images).sample, codec(images).sample)


def test_what_does_not_fit_is_said_in_one_line(tmp_path):
    _, state = peer()
    path = tmp_path / "a.ckpt"

    def refuses(message, changed=state, **known):
        torch.save(changed, path)
        with pytest.raises(ValueError, match=message) as caught:
            load_vq(path, **known)
        assert "\n" not in str(caught.value)

    refuses(r"has 5 bits a token, which sub-tokens of \[6, 12\] bits do not make", bits=[6, 12])
    refuses("unknown Open-MAGVIT2 setting 'bit'; did you mean 'bits'", bit=[5])
    refuses("lacks tensor encoder.conv_out.weight; it is no Open-MAGVIT2", {"a": torch.zeros(1)})
    without = {name: t for name, t in state.items() if name != "decoder.adaptive.1.gamma.weight"}
    refuses("lacks tensor decoder.adaptive.0.gamma.weight", without)
    refuses("encoder.extra.weight that the model has no place", {**state, "encoder.extra.weight": torch.zeros(3)})
