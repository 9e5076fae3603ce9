"""AMT's strips and BPT's patches: every face once, fewer tokens, grammars that only write meshes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings

import girih
from girih.tokenizers.grammars import accepts
from girih.tokenizers.shape.compressed import AdjacentTokenizer, BlockPatchTokenizer, patches, strips
from girih.tokenizers.shape.meshes import Mesh, normalize
from tests.tokenizers.shape.solids import box, soups, torus, turned, two_cubes_on_an_edge
from tests.tokenizers.walks import WALKS, assert_the_end_is_near, walk

CODECS = {"amt": AdjacentTokenizer(), "bpt": BlockPatchTokenizer()}
SMALL = {"amt": AdjacentTokenizer(bins=5, max_faces=12), "bpt": BlockPatchTokenizer(2, 2, max_tokens=60)}
SPHERE = Mesh(*(lambda torus: (torus.vertices, torus.triangles))(torus(24, 16)))


def unwound(faces: np.ndarray) -> list[tuple[int, ...]]:
    return sorted(tuple(sorted(face)) for face in faces.tolist())


@pytest.mark.parametrize("name", CODECS)
@given(mesh=soups())
@settings(max_examples=20, deadline=None)
def test_every_face_once_and_the_grammar_accepts(name, mesh):
    """Soups have repeated and non-manifold faces; faces come back as sets of corners, none lost or doubled."""
    codec = CODECS[name]
    tokens, canonical = codec.encode(mesh), codec.canonicalize(mesh)
    (back,) = codec.decode(tokens)
    assert unwound(back.faces) == unwound(canonical.faces)
    assert torch.equal(codec.quantizer.encode(torch.from_numpy(back.vertices)), torch.from_numpy(canonical.bins))
    assert bool(accepts(codec.grammar, tokens).all())


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("mesh", [box(), torus(), SPHERE, two_cubes_on_an_edge()], ids=["box", "torus", "fine", "edge"])
def test_canonical_tokens_come_back(name, mesh):
    codec = CODECS[name]
    tokens = codec.encode(mesh)
    (back,) = codec.decode(tokens)
    assert torch.equal(codec.encode(back, normalized=True), tokens)


@pytest.mark.parametrize("name", CODECS)
def test_no_coordinate_moves_by_more_than_half_a_bin(name):
    codec = CODECS[name]
    (back,) = codec.decode(codec.encode(SPHERE))
    wanted = normalize(SPHERE.vertices, codec.config.extent)
    moved = np.abs(wanted[:, None] - back.vertices[None]).max(-1).min(1)
    low, high = codec.quantizer.edges
    assert moved.max() <= codec.quantizer.bound * (high - low) / 128 + 1e-6 and codec.quantizer.bound == 0.5


def test_the_published_decoding_is_a_whole_bin_off():
    assert AdjacentTokenizer(offset=0.0).quantizer.bound == 1.0


def test_patches_keep_the_winding_of_an_oriented_mesh():
    codec = CODECS["bpt"]
    (back,) = codec.decode(codec.encode(SPHERE))
    assert turned(back.faces) == turned(codec.canonicalize(SPHERE).faces)
    assert back.to_trimesh().is_watertight and back.to_trimesh().volume > 0


@pytest.mark.parametrize("name, most", [("amt", 5.2), ("bpt", 3.0)])
def test_tokens_a_triangle(name, most):
    faces = len(SPHERE.faces)
    assert CODECS[name].encode(SPHERE).shape[1] / faces < most


@given(mesh=soups())
@settings(max_examples=20, deadline=None)
def test_strips_and_patches_hold_each_face_once(mesh):
    faces = CODECS["amt"].canonicalize(mesh).faces
    made = [tuple(sorted(s[i : i + 3])) for s in strips(faces.tolist()) for i in range(len(s) - 2)]
    assert sorted(made) == unwound(faces)
    faces = CODECS["bpt"].canonicalize(mesh).faces
    made = [tuple(sorted((p[0], *pair))) for p in patches(faces.tolist()) for pair in zip(p[1:], p[2:], strict=False)]
    assert sorted(made) == unwound(faces)


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize(*WALKS)
def test_walks_are_meshes(name, count):
    codec = SMALL[name]
    tokens = walk(codec.grammar, count, longest=codec.spec.cells)
    longest = 0
    for mesh in codec.decode(tokens):
        a, b, c = mesh.faces.T
        assert len(mesh.faces) and ((a != b) & (b != c) & (c != a)).all()
        assert 0 <= mesh.faces.min() and mesh.faces.max() == len(mesh.vertices) - 1
        longest = max(longest, len(mesh.faces))
    assert longest > 8
    assert bool(accepts(codec.grammar, tokens).all())


@pytest.mark.parametrize("name", CODECS)
def test_the_end_is_near_from_everywhere(name):
    assert_the_end_is_near(SMALL[name].grammar, steps=40)


def test_walks_of_the_published_size():
    codec = BlockPatchTokenizer(max_tokens=80)
    assert all(len(mesh.faces) for mesh in codec.decode(walk(codec.grammar, 24, longest=80)))


def test_a_block_is_named_when_it_changes_and_never_twice():
    codec = CODECS["bpt"]
    grammar, state = codec.grammar, codec.grammar.start(1)
    for token in (5121, 4608 + 7, 512 + 3, 512 + 4):  # a patch in block 7: centre 3, then 4
        state = grammar.advance(state, torch.tensor([token]))
    mask = grammar.mask(state)[0]
    assert not mask[7] and mask[8]  # block 7 stands already
    assert not mask[512 + 3] and not mask[512 + 4] and mask[512 + 5]  # no corner twice in a face
    assert not mask[4608:].any()  # a fan has two vertices at least
    state = grammar.advance(state, torch.tensor([8]))
    assert grammar.mask(state)[0, 512 + 3] and not grammar.mask(state)[0, :512].any()
    state = grammar.advance(state, torch.tensor([512 + 3]))
    assert grammar.mask(state)[0, [7, 4608, 5120]].all() and not grammar.mask(state)[0, 8]


@pytest.mark.parametrize("name", CODECS)
def test_the_grammar_moves_to_a_device(name):
    grammar = CODECS[name].grammar.to("meta")  # a device without numbers: operations across devices fail
    state = grammar.advance(grammar.start(3), torch.zeros(3, dtype=torch.long, device="meta"))
    assert grammar.mask(state).is_meta and {value.device.type for value in state.values()} == {"meta"}


def test_slot_types_follow_the_strips():
    body = torch.tensor([3] * 15 + [131] + [3] * 9)
    assert CODECS["amt"].slot_types(body).tolist() == [4, 5, 6] * 3 + [7, 8, 9] * 2 + [3] + [4, 5, 6] * 3


def test_specs():
    amt, bpt = CODECS["amt"].spec, CODECS["bpt"].spec
    assert (amt.vocab_size, amt.bos, amt.eos, amt.pad, amt.shape) == (132, 0, 1, 2, (16001,))
    assert (bpt.vocab_size, bpt.bos, bpt.eos, bpt.pad, bpt.shape) == (5123, 5121, 5120, 5122, (10000,))


@pytest.mark.parametrize("name", CODECS)
def test_saved_and_loaded(tmp_path, name):
    codec = SMALL[name]
    codec.save_pretrained(tmp_path)
    loaded = getattr(girih, type(codec).__name__).from_pretrained(tmp_path)
    assert loaded.spec == codec.spec and torch.equal(loaded.encode(box()), codec.encode(box()))


@pytest.mark.parametrize("name, row, words", [
    ("amt", [0, 3, 4, 5, 1], "stops after 3 tokens, before x of strip"),
    ("amt", [0, *[3] * 9, 131, 1], "stops after 10 tokens, before x of strip"),
    ("amt", [0, *[3] * 9, 131, 131, 1], r"token 10 \(id 131\) may not come here; what may: x of strip"),
    ("bpt", [5121, 4608, 512, 512, 5120], "stops after 3 tokens, before"),
    ("bpt", [5121, 512, 5120], r"token 0 \(id 512\) may not come here"),
    ("bpt", [5121, 0, 1, 5120], r"token 1 \(id 1\) may not come here; what may: offset of first"),
])  # fmt: skip
def test_wrong_sequences_are_named(name, row, words):
    with pytest.raises(ValueError, match=words):
        CODECS[name].decode(torch.tensor([row]))


def test_too_long_a_mesh_is_refused():
    with pytest.raises(ValueError, match="tokens, the limit is 40"):
        BlockPatchTokenizer(max_tokens=40).encode(SPHERE)
    with pytest.raises(ValueError, match="768 faces, the limit is 99"):
        AdjacentTokenizer(max_faces=99).encode(SPHERE)
