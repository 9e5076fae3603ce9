"""Scenes: the SceneScript language."""

from __future__ import annotations

import math
from typing import Any

import torch

from girih.tokenizers.scene import SceneTokenizer
from girih.tokenizers.scene_commands import Scene, parse

from .case import Case, Family


def scenescript_language(case: Case) -> dict[str, Any]:
    """Text read, sorted, discretised, as value and type tokens, and decoded; moved and turned."""
    ranges = dict(case.inputs["normalization_values"])
    classes = ranges.pop("bbox_classes")
    tokenizer = SceneTokenizer(case.inputs["num_bins"], ranges, classes, centre=False)
    scene = parse(case.inputs["text"])
    tokens = tokenizer.encode(scene)
    (bins,), (world,) = tokenizer.decode_bins(tokens), tokenizer.decode(tokens)
    malformed = torch.tensor([case.inputs["malformed_value_tokens"]])
    names = tokenizer.type_names
    return {
        "parsed": _plain(scene),
        "extent": scene.extent(),
        "after_lex_sort": _plain(scene.sorted()),
        "discretised": _plain(tokenizer.prepared(scene)[0]),
        "value_tokens": tokens[0],
        "type_tokens": tokenizer.types(tokens)[0],
        "type_vocabulary": {name: i for i, name in enumerate(names)} | {"NUM": len(names)},
        "malformed_type_tokens": tokenizer.types(malformed)[0],
        "decoded_bins": _plain(bins),
        "decoded_world": _plain(world),
        "decoded_text": str(world),
        "decoded_world_translated": _plain(world.moved(case.inputs["translation"])),
        "rotated": _plain(scene.turned(math.radians(case.inputs["rotate_deg"]))),
    }


def _plain(scene: Scene) -> list[dict[str, Any]]:
    return [{"command": entity.command, "params": dict(entity.params)} for entity in scene.entities]


def _tolerance(description: dict[str, Any], name: str) -> str:
    whole = ("discretised", "value_tokens", "type_tokens", "type_vocabulary", "malformed_type_tokens", "decoded_bins")
    return "exact" if name in whole else f"atol {description['tolerance']['floats']}"


FAMILIES = {
    "scenescript_language": Family(
        scenescript_language,
        inputs=("text", "num_bins", "normalization_values", "translation", "rotate_deg", "malformed_value_tokens"),
        tolerance=_tolerance,
    ),
}
