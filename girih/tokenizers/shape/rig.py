"""Rigs as tokens: MagicArticulate's bones and UniRig's joints, both ways.

Knows the two languages, their quantisation, canonical orders and grammars. Does not know skeletons' geometry
(skeleton.py), meshes, skins or files (rig_files.py).

Under the grammar each sequence is one tree whose parents stand before their children, whatever the model; the published
MagicArticulate writes unconstrained and repairs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from diffusers import ConfigMixin, SchedulerMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor

from girih.names import unknown
from girih.spec import GrammarState, TokenSpec
from girih.tokenizers.grammars import Automaton, RecordGrammar, Tuples
from girih.tokenizers.records import Field, FieldQuantizer, Record, RecordSchema
from girih.tokenizers.shape.skeleton import Floats, Rig, central_joint, joints_of, repair, rig_of

ORDERS = ("hierarchical", "spatial")


class SkeletonTokenizer(SchedulerMixin, ConfigMixin):
    """MagicArticulate's language (CVPR 2025): six tokens a bone, x, y, z of the parent and of the child.

    A sequence is bos 0, the bones, eos 1 (pad 2); a coordinate's bin b is id b + 3. ``"hierarchical"`` order: level by
    level from the root, inside a level sorted by (z, y, x) of the child; the first bone's parent is the root.
    ``"spatial"`` order: joints sorted by (z, y, x), bones by their ends; directions are lost, and the root is found
    again as the joint nearest the middle. Joints of equal bins become one; names, parts and kind are not kept.
    ``decode(encode(x))`` is off by at most half a bin, and what it decodes encodes to the same tokens again.

    Args:
        bins: an axis. low, high: the range of coordinates. max_bones: of a skeleton.
        decode_at: ``"centre"`` of the bin, or its lower ``"edge"`` as the published code decodes (up to one bin off,
            and encoding again may then give other tokens).
        tolerance: joints decoded nearer than this become one; eight times it where parts are apart. Below a bin.

    Raises:
        ValueError: from the constructor for settings that do not fit; from ``encode`` for a rig out of range, without a
            bone that is longer than a bin, or of too many bones; from ``decode`` for tokens that are no skeleton.
    """

    @register_to_config
    def __init__(self, bins: int = 128, low: float = -0.5, high: float = 0.5, max_bones: int = 100,
                 order: str = "hierarchical", decode_at: str = "centre", tolerance: float = 0.0025):  # fmt: skip
        if order not in ORDERS:
            raise unknown("order", order, ORDERS)
        if decode_at not in ("centre", "edge"):
            raise unknown("decode_at", decode_at, ("centre", "edge"))
        if not 1 <= max_bones < bins**3:
            raise ValueError(f"max_bones is {max_bones}; it must be in 1 .. {bins**3 - 1}, the places there are")
        if not tolerance < (high - low) / bins:
            raise ValueError(f"tolerance {tolerance} makes joints in neighbouring bins one; it must be below the width "
                             f"of a bin, {(high - low) / bins:g}")
        quantizer = FieldQuantizer(bins, (low, high), offset=0.5 if decode_at == "centre" else 0.0)
        ends = tuple(Field(f"{end} {axis}", quantizer, 3) for end in ("parent", "child") for axis in "xyz")
        self.bone = Record("bone", ends)
        self.schema = RecordSchema((Record("first", ends), self.bone), bins + 3, bos=0, eos=1, pad=2)
        automaton = Automaton(self.schema, {"start": {"first": "more"}, "more": {"bone": "more", "eos": "end"}})
        if order == "hierarchical":  # a bone hangs a new joint on one that stands already
            rule = Tuples(automaton, {"first": "nnnnnn", "bone": "kkknnn"}, memory=max_bones + 1)
        else:  # all that a table of bones can promise is that each has a length
            rule = Tuples(automaton, {"first": "nnnnnn", "bone": "nnnnnn"}, memory=2, forget=("bone",))
        self.grammar = RecordGrammar(automaton, (rule,), 2 + 6 * max_bones)
        self.spec = TokenSpec(bins + 3, (2 + 6 * max_bones,), bos=0, eos=1, pad=2, grammar=self.grammar)

    def encode(self, rigs: Rig | Sequence[Rig]) -> Tensor:
        """Rigs to tokens, LongTensor ``[rows, longest]``, padded on the right."""
        rigs = [rigs] if isinstance(rigs, Rig) else rigs
        return self.schema.batch([self.schema.sequence(self.bone.to_tokens(self._bones(rig))) for rig in rigs])

    def decode(self, tokens: Tensor) -> list[Rig]:
        """Tokens ``[rows, n]`` to rigs; what is no tree is repaired to one (``skeleton.repair``)."""
        rigs = []
        for ends in self.bones(tokens):
            joints, bones = joints_of(ends)
            root = int(bones[0, 0]) if self.config.order == "hierarchical" else None
            joints, bones, root = repair(joints, bones, root, self.config.tolerance)
            rigs.append(rig_of(joints, bones, central_joint(joints) if root is None else root))
        return rigs

    def bones(self, tokens: Tensor) -> list[Floats]:
        """Tokens ``[rows, n]`` to bones as written, a float64 array ``[b, 2, 3]`` (parent, child) a row.

        Raises ValueError for a wrong end, ids that are no coordinates, or a number of them that is no multiple of six.
        """
        out = []
        for row, body in enumerate(self.schema.bodies(tokens)):
            if not len(body) or len(body) % 6:
                raise ValueError(f"row {row} has {len(body)} coordinates; a skeleton has six a bone")
            out.append(self.bone.decode(body.reshape(-1, 6), torch.float64).numpy().reshape(-1, 2, 3))
        return out

    def _bones(self, rig: Rig) -> Tensor:
        """A rig's bones in canonical order as bins ``[b, 6]``."""
        levels = _merged(_bins(self.bone.fields[0].quantizer, rig), rig)
        if self.config.order == "hierarchical":
            bones = [(*parent, *joint) for joint, parent in levels if parent is not None]
        else:
            pairs = [sorted((joint[::-1], parent[::-1])) for joint, parent in levels if parent is not None]
            bones = [(*low[::-1], *high[::-1]) for low, high in sorted(pairs)]
        if not 0 < len(bones) <= self.config.max_bones:
            raise ValueError(f"the rig has {len(bones)} bones longer than a bin; there must be 1 to "
                             f"{self.config.max_bones}")
        return torch.tensor(bones)


Cell = tuple[int, ...]


def _merged(bins: np.ndarray, rig: Rig) -> list[tuple[Cell, Cell | None]]:
    """(joint, parent) as bins, joints of equal bins made one, level by level from the root, each level sorted by
    (z, y, x). Of two branches that meet in a joint the one nearer the root keeps it, so the result stays a tree."""
    place = [tuple(row) for row in bins.tolist()]
    children = rig.children()
    parents: dict[Cell, Cell | None] = {place[rig.root]: None}
    level = [rig.root]
    while level:
        level = sorted((child for joint in level for child in children[joint]), key=lambda joint: place[joint][::-1])
        for joint in level:
            parents.setdefault(place[joint], place[int(rig.parents[joint])])
    # Joints made one may have moved branches up, so the levels are counted anew.
    below: dict[Cell | None, list[Cell]] = {}
    for cell, parent_cell in parents.items():
        below.setdefault(parent_cell, []).append(cell)
    order: list[tuple[Cell, Cell | None]] = []
    cells: list[Cell] = below[None]
    while cells:
        cells = sorted(cells, key=lambda cell: cell[::-1])
        order += [(cell, parents[cell]) for cell in cells]
        cells = [child for parent in cells for child in below.get(parent, [])]
    return order


def _bins(quantizer: FieldQuantizer, rig: Rig) -> np.ndarray:
    values = torch.from_numpy(rig.joints)
    outside = quantizer.outside(values).any(1)
    if bool(outside.any()):
        first = int(outside.int().argmax())
        raise ValueError(f"{int(outside.sum())} of {len(values)} joints lie outside [{quantizer.edges[0]:g}, "
                         f"{quantizer.edges[1]:g}], the first is {rig.names[first]!r} at {rig.joints[first].tolist()}; "
                         f"fit the rig into the range first")
    return quantizer.encode(values).numpy()


class UniRigTokenizer(SchedulerMixin, ConfigMixin):
    """UniRig's language (VAST-AI-Research/UniRig, ``TokenizerPart``): three tokens a joint that hangs on the joint
    before it; branch, the parent's place and its own, seven tokens, for any other.

    A sequence is bos, the class, then joints; a part token goes before the first joint of each run of one part, spring
    where a joint belongs to none. Ids with 256 bins: coordinates, branch 256, bos 257, eos 258, pad 259, spring 260,
    the parts, no class, the classes. Joints keep their order where parents stand before their children, else they come
    depth first. Joints may coincide, unlike ``SkeletonTokenizer``'s; a branch then hangs on the latest one at its
    parent's place. Names are not kept. ``decode(encode(x))`` is off by at most half a bin, and what it decodes encodes
    to the same tokens again.

    Args:
        bins: an axis. low, high: the range of coordinates. parts, classes: the names that have tokens.
        max_tokens: of a sequence, bos and eos included.
        published: round as the released model's code does (up to one bin off, and encoding again may give other
            tokens), and mask with its own state machine, which lets rigs without joints and unfinished branches pass.

    Raises:
        ValueError: from ``encode`` for a rig out of range or too long, an unknown class or part; from ``decode`` for
            tokens that are no rig.
    """

    @register_to_config
    def __init__(self, bins: int = 256, low: float = -1.0, high: float = 1.0, parts: Sequence[str] = ("body", "hand"),
                 classes: Sequence[str] = ("vroid", "mixamo", "articulationxl"), max_tokens: int = 2048,
                 published: bool = False):  # fmt: skip
        self.quantizer = FieldQuantizer(bins, (low, high), shift=0.0 if published else 0.5)
        xyz = tuple(Field(axis, self.quantizer) for axis in "xyz")
        part = Field("part", FieldQuantizer.integers(1 + len(parts)), bins + 4)
        kind = Field("class", FieldQuantizer.integers(1 + len(classes)), part.ids.stop)
        records = (Record("joint", xyz), Record("branch", (bins, *xyz, *xyz)), Record("fork", (bins,)),
                   Record("part", (part,)), Record("class", (kind,)))  # fmt: skip
        self.schema = RecordSchema(records, kind.ids.stop, bos=bins + 1, eos=bins + 2, pad=bins + 3)
        self.reader = Automaton(self.schema, LOOSE if published else STRICT)
        if published:
            self.grammar = RecordGrammar(Automaton(self.schema, PUBLISHED), (), max_tokens)
        else:
            joints = _Joints(self.reader, {"joint": "nnn", "branch": ".kkknnn"}, memory=max_tokens // 3)
            self.grammar = RecordGrammar(self.reader, (joints,), max_tokens)
        self.spec = TokenSpec(self.schema.vocab_size, (max_tokens,), bos=bins + 1, eos=bins + 2, pad=bins + 3,
                              grammar=self.grammar)

    def encode(self, rigs: Rig | Sequence[Rig]) -> Tensor:
        """Rigs to tokens, LongTensor ``[rows, longest]``, padded on the right."""
        return self.schema.batch([self._row(rig) for rig in ([rigs] if isinstance(rigs, Rig) else rigs)])

    def decode(self, tokens: Tensor) -> list[Rig]:
        """Tokens ``[rows, n]`` to rigs. A branch hangs on the nearest joint so far, the latest of equally near ones."""
        return [self._rig(body, row) for row, body in enumerate(self.schema.bodies(tokens))]

    def _row(self, rig: Rig) -> Tensor:
        if (rig.parents >= np.arange(len(rig.parents))).any():
            rig = rig.depth_first()
        bins = torch.from_numpy(_bins(self.quantizer, rig))
        blocks = [self._word("class", rig.kind, self.config.classes)]
        for i, (parent, part) in enumerate(zip(rig.parents.tolist(), rig.parts, strict=True)):
            if i == 0 or part != rig.parts[i - 1]:
                blocks.append(self._word("part", part, self.config.parts))
            # Compared by place, as the reader will: a joint that coincides with the parent's is as good.
            follows = i == 0 or torch.equal(bins[parent], bins[i - 1])
            row = bins[i] if follows else torch.cat([bins[parent], bins[i]])
            blocks.append(self.schema["joint" if follows else "branch"].to_tokens(row[None]))
        tokens = self.schema.sequence(*blocks)
        if len(tokens) > self.config.max_tokens:
            raise ValueError(f"the rig takes {len(tokens)} tokens ({len(rig.joints)} joints); "
                             f"at most {self.config.max_tokens} fit")
        return tokens

    def _word(self, record: str, name: str | None, names: Sequence[str]) -> Tensor:
        """The token of a class or part: the first for none, then the names in order."""
        if name is not None and name not in names:
            raise unknown(record, name, names)
        return self.schema[record].to_tokens(torch.tensor([[0 if name is None else 1 + list(names).index(name)]]))

    def _rig(self, body: Tensor, row: int) -> Rig:
        joints: list[list[int]] = []
        parents, parts = [], []
        part = kind = None
        for record, start, end in self.reader.split(body):
            bins = self.schema[record].to_bins(body[None, start:end])[0].tolist()
            if record == "class":
                kind = (None, *self.config.classes)[bins[0]]
            elif record == "part":
                part = (None, *self.config.parts)[bins[0]]
            else:
                parents.append(len(joints) - 1 if record == "joint" else _nearest(joints, bins[:3]))
                joints.append(bins[-3:])
                parts.append(part)
        if not joints:
            raise ValueError(f"row {row} has no joint")
        places = self.quantizer.decode(torch.tensor(joints), torch.float64).numpy()
        return Rig(places, np.array(parents), parts=tuple(parts), kind=kind)


def _nearest(joints: list[list[int]], place: list[int]) -> int:
    """The joint nearest to ``place``, the latest of equally near ones; -1 where there is none."""
    if not joints:
        return -1
    distance = ((np.array(joints) - place) ** 2).sum(1)
    return len(joints) - 1 - int(distance[::-1].argmin())


class _Joints(Tuples):
    """Remembers every joint for the branches to come; new joints may coincide with old ones."""

    def mask(self, at: Tensor, memory: GrammarState) -> Tensor:
        return super().mask(at, memory) | (self.letter[at] == 1)[:, None]


STRICT = {
    "start": {"class": "class"},
    "class": {"part": "first"},
    "first": {"joint": "joints"},
    "joints": {"joint": "joints", "branch": "joints", "part": "part", "eos": "end"},
    "part": {"joint": "joints", "branch": "joints"},
}
LOOSE = {
    "start": {"class": "class", "part": "class", "joint": "joints"},
    "class": {"joint": "joints", "part": "class", "eos": "end"},
    "joints": {"joint": "joints", "branch": "joints", "part": "part", "eos": "end"},
    "part": {"joint": "joints", "branch": "joints", "part": "part", "eos": "end"},
}
# UniRig's own state machine reads a branch as a token before a joint, and the parent's place as a joint.
PUBLISHED = {
    "start": LOOSE["start"],
    "class": LOOSE["class"],
    "joints": {"joint": "joints", "fork": "fork", "part": "part", "eos": "end"},
    "part": {"joint": "joints", "fork": "fork", "part": "part", "eos": "end"},
    "fork": {"joint": "joints"},
}
