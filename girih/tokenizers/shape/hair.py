"""Hair as tokens: cards of control points, in CHARM's order and bins, both ways.

Knows the canonical order of cards and points and their language: five tokens a control point (x, y, z, width,
thickness), a separator between cards, an end. Does not know meshes or files (hair_mesh.py).

After CHARM (SIGGRAPH Asia 2025): its order, its piecewise bins, its least number of points a card. The published model
predicts a point at once and ends cards with binary heads; here the same records are one flat sequence, so that any
next-token generator can write them under the grammar.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import ConfigMixin, SchedulerMixin
from diffusers.configuration_utils import register_to_config
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from girih.spec import TokenSpec
from girih.tokenizers.grammars import Automaton, RecordGrammar, Tuples
from girih.tokenizers.records import Field, FieldQuantizer, Record, RecordSchema
from girih.tokenizers.shape.hair_mesh import MIN_POINTS, Floats, check_card

FIELDS = ("x", "y", "z", "w", "t")
APART = 256  # a card never comes back to one of so many places before: its rings stay apart, and no model can stall
# Piecewise bins: fine where hair is dense. Ids count through the pieces, 512 an axis and 128 a size.
CHARM_BINS: Mapping[str, Mapping[str, Sequence[float]]] = {
    "x": {"edges": [-0.501, -0.1, 0.1, 0.501], "counts": [96, 320, 96]},
    "y": {"edges": [-0.501, 0.0, 0.3, 0.501], "counts": [96, 160, 256]},
    "z": {"edges": [-0.501, -0.15, 0.1, 0.501], "counts": [96, 320, 96]},
    "w": {"edges": [0.0, 0.03, 0.1], "counts": [64, 64]},
    "t": {"edges": [0.0, 0.02, 0.1], "counts": [64, 64]},
}


def order_cards(cards: Sequence[Floats]) -> list[tuple[int, bool]]:
    """CHARM's canonical order: for each place (index of the card that stands there, whether it is turned around).

    The end of a card nearer to (0, y*, 0) is its root, y* being the 95th percentile of the cards' highest points. Cards
    go by atan2(mean x, mean z): from the back of the head, counter-clockwise seen from above. What ties is decided by
    the numbers themselves, so the order of the input does not matter.
    """
    anchor = np.array([0.0, np.percentile([card[:, 1].max() for card in cards], 95), 0.0])
    turned = []
    for card in cards:
        first, last = (float(np.linalg.norm(end[:3] - anchor)) for end in (card[0], card[-1]))
        turned.append(first > last or (first == last and card.tolist() > card[::-1].tolist()))
    rooted = [card[::-1].copy() if turn else card for card, turn in zip(cards, turned, strict=True)]
    middles = [card[:, :3].mean(0) for card in rooted]
    keys = [(float(np.arctan2(at[0], at[2])), card.tolist()) for at, card in zip(middles, rooted, strict=True)]
    return [(i, turned[i]) for i in sorted(range(len(cards)), key=keys.__getitem__)]


@dataclass(frozen=True)
class HairReport:
    """What bringing a hairstyle into canonical form changed: control points dropped because they fell into the bins of
    an earlier one of their card, cards turned around, cards that stand at another place."""

    points_dropped: int
    cards_turned: int
    cards_moved: int


class HairTokenizer(SchedulerMixin, ConfigMixin):
    """Hair cards to tokens and back. A hairstyle is a list of cards, each ``[n, 5]`` floats: x, y, z, width, thickness
    of its control points, root to tip, y up, the face along +z, the head within the ranges of ``bins``.

    A sequence is bos, the points of the cards with ``mos`` between cards, eos. Ids: 0 .. 511 bins of x, y and z alike,
    then 128 of the width and 128 of the thickness, then bos, mos, eos, pad. ``decode(encode(x))`` is canonical and off
    by at most half a bin; what it decodes encodes to the same tokens again.

    Args:
        bins: for each of x, y, z, w, t the edges and counts of its pieces.
        min_points: of a card. min_cards: of a hairstyle (CHARM lets its model end after 10).
        max_tokens: of a sequence, bos and eos included; the default holds CHARM's limit of 6,000 points.

    Raises:
        ValueError: from the constructor where the bins do not fit or ``min_points`` is below five; from ``encode`` for
            no cards, numbers that are not finite or out of range, cards too short or too many; from ``decode`` for
            tokens that are no hair.
    """

    @register_to_config
    def __init__(self, bins: Mapping[str, Mapping[str, Sequence[float]]] = CHARM_BINS, min_points: int = MIN_POINTS,
                 min_cards: int = 1, max_tokens: int = 31_202):
        if sorted(bins) != sorted(FIELDS):
            raise ValueError(f"bins must be given for {', '.join(FIELDS)}, got {', '.join(map(str, bins))}")
        if min_points < MIN_POINTS or min_cards < 1:
            raise ValueError(f"a card needs at least {MIN_POINTS} points and a hairstyle a card, "
                             f"got min_points {min_points}, min_cards {min_cards}")
        x, y, z, w, t = (FieldQuantizer(tuple(map(int, bins[name]["counts"])), tuple(map(float, bins[name]["edges"])))
                         for name in FIELDS)  # fmt: skip
        wide = max(x.size, y.size, z.size)
        thick, special = wide + w.size, wide + w.size + t.size
        slots = (Field("x", x), Field("y", y), Field("z", z), Field("width", w, wide), Field("thickness", t, thick))
        self.point = Record("point", slots)
        self.mos = special + 1
        # A card's first point is a record of its own: it alone may lie where a point before it does.
        self.schema = RecordSchema((Record("root", slots), self.point, Record("mos", (self.mos,))), special + 4,
                                   bos=special, eos=special + 2, pad=special + 3)
        automaton = Automaton(self.schema, _transitions(min_points, min_cards))
        apart = Tuples(automaton, {"root": "nnn..", "point": "nnn.."}, memory=APART, forget=("root",))
        self.grammar = RecordGrammar(automaton, (apart,), max_tokens)
        self.spec = TokenSpec(self.schema.vocab_size, (max_tokens,), bos=self.schema.bos, eos=self.schema.eos,
                              pad=self.schema.pad, grammar=self.grammar)

    def canonical(self, cards: Sequence[ArrayLike]) -> tuple[list[Tensor], HairReport]:
        """One hairstyle as bins in canonical order: (LongTensor ``[n, 5]`` a card, what that changed)."""
        if not len(cards):
            raise ValueError("a hairstyle needs at least one card, got none")
        least = self.config.min_points
        checked = [check_card(card, f"card {i}", least) for i, card in enumerate(cards)]
        owner = np.repeat(np.arange(len(cards)), [len(card) for card in checked])
        bins = self._bins(np.concatenate(checked), owner)
        # Of the points of a card that lie in the same bins of x, y and z, the first stays.
        _, first = np.unique(np.column_stack([owner, bins[:, :3]]), axis=0, return_index=True)
        kept = np.sort(first)
        counts = np.bincount(owner[kept], minlength=len(cards))
        if counts.min() < least:
            raise ValueError(f"card {counts.argmin()} has {counts.min()} points that differ in their bins; "
                             f"it needs at least {least}")
        bins = bins[torch.from_numpy(kept)]
        values = self.point.decode(self.point.to_tokens(bins), torch.float64).numpy()
        order = order_cards(np.split(values, np.cumsum(counts)[:-1]))
        whole = bins.split(counts.tolist())
        report = HairReport(len(owner) - len(kept), sum(turn for _, turn in order),
                            sum(place != i for place, (i, _) in enumerate(order)))  # fmt: skip
        return [whole[i].flip(0) if turn else whole[i] for i, turn in order], report

    def encode(self, hairs: Sequence[Sequence[ArrayLike]]) -> Tensor:
        """Hairstyles to tokens, LongTensor ``[rows, longest]``, padded on the right."""
        return self.schema.batch([self._row(self.canonical(cards)[0]) for cards in hairs])

    def decode(self, tokens: Tensor) -> list[list[Floats]]:
        """Tokens ``[rows, n]`` to hairstyles: cards ``[n, 5]``, float32 values at the centres of their bins."""
        return [self._cards(body, row) for row, body in enumerate(self.schema.bodies(tokens))]

    def _bins(self, points: Floats, owner: NDArray[np.int64]) -> Tensor:
        """Bins ``[n, 5]`` of the points of all cards; ``owner``: the card of each, to be named where one is refused."""
        values = torch.from_numpy(points)
        for k, field in enumerate(self.point.fields):
            outside = field.quantizer.outside(values[:, k])
            if bool(outside.any()):
                at, (low, high) = int(outside.int().argmax()), field.quantizer.edges[:: len(field.quantizer.counts)]
                raise ValueError(f"{field.name} of card {owner[at]} is {points[at, k]:g}; "
                                 f"it must be in [{low:g}, {high:g}]")
        return self.point.to_bins(self.point.encode(values))

    def _row(self, cards: list[Tensor]) -> Tensor:
        if len(cards) < self.config.min_cards:
            raise ValueError(f"a hairstyle needs at least {self.config.min_cards} cards, got {len(cards)}")
        points = self.point.to_tokens(torch.cat(cards)).split([len(card) for card in cards])
        row = self.schema.sequence(*[block for card in points for block in (torch.tensor([self.mos]), card)][1:])
        if len(row) > self.config.max_tokens:
            raise ValueError(f"the hairstyle takes {len(row)} tokens ({sum(map(len, cards))} points); "
                             f"at most {self.config.max_tokens} fit")
        return row

    def _cards(self, body: Tensor, row: int) -> list[Floats]:
        between = body == self.mos
        bounds = [-1, *between.nonzero()[:, 0].tolist(), len(body)]
        lengths = [stop - start - 1 for start, stop in zip(bounds, bounds[1:], strict=False)]
        width = len(FIELDS)
        for card, length in enumerate(lengths):
            if length % width or length < width * self.config.min_points:
                raise ValueError(f"card {card} of row {row} has {length} tokens; it must be {width} a point, "
                                 f"{self.config.min_points} points or more")
        if len(lengths) < self.config.min_cards:
            raise ValueError(f"row {row} has {len(lengths)} cards; it must have at least {self.config.min_cards}")
        points = self.point.decode(body[~between].reshape(-1, width)).numpy()
        return np.split(points, np.cumsum(lengths)[:-1] // width)


def _transitions(min_points: int, min_cards: int) -> dict[str, dict[str, str]]:
    """State "c.p": in card c, p points placed; both counts stop at what is asked for."""
    transitions: dict[str, dict[str, str]] = {}
    for card in range(min_cards):
        begin = "start" if card == 0 else f"{card}.0"
        again = f"{min(card + 1, min_cards - 1)}.0"
        transitions[begin] = {"root": f"{card}.1"}
        for points in range(1, min_points):
            transitions[f"{card}.{points}"] = {"point": f"{card}.{points + 1}"}
        last = f"{card}.{min_points}"
        transitions[last] = {"point": last, "mos": again}
        if card == min_cards - 1:
            transitions[last]["eos"] = "end"
            transitions[again] = {"root": f"{card}.1"}
    return transitions
