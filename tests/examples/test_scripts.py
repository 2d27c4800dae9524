"""The example scripts as a user starts them."""

import json
import runpy
import subprocess
import sys
import time

import pytest
import torch
from datasets import Dataset
from huggingface_hub import ModelCard
from processes import ROOT, environment, run_python
from safetensors.torch import load_file

from headshare_hf import (
    HeadShareConfig,
    HeadShareForImageClassification,
    HeadShareImageProcessor,
    HeadShareModel,
)
from headshare_hf.data import draw_pairs, load_splits
from headshare_hf.trainer import is_finished
from headshare_hf.trainer.recipe_arguments import parse_recipe


FAST = "--training.num_train_epochs 1 --data.max_train_samples 256 --data.max_eval_samples 242 --training.use_cpu true"


def _run(
    script: str, *options: str, launcher: tuple[str, ...] = (), check: bool = True
) -> subprocess.CompletedProcess:
    return run_python(*launcher, f"examples/{script}", *options, check=check)


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
def test_a_teacher_cache_is_filled_by_one_run_and_read_by_the_next(tmp_path):
    split = load_splits(ROOT / "examples" / "data" / "omniglot-8alphabets", ["train"])[0]
    names = dict(enumerate(split.features["label"].names))
    label2id = {name: number for number, name in names.items()}
    config = HeadShareConfig(backbone="resnet14", id2label=names, label2id=label2id)
    HeadShareForImageClassification(config).save_pretrained(tmp_path / "teacher")
    HeadShareImageProcessor(image_mean=[0.9196] * 3, image_std=[0.2252] * 3).save_pretrained(tmp_path / "teacher")
    options = ["--config", "examples/configs/omniglot_th_kd.yaml", "--teacher.name_or_path", str(tmp_path / "teacher")]
    options += ["--training.teacher_cache", str(tmp_path / "cache"), *FAST.split()]
    refused = _run("run_distill.py", *options, "--training.output_dir", str(tmp_path / "refused"), check=False)
    assert (
        refused.returncode != 0
        and "set `augmentation_views` (of a recipe: `data.augmentation_views`)" in refused.stderr
    )
    options += ["--data.augmentation_views", "2", "--training.eval_strategy", "no", "--training.save_strategy", "no"]
    found = []
    for name in ("first", "second"):
        _run("run_distill.py", *options, "--training.output_dir", str(tmp_path / name))
        (folder,) = (tmp_path / "cache").iterdir()
        rows = {path: path.stat().st_mtime_ns for path in folder.glob("rows-*.safetensors")}
        found.append((rows, load_file(tmp_path / name / "model.safetensors")))
    assert found[0][0] == found[1][0] and len(found[0][0]) == 1
    assert json.loads((folder / "key.json").read_text())["views"] == 2
    assert all(torch.equal(value, found[1][1][name]) for name, value in found[0][1].items())


@pytest.mark.slow
def test_quickstart_makes_a_table_a_plot_a_card_and_classifies(tmp_path):
    done = _run("quickstart.py", "--output", str(tmp_path), *FAST.split())
    for row in ("teacher", "student alone", "KD", "TH-KD", "SH-KD"):
        assert f"\n{row} " in done.stdout
    assert "1 seed" in done.stdout and done.stdout.count("truth:") == 3
    assert (tmp_path / "accuracy.png").is_file() and (tmp_path / "curves.png").is_file()
    assert (tmp_path / "seed_42" / "th_kd" / "README.md").is_file()
    assert set(json.loads((tmp_path / "results.json").read_text())["accuracy"]) >= {"TH-KD", "SH-KD"}


@pytest.mark.parametrize("name, further", [("quickstart", ()), ("quickstart_verification", (True,))])
def test_options_of_quickstarts_are_for_the_rows_that_read_them(name, further, tmp_path):
    script = runpy.run_path(str(ROOT / "examples" / f"{name}.py"))
    given = ["--training.temperature", "2", "--training.embedding_distance", "l2", "--training.use_cpu", "true"]
    recipe = parse_recipe(
        ["--config", str(ROOT / "examples" / "configs" / f"{name}.yaml"), *given, *script["READ_WITH"]]
    )
    for row, cell in script["plan"](recipe, tmp_path, *further).items():
        weights = cell.training.loss_weights
        assert cell.training.temperature == (2 if weights.kd else None), row
        assert cell.training.embedding_distance == ("l2" if weights.embedding else "cosine"), row


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


CHAIN = """
student: {backbone: resnet8}
shared_teacher: {backbone: resnet20}
data: {name: examples/data/omniglot-8alphabets, augmentation: crop_white, max_train_samples: 512, max_eval_samples: 242}
sh_kd: {temporary_method: plain, temporary_epochs: 1}
training: {method: sh_kd, num_train_epochs: 2, per_device_train_batch_size: 32, save_strategy: steps, save_steps: 2,
  use_cpu: true, disable_tqdm: true}
"""


@pytest.mark.slow
def test_the_chain_killed_in_its_second_run_goes_on_there(tmp_path):
    (tmp_path / "chain.yaml").write_text(CHAIN)
    runs, teacher = tmp_path / "runs", tmp_path / "runs" / "2_teacher"
    options = ["--config", str(tmp_path / "chain.yaml"), "--training.output_dir", str(runs)]
    command = [sys.executable, "examples/run_distill.py", *options]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as run:
        while run.poll() is None and not (teacher / "checkpoint-4").is_dir():
            time.sleep(0.02)
        run.kill()
    assert not is_finished(teacher) and is_finished(runs / "1_temporary_student")
    kept = [runs / "1_temporary_student" / "model.safetensors", teacher / "checkpoint-4" / "model.safetensors"]
    before = [path.stat().st_mtime_ns for path in kept]
    printed = _run("run_distill.py", *options).stdout
    results = json.loads(printed[printed.index("{\n") :])
    assert [path.stat().st_mtime_ns for path in kept] == before
    assert set(results["runs"]) == {"1_temporary_student", "2_teacher", "3_student"}
    assert is_finished(teacher) and (runs / "3_student" / "model.safetensors").is_file()


@pytest.mark.slow
def test_quickstart_of_verification_ends_with_rates_curves_and_a_reloaded_network(tmp_path):
    small = "--training.max_steps 2 --data.max_train_samples 726 --data.max_eval_samples 242 --training.use_cpu true"
    options = [*small.split(), "--verification.held_out_pairs", "400", "--teacher.backbone", "mobilefacenet_1x"]
    done = _run("quickstart_verification.py", "--output", str(tmp_path), "--all", *options)
    for row in ("teacher", "student alone", "TH-KD", "embedding distance", "KD", "SH-KD"):
        assert f"\n{row} " in done.stdout
    assert "tar@far=1e-2/at_most" in done.stdout and done.stdout.count("same at FAR 1e-2:") == 2
    assert (tmp_path / "held_out_roc.png").is_file() and (tmp_path / "held_out_det.png").is_file()
    rows = json.loads((tmp_path / "results.json").read_text())["sets"]["held_out"]
    assert all(0 <= row["accuracy"][0] <= 1 for row in rows.values()) and len(rows) == 6
    best = tmp_path / "seed_42" / "th_kd"
    network = HeadShareModel.from_pretrained(best)
    assert network.config.backbone == "mobilefacenet" and "classifier.weight" not in network.state_dict()
    teacher = load_file(tmp_path / "seed_42" / "sh_kd" / "2_teacher" / "class_centers.safetensors")
    student = load_file(tmp_path / "seed_42" / "sh_kd" / "3_student" / "class_centers.safetensors")
    assert torch.equal(teacher["classifier.weight"], student["classifier.weight"])


def test_quickstart_of_verification_refuses_classes_that_are_trained_on(tmp_path):
    splits = load_splits(ROOT / "examples" / "data" / "omniglot-8alphabets", ["test"])
    pairs = draw_pairs(splits, "seen", 200)
    folder = tmp_path / "seen"
    folder.mkdir()
    Dataset.from_dict({"image": list(pairs.images), "label": list(pairs.names)}).to_parquet(folder / "test.parquet")
    rows = zip(pairs.index_a, pairs.index_b, pairs.is_same.astype(int), strict=True)
    (folder / "pairs.csv").write_text("index_a,index_b,same\n" + "".join(f"{a},{b},{s}\n" for a, b, s in rows))
    options = (
        "--data.held_out_classes null --training.max_steps 1 --data.max_train_samples 484 --training.use_cpu true"
    )
    sets = ["--verification.sets", f"[{folder}]", "--teacher.backbone", "mobilefacenet_1x"]
    done = _run("quickstart_verification.py", "--output", str(tmp_path / "out"), *options.split(), *sets, check=False)
    assert done.returncode != 0 and "242 classes of seen are trained on" in done.stderr
