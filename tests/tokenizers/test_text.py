"""The word tokenizer: fixed special ids, forms that count as one word, and a stable vocabulary."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from girih.tokenizers.text import MAX_LENGTH, train_text_tokenizer

CAPTIONS = [
    "a red apple in flat style on a white background",
    "Two apples, please!",
    "a fox's glasses",
    "<unk> tomatoes and boxes",
    "piñata strawberry T-Rex bus tennis octopus grass",
]


@pytest.fixture(scope="module")
def tokenizer():  # type: ignore[no-untyped-def]
    return train_text_tokenizer(CAPTIONS, 100)


def test_special_tokens_have_fixed_ids(tokenizer) -> None:  # type: ignore[no-untyped-def]
    assert tokenizer.convert_tokens_to_ids(["<pad>", "<unk>", "<null>"]) == [0, 1, 2]
    assert (tokenizer.pad_token_id, tokenizer.unk_token_id) == (0, 1)
    assert tokenizer("<null>")["input_ids"] == [2] and tokenizer("a zebra <unk>")["input_ids"][1:] == [1, 1]
    assert "unk" not in tokenizer.get_vocab()  # written in a caption it is a lost word, not a word


@pytest.mark.parametrize(
    "one, other",
    [
        ("apple", "Apples!"), ("tomato", "tomatoes"), ("box", "boxes"), ("strawberry", "strawberries"),
        ("pinata", "PIÑATA"), ("t rex", "T-Rex"), ("fox", "fox's"), ("fox", "fox’s"), ("glasses", "glass"),
    ],
)  # fmt: skip
def test_forms_of_one_word(tokenizer, one: str, other: str) -> None:  # type: ignore[no-untyped-def]
    ids = tokenizer(one)["input_ids"]
    assert ids == tokenizer(other)["input_ids"] and 1 not in ids


def test_words_that_only_look_plural_stay(tokenizer) -> None:  # type: ignore[no-untyped-def]
    assert tokenizer.tokenize("bus tennis octopus grass") == ["bus", "tennis", "octopus", "grass"]


def test_pads_and_cuts_to_its_length(tokenizer) -> None:  # type: ignore[no-untyped-def]
    batch = tokenizer(["apple", "apple " * 40], padding="max_length", truncation=True)
    assert [len(ids) for ids in batch["input_ids"]] == [MAX_LENGTH, MAX_LENGTH]
    assert batch["input_ids"][0][1:] == [0] * (MAX_LENGTH - 1) and sum(batch["attention_mask"][0]) == 1


def test_the_most_frequent_words_are_kept_and_the_order_does_not_matter() -> None:
    texts = ["apple apple apple", "pear pear", "plum"]
    small = train_text_tokenizer(texts, 5)
    assert small.get_vocab() == {"<pad>": 0, "<unk>": 1, "<null>": 2, "apple": 3, "pear": 4}
    assert train_text_tokenizer(reversed(texts), 5).get_vocab() == small.get_vocab()


def test_round_trip_through_files(tokenizer, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    from transformers import PreTrainedTokenizerFast

    tokenizer.save_pretrained(tmp_path)
    again = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert again(CAPTIONS)["input_ids"] == tokenizer(CAPTIONS)["input_ids"]
    assert again.model_max_length == MAX_LENGTH and again.pad_token_id == 0


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="vocab_size is 3; it must be at least 4"):
        train_text_tokenizer(["apple"], 3)
    with pytest.raises(ValueError, match="no words"):
        train_text_tokenizer(["", "<unk> !!"], 10)


@given(st.text(max_size=60))
@settings(max_examples=60, deadline=None)
def test_any_text_gives_known_ids_and_leaves_other_words_alone(tokenizer, text: str) -> None:  # type: ignore[no-untyped-def]
    ids = tokenizer(text)["input_ids"]
    assert all(0 <= i < len(tokenizer) for i in ids)
    assert tokenizer(f"apple {text}")["input_ids"] == tokenizer("apple")["input_ids"] + ids
