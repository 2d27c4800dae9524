"""Settings that must be in place before any Hugging Face library is imported, and fixtures for all tests."""

import os
import tempfile
from pathlib import Path

from hub_server import HubServer


_HOME = tempfile.mkdtemp(prefix="headshare-hf-home-")
# The address of the Hub is read when the libraries are imported, so that the whole session has one. It is a server
# on loopback that starts with the tests that need it; offline mode keeps all others away from it.
_HUB = HubServer(Path(_HOME) / "loopback")
os.environ.update(
    HF_HOME=_HOME,
    HF_ENDPOINT=_HUB.endpoint,
    HF_HUB_DISABLE_XET="1",
    HF_UPDATE_DOWNLOAD_COUNTS="0",
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


if not torch.cuda.is_available():
    # Where it finds no GPU by itself, DeepSpeed says so on the standard output of whoever imports it.
    os.environ.setdefault("DS_ACCELERATOR", "cpu")


@pytest.fixture(autouse=True)
def seeded():
    """Every test starts from the same random state."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def loopback_hub():
    """The Hub of this session, which only the fixture `hub` of tests/hub lets clients reach."""
    with _HUB:
        yield _HUB


@pytest.fixture(scope="session", autouse=True)
def remove_home():
    """Leaves nothing behind."""
    yield
    import shutil

    shutil.rmtree(_HOME, ignore_errors=True)
