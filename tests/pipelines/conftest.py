"""One tiny pipeline for each test file."""

from __future__ import annotations

import pytest

from girih.pipelines.image import ImagePipeline
from tests.pipelines.tiny import BACKGROUNDS, STYLES, make_pipeline


@pytest.fixture(scope="module")
def pipe() -> ImagePipeline:
    """With styles, backgrounds and mirroring, as the shipped model has. Shared: tests leave it as it was."""
    return make_pipeline(styles=STYLES, backgrounds=BACKGROUNDS, flip_share=0.5)
