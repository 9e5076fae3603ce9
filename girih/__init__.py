"""girih: a prompt or a reference becomes an image, by predicting tokens.

Knows where each public name lives, and imports it when it is first asked for, so that `import girih` stays quick. It
loads neither torch nor diffusers nor transformers.
"""

from __future__ import annotations

import importlib
from typing import Any

from girih import torchaudio_repair

__version__ = "0.1.0"

torchaudio_repair.install()  # before anything can import transformers

# Public name -> the module that defines it.
_HOMES = {
    "TokenSpec": "girih.spec",
    "Layout": "girih.spec",
    "ImageTokenizer": "girih.tokenizers.image",
    "LookupFreeTokenizer": "girih.tokenizers.lookup_free",
    "MultiscaleTokenizer": "girih.tokenizers.multiscale",
    "OrderedTokenizer": "girih.tokenizers.ordered",
    "AudioTokenizer": "girih.tokenizers.audio",
    "CodebookPattern": "girih.spec",
    "VideoTokenizer": "girih.tokenizers.video",
    "ActionTokenizer": "girih.tokenizers.action",
    "WordByteTokenizer": "girih.tokenizers.bytes",
    "TriangleTokenizer": "girih.tokenizers.shape.triangles",
    "AdjacentTokenizer": "girih.tokenizers.shape.compressed",
    "BlockPatchTokenizer": "girih.tokenizers.shape.compressed",
    "QuadTokenizer": "girih.tokenizers.shape.quads",
    "CadTokenizer": "girih.tokenizers.shape.cad_tokens",
    "CadVectorTokenizer": "girih.tokenizers.shape.cad_vectors",
    "SceneTokenizer": "girih.tokenizers.scene",
    "PartTokenizer": "girih.tokenizers.shape.parts",
    "HairTokenizer": "girih.tokenizers.shape.hair",
    "SkeletonTokenizer": "girih.tokenizers.shape.rig",
    "UniRigTokenizer": "girih.tokenizers.shape.rig",
    "Rig": "girih.tokenizers.shape.skeleton",
    "CadPipeline": "girih.pipelines.cad",
    "CadPipelineOutput": "girih.pipelines.cad",
    "NextTokenGenerator": "girih.generators.next_token",
    "TextEncoder": "girih.generators.conditioning",
    "Autoregressive": "girih.generators.decoding.autoregressive",
    "ImagePipeline": "girih.pipelines.image",
    "load": "girih.pipelines.loading",
    "optimize": "girih.pipelines.optimize",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    """The public object `name`, imported now. Raises AttributeError for a name that is not public."""
    if name not in _HOMES:
        raise AttributeError(f"module 'girih' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """What tab completion shows: the modules loaded so far and every public name."""
    return sorted({*globals(), *_HOMES})
