"""A Hub on loopback for the tests of this folder, reached by the real clients, here and in fresh processes."""

import os
import subprocess
import sys
from pathlib import Path

import datasets
import huggingface_hub
import pytest

import headshare_hf


# Wherever the package is installed or lies, it cannot be imported.
HIDE_PACKAGE = """
import sys
class _Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "headshare_hf":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, _Hidden())
"""


@pytest.fixture(scope="module")
def hub(loopback_hub):
    """An empty Hub for one module of tests, which run as alice and online; see [`hub_server.HubServer`]."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        patch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
        patch.setenv("HF_TOKEN", loopback_hub.alice)
        yield loopback_hub
    loopback_hub.clear()


@pytest.fixture(autouse=True)
def forget(loopback_hub):
    """The log is that of one test, and failures that did not happen go with it."""
    yield
    loopback_hub.log.clear()
    loopback_hub.faults.clear()


@pytest.fixture
def fresh_process(hub, tmp_path_factory):
    """Runs code in another process with a cache of its own, as another machine would.

    `fresh_process(code, token=None, offline=False, without_package=False, home=None, xet=False)` returns what the code
    printed and fails with its error if it raised. Without `token` it is anonymous. A `home` given twice is a cache
    kept. The code can import this package unless `without_package`. Only with `xet` are large files uploaded by Xet.
    """

    def run(
        code: str,
        token: str | None = None,
        offline: bool = False,
        without_package: bool = False,
        home: Path | None = None,
        xet: bool = False,
    ) -> str:
        home = home or tmp_path_factory.mktemp("home")
        environment = {name: value for name, value in os.environ.items() if name not in ("HF_TOKEN", "PYTHONPATH")}
        environment.update(HF_HOME=str(home), HF_HUB_OFFLINE=str(int(offline)), HF_DATASETS_OFFLINE=str(int(offline)))
        environment["HF_HUB_DISABLE_XET"] = str(int(not xet))
        if token:
            environment["HF_TOKEN"] = token
        if not without_package:
            environment["PYTHONPATH"] = str(Path(headshare_hf.__file__).parents[1])
        code = HIDE_PACKAGE + code if without_package else code
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env=environment, cwd=home, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
