"""Runs that are cut, resumed, reused, or meet a folder that is not theirs."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from toys import NUM_LABELS, ToyImages, arguments, assert_same, losses, resnet, snapshot

from headshare_hf import (
    DistillationTrainer,
    HeadShareForImageClassification,
    HeadShareImageProcessor,
    StudentHeadStages,
    run_student_head_kd,
)
from headshare_hf.data import ImageClassificationDataset, load_images
from headshare_hf.models import with_head_length
from headshare_hf.trainer import NonFiniteLossError, RunFolderError, is_finished, last_checkpoint, run_or_reuse
from headshare_hf.trainer.runs import FINAL_STUDENT, SHARED_TEACHER, TEMPORARY_STUDENT


def _trainer(folder, projector=None, teacher="resnet14", **fields):
    fields = {"num_train_epochs": 2, "save_strategy": "steps", "save_steps": 1, **fields}
    args = arguments(folder, method="th_kd", projector=projector, **fields)
    return DistillationTrainer(
        resnet(seed=1), args, teacher=resnet(teacher, seed=2), train_dataset=ToyImages(), eval_dataset=ToyImages(20)
    )


@pytest.mark.parametrize("step", [2, 3])
@pytest.mark.parametrize("projector", [None, "linear_bn_relu"])
def test_a_resumed_run_equals_the_uninterrupted_one_bit_for_bit(step, projector, tmp_path):
    teacher = "resnet14" if projector is None else "resnet8x4"
    whole = _trainer(tmp_path / "whole", projector, teacher)
    whole.train()
    cut = tmp_path / "cut"
    cut.mkdir()
    shutil.copytree(tmp_path / "whole" / f"checkpoint-{step}", cut / f"checkpoint-{step}")
    shutil.copy(tmp_path / "whole" / "run.json", cut)
    torch.rand(7)
    resumed = _trainer(cut, projector, teacher)
    resumed.train(resume_from_checkpoint=True)
    assert_same(snapshot(resumed.model), snapshot(whole.model))
    assert losses(resumed) == losses(whole)
    ends = [torch.load(tmp_path / n / "checkpoint-6" / "optimizer.pt", weights_only=True) for n in ("whole", "cut")]
    for key, state in ends[0]["state"].items():
        assert torch.equal(state["momentum_buffer"], ends[1]["state"][key]["momentum_buffer"])
    states = [
        torch.load(tmp_path / n / "checkpoint-6" / "rng_state.pth", weights_only=False) for n in ("whole", "cut")
    ]
    assert torch.equal(states[0]["cpu"], states[1]["cpu"])


@pytest.fixture(scope="module")
def drawings(tmp_path_factory):
    """An image folder, so that the run below decodes, caches and augments as a real one does."""
    folder = tmp_path_factory.mktemp("drawings")
    generator = torch.Generator().manual_seed(0)
    for number in range(NUM_LABELS):
        (folder / "train" / f"class{number}").mkdir(parents=True)
        for index in range(8):
            pixels = torch.randint(0, 256, (20, 20, 3), generator=generator, dtype=torch.uint8)
            Image.fromarray(pixels.numpy()).save(folder / "train" / f"class{number}" / f"{index}.png")
    return load_images(folder, "train")


@pytest.mark.parametrize("workers", [0, 2])
def test_augmentation_resumes_bit_for_bit_whatever_the_workers(drawings, workers, tmp_path):
    processor = HeadShareImageProcessor(size={"height": 16, "width": 16})

    def trainer(folder, workers):
        data = ImageClassificationDataset(drawings, processor, augmentation="crop_flip", training=True, seed=3)
        args = arguments(
            folder, num_train_epochs=3, save_strategy="steps", save_steps=1, dataloader_num_workers=workers
        )
        return DistillationTrainer(resnet(seed=1), args, train_dataset=data, processing_class=processor)

    whole = trainer(tmp_path / "whole", 0)
    whole.train()
    cut = tmp_path / "cut"
    cut.mkdir()
    shutil.copytree(tmp_path / "whole" / "checkpoint-4", cut / "checkpoint-4")
    shutil.copy(tmp_path / "whole" / "run.json", cut)
    resumed = trainer(cut, workers)
    resumed.train(resume_from_checkpoint=True)
    assert losses(resumed) == losses(whole)
    assert_same(snapshot(resumed.model), snapshot(whole.model))


def test_the_data_set_is_told_its_epoch(tmp_path):
    class Epochs(ToyImages):
        told = []

        def set_epoch(self, epoch):
            self.told.append(epoch)

    data = Epochs()
    args = arguments(tmp_path, num_train_epochs=3)
    DistillationTrainer(resnet(), args, train_dataset=data).train()
    assert sorted(set(data.told)) == [0, 1, 2] and data.told == sorted(data.told)


_KILLED_WHILE_SAVING = """
import os, signal, sys
sys.path.insert(0, sys.argv[2])
from test_resume_target import make
trainer = make(sys.argv[1])
save = trainer._save_rng_state
def die(folder):
    if trainer.state.global_step == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    save(folder)
trainer._save_rng_state = die
trainer.train()
"""


def test_a_run_killed_while_it_saves_leaves_the_checkpoint_before(tmp_path):
    script = tmp_path / "code"
    script.mkdir()
    tests = Path(__file__).parents[1]
    body = Path(__file__).read_text().split("\n@pytest.mark.parametrize")[0] + "\n\nmake = _trainer\n"
    (script / "test_resume_target.py").write_text(body)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tests), *sys.path])}
    folder = tmp_path / "run"
    killed = subprocess.run(
        [sys.executable, "-c", _KILLED_WHILE_SAVING, str(folder), str(script)], env=environment, capture_output=True
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert (folder / ".unfinished" / "checkpoint-3").is_dir()
    assert last_checkpoint(folder) == str(folder / "checkpoint-2")
    resumed = _trainer(folder)
    run_or_reuse(resumed)
    whole = _trainer(tmp_path / "whole")
    whole.train()
    assert_same(snapshot(resumed.model), snapshot(whole.model))
    assert not (folder / ".unfinished" / "checkpoint-3").exists()


def test_a_finished_run_is_used_as_it_is(tmp_path):
    first = _trainer(tmp_path)
    results = run_or_reuse(first)
    assert is_finished(tmp_path) and results["eval_accuracy"] >= 0
    again = _trainer(tmp_path)
    again.train = None
    assert run_or_reuse(again) == results
    assert_same(snapshot(again.student), snapshot(first.student))


def test_old_checkpoints_are_removed_and_the_best_is_kept(tmp_path):
    trainer = _trainer(
        tmp_path,
        save_total_limit=2,
        eval_strategy="steps",
        eval_steps=1,
        metric_for_best_model="loss",
        load_best_model_at_end=True,
    )
    trainer.train()
    kept = sorted(path.name for path in tmp_path.glob("checkpoint-*"))
    assert len(kept) <= 3 and "checkpoint-6" in kept
    best = Path(trainer.state.best_model_checkpoint)
    assert best.parent == tmp_path and best.is_dir()
    reloaded = HeadShareForImageClassification.from_pretrained(best)
    assert_same(snapshot(reloaded), snapshot(trainer.student))


def test_a_folder_with_another_run_is_refused(tmp_path):
    _trainer(tmp_path).train()
    with pytest.raises(RunFolderError, match="already holds this run; resume it"):
        _trainer(tmp_path).train()
    with pytest.raises(RunFolderError, match="holds another run: `seed` is '42' there and '7' here"):
        _trainer(tmp_path, seed=7).train(resume_from_checkpoint=True)
    with pytest.raises(RunFolderError, match="`temperature` is '4.0' there and '2.0' here"):
        run_or_reuse(_trainer(tmp_path, temperature=2.0))
    (tmp_path / "run.json").unlink()
    with pytest.raises(RunFolderError, match="has weights .* but no run.json"):
        _trainer(tmp_path).train()
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(RunFolderError, match="is damaged"):
        _trainer(tmp_path).train()


def test_a_run_that_failed_before_its_first_checkpoint_may_be_started_otherwise(tmp_path):
    class Failing(ToyImages):
        def __getitem__(self, index):
            raise OSError("no disk")

    args = arguments(tmp_path, save_strategy="epoch")
    with pytest.raises(OSError, match="no disk"):
        DistillationTrainer(resnet(), args, train_dataset=Failing()).train()
    DistillationTrainer(resnet(seed=3), args, train_dataset=ToyImages(32)).train()
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-2")


def test_weights_of_somebody_else_are_not_overwritten(tmp_path):
    resnet("resnet20").save_pretrained(tmp_path)
    with pytest.raises(RunFolderError, match="has weights .*model.safetensors.* but no run.json"):
        DistillationTrainer(resnet(), arguments(tmp_path), train_dataset=ToyImages()).train()


def test_a_finished_run_is_not_taken_for_one_with_another_optimizer_or_other_data(tmp_path):
    run_or_reuse(_trainer(tmp_path))
    with pytest.raises(RunFolderError, match="`optim`"):
        run_or_reuse(_trainer(tmp_path, optim="adamw_torch"))
    other = _trainer(tmp_path)
    relabeled = ToyImages()
    relabeled.labels = relabeled.labels.flip(0)
    args = other.args
    with pytest.raises(RunFolderError, match="`labels`"):
        run_or_reuse(
            DistillationTrainer(
                resnet(seed=1),
                args,
                teacher=resnet("resnet14", seed=2),
                train_dataset=relabeled,
                eval_dataset=ToyImages(20),
            )
        )


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    trainer = _trainer(tmp_path)
    trainer.student.headshare.backbone.bn1.running_var.fill_(float("inf"))
    with pytest.raises(NonFiniteLossError, match="bn1.running_var is not finite at step 1, so no checkpoint"):
        trainer.train()
    assert last_checkpoint(tmp_path) is None


def test_sh_kd_in_bfloat16_with_a_float32_teacher(tmp_path):
    _, results = _chain(tmp_path, bf16=True, teacher_precision="float32")
    assert len(results) == 3


def test_a_checkpoint_with_missing_tensors_is_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    _trainer(tmp_path).train()
    path = tmp_path / "checkpoint-6" / "model.safetensors"
    tensors = load_file(path)
    tensors.pop("classifier.bias")
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="missing keys: .*classifier.bias"):
        _trainer(tmp_path).train(resume_from_checkpoint=True)


def _stages(**fields):
    return StudentHeadStages(
        new_student=lambda seed: resnet(seed=seed), new_teacher=lambda seed: resnet("resnet14", seed=seed), **fields
    )


def _chain(folder, stages=None, **fields):
    args = arguments(folder, method="sh_kd", num_train_epochs=2, save_strategy="steps", save_steps=1, **fields)
    data = {"train_dataset": ToyImages(), "eval_dataset": ToyImages(20)}
    return run_student_head_kd(stages or _stages(), args, **data)


@pytest.mark.parametrize("student_head", ["own", "teacher_frozen"])
def test_the_three_runs_of_sh_kd_share_one_head(student_head, tmp_path):
    final, results = _chain(tmp_path, student_head=student_head)
    assert list(results) == [TEMPORARY_STUDENT, SHARED_TEACHER, FINAL_STUDENT]
    heads = [HeadShareForImageClassification.from_pretrained(tmp_path / name).classifier.weight for name in results]
    assert torch.equal(heads[0], heads[1])
    assert torch.equal(heads[1], heads[2]) == (student_head == "teacher_frozen")
    assert final.student.config.backbone == "resnet8"
    assert (tmp_path / FINAL_STUDENT / "head_similarity.png").is_file()


def test_the_temporary_student_may_be_distilled_too(tmp_path):
    stages = _stages(temporary_method="kd", teacher=resnet("resnet14", seed=5), temporary_epochs=1, teacher_epochs=1)
    _, results = _chain(tmp_path, stages)
    record = json.loads((tmp_path / TEMPORARY_STUDENT / "run.json").read_text())["identity"]
    assert record["method"] == "kd" and record["num_train_epochs"] == "1"
    assert all("eval_accuracy" in result for result in results.values())


def test_the_shared_head_may_get_another_length(tmp_path):
    trained = resnet(seed=9)
    final, _ = _chain(tmp_path, _stages(temporary_student=trained, head_length=1.5), student_head="teacher_frozen")
    for name in (SHARED_TEACHER, FINAL_STUDENT):
        head = HeadShareForImageClassification.from_pretrained(tmp_path / name).classifier
        assert torch.equal(head.weight, with_head_length(trained, 1.5).classifier.weight)
        assert torch.linalg.vector_norm(head.weight.detach(), dim=1).mean() == pytest.approx(1.5, rel=1e-5)
    with pytest.raises(RunFolderError, match="holds another run: `shared_head`"):
        _chain(tmp_path, _stages(temporary_student=trained, head_length=1.4), student_head="teacher_frozen")


def test_a_student_that_is_trained_already_is_not_trained_again(tmp_path):
    trained = resnet(seed=9)
    final, results = _chain(tmp_path, _stages(temporary_student=trained))
    assert list(results) == [SHARED_TEACHER, FINAL_STUDENT]
    assert torch.equal(final.teacher.classifier.weight, trained.classifier.weight)


def test_a_chain_cut_in_its_second_run_goes_on_there(tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    expected, _ = _chain(whole)
    shutil.copytree(whole / TEMPORARY_STUDENT, cut / TEMPORARY_STUDENT)
    second = cut / SHARED_TEACHER
    shutil.copytree(whole / SHARED_TEACHER / "checkpoint-3", second / "checkpoint-3")
    record = json.loads((whole / SHARED_TEACHER / "run.json").read_text())
    (second / "run.json").write_text(json.dumps({"identity": record["identity"], "finished": False}))
    untouched = (cut / TEMPORARY_STUDENT / "model.safetensors").stat().st_mtime_ns
    final, _ = _chain(cut)
    assert (cut / TEMPORARY_STUDENT / "model.safetensors").stat().st_mtime_ns == untouched
    assert not (second / "checkpoint-2").exists() and (second / "checkpoint-4").exists()
    assert_same(snapshot(final.student), snapshot(expected.student))
