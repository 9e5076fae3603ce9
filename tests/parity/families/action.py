"""FAST, the published action processor."""

from __future__ import annotations

from typing import Any

import numpy as np

from girih.tokenizers.action import ActionTokenizer, normalise, quantiles

from .case import Case, Family


def fast_processor(case: Case) -> dict[str, Any]:
    """Statistics and coefficients of the fitting data; tokens, decoded chunks and lengths with the recorded BPE."""
    arguments = case.description["args"]
    raw = case.inputs["fit_raw"].double().numpy()
    low, high = quantiles(raw)
    tokenizer = ActionTokenizer(
        raw.shape[1], raw.shape[2], arguments["scale"], limit=None, merges=None, fallback="zero",
        tokenizer=case.inputs["bpe_tokenizer"], min_token=case.description["min_token"],
    )  # fmt: skip
    fitted = normalise(raw, low, high)
    chunks = case.inputs["test_norm"]
    encoded = tokenizer.rows(tokenizer.encode(chunks))
    out = {
        "q01": low,
        "q99": high,
        "fit_norm": fitted,
        "fit_coef": tokenizer.coefficients(fitted)[0],
        "test_coef": tokenizer.coefficients(chunks)[0],
        "test_ids": encoded,
    }
    for name, rows in (("test", encoded), ("damaged", case.inputs["damaged_ids"])):
        out[f"{name}_decoded"] = tokenizer.decode(rows, dtype=chunks.dtype)
        out[f"{name}_string_len"] = tokenizer.symbols.decode([np.array(row, np.int64) for row in rows])[1]
    return out


def tolerance(description: dict[str, Any], name: str) -> str:
    if name.endswith("_decoded"):
        return "atol 1e-6"
    return "atol 1e-9" if name in ("q01", "q99", "fit_norm") else "exact"


FAMILIES = {
    "fast-processor": Family(
        fast_processor,
        inputs=("fit_raw", "test_norm", "damaged_ids", "bpe_tokenizer"),
        tolerance=tolerance,
    ),
}
