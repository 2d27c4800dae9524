"""The script that evaluates face models, as a user starts it."""

import json
import signal
import subprocess
import sys
import time

import pytest
from face_sets import save_model, write_bin, write_people
from processes import ROOT, environment, run_python
from transformers import pipeline

import headshare_hf  # noqa: F401 (registers the pipeline)


SCRIPT = str(ROOT / "examples" / "run_verification.py")


def _run(*options: str) -> subprocess.CompletedProcess:
    return run_python(SCRIPT, *options, check=False)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    path = tmp_path_factory.mktemp("script")
    save_model(path / "model")
    write_bin(path / "faces.bin", write_people(path / "people"))
    return path


@pytest.mark.slow
def test_a_model_is_measured_calibrated_and_used(root, tmp_path):
    options = ["--model", str(root / "model"), "--pairs", str(root / "faces.bin"), "--output", str(tmp_path)]
    done = _run(*options, "--no-flip", "--store-thresholds", "--batch-size", "8", "--bootstrap", "20", "--seed", "5")
    assert done.returncode == 0, done.stderr[-3000:]
    record = json.loads((tmp_path / "results.json").read_text())
    assert done.stdout.strip() == (tmp_path / "results.md").read_text().strip()
    assert record["options"]["flip"] is False and record["options"]["batch_size"] == 8
    assert record["sets"]["faces"]["bootstrap"]["seed"] == 5
    pipe = pipeline("face-verification", model=str(root / "model"), device="cpu")
    people = root / "people"
    same = [str(people / "person0" / f"person0_000{number}.png") for number in (1, 2)]
    answer = pipe(same[0], same[1])
    assert answer["threshold"] == record["sets"]["faces"]["thresholds"][0]["similarity"] and answer["far"] == 1e-2
    # Of pairs of two people, one in a hundred may be accepted.
    others = [(same[0], str(people / f"person{number}" / f"person{number}_0001.png")) for number in range(1, 16)]
    assert sum(found["is_same"] for found in pipe(others)) <= 2


@pytest.mark.slow
def test_the_same_command_goes_on_after_a_kill(root, tmp_path):
    options = ["--model", str(root / "model"), "--pairs", str(root / "faces.bin"), str(root / "people")]
    options += ["--output", str(tmp_path), "--batch-size", "1"]
    first = tmp_path / "embeddings" / "faces" / "rows-0000000000.safetensors"
    command, nowhere = [sys.executable, SCRIPT, *options], subprocess.DEVNULL
    with subprocess.Popen(command, env=environment(), stdout=nowhere, stderr=nowhere) as process:
        while process.poll() is None and not first.is_file():
            time.sleep(0.002)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    written = first.stat().st_mtime_ns
    assert not (tmp_path / "embeddings" / "people" / "rows-0000000000.safetensors").exists()
    done = _run(*options)
    assert done.returncode == 0, done.stderr[-3000:]
    assert first.stat().st_mtime_ns == written
    assert set(json.loads((tmp_path / "results.json").read_text())["sets"]) == {"faces", "people"}


@pytest.mark.parametrize(
    "options, message",
    [
        (["--pairs", "lfw.bin"], "give either a model or stored features"),
        (["--model", "m", "--pairs", "lfw.bin", "--no-norm"], "`norm` has no effect on sets of pairs"),
        (["--features", "f.npy", "--ijbc", "c"], "give --flip if the right half of each row is the mirrored image's"),
    ],
)
def test_wrong_use_says_what_to_do(options, message, tmp_path):
    done = _run(*options, "--output", str(tmp_path))
    assert done.returncode != 0 and message in done.stderr


def test_help_lists_the_options():
    found = _run("--help").stdout
    for option in (
        "--pairs",
        "--ijbb",
        "--ijbc",
        "--identification",
        "--features",
        "--flip",
        "--no-flip",
        "--no-detector-score",
    ):
        assert option in found
