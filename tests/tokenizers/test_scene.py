"""The language of scenes: text, order, bounds, grammar, types, boxes, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import girih
from girih.tokenizers.grammars import accepts
from girih.tokenizers.scene import SceneTokenizer
from girih.tokenizers.scene_commands import COMMANDS, Entity, Scene, parse

from .walks import WALKS, walk

SEEDS = st.integers(0, 2**32 - 1)
SHELF = {
    "name": "make_shelf",
    "fields": [["id", "id"], ["class", "class"], ["position_x", "world"], ["width", "width"]],
    "order": ["position_x"],
    "first_id": 4000,
}


def room(seed: int) -> Scene:
    """Four walls, a door, a window and some boxes."""
    rng = np.random.default_rng(seed)
    low, high = rng.uniform(0.5, 4, 2), rng.uniform(6, 20, 2)
    corners = [(low[0], low[1]), (high[0], low[1]), (high[0], high[1]), (low[0], high[1])]
    entities = []
    for i, (a, b) in enumerate(zip(corners, [*corners[1:], corners[0]], strict=True)):
        points = {"a_x": a[0], "a_y": a[1], "a_z": 0.1, "b_x": b[0], "b_y": b[1], "b_z": 0.1}
        entities.append(Entity("make_wall", {"id": i, **points, "height": rng.uniform(2, 3), "thickness": 0.0}))
    for command, first in (("make_door", 1000), ("make_window", 2000)):
        where = {"position_x": rng.uniform(low[0], high[0]), "position_y": low[1], "position_z": 1.1}
        size = {"width": rng.uniform(0.5, 1.5), "height": rng.uniform(1, 2)}
        entities.append(Entity(command, {"id": first, "wall0_id": 0, "wall1_id": 0, **where, **size}))
    for i in range(rng.integers(0, 4)):
        where = {f"position_{axis}": rng.uniform(1, 6) for axis in "xyz"}
        size = {f"scale_{axis}": rng.uniform(0.1, 2) for axis in "xyz"}
        kind = ("table", "chair", "lamp")[rng.integers(3)]
        entities.append(Entity("make_bbox", {"id": 3000 + i, "class": kind, **where,
                                             "angle_z": rng.uniform(-3.1, 0), **size}))  # fmt: skip
    order = rng.permutation(len(entities))
    plain = [Entity(e.command, {k: v if isinstance(v, (int, str)) else float(v) for k, v in e.params.items()})
             for e in entities]  # fmt: skip
    return Scene(tuple(plain[i] for i in order))


@given(SEEDS)
def test_text_round_trip(seed: int) -> None:
    scene = room(seed)
    assert parse(str(scene)) == scene
    assert parse("\n" + str(scene) + "\n\n") == scene


@given(SEEDS)
def test_sorting_does_not_depend_on_the_order_given(seed: int) -> None:
    scene = room(seed)
    other = Scene(tuple(
        e.with_(**{f"{x}_{axis}": e.params[f"{y}_{axis}"] for x, y in ("ab", "ba") for axis in "xyz"})
        if e.command == "make_wall" else e for e in reversed(scene.entities)))  # fmt: skip
    assert other.sorted() == scene.sorted() == scene.sorted().sorted()
    ranks = [[c.name for c in COMMANDS].index(e.command) for e in scene.sorted().entities]
    assert ranks == sorted(ranks)


@given(SEEDS)
def test_round_trip_stays_within_half_a_bin(seed: int) -> None:
    codec = SceneTokenizer()
    scene = room(seed)
    (decoded,) = codec.decode(codec.encode(scene))
    expected = codec.prepared(scene)[0].entities
    assert [e.command for e in decoded.entities] == [e.command for e in expected]
    original = {e.params["id"]: e for e in scene.sorted().entities}
    for entity, bins in zip(decoded.entities, expected, strict=True):
        before = original[bins.params["id"]].params
        for name, kind in codec._command(entity.command).written:
            if kind == "class":
                assert entity.params[name] == before[name]
            else:
                low, high = codec.quantizers[kind].edges
                assert abs(entity.params[name] - before[name]) <= (high - low) / 640 / 2 + 1e-9


@given(st.lists(SEEDS, min_size=1, max_size=4), st.booleans())
def test_encoded_scenes_are_accepted_and_decode_to_what_encodes_the_same(seeds: list[int], centre: bool) -> None:
    codec = SceneTokenizer(centre=centre)
    tokens = codec.encode([room(seed) for seed in seeds])
    assert bool(accepts(codec.grammar, tokens).all())
    if centre:
        assert torch.equal(codec.encode(codec.decode(tokens)), tokens)


@pytest.mark.parametrize(*WALKS)
def test_any_walk_decodes_to_a_valid_scene(count: int) -> None:
    codec = SceneTokenizer(num_bins=64, max_length=60 if count <= 500 else 300, added_commands=[SHELF])
    scenes = codec.decode(walk(codec.grammar, count, codec.config.max_length))
    for scene in scenes:
        walls = {e.params["id"]: e for e in scene.entities if e.command == "make_wall"}
        assert scene.entities
        for entity in scene.entities:
            assert all(value is not None for value in entity.params.values())
            if entity.command == "make_wall":
                assert not np.array_equal(entity.at("a"), entity.at("b"))
            if "wall0_id" in entity.params:
                assert entity.params["wall0_id"] in walls
        assert len({e.params["id"] for e in scene.entities}) == len(scene.entities)
        assert parse(str(scene), codec.commands) == scene
    assert {e.command for scene in scenes for e in scene.entities} == {c.name for c in codec.commands}


def test_walks_end_in_the_shortest_room_there_is() -> None:
    codec = SceneTokenizer(max_length=12)
    assert {len(scene.entities) for scene in codec.decode(walk(codec.grammar, 60, 12))} == {1}
    with pytest.raises(ValueError, match="limit"):
        SceneTokenizer(max_length=11)


def test_an_added_command_is_data_and_leaves_other_ids_alone() -> None:
    plain, more = SceneTokenizer(), SceneTokenizer(added_commands=[SHELF])
    scene = room(1)
    assert torch.equal(more.encode(scene), plain.encode(scene))
    assert more.type_names[: len(plain.type_names)] == plain.type_names
    shelf = parse("make_shelf, id=4000, class=lamp, position_x=3.0, width=1.0", more.commands).entities[0]
    tokens = more.encode(Scene((*scene.entities, shelf)))
    assert tokens[0, -5:-1].tolist() == [11, 8, 66, 31] and more.decode(tokens)[0].entities[-1].command == "make_shelf"
    assert more.types(tokens)[0, -3].item() == more.type_names.index("MAKE_SHELF_POSITION_X")


def test_types_of_a_prefix_are_those_of_the_whole() -> None:
    codec = SceneTokenizer()
    tokens = codec.encode([room(3), room(4)])
    types = codec.types(tokens)
    assert all(torch.equal(codec.types(tokens[:, :k]), types[:, :k]) for k in range(1, tokens.shape[1], 7))
    assert bool((types[tokens == 0] == 0).all())


def test_doors_hang_on_the_nearest_wall() -> None:
    codec = SceneTokenizer()
    (decoded,) = codec.decode(codec.encode(room(7)))
    walls = {e.params["id"]: e for e in decoded.entities if e.command == "make_wall"}
    door = next(e for e in decoded.entities if e.command == "make_door")
    wall = walls[door.params["wall0_id"]]
    assert all(abs(wall.params[name] - door.params["position_y"]) < 0.1 for name in ("a_y", "b_y"))


@given(SEEDS, st.floats(-7, 7))
def test_turning_keeps_shapes_and_canonical_angles(seed: int, angle: float) -> None:
    scene = room(seed)
    turned = scene.turned(angle)
    for a, b in zip(scene.entities, turned.entities, strict=True):
        if a.command == "make_wall":
            assert np.linalg.norm(a.at("a") - a.at("b")) == pytest.approx(np.linalg.norm(b.at("a") - b.at("b")))
        if a.command == "make_bbox":
            assert -math.pi <= b.params["angle_z"] <= 0
            apart = (b.params["angle_z"] - a.params["angle_z"] - angle) % math.pi
            assert min(apart, math.pi - apart) < 1e-6


def test_short_walls_are_left_out_and_said() -> None:
    codec = SceneTokenizer()
    stub = Entity("make_wall", {"id": 9, **dict.fromkeys(("a_x", "a_y", "a_z", "b_x", "b_y"), 2.01), "b_z": 2.02,
                                "height": 2.0, "thickness": 0.0})  # fmt: skip
    prepared, notes = codec.prepared(Scene((*room(2).entities, stub)))
    assert notes == ["make_wall 9 is shorter than a bin and is left out"]
    assert prepared == codec.prepared(room(2))[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("make_moon, id=0", "line 1.*make_moon"),
        ("make_wall, id=0, a_x=1", "wrong: .*height"),
        ("make_bbox, id=0, class=table, position_x=wide, position_y=0, position_z=0, angle_z=0, scale_x=1, scale_y=1, "
         "scale_z=1", "position_x must be a finite number, got 'wide'"),
        ("\nmake_bbox, id=0.5, class=table, position_x=1, position_y=0, position_z=0, angle_z=0, scale_x=1, scale_y=1, "
         "scale_z=1", "line 2: id must be a whole number"),
        ("make_bbox, id=0, class=table, position_x=nan, position_y=0, position_z=0, angle_z=0, scale_x=1, scale_y=1, "
         "scale_z=1", "got 'nan'"),
    ],
)  # fmt: skip
def test_bad_text_is_one_clear_line(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        parse(text)
    assert "\n" not in str(error.value)


def test_scenes_that_do_not_fit() -> None:
    codec = SceneTokenizer()
    wall, *_ = room(1).sorted().entities
    door = next(e for e in room(1).entities if e.command == "make_door")
    box = Entity("make_bbox", {"id": 3000, "class": "table", **{f"position_{a}": 1.0 for a in "xyz"}, "angle_z": 0.0,
                               **{f"scale_{a}": 1.0 for a in "xyz"}})  # fmt: skip
    for entities, message in (
        ((), "no entities"),
        ((door,), "needs a wall"),
        ((box.with_(**{"class": "moon"}),), "'moon'; known: table"),
        ((box.with_(position_x=33.0),), "position_x is 33.0, must be in 0.0 .. 32.0"),
        ((wall.with_(height=float("nan")),), "height is nan"),
        ((Entity("make_moon", {"id": 0}),), "make_moon"),
        ((Entity("make_wall", {"id": 0}),), "lacks a_x"),
        ((box,) * 300, "more than the 2048"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            codec.encode(Scene(entities))
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="range"):
        SceneTokenizer(ranges={"world": (0, 32)})
    with pytest.raises(ValueError, match="rise"):
        SceneTokenizer(ranges={k: (1, 0) for k in ("world", "width", "height", "scale", "angle")})


def test_bad_tokens_are_one_clear_line() -> None:
    codec = SceneTokenizer()
    tokens = codec.encode(room(1))
    wrong, extra = tokens.clone(), torch.cat((tokens, torch.tensor([[9]])), 1)
    wrong[0, 2] = 12
    for bad in (wrong, extra, tokens[:, :-3], tokens + 1000, tokens * 0, tokens[0], tokens[:, :0], -tokens):
        with pytest.raises(ValueError) as error:
            codec.decode(bad)
        assert "\n" not in str(error.value)


def test_saved_by_config(tmp_path) -> None:
    codec = SceneTokenizer(100, classes=["moon", "sun"], centre=False, added_commands=[SHELF])
    codec.save_pretrained(tmp_path)
    again = girih.SceneTokenizer.from_pretrained(tmp_path)
    assert again.spec == codec.spec and again.commands == codec.commands and again.type_names == codec.type_names


def test_glb_has_a_named_box_an_entity(tmp_path) -> None:
    trimesh = pytest.importorskip("trimesh")
    from girih.tokenizers.scene_boxes import scene_boxes, write_scene

    scene = room(4)
    write_scene(scene, tmp_path / "room.glb")
    loaded = trimesh.load_scene(tmp_path / "room.glb")
    names = {f"{e.params.get('class', e.command)} {e.params['id']}" for e in scene.entities}
    assert names <= set(loaded.graph.nodes) and len(loaded.geometry) == len(scene.entities)
    extent = scene.extent()
    size = [extent["size_x"], extent["size_z"], extent["size_y"]]  # y is up
    assert loaded.extents.tolist() == pytest.approx(size, abs=0.2)
    with pytest.raises(ValueError, match="no entities"):
        scene_boxes(Scene(()))


@pytest.mark.parametrize("count", [50, pytest.param(2000, marks=pytest.mark.slow)])
def test_fuzzed_text_is_a_scene_or_one_clear_line(count: int) -> None:
    rng = np.random.default_rng(0)
    codec, whole = SceneTokenizer(), str(room(3))
    for _ in range(count):
        text = list(whole)
        for _ in range(rng.integers(1, 6)):
            at = int(rng.integers(len(text)))
            text[at : at + int(rng.integers(1, 4))] = ["9", ",", "=", "\n", "-", "e9", "\x00", ""][rng.integers(8)]
        try:
            assert codec.decode(codec.encode(parse("".join(text))))
        except ValueError as error:
            assert str(error) and "\n" not in str(error)
