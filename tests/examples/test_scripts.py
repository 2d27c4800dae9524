"""The example scripts as a user starts them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from headshare_hf import HeadShareForImageClassification, HeadShareImageProcessor


ROOT = Path(__file__).parents[2]
FAST = "--training.num_train_epochs 1 --data.max_train_samples 256 --data.max_eval_samples 242 --training.use_cpu true"


def _run(
    script: str, *options: str, launcher: tuple[str, ...] = (), check: bool = True
) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, *launcher, f"examples/{script}", *options]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert not check or done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.mark.slow
def test_a_teacher_is_trained_launched_and_distilled(tmp_path):
    accelerate = ("-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1")
    teacher = ["--student.backbone", "resnet14", "--training.output_dir", str(tmp_path / "teacher")]
    _run(
        "run_train.py",
        "--config",
        "examples/configs/omniglot_train.yaml",
        *teacher,
        *FAST.split(),
        launcher=accelerate,
    )
    student = ["--teacher.name_or_path", str(tmp_path / "teacher"), "--training.output_dir", str(tmp_path / "student")]
    done = _run("run_distill.py", "--config", "examples/configs/omniglot_th_kd.yaml", *student, *FAST.split())
    results = json.loads(done.stdout[done.stdout.index("{\n") :])
    model = HeadShareForImageClassification.from_pretrained(tmp_path / "student")
    assert model.config.backbone == "resnet8" and model.config.num_labels == 242
    assert list(HeadShareImageProcessor.from_pretrained(tmp_path / "student").image_mean) == [0.9196] * 3
    card = ModelCard.load(tmp_path / "student" / "README.md")
    assert {r.metric_type: r.metric_value for r in card.data.eval_results}["accuracy"] == pytest.approx(
        results["eval_accuracy"], abs=1e-6
    )
    assert "resnet14" in card.text and "th_kd_coupled" in card.text and str(tmp_path) not in card.content
    assert (tmp_path / "student" / "head_similarity.png").is_file()


@pytest.mark.slow
def test_quickstart_makes_a_table_a_plot_a_card_and_classifies(tmp_path):
    done = _run("quickstart.py", "--output", str(tmp_path), *FAST.split())
    for row in ("teacher", "student alone", "KD", "TH-KD", "SH-KD"):
        assert f"\n{row} " in done.stdout
    assert "1 seed" in done.stdout and done.stdout.count("truth:") == 3
    assert (tmp_path / "accuracy.png").is_file() and (tmp_path / "curves.png").is_file()
    assert (tmp_path / "seed_42" / "th_kd" / "README.md").is_file()
    assert set(json.loads((tmp_path / "results.json").read_text())["accuracy"]) >= {"TH-KD", "SH-KD"}


@pytest.mark.parametrize(
    "script, options, message",
    [
        ("run_train.py", ["--config", "examples/configs/omniglot_th_kd.yaml"], "use examples/run_distill.py"),
        ("run_distill.py", ["--config", "examples/configs/omniglot_train.yaml"], "use examples/run_train.py"),
        ("run_train.py", ["--config", "nowhere.yaml"], "recipe nowhere.yaml does not exist"),
    ],
)
def test_wrong_use_says_what_to_do(script, options, message):
    done = _run(script, *options, check=False)
    assert done.returncode != 0 and message in done.stderr


def test_help_lists_the_options():
    assert "--training.alpha_th" in _run("run_distill.py", "--help").stdout
