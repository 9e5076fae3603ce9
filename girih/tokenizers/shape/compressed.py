"""Triangle meshes in fewer tokens: adjacent strips (AMT) and blocked fans (BPT).

Knows two languages. AMT (MeshAnything V2, Chen et al. 2024): a strip's next face costs one vertex, about 4.6 tokens a
triangle. BPT (Weng et al. 2024): fans around a centre, a vertex is an offset in a block that is named when it changes,
about 2.5 tokens a triangle. Does not know files; ``meshes.py`` does.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch
from diffusers import ConfigMixin, SchedulerMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor

from girih.spec import GrammarState, TokenSpec
from girih.tokenizers.grammars import Automaton, RecordGrammar, Tuples
from girih.tokenizers.records import Field, FieldQuantizer, Record, RecordSchema
from girih.tokenizers.shape.meshes import Array, Canonical, Mesh, canonicalize, weld

Faces = list[list[int]]


class AdjacentTokenizer(SchedulerMixin, ConfigMixin):
    """AMT: strips of vertices, three coordinates each, between separators.

    Ids: bos 0, eos 1, pad 2, coordinates 3 .. bins + 2, separator bins + 3. The corners of a face are sorted, so the
    winding is lost. ``decode(encode(mesh))`` has the faces of the canonical mesh, and moves no coordinate by more than
    half a bin (``offset`` 0.5), or by more than one (``offset`` 0, as the published model decodes).

    Args:
        bins: of each axis. extent: longest side of the bounding box after normalising; the grid is
            [-extent / 2, extent / 2]. offset: where in its bin a coordinate is decoded. max_faces: of a mesh.
    """

    @register_to_config
    def __init__(self, bins: int = 128, extent: float = 1.0, offset: float = 0.5, max_faces: int = 1600) -> None:
        self.quantizer = FieldQuantizer(bins, (-extent / 2, extent / 2), offset=offset)
        corner = tuple(Field(axis, self.quantizer, first=3) for axis in "xyz")
        self.vertex, self.strip = Record("vertex", corner), Record("strip", corner * 3)
        self.separator = Record("separator", (bins + 3,))
        self.schema = RecordSchema((self.strip, self.vertex, self.separator), bins + 4, bos=0, eos=1, pad=2)
        self.automaton = Automaton(self.schema, {
            "start": {"strip": "run"},
            "run": {"vertex": "run", "separator": "start", "eos": "end"},
        })
        corners = Tuples(self.automaton, {"strip": "n" * 9, "vertex": "nnn"}, memory=2, forget=("strip",))
        self.grammar = RecordGrammar(self.automaton, (corners,), limit=self.limit)

    @property
    def limit(self) -> int:
        """Most tokens of a mesh of ``max_faces`` faces: every face a strip of its own."""
        return 1 + 10 * self.config.max_faces

    @property
    def spec(self) -> TokenSpec:
        schema = self.schema
        return TokenSpec(schema.vocab_size, (self.limit,), None, schema.bos, schema.eos, schema.pad, self.grammar)

    def canonicalize(self, mesh: Mesh, normalized: bool = False) -> Canonical:
        """The triangles on the grid, corners sorted, and the report of what was changed."""
        return canonicalize(mesh, self.quantizer, self.config.extent, max_faces=self.config.max_faces,
                            normalized=normalized, sort_corners=True)

    def encode(self, meshes: Mesh | Sequence[Mesh], normalized: bool = False) -> Tensor:
        """Meshes to token ids, LongTensor [meshes, longest]; see ``TriangleTokenizer.encode``."""
        rows = []
        for mesh in [meshes] if not isinstance(meshes, Sequence) else meshes:
            canonical = self.canonicalize(Mesh.of(mesh), normalized)
            blocks: list[Tensor] = []
            for strip in strips(canonical.faces.tolist()):
                blocks += [self.separator.to_tokens(torch.empty(1, 0, dtype=torch.long))] if blocks else []
                blocks.append(self.vertex.to_tokens(torch.from_numpy(canonical.bins[strip])))
            rows.append(self.schema.sequence(*blocks))
        return self.schema.batch(rows)

    def decode(self, tokens: Tensor) -> list[Mesh]:
        """Token ids [rows, n] to meshes in the normalised frame: a strip of k vertices is k - 2 faces.

        Raises ValueError, naming the token, for a sequence that the language does not have.
        """
        meshes = []
        for body in self.schema.bodies(tokens.cpu()):
            bins, faces = weld(self.corners(body).numpy())
            meshes.append(Mesh(self.quantizer.decode(torch.from_numpy(bins)).numpy(), faces))
        return meshes

    def corners(self, body: Tensor) -> Tensor:
        """Bins of the corners of the faces that a body [n] stands for, [F, 3, 3], in its order."""
        self.automaton.split(body)
        between = body == self.config.bins + 3
        strip = between.cumsum(0)[~between][::3]
        vertices = self.vertex.to_bins(body[~between].reshape(-1, 3))
        return torch.stack((vertices[:-2], vertices[1:-1], vertices[2:]), 1)[strip[2:] == strip[:-2]]

    def slot_types(self, body: Tensor) -> Tensor:
        """What MeshAnything V2 embeds beside each token of a body [n]: 3 a separator, 4 5 6 the axes of a strip's first
        three vertices, 7 8 9 those of later ones."""
        between = body == self.config.bins + 3
        at = torch.arange(len(body), device=body.device)
        starts = torch.where(between, at + 1, 0).cummax(0).values
        place = at - starts
        return torch.where(between, 3, place % 3 + torch.where(place < 9, 4, 7))


def strips(faces: Faces) -> list[list[int]]:
    """Sorted faces with sorted corners as strips of vertices, each face once.

    From the lowest face left: the last two vertices and the lowest third one that makes a face left, as long as there
    is one (MeshAnything V2, section 3.2).
    """
    thirds: dict[tuple[int, int], list[int]] = defaultdict(list)
    for a, b, c in faces:
        for pair, third in (((a, b), c), ((a, c), b), ((b, c), a)):
            thirds[pair].append(third)
    left = {tuple(face) for face in faces}
    out: list[list[int]] = []
    for face in faces:
        if tuple(face) not in left:
            continue
        left.discard(tuple(face))
        strip = list(face)
        while True:
            a, b = sorted(strip[-2:])
            third = next((c for c in sorted(thirds[a, b]) if tuple(sorted((a, b, c))) in left), -1)
            if third < 0:
                break
            left.discard(tuple(sorted((a, b, third))))
            strip.append(third)
        out.append(strip)
    return out


class BlockPatchTokenizer(SchedulerMixin, ConfigMixin):
    """BPT: patches of faces around a centre; a vertex is (block, offset), the block named when it changes.

    Ids, for 8 blocks and 16 offsets an axis: blocks 0 .. 511, offsets 512 .. 4607, the block of a patch's centre
    4608 .. 5119 (which also parts the patches; the first patch has a plain block), eos 5120, then bos and pad, which
    the published vocabulary does not have. ``decode(encode(mesh))`` moves no coordinate by more than half a bin; a
    patch is wound as its first face, so consistently oriented meshes keep their winding.

    Args:
        blocks, offsets: of each axis; together the bins. extent: longest side of the bounding box after normalising,
            inside the grid [-1, 1]. max_tokens: of a sequence. max_faces: of a mesh.
    """

    @register_to_config
    def __init__(self, blocks: int = 8, offsets: int = 16, extent: float = 1.9, max_tokens: int = 10000,
                 max_faces: int = 8000) -> None:
        count, places = blocks**3, offsets**3
        self.quantizer = FieldQuantizer(blocks * offsets, (-1.0, 1.0))
        block, dual = FieldQuantizer.integers(count), count + places
        place = Field("offset", FieldQuantizer.integers(places), first=count)
        self.first = Record("first", (Field("block", block), place))
        self.near, self.far = Record("near", (place,)), Record("far", (Field("block", block), place))
        self.patch = Record("patch", (Field("block", block, first=dual), place))
        eos = dual + count
        self.schema = RecordSchema((self.first, self.patch, self.near, self.far), eos + 3, eos + 1, eos, eos + 2)
        vertex = {"near": "two", "far": "two"}
        fan = {"near": "fan", "far": "fan"}
        self.automaton = Automaton(self.schema, {
            "start": {"first": "one", "patch": "one"}, "one": vertex, "two": fan,
            "fan": {**fan, "patch": "one", "eos": "end"},
        })
        self.grammar = RecordGrammar(self.automaton, (_Fan(self.automaton, count, places),), limit=max_tokens)

    @property
    def spec(self) -> TokenSpec:
        schema = self.schema
        return TokenSpec(schema.vocab_size, (self.config.max_tokens,), None, schema.bos, schema.eos, schema.pad,
                         self.grammar)

    def canonicalize(self, mesh: Mesh, normalized: bool = False) -> Canonical:
        """The triangles on the grid and the report of what was changed. Vertices are ordered by coarse blocks of 32
        bins, along y, then x, then z, and inside a block alike; faces by their sorted corners."""
        canonical = canonicalize(mesh, self.quantizer, self.config.extent, max_faces=self.config.max_faces,
                                 normalized=normalized, order=_by_coarse_blocks)
        order = np.lexsort(np.sort(canonical.faces, 1).T[::-1])
        return replace(canonical, faces=canonical.faces[order])

    def encode(self, meshes: Mesh | Sequence[Mesh], normalized: bool = False) -> Tensor:
        """Meshes to token ids, LongTensor [meshes, longest]; see ``TriangleTokenizer.encode``.

        Raises ValueError, too, for a mesh that takes more than ``max_tokens``.
        """
        rows = []
        for mesh in [meshes] if not isinstance(meshes, Sequence) else meshes:
            canonical = self.canonicalize(Mesh.of(mesh), normalized)
            row = self.pack(canonical.bins, patches(canonical.faces.tolist()))
            if len(row) > self.config.max_tokens:
                raise ValueError(f"the mesh takes {len(row)} tokens, the limit is {self.config.max_tokens}")
            rows.append(row)
        return self.schema.batch(rows)

    def pack(self, bins: Array, fans: list[list[int]]) -> Tensor:
        """Patches, each the indices of its centre and its fan into ``bins`` [V, 3], to one sequence LongTensor [n]."""
        blocks, offsets = self.config.blocks, self.config.offsets
        points = bins[np.concatenate(fans)]
        block, offset = (part @ np.array([size * size, size, 1]) for part, size in (
            (points // offsets, blocks), (points % offsets, offsets)))
        centre = np.zeros(len(points), bool)
        centre[np.cumsum([0, *(len(fan) for fan in fans[:-1])])] = True
        named = centre | (np.diff(block, prepend=-1) != 0)  # where the block is written
        centre[0] = False  # the first patch has a plain block
        ids = np.stack((block + centre * (blocks**3 + offsets**3), offset + blocks**3), 1)
        return self.schema.sequence(torch.from_numpy(ids[np.stack((named, np.ones_like(named)), 1)]))

    def decode(self, tokens: Tensor) -> list[Mesh]:
        """Token ids [rows, n] to meshes in the normalised frame: a patch c r1 .. rk is the faces (c, ri, ri+1).

        Raises ValueError, naming the token, for a sequence that the language does not have.
        """
        meshes = []
        for body in self.schema.bodies(tokens.cpu()):
            bins, faces = weld(self.corners(body), _by_coarse_blocks)
            meshes.append(Mesh(self.quantizer.decode(torch.from_numpy(bins)).numpy(), faces))
        return meshes

    def corners(self, body: Tensor) -> Array:
        """Bins of the corners of the faces that a body [n] stands for, [F, 3, 3], in its order."""
        self.automaton.split(body)
        blocks, offsets, ids = self.config.blocks, self.config.offsets, body.cpu().numpy()
        dual = blocks**3 + offsets**3
        place = (ids >= blocks**3) & (ids < dual)
        written = np.maximum.accumulate(np.where(place, 0, np.arange(len(ids))))  # where each id's block was written
        block, offset = ids[written[place]] % dual, ids[place] - blocks**3
        points = _digits(block, blocks) * offsets + _digits(offset, offsets)
        patch = np.cumsum(ids >= dual)[place]
        centre = np.searchsorted(patch, patch)  # the first vertex of each vertex's patch
        at = np.arange(1, len(points) - 1)
        at = at[(at > centre[at]) & (patch[at + 1] == patch[at])]
        return np.stack((points[centre[at]], points[at], points[at + 1]), 1)


def patches(faces: Faces) -> list[list[int]]:
    """Faces, rotated and sorted, as patches [centre, fan ...], each face once (BPT, section 3.3).

    The centre is the corner of the first face left that most faces left share (the first such corner). The fan begins
    at its lowest end, or at its lowest vertex where it is closed, and is turned round if its first face asks for it.
    """
    around: dict[int, list[int]] = defaultdict(list)
    for index, face in enumerate(faces):
        for vertex in face:
            around[vertex].append(index)
    degree = {vertex: len(indices) for vertex, indices in around.items()}
    turns = {(a, b, c) for face in faces for a, b, c in (face, (*face[1:], face[0]), (face[2], *face[:2]))}
    left = [True] * len(faces)
    out = []
    for index, face in enumerate(faces):
        while left[index]:  # again where the fan passed this face by: it meets the others in the centre only
            centre = max(face, key=degree.__getitem__)
            fan = _walk(centre, [i for i in around[centre] if left[i]], faces, left)
            for u, v in pairwise(fan):
                for vertex in (centre, u, v):
                    degree[vertex] -= 1
            out.append([centre, *(fan if (centre, fan[0], fan[1]) in turns else fan[::-1])])
    return out


def _walk(centre: int, incident: list[int], faces: Faces, left: list[bool]) -> list[int]:
    """The vertices of a fan round ``centre`` over its ``incident`` faces; marks those that it takes as not left."""
    sides = sorted((*sorted(v for v in faces[i] if v != centre), i) for i in incident)
    next_to: dict[int, list[tuple[int, int]]] = defaultdict(list)  # vertex -> (the side's other vertex, face)
    for u, v, i in sides:
        next_to[u].append((v, i))
        next_to[v].append((u, i))
    ends = [vertex for vertex, others in next_to.items() if len(others) == 1]
    fan = [min(ends or next_to)]
    while True:
        step = next(((v, i) for v, i in next_to[fan[-1]] if left[i]), None)
        if step is None:
            return fan
        fan.append(step[0])
        left[step[1]] = False


class _Fan:
    """Rule: a written block is another than the last, and no face of a fan has two equal corners.

    Remembers the current block, and the patch's centre and the last vertex as block * places + offset; -1 = none yet.
    """

    def __init__(self, automaton: Automaton, blocks: int, places: int):
        self.blocks, self.places, self.vocab_size = blocks, places, automaton.vocab_size
        self.centre = automaton.here("first", 1) | automaton.here("patch", 1)
        self.fan = automaton.here("near", 0) | automaton.here("far", 1)

    def start(self, rows: int) -> GrammarState:
        none = torch.full((rows,), -1, device=self.centre.device)
        return {"block": none, "centre": none, "last": none}

    def mask(self, at: Tensor, memory: GrammarState) -> Tensor:
        allowed = torch.ones(len(at), self.vocab_size, dtype=torch.bool, device=at.device)
        fan = self.fan[at]
        rows = torch.arange(len(at), device=at.device)
        # The block that stands already. A far vertex's offset comes after its block, which then is the current one.
        current = memory["block"].clamp(min=0)
        allowed[rows, current] = memory["block"] < 0
        for other in (memory["centre"], memory["last"]):
            same = fan & (other >= 0) & (other.div(self.places, rounding_mode="floor") == memory["block"])
            token = torch.where(same, other % self.places + self.blocks, 0)
            allowed[rows, token] &= ~same
        return allowed

    def advance(self, at: Tensor, tokens: Tensor, memory: GrammarState) -> GrammarState:
        dual = tokens - self.blocks - self.places
        named = torch.where(tokens < self.blocks, tokens, torch.where(dual < 0, -1, dual))
        is_place = self.centre[at] | self.fan[at] & (tokens >= self.blocks) & (dual < 0)
        block = torch.where((named >= 0) & (named < self.blocks), named, memory["block"])
        vertex = torch.where(is_place, block * self.places + tokens - self.blocks, memory["last"])
        return {"block": block, "centre": torch.where(self.centre[at], vertex, memory["centre"]), "last": vertex}


def _by_coarse_blocks(bins: Array) -> Array:
    """BPT's order of vertices: coarse blocks of 32 bins, then bins, both along y, then x, then z; int64 [N]."""
    z, y, x = bins[:, 1], bins[:, 0], bins[:, 2]  # the axes of the published code are (z, x, y) of ours
    coarse = (z >> 5) << 16 | (y >> 5) << 8 | x >> 5
    return coarse << 36 | z << 24 | y << 12 | x


def _digits(values: Array, base: int) -> Array:
    return np.stack((values // base**2, values // base % base, values % base), 1)
