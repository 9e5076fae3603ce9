"""FAST action tokens: nothing finite is undecodable, what is out of range is flagged, the published form is kept."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import girih
from girih.tokenizers.action import ActionTokenizer, cosine_transform, normalise, quantiles
from girih.tokenizers.action_files import to_chunks
from girih.tokenizers.action_symbols import MANY_ROWS, SLICE, ByteSymbols, IntegerSymbols
from girih.training.data.actions import record, record_chunks
from tests.tokenizers.walks import WALKS, walk

ASSETS = Path(__file__).parents[2] / "assets"


@pytest.fixture(scope="module")
def chunks() -> np.ndarray:
    return record_chunks(300, seed=3)


@pytest.fixture(scope="module")
def tokenizer(chunks: np.ndarray) -> ActionTokenizer:
    return ActionTokenizer.fit(chunks, scale=10, vocab_size=600)


def bound(tokenizer: ActionTokenizer) -> float:
    """Largest error of a value in range: half a coefficient step each, root of the sum of squares over a column."""
    return 0.5 / tokenizer.config["scale"] * math.sqrt(tokenizer.config["horizon"])


def test_cosine_transform_is_orthonormal_and_type_two() -> None:
    for steps in (1, 2, 7, 16):
        matrix = cosine_transform(steps)
        assert np.allclose(matrix @ matrix.T, np.eye(steps))
        signal = np.random.default_rng(0).normal(size=steps)
        for k in range(steps):  # the textbook sum
            plain = sum(signal[n] * math.cos(math.pi * k * (n + 0.5) / steps) for n in range(steps))
            assert matrix[k] @ signal == pytest.approx(plain * math.sqrt((1 if k == 0 else 2) / steps))


def test_round_trip_within_its_bound_and_exact_for_what_was_decoded(tokenizer, chunks) -> None:  # type: ignore[no-untyped-def]
    encoded = tokenizer.encode_flagged(chunks)
    decoded = tokenizer.decode_flagged(encoded.tokens)
    assert bool(decoded.valid.all()) and not bool(encoded.clipped.any())
    assert np.abs(decoded.actions.numpy() - chunks).max() <= bound(tokenizer)
    coefficients = tokenizer.coefficients(chunks)[0]
    symbols, lengths = tokenizer.symbols.decode(tokenizer.rows(encoded.tokens))
    assert np.array_equal(symbols, coefficients.ravel()) and set(lengths) == {64}


finite = st.floats(allow_nan=False, allow_infinity=False, width=64)


@given(st.lists(st.one_of(finite, st.floats(-1, 1), st.sampled_from([0.0, 1.0, -1.0, 1e308, -1e308])), min_size=64,
                max_size=64))  # fmt: skip
def test_no_finite_chunk_is_undecodable(tokenizer, values: list[float]) -> None:  # type: ignore[no-untyped-def]
    chunk = np.array(values).reshape(1, 16, 4)
    encoded = tokenizer.encode_flagged(chunk)
    decoded = tokenizer.decode_flagged(encoded.tokens, dtype=torch.float64)
    assert bool(decoded.valid.all()) and bool(decoded.actions.isfinite().all())
    limit = tokenizer.config["limit"]
    with np.errstate(over="ignore"):
        wanted = normalise(chunk, tokenizer.low, tokenizer.high)
    assert bool(encoded.clipped[0]) == bool((np.abs(wanted) > limit).any())
    nearest = np.clip(wanted, -limit, limit)
    assert np.abs(normalise(decoded.actions.numpy(), tokenizer.low, tokenizer.high) - nearest).max() <= bound(tokenizer)


@given(st.lists(st.lists(st.integers(-9, 9), min_size=3, max_size=3), min_size=1, max_size=40), st.integers(19, 60))
def test_integers_come_back_whatever_was_fitted(rows: list[list[int]], size: int) -> None:
    fitted = IntegerSymbols(9, IntegerSymbols.learn(np.array(rows), 9, size))
    assert fitted.size <= size
    other = np.random.default_rng(len(rows)).integers(-9, 10, (20, 3))
    for table in (np.array(rows), other):
        ids = fitted.encode(table)
        symbols, lengths = fitted.decode(ids)
        assert np.array_equal(symbols.reshape(-1, 3), table) and set(lengths) == {3}
        assert all((0 <= row).all() and (row < fitted.size).all() for row in ids)


@given(st.integers(0, 10**6), st.integers(2, 5), st.integers(1, 30), st.integers(5, 80))
def test_merging_side_by_side_is_the_library_s_bpe(seed: int, values: int, length: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, values, (MANY_ROWS, length)) * rng.integers(0, 2, (MANY_ROWS, 1)) - 2  # runs and overlaps
    fitted = IntegerSymbols(2, IntegerSymbols.learn(rows[::2], 2, size))
    together, alone = fitted.encode(rows), [fitted.encode(row[None])[0] for row in rows]
    assert all(np.array_equal(a, b) for a, b in zip(together, alone, strict=True))


def test_merges_make_the_ids_that_were_learned() -> None:
    rows = np.random.default_rng(0).geometric(0.5, (300, 20)) % 8 - 4
    merges = IntegerSymbols.learn(rows, 4, 200)
    assert len(merges) > 100
    again = IntegerSymbols(4, merges)
    assert again.size <= 200 and sum(map(len, again.encode(rows))) < rows.size / 2


def test_many_rows_make_what_each_makes_alone(tokenizer, chunks) -> None:  # type: ignore[no-untyped-def]
    many = np.concatenate([chunks, chunks[::-1], chunks / 2, chunks * 0.9])
    assert len(many) > SLICE
    together = tokenizer.rows(tokenizer.encode(many))
    alone = [tokenizer.rows(tokenizer.encode(chunk[None]))[0] for chunk in many]
    assert all(np.array_equal(a, b) for a, b in zip(together, alone, strict=True))
    assert tokenizer.encode(many[:0]).shape[0] == 0 and tokenizer.decode(tokenizer.encode(many[:0])).shape == (0, 16, 4)


def test_constant_and_rarely_moving_dimensions() -> None:
    rng = np.random.default_rng(0)
    chunks = rng.uniform(-3, 5, (200, 8, 3))
    chunks[..., 1] = 7.25
    chunks[..., 2] = 0
    chunks[0, 3, 2] = 1.0  # the percentiles do not see it
    tokenizer = ActionTokenizer.fit(chunks, scale=100, vocab_size=2000)
    encoded = tokenizer.encode_flagged(chunks)
    decoded = tokenizer.decode(encoded.tokens, dtype=torch.float64).numpy()
    assert (decoded[..., 1] == 7.25).all() and abs(decoded[0, 3, 2] - 1) < 0.05 and not bool(encoded.clipped.any())
    chunks[0, 0, 1] = 7.5
    encoded = tokenizer.encode_flagged(chunks[:2])
    assert encoded.clipped.tolist() == [True, False]
    assert (tokenizer.decode(encoded.tokens).numpy()[..., 1] == 7.25).all()


@pytest.mark.parametrize("fallback", ["relaxed", "zero", "repeat"])
def test_fallbacks(chunks, fallback: str) -> None:  # type: ignore[no-untyped-def]
    tokenizer = ActionTokenizer.fit(chunks, fallback=fallback)
    rows = tokenizer.rows(tokenizer.encode(chunks[:3]))
    rows = [rows[0][:-2], rows[1], np.concatenate([rows[2], rows[2]])]
    previous = np.arange(12.0).reshape(3, 4)
    decoded = tokenizer.decode_flagged(rows, previous)
    assert decoded.valid.tolist() == [False, True, False]
    actions, whole = decoded.actions.numpy(), tokenizer.decode(tokenizer.encode(chunks[:3])).numpy()
    assert np.array_equal(actions[1], whole[1])
    if fallback == "relaxed":
        assert np.array_equal(actions[2], whole[2])  # what is too long is cut
        assert np.abs(actions[0] - whole[0]).mean() < 0.2  # the last, highest frequencies are missing
    elif fallback == "zero":
        middle = (tokenizer.low + tokenizer.high) / 2
        assert np.allclose(actions[[0, 2]], middle, atol=1e-6)
    else:
        assert np.array_equal(actions[[0, 2]], np.repeat(previous[[0, 2], None], 16, 1))
        with pytest.raises(ValueError, match="needs previous="):
            tokenizer.decode(rows)
        with pytest.raises(ValueError, match=r"previous is \[1, 4\], must be \[3, 4\]"):
            tokenizer.decode(rows, previous[:1])


def test_tokens_after_the_end_are_left_out(tokenizer, chunks) -> None:  # type: ignore[no-untyped-def]
    tokens = tokenizer.encode(chunks[:2])
    longer = torch.cat([tokens, torch.zeros_like(tokens)], 1)
    assert torch.equal(tokenizer.decode(longer), tokenizer.decode(tokens))
    assert (tokens == tokenizer.spec.eos).sum(1).tolist() == [1, 1]


@pytest.mark.parametrize(*WALKS)
def test_grammar_walks_decode(tokenizer, count: int) -> None:  # type: ignore[no-untyped-def]
    tokens = walk(tokenizer.spec.grammar, count, tokenizer.spec.cells)
    assert bool(tokenizer.decode_flagged(tokens).valid.all())


def test_grammar_accepts_what_was_encoded(tokenizer, chunks) -> None:  # type: ignore[no-untyped-def]
    grammar = tokenizer.spec.grammar
    state = grammar.start(50)
    for token in tokenizer.encode(chunks[:50]).T:
        assert bool(grammar.mask(state).gather(1, token[:, None]).all())
        state = grammar.advance(state, token)
    assert bool(grammar.done(state).all())
    lost = grammar.advance(grammar.start(1), torch.tensor([tokenizer.spec.eos]))
    assert not bool(grammar.mask(lost).any()) and not bool(grammar.done(lost).any())


def test_files(tokenizer, chunks, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    tokenizer.save_pretrained(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["scheduler_config.json"]
    again = girih.ActionTokenizer.from_pretrained(tmp_path)
    assert again.spec == tokenizer.spec
    assert torch.equal(again.encode(chunks), tokenizer.encode(chunks))
    assert torch.equal(again.decode(tokenizer.encode(chunks)), tokenizer.decode(tokenizer.encode(chunks)))


def test_shipped_vocabulary_and_sample() -> None:
    tokenizer = ActionTokenizer.from_pretrained(ASSETS / "models" / "actions-fast")
    sample = np.load(ASSETS / "samples" / "actions.npy")
    assert np.array_equal(sample[:60], record_chunks(60))
    assert (ASSETS / "samples" / "actions.npy").stat().st_size < 200_000
    for chunks, tokens in ((sample, 16.5), (record_chunks(150, seed=1), 18.5)):
        encoded = tokenizer.encode_flagged(chunks)
        decoded = tokenizer.decode_flagged(encoded.tokens)
        assert bool(decoded.valid.all()) and not bool(encoded.clipped.any())
        assert float((encoded.tokens < tokenizer.spec.eos).sum(1).float().mean()) < tokens  # of 64 numbers
        assert np.sqrt(((decoded.actions.numpy() - chunks) ** 2).mean()) < 0.024


@pytest.mark.parametrize("bad, message", [
    (np.zeros((2, 16, 5)), r"chunks are \[2, 16, 5\], this tokenizer was made for \[B, 16, 4\]"),
    (np.zeros((16, 4)), r"must be \[B, H, D\]"),
    (np.full((1, 16, 4), np.nan), "chunk 0, step 0, dimension 0 is nan"),
    (np.full((1, 16, 4), np.inf), "is inf, not a finite number"),
])  # fmt: skip
def test_bad_chunks(tokenizer, bad: np.ndarray, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        tokenizer.encode(bad)


def test_bad_tokens_and_settings(tokenizer, chunks) -> None:  # type: ignore[no-untyped-def]
    size = tokenizer.spec.vocab_size
    for wrong in (size, -1):
        with pytest.raises(ValueError, match=rf"token {wrong} in row 0: this vocabulary has ids 0 .. {size - 1}"):
            tokenizer.decode(torch.tensor([[0, wrong]]))
    for wrong in (torch.tensor([[0.5]]), [[[0]]], torch.tensor([1, 2]), ["ab"]):
        with pytest.raises(ValueError, match=r"must be \[B, L\] or lists of ids"):
            tokenizer.decode(wrong)
    with pytest.raises(ValueError, match=r"no actions to fit on"):
        ActionTokenizer.fit(np.zeros((0, 16, 4)))
    with pytest.raises(ValueError, match="vocab_size is 50; use a smaller scale"):
        ActionTokenizer.fit(chunks, vocab_size=50)
    with pytest.raises(ValueError, match="unknown fallback 'zeros'; did you mean 'zero'"):
        ActionTokenizer(16, 4, fallback="zeros")
    with pytest.raises(ValueError, match="low has 1 and high 1 numbers, the width is 4"):
        ActionTokenizer(16, 4, low=[0.0], high=[1.0])
    with pytest.raises(ValueError, match="nowhere above"):
        ActionTokenizer(16, 1, low=[2.0], high=[1.0])
    with pytest.raises(ValueError, match="merge 0 joins 0 and 900"):
        ActionTokenizer(16, 4, merges=["0 900"])
    with pytest.raises(ValueError, match="merge 1 is 'x y'"):
        ActionTokenizer(16, 4, merges=["0 1", "x y"])
    with pytest.raises(ValueError, match="limit > 0"):
        ActionTokenizer(16, 4, limit=None)


# --- the published form -----------------------------------------------------------------------------------------------


def published_loop(chunks: np.ndarray, content: dict, scale: float, min_token: int) -> list[list[int]]:  # type: ignore[type-arg]
    """The published processor's way: one chunk after another through transformers."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    bpe = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(content)))
    coefficients = np.rint(scale * np.einsum("kn,bnd->bkd", cosine_transform(chunks.shape[1]), chunks)).astype(int)
    return [bpe("".join(chr(max(c - min_token, 0)) for c in chunk.ravel()))["input_ids"] for chunk in coefficients]


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> tuple[Path, dict, int]:  # type: ignore[no-untyped-def, type-arg]
    rng = np.random.default_rng(0)
    rows = np.rint(rng.normal(0, 12, (150, 48)) * np.linspace(3, 0.1, 48)).astype(int)
    content, min_token = ByteSymbols.learn(rows, 512)
    folder = tmp_path_factory.mktemp("fast")
    (folder / "tokenizer.json").write_text(json.dumps(content), "utf-8")
    (folder / "processor_config.json").write_text(json.dumps({"scale": 10, "min_token": min_token, "vocab_size": 512}))
    return folder, content, min_token


def test_published_ids_losses_and_zeros(published) -> None:  # type: ignore[no-untyped-def]
    folder, content, min_token = published
    tokenizer = ActionTokenizer.from_published(folder, 12, 4)
    rng = np.random.default_rng(1)
    chunks = rng.normal(0, 0.6, (60, 12, 4)).cumsum(1) / 2
    chunks[-1] *= 20  # far out of range: characters vanish
    ids = tokenizer.rows(tokenizer.encode(chunks))
    assert [row.tolist() for row in ids] == published_loop(chunks, content, 10, min_token)
    decoded = tokenizer.decode_flagged(ids, dtype=torch.float64)
    assert not bool(decoded.valid[-1]) and bool(decoded.valid[:40].any())
    assert (decoded.actions[~decoded.valid] == 0).all()
    inside = (tokenizer.coefficients(chunks)[0] >= min_token).all((1, 2)) & decoded.valid.numpy()
    assert inside.any() and np.abs(decoded.actions.numpy() - chunks)[inside].max() <= 0.05 * math.sqrt(12)


def test_published_form_is_saved_whole(published, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    tokenizer = ActionTokenizer.from_published(published[0], 12, 4)
    tokenizer.save_pretrained(tmp_path)
    again = ActionTokenizer.from_pretrained(tmp_path)
    chunks = np.random.default_rng(2).normal(0, 1, (20, 12, 4))
    assert torch.equal(again.encode(chunks), tokenizer.encode(chunks)) and again.spec.grammar is None
    with pytest.raises(ValueError, match="are the actions normalised"):
        again.encode(chunks * 1e5)
    with pytest.raises(ValueError, match="normalise them first"):
        again.encode(chunks * 1e300)


def test_bad_published_folders(published, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="processor_config.json cannot be read: No such file"):
        ActionTokenizer.from_published(tmp_path, 16, 4)
    (tmp_path / "processor_config.json").write_text('{"scale": 10}')
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match="tokenizer.json is not JSON"):
        ActionTokenizer.from_published(tmp_path, 16, 4)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match="has no number min_token"):
        ActionTokenizer.from_published(tmp_path, 16, 4)
    (tmp_path / "processor_config.json").write_text('{"scale": 10, "min_token": -3}')
    with pytest.raises(ValueError, match="not a tokenizer.json"):
        ActionTokenizer.from_published(tmp_path, 16, 4)


def test_quantiles_are_over_all_steps() -> None:
    chunks = np.arange(400.0).reshape(10, 20, 2)
    low, high = quantiles(chunks)
    assert low.tolist() == pytest.approx([2 * 1.99, 2 * 1.99 + 1]) and high[0] == pytest.approx(2 * 197.01)
    assert normalise(low, low, high) == pytest.approx([-1, -1]) and normalise(high, low, high) == pytest.approx([1, 1])


# --- the scripted simulator -------------------------------------------------------------------------------------------


def test_experts_do_their_tasks() -> None:
    episodes = record(90, seed=7)
    assert {one.task for one in episodes} == {"reach", "push", "stack"}
    assert sum(one.success for one in episodes) >= 86  # of 90
    assert all(np.abs(one.actions).max() <= 1 and one.actions.dtype == np.float32 for one in episodes)
    assert max(len(one.actions) for one in episodes) < 200


def test_recordings_depend_on_seed_and_index_alone() -> None:
    few, many = record(3, seed=5), record(9, seed=5)
    assert all(np.array_equal(a.actions, b.actions) for a, b in zip(few, many, strict=False))
    assert not np.array_equal(record(1, seed=6)[0].actions, few[0].actions)
    calm = [one for one in record(30, seed=0, noise=0.0) if one.success]
    assert len(calm) >= 28
    assert record_chunks(20, horizon=5).shape == (20, 5, 4)
    assert to_chunks([few[0].actions], 4, 2).shape[1:] == (4, 4)
