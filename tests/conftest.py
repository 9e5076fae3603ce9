"""What every test shares: one torch thread, no network, and how many examples a property is tried on.

`make test` uses the profile "fast", `make test-all` the profile "full".
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"  # a test that asks a hub fails at once instead of waiting

import hypothesis
import pytest
import torch

import girih  # noqa: F401  (mends torchaudio before a test imports transformers)

hypothesis.settings.register_profile("fast", max_examples=25, deadline=None, derandomize=True)
hypothesis.settings.register_profile("full", max_examples=300, deadline=None)
hypothesis.settings.load_profile("fast")
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed() -> None:
    """Each test starts from the same global random state, whatever ran before it."""
    torch.manual_seed(0)
