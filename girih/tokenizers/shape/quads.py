"""Meshes of quads and triangles as twelve tokens a face: QuadGPT (2026), from descriptions; no code was published.

Knows one language: bos, a block of twelve tokens a face, eos. A quad is x y z of its four corners; a triangle is three
padding tokens, then nine coordinates, so the first token of a block says which it is. Where the paper is silent: bins
decode at their centres, bos and eos follow the padding id, a face starts at its lowest vertex and keeps its winding,
and faces are sorted by their vertices. Does not know files; ``meshes.py`` does.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from diffusers import ConfigMixin, SchedulerMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor

from girih.spec import TokenSpec
from girih.tokenizers.grammars import Automaton, RecordGrammar, Tuples
from girih.tokenizers.records import Field, FieldQuantizer, Record, RecordSchema
from girih.tokenizers.shape.meshes import Canonical, Mesh, by_zxy, canonicalize, weld


class QuadTokenizer(SchedulerMixin, ConfigMixin):
    """QuadGPT's padded blocks: ids 0 .. bins - 1 are coordinates, ``bins`` fills up triangles, then bos, eos.

    ``decode(encode(mesh))`` moves no coordinate of the normalised mesh by more than half a bin and keeps quads quads.

    Args:
        bins: of each axis. extent: longest side of the bounding box after normalising; the grid is
            [-extent / 2, extent / 2] on each axis.
        max_faces: most faces of a mesh, of either kind; sets ``spec.shape``.
    """

    @register_to_config
    def __init__(self, bins: int = 1024, extent: float = 1.9, max_faces: int = 3072) -> None:
        self.quantizer = FieldQuantizer(bins, (-extent / 2, extent / 2))
        corner = tuple(Field(axis, self.quantizer) for axis in "xyz")
        self.quad = Record("quad", corner * 4)
        self.triangle = Record("triangle", (bins,) * 3 + corner * 3)
        self.schema = RecordSchema((self.quad, self.triangle), bins + 3, bos=bins + 1, eos=bins + 2, pad=bins)
        faces = {"quad": "more", "triangle": "more"}
        self.automaton = Automaton(self.schema, {"start": faces, "more": {**faces, "eos": "end"}})
        corners = Tuples(self.automaton, {"quad": "n" * 12, "triangle": "..." + "n" * 9}, memory=4,
                         forget=("quad", "triangle"))
        self.grammar = RecordGrammar(self.automaton, (corners,), limit=2 + 12 * max_faces)

    @property
    def spec(self) -> TokenSpec:
        schema, limit = self.schema, 2 + 12 * self.config.max_faces
        return TokenSpec(schema.vocab_size, (limit,), None, schema.bos, schema.eos, schema.pad, self.grammar)

    def canonicalize(self, mesh: Mesh, normalized: bool = False) -> Canonical:
        """The faces on the grid, and the report of what was changed; see ``meshes.canonicalize``."""
        return canonicalize(mesh, self.quantizer, self.config.extent, max_faces=self.config.max_faces,
                            normalized=normalized, triangles=False, order=by_zxy)

    def encode(self, meshes: Mesh | Sequence[Mesh], normalized: bool = False) -> Tensor:
        """Meshes to token ids, LongTensor [meshes, longest].

        ``normalized``: the meshes lie in the grid's range already and stay where they are. Raises ValueError as
        ``meshes.canonicalize`` does.
        """
        rows = []
        for mesh in [meshes] if not isinstance(meshes, Sequence) else meshes:
            canonical = self.canonicalize(Mesh.of(mesh), normalized)
            corners = torch.from_numpy(canonical.bins[canonical.faces]).reshape(len(canonical.faces), -1)
            blocks = torch.empty(len(corners), 12, dtype=torch.long)
            is_quad = torch.from_numpy(canonical.faces[:, -1] >= 0) & (canonical.faces.shape[1] == 4)
            blocks[is_quad] = self.quad.to_tokens(corners[is_quad, :12].reshape(-1, 12))
            blocks[~is_quad] = self.triangle.to_tokens(corners[~is_quad, :9])
            rows.append(self.schema.sequence(blocks))
        return self.schema.batch(rows)

    def decode(self, tokens: Tensor) -> list[Mesh]:
        """Token ids [rows, n] to meshes in the normalised frame, faces [F, 4] with -1 for a triangle's fourth corner,
        corners that share a bin welded.

        Raises ValueError, naming the row, for a sequence without its end or with a token where it does not belong.
        """
        meshes = []
        for i, body in enumerate(self.schema.bodies(tokens.cpu())):
            if not len(body) or len(body) % 12:
                raise ValueError(f"row {i} has {len(body)} tokens, not twelve a face")
            blocks = body.reshape(-1, 12)
            is_quad = blocks[:, 0] != self.config.bins
            corners = torch.full((len(blocks), 4, 3), -1)
            corners[is_quad] = self.quad.to_bins(blocks[is_quad]).reshape(-1, 4, 3)
            corners[~is_quad, :3] = self.triangle.to_bins(blocks[~is_quad]).reshape(-1, 3, 3)
            bins, faces = weld(corners.numpy(), by_zxy)
            meshes.append(Mesh(self.quantizer.decode(torch.from_numpy(bins)).numpy(), faces))
        return meshes

    @staticmethod
    def quad_share(mesh: Mesh) -> float:
        """Quads among the faces, 0 to 1: the scalar that QuadGPT is conditioned on."""
        return float(np.float64(mesh.quads) / len(mesh.faces))
