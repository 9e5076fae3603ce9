"""Hair cards as tokens: there and back within half a bin, one order whatever the input's, only hair by grammar."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import girih
from girih.tokenizers.grammars import accepts
from girih.tokenizers.shape.hair import CHARM_BINS, HairTokenizer
from girih.tokenizers.shape.hair_mesh import card_mesh
from tests.tokenizers.shape.hairdos import card, hairdo
from tests.tokenizers.walks import WALKS, walk

CODEC = HairTokenizer()
COARSE = {name: {"edges": piece["edges"], "counts": [8] * len(piece["counts"])} for name, piece in CHARM_BINS.items()}
SEEDS = st.integers(0, 2**31)


def bin_widths(values: np.ndarray) -> np.ndarray:
    """Width of the bin that each of the five values of the points lies in."""
    columns = []
    for name, column in zip("xyzwt", values.T, strict=True):
        edges, counts = np.array(CHARM_BINS[name]["edges"]), np.array(CHARM_BINS[name]["counts"])
        piece = np.clip(np.searchsorted(edges, column, side="right") - 1, 0, len(counts) - 1)
        columns.append((np.diff(edges) / counts)[piece])
    return np.column_stack(columns)


@given(seed=SEEDS)
def test_cards_come_back_within_half_a_bin(seed):
    cards = hairdo(seed)
    (back,) = CODEC.decode(CODEC.encode([cards]))
    assert sorted(map(len, back)) == sorted(map(len, cards))
    for made in back:
        fits = [one for one in cards if len(one) == len(made)]
        wrong = [np.abs(turned - made) / bin_widths(turned) for one in fits for turned in (one, one[::-1])]
        assert min(error.max() for error in wrong) <= 0.5 + 1e-4


@given(seed=SEEDS)
def test_tokens_do_not_depend_on_the_order_or_direction_of_cards(seed):
    cards, rng = hairdo(seed), np.random.default_rng(seed)
    shuffled = [cards[i][::-1] if rng.random() < 0.5 else cards[i] for i in rng.permutation(len(cards))]
    tokens = CODEC.encode([cards])
    assert torch.equal(CODEC.encode([shuffled]), tokens)
    assert torch.equal(CODEC.encode(CODEC.decode(tokens)), tokens)


def test_the_grammar_accepts_what_is_encoded():
    tokens = CODEC.encode([hairdo(seed, 2) for seed in range(40)])
    assert bool(accepts(CODEC.grammar, tokens).all())
    tokens[:, 6:9] = tokens[:, 1:4]  # the second point lies where the first does
    assert not bool(accepts(CODEC.grammar, tokens).any())


def test_cards_start_at_the_back_and_run_from_root_to_tip():
    def straight(x: float, z: float) -> np.ndarray:
        height = np.linspace(0.3, 0.0, 6)
        return np.column_stack([x + 0 * height, height, z + 0 * height, 0.01 + 0 * height, 0.01 + 0 * height])

    right, back, front, left = straight(0.1, 0), straight(-0.001, -0.1), straight(0, 0.1), straight(-0.1, 0)
    (cards,) = CODEC.decode(CODEC.encode([[right, front[::-1], left, back]]))
    means = [(round(float(one[:, 0].mean()), 1), round(float(one[:, 2].mean()), 1)) for one in cards]
    assert means == [(0.0, -0.1), (-0.1, 0.0), (0.0, 0.1), (0.1, 0.0)]  # back, left, front, right: atan2(x, z) rises
    assert all(one[0, 1] > one[-1, 1] for one in cards)


def test_rows_of_different_length_and_the_spec():
    spec = CODEC.spec
    assert (spec.vocab_size, spec.shape, spec.bos, spec.eos, spec.pad) == (772, (31_202,), 768, 770, 771)
    tokens = CODEC.encode([[card(1, 5)], [card(2, 9), card(3, 7)]])
    assert tokens.shape == (2, 2 + 5 * 16 + 1) and bool((tokens[0, 27:] == spec.pad).all())
    assert [[len(one) for one in cards] for cards in CODEC.decode(tokens)][0] == [5]
    assert int((tokens == CODEC.mos).sum()) == 1
    assert bool(accepts(CODEC.grammar, tokens).all())


@pytest.mark.parametrize(*WALKS)
def test_walks_are_hair(count):
    codec = HairTokenizer(COARSE, max_tokens=80)
    tokens = walk(codec.grammar, count, longest=80)
    hairs = codec.decode(tokens)
    for cards in hairs[:: max(1, count // 100)]:  # the geometry of some, the language of all
        for one in cards:
            vertices, faces = card_mesh(one)
            edges = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
            forward = {tuple(edge) for edge in edges.tolist()}
            assert len(forward) == len(edges) and {(b, a) for a, b in forward} == forward  # closed, wound one way
            corners = vertices[faces]
            area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
            assert np.isfinite(vertices).all() and area.min() > 0
    assert all(len(one) >= 5 and (one[:, 3:] > 0).all() for cards in hairs for one in cards)
    assert {len(cards) for cards in hairs} >= {1, 2}
    canonical = codec.encode(hairs[::5])
    assert torch.equal(codec.encode(codec.decode(canonical)), canonical)
    assert bool(accepts(codec.grammar, canonical).all())


def test_the_end_waits_for_enough_points_and_cards():
    codec = HairTokenizer(COARSE, min_cards=2, max_tokens=120)
    hairs = codec.decode(walk(codec.grammar, 60, longest=120))
    assert min(map(len, hairs)) == 2
    with pytest.raises(ValueError, match="at least 2 cards, got 1"):
        codec.encode([[card(0)]])
    one = HairTokenizer(COARSE).encode([[card(0)]])
    with pytest.raises(ValueError, match="row 0 has 1 cards; it must have at least 2"):
        codec.decode(one)
    assert not bool(accepts(codec.grammar, one).any())


def test_a_card_does_not_come_back_to_a_place_but_the_next_card_may():
    first, grammar = CODEC.point, CODEC.grammar
    point = first.to_tokens(torch.tensor([[5, 6, k, 1, 2] for k in range(5)])).flatten().tolist()
    state = grammar.start(1)
    for token in [CODEC.spec.bos, *point, 5, 6]:
        state = grammar.advance(state, torch.tensor([token]))
    assert int(grammar.mask(state)[0, :512].sum()) == 507 and not bool(grammar.mask(state)[0, :5].any())
    again = torch.tensor([[CODEC.spec.bos, *point, CODEC.mos, *point, CODEC.spec.eos]])
    assert bool(accepts(grammar, again).all())


def test_values_at_the_edges_have_bins():
    one = card(0, 6)
    one[0, 3:], one[1, 3:], one[2, :3] = 0.1, 0.0, (0.501, -0.501, 0.501)
    bins, report = CODEC.canonical([one])
    rows = {tuple(row) for row in bins[0].tolist()}
    assert max(row[3] for row in rows) == 127 and max(row[4] for row in rows) == 127
    assert min(row[3] for row in rows) == 0 and any(row[:3] == (511, 0, 511) for row in rows)
    assert report.points_dropped == 0


def test_canonical_says_what_it_changed():
    one, other = card(0), card(1)
    doubled = np.insert(one, 4, one[3], axis=0)
    _, report = CODEC.canonical([doubled[::-1], other])
    assert (report.points_dropped, report.cards_turned) == (1, 1) and report.cards_moved in (0, 2)


def test_save_and_load(tmp_path):
    codec = HairTokenizer(COARSE, min_points=6, min_cards=2, max_tokens=500)
    codec.save_pretrained(tmp_path)
    again = girih.HairTokenizer.from_pretrained(tmp_path)
    assert again.spec == codec.spec and again.config.bins == COARSE
    assert (again.config.min_points, again.config.min_cards) == (6, 2)
    assert torch.equal(again.encode([hairdo(0)]), codec.encode([hairdo(0)]))


def spoilt(place: tuple[int, int], value: float) -> list[np.ndarray]:
    out = card(0)
    out[place] = value
    return [card(1), out]


@pytest.mark.parametrize(
    ("cards", "message"),
    [
        ([], "at least one card"),
        (spoilt((3, 1), float("nan")), "card 1 holds numbers that are not finite"),
        (spoilt((3, 1), float("inf")), "card 1 holds numbers that are not finite"),
        (spoilt((3, 0), 0.6), r"x of card 1 is 0.6; it must be in \[-0.501, 0.501\]"),
        (spoilt((3, 3), -0.01), r"width of card 1 is -0.01; it must be in \[0, 0.1\]"),
        (spoilt((3, 4), 0.11), r"thickness of card 1 is 0.11"),
        ([card(0, 4)], "card 0 has 4 control points; it needs at least 5"),
        ([card(0)[:, :3]], r"must be \[points, 5\]"),
        ([card(0)[:1].repeat(9, 0)], "card 0 has 1 points that differ in their bins"),
    ],
)
def test_hair_that_does_not_fit_is_refused(cards, message):
    with pytest.raises(ValueError, match=message):
        CODEC.encode([cards])


def test_hair_that_is_too_long_is_refused():
    with pytest.raises(ValueError, match="the hairstyle takes 102 tokens .20 points.; at most 100 fit"):
        HairTokenizer(max_tokens=100).encode([[card(0)]])


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([768, *[0] * 25], "row 0 has no end token"),
        ([*[0] * 25, 770], "does not begin with bos"),
        ([768, 770], "card 0 of row 0 has 0 tokens"),
        ([768, *[0] * 24, 770], "card 0 of row 0 has 24 tokens; it must be 5 a point, 5 points or more"),
        ([768, *[1, 2, 3, 512, 640] * 5, 769, 770], "card 1 of row 0 has 0 tokens"),
        ([768, *[1, 2, 3, 512, 512] * 5, 770], "token 512 in slot 4 of point 0"),
        ([768, *[1, 2, 3, 512, 640] * 5, 772], "0 .. 771"),
        ([768, *[1, 2, 3, 512, 640] * 5, 770, 3], "goes on after its end"),
    ],
)
def test_tokens_that_are_no_hair_are_refused(tokens, message):
    with pytest.raises(ValueError, match=message):
        CODEC.decode(torch.tensor([tokens]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bins": {"x": CHARM_BINS["x"]}}, "bins must be given for x, y, z, w, t"),
        ({"min_points": 4}, "at least 5 points"),
        ({"max_tokens": 20}, "below the shortest sequence"),
        ({"bins": {**CHARM_BINS, "w": {"edges": [0, 0.1], "counts": [64, 64]}}}, "need 3 edges"),
    ],
)
def test_config_that_does_not_fit_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        HairTokenizer(**change)
