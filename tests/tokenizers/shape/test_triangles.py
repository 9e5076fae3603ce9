"""MeshXL's language: tokens there and back, a grammar that only writes meshes, and wrong sequences named."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings

import girih
from girih.tokenizers.grammars import accepts
from girih.tokenizers.shape.meshes import Mesh, normalize
from girih.tokenizers.shape.triangles import TriangleTokenizer
from tests.tokenizers.shape.solids import box, soups, torus
from tests.tokenizers.walks import WALKS, assert_the_end_is_near, walk

CODEC = TriangleTokenizer()


@given(mesh=soups(quads=True))
@settings(max_examples=20, deadline=None)
def test_meshes_there_and_back(mesh):
    tokens = CODEC.encode(mesh)
    canonical = CODEC.canonicalize(mesh)
    (back,) = CODEC.decode(tokens)
    assert np.array_equal(back.faces, canonical.faces)
    assert torch.equal(CODEC.quantizer.encode(torch.from_numpy(back.vertices)), torch.from_numpy(canonical.bins))
    assert torch.equal(CODEC.encode(back, normalized=True), tokens)
    assert bool(accepts(CODEC.grammar, tokens).all())


@pytest.mark.parametrize("bins", [32, 128, 1000])
def test_no_coordinate_moves_by_more_than_half_a_bin(bins):
    codec = TriangleTokenizer(bins)
    mesh = torus()
    (back,) = codec.decode(codec.encode(mesh))
    wanted = normalize(mesh.vertices, 2.0)
    moved = np.abs(wanted[:, None] - back.vertices[None]).max(-1).min(1)
    assert moved.max() <= 0.5 * 2 / bins + 1e-6 and codec.quantizer.bound == 0.5
    if bins > 32:  # nothing merged: the same triangles
        assert len(back.vertices) == len(mesh.vertices) and len(back.faces) == len(mesh.triangles)
        assert back.to_trimesh().is_watertight and back.to_trimesh().volume > 0


def test_rows_of_different_length_and_the_spec():
    spec = CODEC.spec
    assert (spec.vocab_size, spec.shape, spec.bos, spec.eos, spec.pad) == (131, (7202,), 128, 129, 130)
    assert spec.grammar is CODEC.grammar
    tokens = CODEC.encode([box(), torus(4, 3)])
    assert tokens.shape == (2, 2 + 9 * 24) and tokens[0, 2 + 9 * 12 :].eq(130).all()
    assert [len(mesh.faces) for mesh in CODEC.decode(tokens)] == [12, 24]
    assert bool(accepts(CODEC.grammar, tokens).all())


@pytest.mark.parametrize(*WALKS)
def test_walks_are_meshes(count):
    codec = TriangleTokenizer(bins=5, max_faces=7)
    tokens = walk(codec.grammar, count, longest=codec.spec.cells)
    faces = 0
    for mesh in codec.decode(tokens):
        a, b, c = mesh.faces.T
        assert ((a != b) & (b != c) & (c != a)).all()
        assert 0 <= mesh.faces.min() and mesh.faces.max() == len(mesh.vertices) - 1
        assert np.isfinite(mesh.vertices).all() and np.abs(mesh.vertices).max() < 1
        faces = max(faces, len(mesh.faces))
    assert faces == 7


def test_walks_of_the_published_size():
    tokens = walk(TriangleTokenizer(max_faces=9).grammar, 60, longest=83)
    assert all(mesh.faces.max() < len(mesh.vertices) for mesh in CODEC.decode(tokens))


def test_the_last_coordinate_cannot_close_a_face_on_itself():
    state = CODEC.grammar.start(1)
    for token in (128, 5, 6, 7, 5, 6):
        state = CODEC.grammar.advance(state, torch.tensor([token]))
    assert not CODEC.grammar.mask(state)[0, 7] and CODEC.grammar.mask(state)[0, :128].sum() == 127


def test_the_end_is_near_from_everywhere():
    assert_the_end_is_near(TriangleTokenizer(bins=5).grammar, steps=60)


def test_saved_and_loaded(tmp_path):
    TriangleTokenizer(64, 1.0, 99).save_pretrained(tmp_path)
    loaded = girih.TriangleTokenizer.from_pretrained(tmp_path)
    assert loaded.spec == TriangleTokenizer(64, 1.0, 99).spec
    assert torch.equal(loaded.encode(box()), TriangleTokenizer(64, 1.0, 99).encode(box()))


@pytest.mark.parametrize("row, words", [
    ([128, 1, 2, 3, 129], "row 0 has 3 coordinates, not nine a face"),
    ([128, 129], "row 0 has 0 coordinates"),
    ([128, *range(9)], "row 0 has no end token"),
    ([*range(9), 129], "row 0 does not begin with bos 128"),
    ([128, *range(8), 130, 129], "token 130 in slot 8 of face 0: must be in 0 .. 127"),
    ([128, *range(9), 129, 131], "tokens must be in 0 .. 130, got 0 to 131"),
])  # fmt: skip
def test_wrong_sequences_are_named(row, words):
    with pytest.raises(ValueError, match=words):
        CODEC.decode(torch.tensor([row]))


def test_too_many_faces_are_refused_before_work():
    with pytest.raises(ValueError, match="the mesh has 1000000 faces, the limit is 800"):
        CODEC.encode(Mesh(np.eye(3), np.zeros((1_000_000, 3), np.int64)))
