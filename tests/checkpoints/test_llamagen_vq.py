"""LlamaGen VQ files: every published layout, sizes read from tensors, and one clear line for what cannot be read."""

import pickle

import pytest
import torch
from safetensors.torch import save_file

from girih.checkpoints.llamagen import convert_vq, load_vq
from girih.tokenizers.image import ImageTokenizer, llamagen_config

SHAPES = [
    {"ch": 32, "encoder_ch_mult": [1, 1], "decoder_ch_mult": [1, 1], "z_channels": 32, "codebook_size": 64},
    {
        "ch": 32,
        "encoder_ch_mult": [1, 2, 2],
        "decoder_ch_mult": [1, 2, 4],
        "num_res_blocks": 1,
        "z_channels": 48,
        "codebook_size": 77,
        "codebook_embed_dim": 5,
        "codebook_show_usage": False,
    },
    {
        "ch": 64,
        "encoder_ch_mult": [2],
        "decoder_ch_mult": [2],
        "num_res_blocks": 3,
        "z_channels": 7,
        "codebook_size": 9,
    },
]


def model(**sizes):
    torch.manual_seed(0)
    return ImageTokenizer(**llamagen_config(**sizes, sample_size=16)).eval()


@pytest.mark.parametrize("sizes", SHAPES)
def test_sizes_come_from_the_tensors(sizes, tmp_path):
    codec = model(**sizes)
    torch.save({"model": codec.state_dict()}, tmp_path / "vq.pt")
    config, state = load_vq(tmp_path / "vq.pt", sample_size=16)
    assert config == llamagen_config(**sizes, sample_size=16)
    again = ImageTokenizer.from_config(config).eval()
    again.load_state_dict(state)
    images = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(again(images).sample, codec(images).sample)


@pytest.mark.parametrize("wrap", ["model", "module", "state_dict", "ema", None, "safetensors"])
def test_every_layout_opens(wrap, tmp_path):
    state = model(**SHAPES[0]).state_dict()
    path = tmp_path / ("vq.safetensors" if wrap == "safetensors" else "vq.pt")
    if wrap == "safetensors":
        save_file(state, path)
    else:
        torch.save(state if wrap is None else {wrap: state, "steps": 3}, path)
    _, read = load_vq(path)
    assert read.keys() == state.keys() and all(torch.equal(read[name], state[name]) for name in state)


def test_convert_writes_a_folder_that_loads(tmp_path):
    codec = model(**SHAPES[0], codebook_l2_norm=False)
    torch.save(codec.state_dict(), tmp_path / "vq.pt")
    convert_vq(tmp_path / "vq.pt", tmp_path / "out", {"codebook_l2_norm": False, "sample_size": 16})
    again = ImageTokenizer.from_pretrained(tmp_path / "out").eval()
    images = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(again(images).sample, codec(images).sample)
    with pytest.raises(ValueError, match="exists already"):
        convert_vq(tmp_path / "vq.pt", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "vq.pt"]


class Code:
    def __reduce__(self):
        return (print, ("code ran",))


def test_what_cannot_be_read_is_said_in_one_line(tmp_path, capsys):
    path = tmp_path / "vq.pt"
    state = model(**SHAPES[0]).state_dict()

    def refuses(message, **known):
        with pytest.raises(ValueError, match=message) as caught:
            load_vq(path, **known)
        assert "\n" not in str(caught.value)

    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_vq(path)
    torch.save({"model": state, "hook": Code()}, path)
    refuses("more than tensors")
    path.write_bytes(pickle.dumps({"model": Code()}))
    refuses("vq.pt")
    assert "code ran" not in capsys.readouterr().out
    torch.save(state, path)
    path.write_bytes(path.read_bytes()[:1000])
    refuses("cut short")
    path.write_bytes(b"")
    refuses("cut short")
    torch.save([1, 2], path)
    refuses("holds a list")
    torch.save({"model": {"a": 1}}, path)
    refuses("no tensors by name")
    torch.save({name: t for name, t in state.items() if name != "encoder.mid.1.q.weight"}, path)
    refuses("lacks tensor encoder.mid.1.q.weight")
    torch.save({name: t for name, t in state.items() if name != "encoder.conv_in.weight"}, path)
    refuses("no LlamaGen VQ tokenizer")
    torch.save({**state, "decoder.norm_out.bias": torch.zeros(3)}, path)
    refuses(r"decoder.norm_out.bias has shape \[3\], the config asks for \[32\]")
    torch.save({**state, "extra.weight": torch.zeros(3)}, path)
    refuses("extra.weight that the model has no place for")
    torch.save(state, path)
    refuses("ch_multt", ch_multt=3)
    refuses(r"quantize.embedding.weight has shape \[64, 8\], the config asks for \[32, 8\]", codebook_size=32)


def test_cut_safetensors_is_refused(tmp_path):
    save_file(model(**SHAPES[0]).state_dict(), tmp_path / "vq.safetensors")
    whole = (tmp_path / "vq.safetensors").read_bytes()
    (tmp_path / "vq.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        load_vq(tmp_path / "vq.safetensors")
