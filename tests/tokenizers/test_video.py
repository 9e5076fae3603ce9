"""Context and dynamics tokens of clips: the sequence's rules, cached roll-outs, published files, bad input."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from girih.checkpoints.ivideogpt import convert_tokenizer, load_tokenizer, tokenizer_config
from girih.tokenizers.video import VideoTokenizer
from tests.tokenizers.walks import WALKS, walk

SMALL = {"sample_size": 32, "num_frames": 5, "widths": [32, 32], "num_blocks": 1, "latent_channels": 4,
         "norm_groups": 8, "context_codes": 16, "dynamics_codes": 12, "patch_size": 4,
         "attention_size": 16}  # fmt: skip
SIZES = [
    SMALL,
    {**SMALL, "context_frames": 1, "attention": True, "code_dim": 3},
    {**SMALL, "widths": [32, 64, 32], "num_blocks": 2, "patch_size": 2, "attention_size": 32, "context_frames": 3},
    {**SMALL, "attention_size": 4, "latent_channels": 6},  # only the decoder's middle cross-attends
]


def tokenizer(**sizes) -> VideoTokenizer:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    codec = VideoTokenizer(**sizes).eval()
    for name, parameter in codec.named_parameters():
        if name.endswith("pos_emb"):  # they start at zero
            torch.nn.init.normal_(parameter)
        elif "quantize" in name:  # spread out, so that codes differ
            torch.nn.init.normal_(parameter, std=0.5)
    return codec


@pytest.fixture(scope="module")
def codec() -> VideoTokenizer:
    return tokenizer(**SMALL)


def clips(rows: int = 2, frames: int = 5, size: int = 32) -> torch.Tensor:
    return torch.rand(rows, frames, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("sizes", SIZES)
@torch.no_grad()
def test_tokens_stand_where_they_may_and_decode_as_forward_does(sizes) -> None:  # type: ignore[no-untyped-def]
    codec, video = tokenizer(**sizes), clips()
    tokens = codec.encode(video)
    assert tokens.shape == (2, codec.spec.cells) and codec.spec.cells == codec.length(5)
    ranges = codec.ranges(5)
    assert bool(((tokens >= ranges[:, 0]) & (tokens < ranges[:, 1])).all())
    made = codec(video)
    assert torch.equal(made.tokens, tokens) and made.losses == {} and made.sample.shape == video.shape
    torch.testing.assert_close(codec.decode(tokens), made.sample, atol=2e-5, rtol=0)
    assert len(tokens.unique()) > 6


def test_the_order_of_a_published_model() -> None:
    with torch.device("meta"):
        published = VideoTokenizer()
    assert published.spec.vocab_size == 16386 and published.spec.shape == (751,)
    ranges = published.ranges(16)
    assert ranges[256].tolist() == [16384, 16385] and ranges[513].tolist() == [16385, 16386]
    assert ranges[0].tolist() == [0, 8192] and ranges[-1].tolist() == [8192, 16384]


@pytest.mark.parametrize(*WALKS)
@torch.no_grad()
def test_grammar_walks_decode_and_encodings_are_accepted(codec, count: int) -> None:  # type: ignore[no-untyped-def]
    grammar = codec.spec.grammar
    tokens = walk(grammar, count, codec.spec.cells)
    assert len(codec.split(tokens)[0]) == count
    assert codec.decode(tokens[:2]).isfinite().all()
    state = grammar.start(2)
    for token in codec.encode(clips()).T:
        assert bool(grammar.mask(state).gather(1, token[:, None]).all())
        state = grammar.advance(state, token)
    assert bool(grammar.done(state).all())
    lost = grammar.advance(grammar.start(1), torch.tensor([codec.start_context]))
    assert not bool(grammar.mask(lost).any()) and not bool(grammar.done(lost).any())


def test_labels_leave_out_the_context_and_the_first_start(codec) -> None:  # type: ignore[no-untyped-def]
    tokens = torch.arange(codec.length(5))[None]
    first = codec.length(2)
    labels = codec.labels(tokens)
    assert (labels[:, : first + 1] == -100).all() and torch.equal(labels[:, first + 1 :], tokens[:, first + 1 :])


@torch.no_grad()
def test_clips_do_not_depend_on_their_batch_and_any_length_works(codec) -> None:  # type: ignore[no-untyped-def]
    video = clips(3, 7)
    tokens = codec.encode(video)
    for row in range(3):
        assert torch.equal(codec.encode(video[row : row + 1])[0], tokens[row])
        torch.testing.assert_close(codec.decode(tokens[row : row + 1])[0], codec.decode(tokens)[row], atol=2e-5, rtol=0)
    shorter = codec.encode(video[:, :4])
    assert torch.equal(shorter, tokens[:, : codec.length(4)])  # later frames change nothing before them


@torch.no_grad()
def test_later_frames_look_at_the_context(codec) -> None:  # type: ignore[no-untyped-def]
    tokens = codec.encode(clips())
    grids, changes = codec.split(tokens)
    frames, features = codec.decode_context(grids)
    stepwise = [codec.decode_dynamics(changes[:, k : k + 1], features) for k in range(changes.shape[1])]
    torch.testing.assert_close(torch.cat([frames, *stepwise], 1), codec.decode(tokens), atol=2e-5, rtol=0)
    _, other = codec.decode_context((grids + 1) % 16)
    assert (codec.decode_dynamics(changes, other) - torch.cat(stepwise, 1)).abs().max() > 1e-3
    for frame in range(2):  # each of the context frames counts
        changed = grids.clone()
        changed[:, frame] = (changed[:, frame] + 1) % 16
        _, other = codec.decode_context(changed)
        assert not torch.allclose(codec.decode_dynamics(changes, other), torch.cat(stepwise, 1))


@given(st.integers(1, 4), st.integers(0, 10**6))
@settings(max_examples=8)
@torch.no_grad()
def test_any_tokens_in_their_ranges_decode(codec, later: int, seed: int) -> None:  # type: ignore[no-untyped-def]
    ranges = codec.ranges(2 + later)
    draw = torch.rand(1, len(ranges), generator=torch.Generator().manual_seed(seed))
    tokens = (ranges[:, 0] + draw * (ranges[:, 1] - ranges[:, 0])).long()
    grids, changes = codec.split(tokens)
    assert torch.equal(codec._sequence(grids, changes, 1), tokens)
    assert codec.decode(tokens).shape == (1, 2 + later, 3, 32, 32)


def test_training_moves_every_part() -> None:
    codec = tokenizer(**SMALL).train()
    made = codec(clips())
    assert set(made.losses) == {"vq", "commit", "dynamics_vq", "dynamics_commit"}
    assert made.losses["vq"].item() == pytest.approx(made.losses["commit"].item())
    ((made.sample - clips()).abs().mean() + sum(made.losses.values())).backward()
    still = [name for name, p in codec.named_parameters() if p.grad is None or not bool((p.grad != 0).any())]
    assert still == []


@torch.no_grad()
def test_files(codec, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    codec.save_pretrained(tmp_path)
    again = VideoTokenizer.from_pretrained(tmp_path)
    assert again.spec == codec.spec and torch.equal(again.encode(clips()), codec.encode(clips()))
    assert int(again.spec.grammar.mask(again.spec.grammar.start(1)).sum()) == 16


def test_bad_clips(codec) -> None:  # type: ignore[no-untyped-def]
    for bad, message in (
        (clips(size=30), r"must be \[B, T, 3, 32, 32\]"),
        (clips()[0], r"video is \[5, 3, 32, 32\]"),
        (clips(frames=2), "the clip has 2 frames, of which 2 are context"),
        (clips() * 2 - 1, r"must be in \[0, 1\], got -"),
        (clips() * float("nan"), "got nan to nan"),
    ):
        with pytest.raises(ValueError, match=message):
            codec.encode(bad)


def test_bad_tokens(codec) -> None:  # type: ignore[no-untyped-def]
    tokens = codec.ranges(5)[:, 0][None].clone()
    codec.split(tokens)
    for place, value, message in (
        (0, 16, "token 16 at place 0 of row 0: must be 0 .. 15"), (3, -1, "token -1"), (256, 5, "must be 28 .. 28"),
        (513, 28, "must be 29 .. 29"), (514, 15, "must be 16 .. 27"),
    ):  # fmt: skip
        wrong = tokens.clone()
        wrong[0, place] = value
        with pytest.raises(ValueError, match=message):
            codec.decode(wrong)
    with pytest.raises(ValueError, match=r"tokens are \[1, 546\]; a clip has 513 \+ n \* 17"):
        codec.decode(tokens[:, :546])
    with pytest.raises(ValueError, match="a clip has 513"):
        codec.decode(tokens[:, :100])


def test_bad_sizes() -> None:
    with pytest.raises(ValueError, match="sample_size 36 is not a multiple of 8"):
        VideoTokenizer(**{**SMALL, "sample_size": 36})
    with pytest.raises(ValueError, match="num_frames 2 must exceed context_frames 2"):
        VideoTokenizer(**{**SMALL, "num_frames": 2})


# --- published files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", SIZES)
def test_sizes_come_from_the_tensors(sizes) -> None:  # type: ignore[no-untyped-def]
    codec = tokenizer(**sizes)
    read = tokenizer_config(codec.state_dict(), norm_num_groups=8)
    with torch.device("meta"):
        again = VideoTokenizer(**read)
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in codec.state_dict().items()}
    names = ("sample_size", "context_frames", "widths", "num_blocks", "patch_size", "attention", "context_codes")
    assert all(read[name] == codec.config[name] for name in names)


@torch.no_grad()
def test_convert_reads_the_config_beside_the_weights(codec, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    from safetensors.torch import save_file

    save_file(codec.state_dict(), tmp_path / "diffusion_pytorch_model.safetensors")
    (tmp_path / "config.json").write_text(
        '{"_class_name": "CompressiveVQModel", "norm_num_groups": 8, "sample_size": 32, "scaling_factor": 0.18215,'
        ' "block_out_channels": [32, 32], "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D"],'
        ' "vq_embed_dim": null, "norm_type": "group", "max_att_resolution": 16}'
    )
    convert_tokenizer(tmp_path, tmp_path / "out")
    again = VideoTokenizer.from_pretrained(tmp_path / "out")
    assert torch.equal(again.encode(clips()), codec.encode(clips()))
    for known, message in (
        ({"latent_channels": 8}, "the config says latent_channels 8, the tensors say 4"),
        ({"norm_type": "spatial"}, "norm_type spatial is not supported, only group"),
        ({"patchsize": 4}, "unknown iVideoGPT setting 'patchsize'; did you mean 'patch_size'"),
    ):
        with pytest.raises(ValueError, match=message):
            load_tokenizer(tmp_path, **known)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="config.json is not JSON"):
        load_tokenizer(tmp_path)
    with pytest.raises(ValueError, match="lacks tensor encoder.conv_out.weight; it is no iVideoGPT tokenizer"):
        tokenizer_config({})
