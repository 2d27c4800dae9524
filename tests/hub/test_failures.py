"""Scripts end with one line where the Hub refuses or is not reached, and not with a traceback."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hub_server import ALICE_READ_ONLY
from huggingface_hub import HfApi
from published_runs import finish, push, trainer
from toys import resnet

from headshare_hf import HeadShareImageProcessor
from headshare_hf.hub.failures import told_in_one_line


ROOT = Path(__file__).parents[2]


def _example(name):
    spec = importlib.util.spec_from_file_location(f"{name}_example", ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PUBLISH, EXPORT = _example("publish"), _example("export")


@pytest.fixture(scope="module")
def run(hub, tmp_path_factory):
    return finish(trainer(tmp_path_factory.mktemp("run"))).folder


@pytest.fixture
def patient(monkeypatch):
    """No waiting between the tries of the client."""
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)


def _last_line(main, *arguments):
    with pytest.raises(SystemExit) as caught:
        main(list(map(str, arguments)))
    assert "\n" not in caught.value.code
    return caught.value.code


def _publish(folder, repo_id):
    return _last_line(PUBLISH.main, folder, "--repo-id", repo_id)


def test_refusals_of_a_publication(run, monkeypatch):
    found = _publish(run, "bob/net")
    assert (
        found.startswith("the Hub answered 403 Forbidden: ")
        and "alice has no right to write in the namespace" in found
    )
    assert found.endswith("; publish to a namespace of yours, with a token that may write there")
    monkeypatch.setenv("HF_TOKEN", "hf_nobody")
    found = _publish(run, "alice/net")
    assert "401 Unauthorized: Invalid credentials in Authorization header; log in with `hf auth login`" in found


def test_a_hub_that_is_not_reached_and_uploads_that_are_cut(run, hub, patient, monkeypatch):
    hub.faults.cut("PUT", "/lfs-upload/", after=10, times=100)
    found = _publish(run, "alice/cut")
    assert "Error while uploading 'model.safetensors'" in found and "the same command goes on with it" in found
    hub.faults.clear()
    hub.faults.cut("POST", "/commit/", after=10, times=100)
    assert "the connection to the Hub was lost, or never made (" in _publish(run, "alice/cut")
    hub.faults.clear()
    hub.faults.refuse("POST", "/commit/", status=500, times=100)
    assert _publish(run, "alice/cut").startswith("the Hub answered 500 Internal Server Error: refused by the test")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "offline mode is enabled" in _publish(run, "alice/cut")


def test_models_that_cannot_be_exported(hub, tmp_path):
    push(resnet(), "alice/exported")
    HfApi().delete_file("preprocessor_config.json", "alice/exported")
    options = ("--output", tmp_path / "out")
    assert "alice/nothing is not a local folder" in _last_line(EXPORT.main, "alice/nothing", *options)
    assert "has no image processor" in _last_line(EXPORT.main, "alice/exported", *options)
    assert "`flip` has no effect without `pairs`" in _last_line(EXPORT.main, "alice/exported", "--no-flip", *options)
    resnet().save_pretrained(tmp_path / "model")
    HeadShareImageProcessor().save_pretrained(tmp_path / "model")
    found = _last_line(EXPORT.main, tmp_path / "model", "--teacher", "alice/nothing", *options)
    assert "alice/nothing is not a local folder" in found and not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_scripts_print_no_traceback(hub, run, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "HF_HUB_OFFLINE": "0", "HF_TOKEN": ALICE_READ_ONLY}
    commands = {
        "publish.py": [run, "--repo-id", "alice/read-only"],
        "export.py": ["alice/nothing", "--output", tmp_path / "out"],
    }
    for name, options in commands.items():
        command = [sys.executable, f"examples/{name}", *map(str, options)]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 1 and not done.stdout
        assert "Traceback" not in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_errors_of_programs_keep_their_traceback():
    for error in (RuntimeError("a tensor"), KeyError("x"), AssertionError()):
        with pytest.raises(type(error)), told_in_one_line():
            raise error
