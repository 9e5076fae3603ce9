"""MagicArticulate's skeletons and UniRig's tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from girih.tokenizers.shape.rig import SkeletonTokenizer, UniRigTokenizer
from girih.tokenizers.shape.skeleton import (
    Rig,
    central_joint,
    hierarchy,
    joints_of,
    repair,
    rig_text,
    skeleton_distances,
)

from .case import Case, Family


def magicarticulate_skeleton(case: Case) -> dict[str, Any]:
    """Bins and tokens of given bones, the published decoding and repair, text files, distances to the true skeleton."""
    args = case.description["args"]
    low, high = args["range"]
    joints, bones = np.array(case.inputs["joints"]), np.array(case.inputs["bones"])
    tokenizer = SkeletonTokenizer(args["bins"], low, high, max(len(bones), 1), decode_at="edge", tolerance=0.0)
    words = tokenizer.bone.encode(torch.from_numpy(np.concatenate([joints[bones[:, 0]], joints[bones[:, 1]]], axis=1)))
    tokens = tokenizer.schema.sequence(words)
    decoded = tokenizer.bones(tokens[None])[0].astype(np.float16).astype(np.float64)  # the peer's coordinates
    tolerance = args["merge_tolerance"]
    found, pairs = joints_of(decoded)
    whole, kept, root = repair(found, pairs, int(pairs[0, 0]), tolerance)
    spatial, undirected, _ = repair(found, pairs, None, tolerance)
    centre = central_joint(spatial)
    damaged = tokenizer.bone.to_tokens(torch.tensor(case.inputs["damaged_bins"]))
    broken, loose = joints_of(tokenizer.bones(tokenizer.schema.sequence(damaged)[None])[0])
    distances = skeleton_distances(whole, kept, joints, bones)
    return {
        "bins": tokenizer.bone.to_bins(words),
        "token_ids": tokens,
        "decoded_bones": decoded,
        "truncated_result": _or_none(tokenizer, torch.cat([tokens[:-2], tokens[-1:]])),
        "pred_joints": found,
        "pred_bones": pairs,
        "merged_hier": [whole, kept, root],
        "merged_spatial": [spatial, undirected],
        "repaired": list(repair(broken, loose, int(loose[0, 0]), tolerance)),
        "metrics": [distances[name] for name in ("j2j", "j2b", "b2b")],
        "rig_txt_hier": rig_text(whole, kept, root),
        "rig_txt_spatial": rig_text(spatial, hierarchy(len(spatial), undirected, centre), centre),
    }


def _or_none(tokenizer: SkeletonTokenizer, tokens: torch.Tensor) -> Any:
    """The bones; None where our reader refuses them, as the peer's does by returning None."""
    try:
        return tokenizer.bones(tokens[None])[0]
    except ValueError:
        return None


def unirig_tokens(case: Case) -> dict[str, Any]:
    """Tokens of a rig of spring bones, what the published state machine allows before each, and the way back."""
    args, specials = case.description["args"], case.description["args"]["specials"]
    low, high = args["continuous_range"]
    classes = sorted(specials["cls"], key=specials["cls"].get)
    parts = sorted(specials["parts"], key=specials["parts"].get)
    tokenizer = UniRigTokenizer(args["num_discrete"], low, high, parts, classes, published=True)
    parents = np.array([-1 if parent is None else parent for parent in case.inputs["parents"]])
    # The case does not say the class: articulationxl is the one for rigs without a template, all of spring bones.
    kind = "articulationxl" if "articulationxl" in classes else classes[-1]
    tokens = tokenizer.encode(Rig(np.array(case.inputs["joints"]), parents, kind=kind))
    decoded = tokenizer.decode(tokens)[0]
    state, allowed = tokenizer.grammar.start(1), []
    for column in tokens.unbind(1):
        ids = tokenizer.grammar.mask(state)[0].nonzero()[:, 0]
        coordinates = ids[ids < args["num_discrete"]]
        allowed.append({"n": len(ids), "coords": len(coordinates) == args["num_discrete"],
                        "special": ids[len(coordinates) :].tolist()})  # fmt: skip
        state = tokenizer.grammar.advance(state, column)
    return {
        "branch": [bool(parent != i - 1) for i, parent in enumerate(parents.tolist())],
        "ids": tokens[0],
        "next_allowed": allowed,
        "decoded_joints": decoded.joints,
        "decoded_parents": [None if parent < 0 else parent for parent in decoded.parents.tolist()],
    }


def _tolerance(description: dict[str, Any], name: str) -> str:
    """What case.json states for groups of outputs: coordinates, distances; all else is exact."""
    stated = description["tolerance"]
    group = {"metrics": "metrics", "decoded_bones": "coords", "decoded_joints": "coords", "pred_joints": "coords",
             "merged_hier": "coords", "merged_spatial": "coords", "repaired": "coords"}.get(name)  # fmt: skip
    return "exact" if group is None else f"atol {stated[group]}"


FAMILIES = {
    "magicarticulate_skeleton": Family(magicarticulate_skeleton, ("joints", "bones", "damaged_bins"),
                                       tolerance=_tolerance),
    "unirig_tokens": Family(unirig_tokens, ("joints", "parents"), tolerance=_tolerance),
}
