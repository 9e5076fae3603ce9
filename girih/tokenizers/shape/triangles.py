"""Triangle meshes as nine coordinate tokens a face: MeshXL's neural coordinate field (Chen et al. 2024).

Knows one language: bos, then x y z of the three corners of each face, eos. Does not know files; ``meshes.py`` does. A
vertex has no index and no codebook: the model meets it as three coordinates each time.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import ConfigMixin, SchedulerMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor

from girih.spec import TokenSpec
from girih.tokenizers.grammars import Automaton, RecordGrammar, Tuples
from girih.tokenizers.records import Field, FieldQuantizer, Record, RecordSchema
from girih.tokenizers.shape.meshes import Canonical, Mesh, canonicalize, weld


class TriangleTokenizer(SchedulerMixin, ConfigMixin):
    """MeshXL's tokens: ids 0 .. bins - 1 are coordinates, then bos, eos, pad.

    ``decode(encode(mesh))`` moves no coordinate of the normalised mesh by more than half a bin. Quads are split.

    Args:
        bins: of each axis. extent: longest side of the bounding box after normalising; the grid is
            [-extent / 2, extent / 2] on each axis.
        max_faces: most faces of a mesh; sets ``spec.shape``.
    """

    @register_to_config
    def __init__(self, bins: int = 128, extent: float = 2.0, max_faces: int = 800) -> None:
        self.quantizer = FieldQuantizer(bins, (-extent / 2, extent / 2))
        self.face = Record("face", tuple(Field(axis, self.quantizer) for axis in "xyz" * 3))
        self.schema = RecordSchema((self.face,), bins + 3, bos=bins, eos=bins + 1, pad=bins + 2)
        self.automaton = Automaton(
            self.schema, {"start": {"face": "more"}, "more": {"face": "more", "eos": "end"}})
        corners = Tuples(self.automaton, {"face": "nnnnnnnnn"}, memory=3, forget=("face",))
        self.grammar = RecordGrammar(self.automaton, (corners,), limit=2 + 9 * max_faces)

    @property
    def spec(self) -> TokenSpec:
        schema, limit = self.schema, 2 + 9 * self.config.max_faces
        return TokenSpec(schema.vocab_size, (limit,), None, schema.bos, schema.eos, schema.pad, self.grammar)

    def canonicalize(self, mesh: Mesh, normalized: bool = False) -> Canonical:
        """The triangles on the grid, and the report of what was changed; see ``meshes.canonicalize``."""
        return canonicalize(mesh, self.quantizer, self.config.extent, max_faces=self.config.max_faces,
                            normalized=normalized)

    def pack(self, corners: Tensor) -> Tensor:
        """Bins of corners [F, 3, 3], in the order they have, to one sequence LongTensor [2 + 9 F]."""
        return self.schema.sequence(self.face.to_tokens(corners.reshape(-1, 9)))

    def unpack(self, tokens: Tensor) -> list[Tensor]:
        """Sequences [rows, n] to bins of corners [F, 3, 3] a row. Raises ValueError for a sequence that is none."""
        bodies = self.schema.bodies(tokens.cpu())
        for i, body in enumerate(bodies):
            if not len(body) or len(body) % 9:
                raise ValueError(f"row {i} has {len(body)} coordinates, not nine a face")
        return [self.face.to_bins(body.reshape(-1, 9)).reshape(-1, 3, 3) for body in bodies]

    def encode(self, meshes: Mesh | Sequence[Mesh], normalized: bool = False) -> Tensor:
        """Meshes to token ids, LongTensor [meshes, longest].

        ``normalized``: the meshes lie in the grid's range already and stay where they are. Raises ValueError as
        ``meshes.canonicalize`` does.
        """
        rows = []
        for mesh in [meshes] if not isinstance(meshes, Sequence) else meshes:
            canonical = self.canonicalize(Mesh.of(mesh), normalized)
            rows.append(self.pack(torch.from_numpy(canonical.bins[canonical.faces])))
        return self.schema.batch(rows)

    def decode(self, tokens: Tensor) -> list[Mesh]:
        """Token ids [rows, n] to meshes in the normalised frame, corners that share a bin welded.

        Raises ValueError, naming the row, for a sequence without its end or with a token where it does not belong.
        """
        meshes = []
        for corners in self.unpack(tokens):
            bins, faces = weld(corners.numpy())
            meshes.append(Mesh(self.quantizer.decode(torch.from_numpy(bins)).numpy(), faces))
        return meshes

