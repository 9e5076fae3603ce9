"""Word-level text tokenizer: a caption becomes one token a word.

Knows words, their plural forms and the special tokens. Does not know what captions say (training/data/captions.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, UNKNOWN, NULL = "<pad>", "<unk>", "<null>"  # ids 0, 1, 2; <null> stands for a caption left out
MAX_LENGTH = 24

# A plural counts as its singular, so "two apples" needs no word beside "apple". Rough on purpose: where the result is
# no English word ("lens" -> "len") it still is the same one each time.
_PLURALS = (
    (r"(?<=[a-z]{2})ies\b", "y"),
    (r"(?<=ch|sh|ss|zz|x)es\b", ""),
    (r"(?<=[a-z]{2}[td]o)es\b", ""),
    (r"(?<=[a-z]{2}[^suiw\W])s\b", ""),
)


def train_text_tokenizer(
    captions: Iterable[str], vocab_size: int, max_length: int = MAX_LENGTH
) -> PreTrainedTokenizerFast:
    """Tokenizer with the `vocab_size` - 3 most frequent words of `captions`; any other word is `<unk>`.

    It lower-cases, drops accents and punctuation, counts a plural as its singular, and reads `max_length` tokens.
    `<pad>` = 0, `<unk>` = 1, `<null>` = 2. The order of ids depends on the words and their counts alone.
    Raises ValueError when `vocab_size` leaves no room for words or there are none.
    """
    if vocab_size < 4:
        raise ValueError(f"vocab_size is {vocab_size}; it must be at least 4 (three special tokens and a word)")
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
    core.normalizer = normalizers.Sequence(
        [
            normalizers.NFD(),
            normalizers.StripAccents(),
            normalizers.Lowercase(),
            normalizers.Replace(Regex(r"['\u2019]s?\b"), ""),
            normalizers.Replace(Regex(r"[^\w]+|_"), " "),
            *(normalizers.Replace(Regex(pattern), singular) for pattern, singular in _PLURALS),
        ]
    )
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.WordLevelTrainer(
        vocab_size=vocab_size, special_tokens=[PAD, UNKNOWN, NULL], show_progress=False
    )
    # A special token written out in a caption ("<unk>" stands for a lost word) is not a word to learn.
    core.train_from_iterator((re.sub(r"<(pad|unk|null)>", " ", text) for text in captions), trainer)
    if core.get_vocab_size() <= 3:
        raise ValueError("the captions hold no words to train a tokenizer on")
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        unk_token=UNKNOWN,
        additional_special_tokens=[NULL],
        model_max_length=max_length,
        padding_side="right",
        truncation_side="right",
    )
