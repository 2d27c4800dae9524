"""Runs with a contrastive loss: what is trained, saved, resumed and refused."""

import shutil
from pathlib import Path

import cached_runs
import pytest
import torch
from safetensors.torch import load_file
from toys import ToyImages, arguments, assert_same, losses, resnet, snapshot

from headshare_hf import (
    DistillationTrainer,
    HeadShareForImageClassification,
    HeadShareImageProcessor,
    StudentHeadStages,
    run_student_head_kd,
)
from headshare_hf.trainer import is_finished
from headshare_hf.trainer.recipe import build_data, build_model, run_recipe
from headshare_hf.trainer.recipe_sections import DataArguments, ModelArguments, Recipe


class IndexedImages(ToyImages):
    """With the position of every image."""

    def __getitem__(self, index):
        return {**super().__getitem__(index), "index": index}


def _trainer(folder, teacher="resnet14", data=None, **fields):
    fields = {"method": "th_crd", "num_negatives": 20, "num_train_epochs": 2, **fields}
    return DistillationTrainer(
        resnet(seed=1),
        arguments(folder, **fields),
        teacher=resnet(teacher, seed=2),
        train_dataset=IndexedImages() if data is None else data,
    )


def test_layers_and_memories_learn_and_the_teacher_does_not(tmp_path):
    trainer = _trainer(tmp_path)
    loss, teacher = trainer.auxiliaries["contrastive"], snapshot(trainer.teacher.model)
    before = snapshot(loss)
    trainer.train()
    after = snapshot(loss)
    # Every image was shown, so that no entry of a memory is what it was.
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert set(changed) == set(before)
    assert all((before[name] != after[name]).any(dim=1).all() for name in ("student_memory", "teacher_memory"))
    assert_same(snapshot(trainer.teacher.model), teacher)
    assert {"loss_ce", "loss_kd", "loss_teacher_head", "loss_contrastive"} <= trainer.state.log_history[0].keys()


@pytest.mark.parametrize("fields", [{}, {"negatives": "relaxed"}, {"negatives": "shared"}])
def test_the_logged_loss_is_the_weighted_sum(fields, tmp_path):
    trainer = _trainer(tmp_path, **fields)
    trainer.train()
    assert trainer.auxiliaries["contrastive"].negatives.kind == fields.get("negatives", "exact")
    for row in (row for row in trainer.state.log_history if "loss_contrastive" in row):
        parts = {name: row[f"loss_{name}"] for name in ("ce", "kd", "teacher_head", "contrastive")}
        expected = 0.9 * parts["ce"] + parts["kd"] + 0.02 * parts["teacher_head"] + 0.8 * parts["contrastive"]
        assert row["loss"] == pytest.approx(expected, rel=1e-4)


def test_the_checkpoint_has_what_the_published_weights_have_not(tmp_path):
    trainer = _trainer(tmp_path, "resnet8x4", projector="linear", save_strategy="epoch", contrastive_size=16)
    trainer.train()
    trainer.save_model()
    beside = load_file(tmp_path / "checkpoint-6" / "auxiliary.safetensors")
    assert set(beside) == {f"projector.{name}" for name in trainer.projector.state_dict()} | {
        f"contrastive.{name}" for name in trainer.auxiliaries["contrastive"].state_dict()
    }
    assert beside["contrastive.student_memory"].shape == (48, 16)
    assert beside["contrastive._extra_state"] == 6
    for folder in (tmp_path, tmp_path / "checkpoint-6"):
        published = load_file(folder / "model.safetensors")
        assert set(published) == set(trainer.student.state_dict())
        assert_same(snapshot(HeadShareForImageClassification.from_pretrained(folder)), snapshot(trainer.student))


@pytest.mark.parametrize("teacher, fields", [("resnet14", {}), ("resnet8x4", {"projector": "linear_bn_relu"})])
def test_a_resumed_run_equals_the_uninterrupted_one_bit_for_bit(teacher, fields, tmp_path):
    fields = {"save_strategy": "steps", "save_steps": 1, "gradient_accumulation_steps": 2, **fields}
    fields["per_device_train_batch_size"] = 8
    whole = _trainer(tmp_path / "whole", teacher, **fields)
    whole.train()
    cut = tmp_path / "cut"
    cut.mkdir()
    shutil.copytree(tmp_path / "whole" / "checkpoint-2", cut / "checkpoint-2")
    shutil.copy(tmp_path / "whole" / "run.json", cut)
    torch.rand(3)
    resumed = _trainer(cut, teacher, **fields)
    resumed.train(resume_from_checkpoint=True)
    assert losses(resumed) == losses(whole)
    assert_same(snapshot(resumed.model), snapshot(whole.model))


def test_a_stored_teacher_teaches_the_same(tmp_path):
    def run(name, cache):
        data = cached_runs.images(with_index=True)
        fields = {"method": "th_crd", "num_negatives": 16, "num_train_epochs": 2}
        trainer = cached_runs.cached_trainer(tmp_path / name, cache, data, **fields)
        trainer.train()
        return losses(trainer)

    assert run("cached", tmp_path / "cache") == pytest.approx(run("plain", None), rel=1e-4)


def test_losses_in_chunks_of_classes_are_the_same(tmp_path):
    runs = [_trainer(tmp_path / str(chunked), chunked_losses=chunked) for chunked in (True, False)]
    for trainer in runs:
        trainer.train()
    # Differences of rounding grow over the steps.
    assert losses(runs[0])[:3] == pytest.approx(losses(runs[1])[:3], rel=1e-5)
    assert losses(runs[0]) == pytest.approx(losses(runs[1]), rel=1e-3)


def test_ddp_is_told_to_leave_the_memories_alone(tmp_path):
    trained = _trainer(tmp_path).model
    names = {name for name, _ in trained.named_buffers() if name.startswith("auxiliaries.")}
    assert set(trained._ddp_params_and_buffers_to_ignore) == names
    assert {"auxiliaries.contrastive.student_memory", "auxiliaries.contrastive.teacher_memory"} <= names


def test_recipes_give_the_positions_by_themselves(tmp_path):
    sizes = {"max_train_samples": 64, "max_eval_samples": 8, "augmentation": "crop_white"}
    data = DataArguments(name=str(Path(__file__).parents[2] / "examples" / "data" / "omniglot-8alphabets"), **sizes)
    names = build_data(data, seed=0).label_names
    teacher = build_model(ModelArguments(backbone="resnet8"), data, names, seed=1)
    teacher.save_pretrained(tmp_path / "teacher")
    HeadShareImageProcessor().save_pretrained(tmp_path / "teacher")
    training = arguments(tmp_path / "run", method="crd", num_negatives=16, max_steps=2)
    student, taught = ModelArguments(backbone="resnet8"), ModelArguments(name_or_path=str(tmp_path / "teacher"))
    trainer, _ = run_recipe(Recipe(student, data, training, taught))
    assert trainer.state.log_history[0]["loss_contrastive"] > 0


def test_evaluation_moves_no_memory(tmp_path):
    trainer = _trainer(tmp_path)
    before = snapshot(trainer.auxiliaries["contrastive"])
    trainer.evaluate(IndexedImages(20))
    assert_same(snapshot(trainer.auxiliaries["contrastive"]), before)


def test_the_last_run_of_sh_kd_may_have_it_alone(tmp_path):
    stages = StudentHeadStages(
        new_student=lambda seed: resnet(seed=seed), new_teacher=lambda seed: resnet("resnet14", seed=seed)
    )
    args = arguments(tmp_path, method="sh_crd", num_negatives=20, negatives="shared")
    final, results = run_student_head_kd(stages, args, train_dataset=IndexedImages())
    assert len(results) == 3 and all(is_finished(tmp_path / name) for name in results)
    assert list(final.auxiliaries) == ["contrastive"]


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"method": "kd", "num_negatives": 20}, "`num_negatives` has no effect without a contrastive loss"),
        ({"method": "plain", "negatives": "exact"}, "`negatives` has no effect .* method 'crd'"),
        ({"method": "kd", "contrastive_size": 20}, "`contrastive_size` has no effect"),
        ({"method": "crd", "num_negatives": 0}, "`num_negatives` is 0; it must be at least 1"),
        ({"method": "crd", "contrastive_size": 0}, "`contrastive_size` is 0; it must be at least 1"),
        ({"method": "crd", "negatives": "relax"}, "`negatives` is 'relax'; allowed: None, exact, relaxed, shared"),
    ],
)
def test_wrong_options_name_the_field(fields, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        arguments(tmp_path, **fields)


def test_data_without_positions_or_classes_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"the batch has no column `index`.*with_index=True"):
        _trainer(tmp_path, data=ToyImages()).train()
    with pytest.raises(ValueError, match=r"build the training set with `ImageClassificationDataset\(..., with_index"):
        _trainer(tmp_path, data=cached_runs.images())
    unlabeled = IndexedImages()
    unlabeled.labels = unlabeled.labels.tolist()
    with pytest.raises(ValueError, match="give `train_dataset` an attribute `labels`"):
        _trainer(tmp_path, data=unlabeled)
    with pytest.raises(ValueError, match="`num_negatives` is 16384, but .* only 38 images of other classes"):
        _trainer(tmp_path, num_negatives=None)


def test_a_teacher_is_needed(tmp_path):
    with pytest.raises(ValueError, match="method 'crd' with these weights and options needs a `teacher`"):
        DistillationTrainer(resnet(), arguments(tmp_path, method="crd"), train_dataset=IndexedImages())
