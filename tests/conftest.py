"""Settings that must be in place before any Hugging Face library is imported, and fixtures for all tests."""

import os
import tempfile


_HOME = tempfile.mkdtemp(prefix="headshare-hf-home-")
os.environ.update(
    HF_HOME=_HOME,
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    DISABLE_SAFETENSORS_CONVERSION="1",
    TOKENIZERS_PARALLELISM="false",
    MPLBACKEND="Agg",
)

import pytest  # noqa: E402
import torch  # noqa: E402


@pytest.fixture(autouse=True)
def seeded():
    """Every test starts from the same random state."""
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def remove_home():
    """Leaves nothing behind."""
    yield
    import shutil

    shutil.rmtree(_HOME, ignore_errors=True)
