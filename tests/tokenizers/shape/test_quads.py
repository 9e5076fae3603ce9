"""QuadGPT's language: quads stay quads, blocks of twelve, and a grammar that only writes meshes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings

import girih
from girih.tokenizers.grammars import accepts
from girih.tokenizers.shape.meshes import normalize
from girih.tokenizers.shape.quads import QuadTokenizer
from tests.tokenizers.shape.solids import box, soups, torus, turned
from tests.tokenizers.walks import WALKS, assert_the_end_is_near, walk

CODEC = QuadTokenizer()


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


@pytest.mark.parametrize("every", [0, 1, 4])
def test_quad_share_in_is_quad_share_out(every):
    mesh = torus(triangles_every=every)
    tokens = CODEC.encode(mesh)
    (back,) = CODEC.decode(tokens)
    assert tokens.shape == (1, 2 + 12 * len(mesh.faces))
    assert back.quads == mesh.quads and CODEC.quad_share(back) == CODEC.quad_share(mesh)
    wanted = normalize(mesh.vertices, 1.9)
    distance = np.abs(wanted[:, None] - back.vertices[None]).max(-1)
    assert distance.min(1).max() <= 0.5 * 1.9 / 1024 + 1e-6
    # The same multiset of rotated faces, by the nearest vertices.
    faces = np.where(mesh.faces < 0, -1, distance.argmin(1)[mesh.faces])
    assert turned(faces) == turned(back.faces)


def test_a_triangle_is_three_fillers_and_nine_coordinates():
    tokens = CODEC.encode(torus(triangles_every=1))[0, 1:-1].reshape(-1, 12)
    assert bool((tokens[:, :3] == 1024).all()) and bool((tokens[:, 3:] < 1024).all())
    spec = CODEC.spec
    assert (spec.vocab_size, spec.shape, spec.bos, spec.eos, spec.pad) == (1027, (36866,), 1025, 1026, 1024)


def test_triangle_meshes_and_mixed_batches():
    plain = torus(5, 4)
    triangles = type(plain)(plain.vertices, plain.triangles)
    tokens = CODEC.encode([triangles, box()])
    assert bool(accepts(CODEC.grammar, tokens).all())
    assert [(mesh.quads, len(mesh.faces)) for mesh in CODEC.decode(tokens)] == [(0, 40), (6, 6)]


@pytest.mark.parametrize(*WALKS)
def test_walks_are_meshes(count):
    codec = QuadTokenizer(bins=5, max_faces=6)
    tokens = walk(codec.grammar, count, longest=codec.spec.cells)
    quads = 0
    for mesh in codec.decode(tokens):
        for face in mesh.faces.tolist():
            corners = [i for i in face if i >= 0]
            assert len(set(corners)) == len(corners) >= 3 and max(corners) < len(mesh.vertices)
        quads += mesh.quads
    assert quads > count


def test_fillers_are_forced_after_the_first_and_forbidden_inside():
    grammar = CODEC.grammar
    state = grammar.advance(grammar.start(2), torch.tensor([1025, 1025]))
    state = grammar.advance(state, torch.tensor([1024, 7]))
    assert grammar.forced(state).tolist() == [1024, -1] and not grammar.mask(state)[1, 1024]
    state = grammar.advance(state, torch.tensor([1024, 7]))
    assert grammar.forced(state).tolist() == [1024, -1]
    assert not grammar.mask(grammar.advance(state, torch.tensor([1024, 7])))[0, 1024:].any()


def test_the_end_is_near_from_everywhere():
    assert_the_end_is_near(QuadTokenizer(bins=5).grammar, steps=60)


def test_saved_and_loaded(tmp_path):
    QuadTokenizer(64, 1.0, 99).save_pretrained(tmp_path)
    loaded = girih.QuadTokenizer.from_pretrained(tmp_path)
    assert loaded.spec == QuadTokenizer(64, 1.0, 99).spec


@pytest.mark.parametrize("body, words", [
    ([1, 2, 3], "row 0 has 3 tokens, not twelve a face"),
    ([], "row 0 has 0 tokens"),
    ([*range(11), 1024], "token 1024 in slot 11 of quad 0"),
    ([1024, 1024, 5, *range(9)], "token 5 in slot 2 of triangle 0"),
])  # fmt: skip
def test_wrong_sequences_are_named(body, words):
    with pytest.raises(ValueError, match=words):
        CODEC.decode(torch.tensor([[1025, *body, 1026]]))
