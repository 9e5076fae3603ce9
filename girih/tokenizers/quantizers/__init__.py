"""Quantizers: features to token ids and code vectors, and ids back to code vectors, whatever the modality.

Know features ``[B, C, *cells]`` and ids. Do not know pictures, sounds, encoders or files. Each has ``vocab_size``,
``dim`` (C), ``forward -> Quantized`` and ``lookup``. How ids use a codebook is :func:`codebook_use`, for all of them.
"""

from girih.tokenizers.quantizers.bits import SignQuantizer
from girih.tokenizers.quantizers.codebooks import (
    USAGE_WINDOW,
    AveragingCodebookQuantizer,
    CodebookQuantizer,
    ResidualCodebookQuantizer,
    assignment_entropy,
)
from girih.tokenizers.quantizers.quantized import CodebookUse, Quantized, check_ids, codebook_use
from girih.tokenizers.quantizers.scalars import FiniteScalarQuantizer, GroupedResidualScalarQuantizer
from girih.tokenizers.quantizers.scales import MultiscaleQuantizer

__all__ = [
    "USAGE_WINDOW",
    "AveragingCodebookQuantizer",
    "CodebookQuantizer",
    "CodebookUse",
    "FiniteScalarQuantizer",
    "GroupedResidualScalarQuantizer",
    "MultiscaleQuantizer",
    "Quantized",
    "ResidualCodebookQuantizer",
    "SignQuantizer",
    "assignment_entropy",
    "check_ids",
    "codebook_use",
]
