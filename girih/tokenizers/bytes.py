"""Text as bytes: byte-level BPE, words of bytes, and exact next-byte probabilities of a model over tokens.

Knows UTF-8 bytes, the pieces that merges stay within, and token ids. Does not know what texts say or how a model
computes; models are passed in as functions.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from diffusers import ConfigMixin, SchedulerMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor

from girih.spec import TokenSpec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, EOS, NULL = "<pad>", "<eos>", "<null>"  # ids 0, 1, 2; <null> stands for a text left out
SPECIALS = (PAD, EOS, NULL)
END = 256  # of a next-byte distribution: the text ends here
# Pieces: letters, up to three digits or punctuation, each with a space before it, or one blank. Every byte above 0x7F
# counts as a letter and nothing is looked up ahead, so the pieces of a prefix are the pieces of the whole, cut; that
# makes every prefix of an encoding an encoding, which exact next-byte probabilities rest on.
PIECES = (
    r" ?[^\x00-\x40\x5B-\x60\x7B-\x7F]+| ?[0-9]{1,3}| ?[\x21-\x2F\x3A-\x40\x5B-\x60\x7B-\x7E]+|[\x00-\x20\x7F]"
)
_PIECES = re.compile(PIECES.encode())
# Byte-level BPE writes a byte as a visible character (GPT-2): itself where it is one, else the next from U+0100 on.
_SEEN = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
_HIDDEN = [byte for byte in range(256) if byte not in _SEEN]
_CHARACTERS = [chr(byte) if byte in _SEEN else chr(0x100 + _HIDDEN.index(byte)) for byte in range(256)]
_BYTES = {character: byte for byte, character in enumerate(_CHARACTERS)}

# Token ids so far -> log probabilities [len(ids) + 1, vocab]: row j is the law of token j given those before it.
TokenModel = Callable[[Sequence[int]], Tensor]


def train_byte_bpe(texts: Iterable[str], vocab_size: int, max_length: int = 512) -> PreTrainedTokenizerFast:
    """Byte-level BPE tokenizer of at most ``vocab_size`` ids. Lossless: any text comes back, no byte is ever unknown.

    ``<pad>`` = 0, ``<eos>`` = 1, ``<null>`` = 2, then the 256 bytes, then merges. Written in a text, ``<pad>`` is text.

    Raises:
        ValueError: ``vocab_size`` leaves no room for the bytes.
    """
    if vocab_size < len(SPECIALS) + 256:
        raise ValueError(f"vocab_size is {vocab_size}; it must be at least {len(SPECIALS) + 256} (bytes and specials)")
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(PIECES), "isolated"), byte_level])
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=list(SPECIALS), initial_alphabet=_CHARACTERS, show_progress=False
    )
    core.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token=PAD, eos_token=EOS, additional_special_tokens=[NULL],
        model_max_length=max_length, padding_side="right", truncation_side="right",
        clean_up_tokenization_spaces=False, split_special_tokens=True,
    )  # fmt: skip


def token_bytes(tokenizer: PreTrainedTokenizerFast) -> list[bytes]:
    """The bytes that each id of a byte-level BPE stands for; b"" for special tokens."""
    special = set(tokenizer.all_special_ids)
    texts = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    return [b"" if i in special else bytes(_BYTES[c] for c in text) for i, text in enumerate(texts)]


def byte_encoder(tokenizer: PreTrainedTokenizerFast) -> Callable[[bytes], list[int]]:
    """The encoding of ``train_byte_bpe``'s tokenizer for any bytes, also those that stop within a character."""
    model = tokenizer.backend_tokenizer.model

    def encode(data: bytes) -> list[int]:
        pieces = ("".join(_CHARACTERS[byte] for byte in piece) for piece in _PIECES.findall(data))
        return [token.id for piece in pieces for token in model.tokenize(piece)]

    return encode


class NextByte:
    """The exact law of the next byte after a byte prefix, from a model over tokens (Phan et al. 2024).

    A prefix that ends within a token makes the naive way (encode, ask for the next token) wrong. Here P(prefix + c) is
    the sum over its *covers*: token sequences of which all but the last token lie within the prefix and the last one
    reaches to c or beyond. Covers exclude each other and leave nothing out.

    Args:
        vocabulary: bytes of each id, b"" for ids that are no text.
        encode: bytes -> their one encoding, for models that give other encodings of a text no probability (trained on
            a deterministic tokenizer); every prefix of an encoding must be one too. The model is then asked at most
            once a byte of the longest token. None: all token sequences count, which is exact for any model whatever,
            and takes a time exponential in the prefix.
        end: id after which a text is over, None where texts go on for ever.

    Raises:
        ValueError: ``end`` is not in the vocabulary, or no id stands for a text.
    """

    def __init__(self, vocabulary: Sequence[bytes], encode: Callable[[bytes], Sequence[int]] | None = None,
                 end: int | None = None):
        if end is not None and not 0 <= end < len(vocabulary):
            raise ValueError(f"end is {end}; the vocabulary has ids 0 .. {len(vocabulary) - 1}")
        self.vocabulary, self.encode, self.end = list(vocabulary), encode, end
        self._sorted = sorted((text, i) for i, text in enumerate(self.vocabulary) if text)
        if not self._sorted:
            raise ValueError("the vocabulary holds no text")
        self._longest = max(map(len, self.vocabulary))

    def __call__(self, prefix: bytes, model: TokenModel) -> Tensor:
        """Log probabilities [257] of the byte after ``prefix``, index 256: the text ends.

        Raises:
            ValueError: the model gives the prefix no probability at all.
        """
        joint = self.joint(prefix, model)
        total = joint.logsumexp(0)
        if not bool(total.isfinite()):
            raise ValueError(f"the model gives the prefix {prefix!r} no probability")
        return joint - total

    def joint(self, prefix: bytes, model: TokenModel) -> Tensor:
        """[257]: log P(prefix + byte); index 256: log P(the text is the prefix). Their logsumexp is log P(prefix)."""
        terms: list[list[Tensor]] = [[] for _ in range(END + 1)]
        for split in range(max(0, len(prefix) - self._longest + 1), len(prefix) + 1):
            rest = prefix[split:]
            candidates = [i for text, i in self._beginning_with(rest) if len(text) > len(rest)]
            if not candidates and (rest or self.end is None):
                continue
            for history in self._histories(prefix[:split]):
                law = model(history).double()
                before = law[torch.arange(len(history)), torch.tensor(history, dtype=torch.long)].sum()
                for i in self._valid(history, prefix[:split], candidates):
                    terms[self.vocabulary[i][len(rest)]].append(before + law[-1, i])
                if not rest and self.end is not None:
                    terms[END].append(before + law[-1, self.end])
        nothing = torch.tensor(float("-inf"), dtype=torch.float64)
        return torch.stack([torch.stack(term).logsumexp(0) if term else nothing for term in terms])

    def _histories(self, data: bytes) -> Iterator[list[int]]:
        """Token sequences that make exactly ``data``: its encoding, or all there are."""
        if self.encode is not None:
            yield list(self.encode(data))
        elif not data:
            yield []
        else:
            for length in range(1, min(self._longest, len(data)) + 1):
                last = [i for text, i in self._beginning_with(data[-length:]) if len(text) == length]
                for history in self._histories(data[:-length]) if last else ():
                    yield from ([*history, i] for i in last)

    def _valid(self, history: list[int], data: bytes, candidates: list[int]) -> list[int]:
        """The candidates that may follow: those with which the sequence still is an encoding."""
        if self.encode is None:
            return candidates
        return [i for i in candidates if list(self.encode(data + self.vocabulary[i])) == [*history, i]]

    def _beginning_with(self, start: bytes) -> Iterator[tuple[bytes, int]]:
        for place in range(bisect_left(self._sorted, (start, -1)), len(self._sorted)):
            if not self._sorted[place][0].startswith(start):
                return
            yield self._sorted[place]


class WordByteTokenizer(SchedulerMixin, ConfigMixin):
    """Text as words of bytes, for models of two levels (Neitemeier et al. 2025: a small model over the bytes of a word,
    a large one over words). Lossless, without a vocabulary to train.

    A word is a piece (see ``PIECES``); longer ones go on in the next row. Its row is ``<word>`` (256), its bytes, then
    padding (257); rows after the last word are padding.

    Args:
        num_words, word_length: the most words of a text and bytes of a word; ``spec.shape`` is
            ``(num_words, 1 + word_length)``.
    """

    WORD, PADDING = 256, 257

    @register_to_config
    def __init__(self, num_words: int = 64, word_length: int = 16):
        if num_words < 1 or word_length < 1:
            raise ValueError(f"num_words {num_words} and word_length {word_length} must be at least 1")
        self.spec = TokenSpec(258, (num_words, word_length + 1), bos=self.WORD, pad=self.PADDING)

    def words(self, text: str) -> list[bytes]:
        """The rows' bytes. Raises ValueError for a text with lone surrogates, which has no bytes."""
        try:
            data = text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"character {error.start} of the text is half a surrogate pair") from error
        longest = self.config["word_length"]
        pieces = _PIECES.findall(data)
        return [piece[i : i + longest] for piece in pieces for i in range(0, len(piece), longest)]

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Texts to LongTensor [B, words, 1 + word_length], words = those of the longest text.

        Raises:
            ValueError: a text of more than ``num_words`` words.
        """
        rows = [self.words(text) for text in texts]
        most = max(map(len, rows), default=0)
        if most > self.config["num_words"]:
            raise ValueError(f"a text has {most} words, the tokenizer takes {self.config['num_words']}")
        tokens = torch.full((len(rows), most, self.config["word_length"] + 1), self.PADDING)
        for row, words in enumerate(rows):
            for place, word in enumerate(words):
                tokens[row, place, : len(word) + 1] = torch.tensor([self.WORD, *word])
        return tokens

    def decode(self, tokens: Tensor) -> list[str]:
        """LongTensor [B, words, 1 + word_length] to texts; bytes that are no UTF-8 become U+FFFD.

        Raises:
            ValueError: another shape, an id outside 0 .. 257, or a row that is not ``<word>``, bytes, padding.
        """
        longest = self.config["word_length"] + 1
        if tokens.ndim != 3 or tokens.shape[2] != longest:
            raise ValueError(f"tokens are {list(tokens.shape)}, must be [B, words, {longest}]")
        if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) <= self.PADDING:
            raise ValueError(f"ids must be in 0 .. {self.PADDING}, got {int(tokens.min())} to {int(tokens.max())}")
        rows = [
            [self._word(word, f"text {i}, word {place}") for place, word in enumerate(row)]
            for i, row in enumerate(tokens.tolist())
        ]
        return [b"".join(words).decode(errors="replace") for words in rows]

    def _word(self, row: list[int], where: str) -> bytes:
        used = row[: row.index(self.PADDING)] if self.PADDING in row else row
        if any(token != self.PADDING for token in row[len(used) :]):
            raise ValueError(f"{where} goes on after its padding: {row}")
        if used and (used[0] != self.WORD or self.WORD in used[1:]):
            raise ValueError(f"{where} must begin with the one word token {self.WORD}: {row}")
        return bytes(used[1:])
