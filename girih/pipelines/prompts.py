"""What a prompt leaves open, and what the model cannot read of it.

Knows the caption convention of models with named styles and backgrounds: "DESCRIPTION in STYLE style on a COLOUR
background", "flipped" for mirrored. Does not know pictures or networks.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from typing import Any

FUNCTION_WORDS = frozenset(
    "a an the of on in with and or to at for from by style background picture image drawing draw show me icon emoji "
    "left right above below next two three small flipped".split()
)


def complete(description: str, style: str, background: str, flipped: bool, styles: Sequence[str],
             backgrounds: Sequence[str]) -> tuple[str, str]:
    """(description, ending): the ending says style and background where the description does not.

    ``flipped`` is written only into descriptions that neither say it nor name a place ("left of").
    """
    words = re.findall(r"\w+", description.lower())
    ending = ""
    if not set(words) & set(styles):
        ending += f" in {style} style"
    colours = "|".join(map(re.escape, backgrounds))
    if not re.search(rf"\b(on|against|with)\s+(an?\s+|the\s+)?({colours})\b(\s+background)?\s*($|,|in\b)|"
                     rf"\b({colours})\s+background", description.lower()):
        ending += f" on a {background} background"
    if flipped and not set(words) & {"flipped", "mirrored", "left", "right"}:
        article = re.match(r"\s*(an?|the)\s+", description, re.IGNORECASE)
        start = article.end() if article else 0
        description = f"{description[:start]}flipped {description[start:]}"
    return description, ending


def tokenize(tokenizer: Any, captions: Sequence[tuple[str, str]]) -> Any:
    """Word ids LongTensor [rows, max length] of (description, ending) pairs, padded to the model's length.

    A description too long is cut before its ending, with a warning that shows what is dropped; one of whose words the
    model knows none is read with a warning that names them. Raises ValueError for one without a word.
    """
    import torch

    length, rows = tokenizer.model_max_length, []
    for description, ending in captions:
        tail = tokenizer(ending, add_special_tokens=False).input_ids if ending else []
        read = tokenizer(description, add_special_tokens=False, return_offsets_mapping=True)
        if not read.input_ids:
            raise ValueError(f"the prompt {description!r} holds no word")
        ids, room = list(read.input_ids), length - len(tail)
        if len(ids) > room:
            dropped = description[read.offset_mapping[room][0] :]
            warnings.warn(f"the model reads {room} words of this prompt; dropped: {dropped!r}", stacklevel=2)
            ids = ids[:room]
        content = [
            (description[a:b], token)
            for token, (a, b) in zip(ids, read.offset_mapping, strict=False)
            if description[a:b].lower() not in FUNCTION_WORDS
        ]
        if content and all(token == tokenizer.unk_token_id for _, token in content):
            names = ", ".join(repr(word) for word, _ in content)
            warnings.warn(f"the model knows none of the words {names}; it draws what comes to its mind", stacklevel=2)
        rows.append((ids + tail + [tokenizer.pad_token_id] * length)[:length])
    return torch.tensor(rows)
