"""Byte BPE loses nothing, prefixes of encodings are encodings, and next-byte laws agree with brute force."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from girih.tokenizers.bytes import (
    END,
    SPECIALS,
    NextByte,
    WordByteTokenizer,
    byte_encoder,
    token_bytes,
    train_byte_bpe,
)

TEXTS = ["the robot moves the red block", "then the block is stacked", "theory 1234567 ångström: naïve!", "  two  \n"]


@pytest.fixture(scope="module")
def tokenizer():  # type: ignore[no-untyped-def]
    return train_byte_bpe(TEXTS * 3, 400)


@given(st.text(max_size=40))
def test_any_text_comes_back(tokenizer, text: str) -> None:  # type: ignore[no-untyped-def]
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids) == text
    assert byte_encoder(tokenizer)(text.encode()) == ids
    assert b"".join(token_bytes(tokenizer)[i] for i in ids) == text.encode()


PARTS = ["the", " block", "  ", "é", "12345", "\n", "!?", "then "]


@given(st.lists(st.sampled_from(PARTS), max_size=8), st.integers(0, 60))
def test_every_prefix_of_an_encoding_is_one(tokenizer, parts: list[str], cut: int) -> None:  # type: ignore[no-untyped-def]
    encode, vocabulary = byte_encoder(tokenizer), token_bytes(tokenizer)
    ids = encode("".join(parts).encode()[:cut])
    for length in range(len(ids)):
        assert encode(b"".join(vocabulary[i] for i in ids[:length])) == ids[:length]


def test_special_tokens_have_fixed_ids_and_are_text_when_written(tokenizer, tmp_path) -> None:  # type: ignore[no-untyped-def]
    assert tokenizer.convert_tokens_to_ids(list(SPECIALS)) == [0, 1, 2]
    tokenizer.save_pretrained(tmp_path)
    from transformers import PreTrainedTokenizerFast

    for one in (tokenizer, PreTrainedTokenizerFast.from_pretrained(tmp_path)):
        ids = one("a <pad> of <eos>")["input_ids"]
        assert not set(ids) & {0, 1, 2} and one.decode(ids) == "a <pad> of <eos>"
        assert one(["the", "the robot moves"], padding=True)["input_ids"][0][-1] == 0


def test_bad_vocabulary_sizes() -> None:
    with pytest.raises(ValueError, match="vocab_size is 200; it must be at least 259"):
        train_byte_bpe(TEXTS, 200)
    with pytest.raises(ValueError, match="end is 7"):
        NextByte([b"a", b"b"], end=7)
    with pytest.raises(ValueError, match="no text"):
        NextByte([b""])


# --- next-byte laws -----------------------------------------------------------------------------------------------

VOCABULARY = [b"a", b"b", b"ab", b"ba", b"aa", b"bab", b""]  # the last one ends a text
STOP = 6


def chain(seed: int):  # type: ignore[no-untyped-def]
    """A random model whose law depends on the last two tokens."""
    logits = torch.randn(8, 8, len(VOCABULARY), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

    def model(ids: Sequence[int]) -> torch.Tensor:
        padded = [7, 7, *ids]
        return torch.stack([logits[padded[i], padded[i + 1]].log_softmax(0) for i in range(len(ids) + 1)])

    return model


def sequences(bytes_at_least: int):  # type: ignore[no-untyped-def]
    """All token sequences that end with STOP or have just passed so many bytes."""
    open_ends: list[tuple[int, ...]] = [()]
    while open_ends:
        ids = open_ends.pop()
        yield (*ids, STOP)
        for i in range(STOP):
            longer = (*ids, i)
            if sum(len(VOCABULARY[j]) for j in longer) > bytes_at_least:
                yield longer
            else:
                open_ends.append(longer)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("prefix", [b"", b"a", b"ab", b"bab", b"aab", b"b", b"abab"])
def test_any_model_agrees_with_brute_force(prefix: bytes, seed: int) -> None:
    model = chain(seed)
    wanted = torch.zeros(END + 1, dtype=torch.float64)
    for ids in sequences(len(prefix)):
        text = b"".join(VOCABULARY[i] for i in ids)
        if text.startswith(prefix):
            probability = sum(model(ids)[k, i].item() for k, i in enumerate(ids))
            wanted[END if text == prefix else text[len(prefix)]] += math.exp(probability)
    joint = NextByte(VOCABULARY, end=STOP).joint(prefix, model)
    torch.testing.assert_close(joint.exp(), wanted)
    torch.testing.assert_close(NextByte(VOCABULARY, end=STOP)(prefix, model).exp(), wanted / wanted.sum())


def greedy(data: bytes) -> list[int]:
    """Longest match first, from the left: the encoder that the canonical model below is trained on."""
    ids = []
    while data:
        i = max((i for i in range(STOP) if data.startswith(VOCABULARY[i])), key=lambda i: len(VOCABULARY[i]))
        ids.append(i)
        data = data[len(VOCABULARY[i]) :]
    return ids


def canonical(seed: int):  # type: ignore[no-untyped-def]
    """The random model, with no probability for what ``greedy`` would not write."""
    free = chain(seed)

    def model(ids: Sequence[int]) -> torch.Tensor:
        law = free(ids).clone()
        for k in range(len(ids) + 1):
            so_far = b"".join(VOCABULARY[i] for i in ids[:k])
            for i in range(STOP):
                if greedy(so_far + VOCABULARY[i]) != [*ids[:k], i]:
                    law[k, i] = -torch.inf
        return law.log_softmax(-1)

    return model


@pytest.mark.parametrize("prefix", [b"", b"a", b"ab", b"ba", b"abb", b"aab", b"babab"])
def test_the_short_way_agrees_for_models_of_one_encoding(prefix: bytes) -> None:
    model, asked = canonical(1), []

    def counted(ids: Sequence[int]) -> torch.Tensor:
        asked.append(ids)
        return model(ids)

    short = NextByte(VOCABULARY, greedy, end=STOP).joint(prefix, counted)
    assert len(asked) <= 3  # bytes of the longest token
    torch.testing.assert_close(short, NextByte(VOCABULARY, end=STOP).joint(prefix, model))


def test_the_naive_way_is_wrong_where_the_exact_one_is_right() -> None:
    """A Markov chain on bytes, tokenised: after "a" the naive model never says "b", which the tokenizer merged."""
    vocabulary = [b"a", b"b", b"ab"]
    stay = 0.7  # P(same byte again)

    def encode(data: bytes) -> list[int]:
        ids, at = [], 0
        while at < len(data):
            step = 2 if data[at : at + 2] == b"ab" else 1
            ids.append(vocabulary.index(data[at : at + step]))
            at += step
        return ids

    def model(ids: Sequence[int]) -> torch.Tensor:
        rows = []
        for k in range(len(ids) + 1):
            text = b"".join(vocabulary[i] for i in ids[:k])
            first = {b"a": 0.5, b"b": 0.5} if not text else {
                bytes([c]): stay if c == text[-1] else 1 - stay for c in b"ab"}  # fmt: skip
            alone = {b"a": first[b"a"] * stay, b"ab": first[b"a"] * (1 - stay), b"b": first[b"b"]}
            if text.endswith(b"a"):  # token "a" says that no b follows
                alone = {b"a": stay, b"ab": 1 - stay, b"b": 0.0}
            rows.append(torch.tensor([alone[piece] for piece in vocabulary], dtype=torch.float64).log())
        return torch.stack(rows)

    exact = NextByte(vocabulary, encode)(b"ba", model).exp()
    assert exact[ord("a")].item() == pytest.approx(stay) and exact[ord("b")].item() == pytest.approx(1 - stay)
    assert model(encode(b"ba"))[-1].exp()[1].item() == 0.0  # naive: never b


def test_real_tokenizer_next_byte_sums_to_one_and_reads_within_a_character(tokenizer) -> None:  # type: ignore[no-untyped-def]
    vocabulary, encode = token_bytes(tokenizer), byte_encoder(tokenizer)
    logits = torch.randn(len(vocabulary), generator=torch.Generator().manual_seed(0))

    def model(ids: Sequence[int]) -> torch.Tensor:
        return logits.log_softmax(0).repeat(len(ids) + 1, 1)

    law = NextByte(vocabulary, encode, end=1)("naïve"[:3].encode()[:-1], model)
    assert law.exp().sum().item() == pytest.approx(1) and law.shape == (257,)


def test_a_prefix_without_probability_is_refused() -> None:
    with pytest.raises(ValueError, match="no probability"):
        NextByte([b"a", b"b"])(b"c", lambda ids: torch.zeros(len(ids) + 1, 2).log_softmax(-1))


# --- words of bytes ---------------------------------------------------------------------------------------------------


@given(st.lists(st.text(max_size=30), min_size=1, max_size=3), st.integers(1, 9))
def test_words_lose_nothing(texts: list[str], length: int) -> None:
    words = WordByteTokenizer(num_words=200, word_length=length)
    tokens = words.encode(texts)
    assert words.decode(tokens) == texts
    assert tokens.shape[2] == words.spec.shape[1] and tokens.shape[1] <= 200
    assert torch.equal(words.encode(words.decode(tokens)), tokens)


def test_words_stand_in_rows(tmp_path) -> None:  # type: ignore[no-untyped-def]
    words = WordByteTokenizer(8, 6)
    assert words.words("a plate, 60 mm") == [b"a", b" plate", b",", b" 60", b" mm"]
    assert words.encode(["ab c"])[0].tolist() == [[256, 97, 98, *[257] * 4], [256, 32, 99, *[257] * 4]]
    words.save_pretrained(tmp_path)
    assert WordByteTokenizer.from_pretrained(tmp_path).config["word_length"] == 6


@pytest.mark.parametrize("row, message", [
    ([256, 97, 257, 98], "after its padding"), ([97, 98, 257, 257], "must begin with"),
    ([256, 97, 256, 257], "must begin with"), ([256, 258, 257, 257], "in 0 .. 257"),
    ([256, -1, 257, 257], "in 0 .. 257"),
])  # fmt: skip
def test_bad_words(row: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WordByteTokenizer(4, 3).decode(torch.tensor([[row]]))


def test_too_many_words_and_half_characters() -> None:
    with pytest.raises(ValueError, match="a text has 5 words, the tokenizer takes 4"):
        WordByteTokenizer(4, 3).encode(["a b c d e"])
    with pytest.raises(ValueError, match="surrogate"):
        WordByteTokenizer().encode(["\ud800"])
    with pytest.raises(ValueError, match=r"must be \[B, words, 4\]"):
        WordByteTokenizer(4, 3).decode(torch.zeros(1, 2, 3, dtype=torch.long))
    assert list(itertools.chain(*WordByteTokenizer().decode(torch.zeros(2, 0, 17, dtype=torch.long)))) == []
