"""A cached teacher teaches what the teacher itself does."""

import shutil

import datasets
import numpy as np
import pytest
import torch
from cached_runs import CROPS, MOMENTS, PROCESSOR, cached_trainer, drawings, folders, forbid_running, images, train
from safetensors import safe_open
from toys import NUM_LABELS, arguments, assert_same, losses, resnet, snapshot, vit

from headshare_hf import DistillationTrainer, HeadShareImageProcessor
from headshare_hf.data import ImageClassificationDataset
from headshare_hf.trainer.teacher_cache import ROWS, _on_device


@pytest.mark.parametrize(
    "data, fields",
    [
        ({"augmentation": "none"}, {}),
        ({}, {}),
        ({}, {"method": "kd"}),
        ({}, {"method": "th_kde", "dataloader_num_workers": 2}),
        ({}, {"method": "embedding_only"}),
        ({"with_index": True}, {"method": "th_crd", "num_negatives": 8}),
        (CROPS, {"method": "th_kd_coupled"}),
        (CROPS, {"method": "kde", "gradient_accumulation_steps": 2}),
        ({"augmentation": "torchvision/randaugment", "augmentation_views": 2}, {}),
        ({}, {"teacher_precision": "bfloat16"}),
        ({}, {"method": "th_kde", "bf16": True}),
        ({}, {"channels_last": True}),
    ],
)
def test_cached_and_uncached_training_print_the_same_losses(data, fields, tmp_path):
    plain = train(cached_trainer(tmp_path / "plain", None, images(**data), **fields))
    first = cached_trainer(tmp_path / "first", tmp_path / "cache", images(**data), **fields)
    # The teacher computes in other batches than those of the training, so that sums may be rounded otherwise.
    assert train(first) == pytest.approx(plain, rel=1e-6) and len(plain) >= 4
    second = forbid_running(cached_trainer(tmp_path / "second", tmp_path / "cache", images(**data), **fields))
    assert train(second) == losses(first)
    assert_same(snapshot(second.student), snapshot(first.student))
    assert len(folders(tmp_path / "cache")) == 1


def test_a_teacher_in_half_precision_says_the_same_from_a_cache(tmp_path):
    """With more classes than dimensions its logits are made of stored embeddings, by its own classifier in its own precision."""
    found = []
    for cache in (None, tmp_path / "cache"):
        teacher = resnet("resnet14", seed=2, embedding_size=3, projector="linear").bfloat16()
        trainer = cached_trainer(
            tmp_path / str(len(found)), cache, teacher=teacher, method="kd", max_steps=3, fold_teacher=False
        )
        found.append(train(trainer))
    assert found[1] == pytest.approx(found[0], rel=1e-6)


def test_filling_a_cache_draws_no_number_of_the_training(tmp_path):
    """Else a student with dropout would train otherwise in the first run with a cache than in the next one."""
    found = []
    for cache in (None, tmp_path / "cache", tmp_path / "cache"):
        student = vit(seed=1)
        student.classifier = torch.nn.Sequential(torch.nn.Dropout(0.5), student.classifier)
        trainer = cached_trainer(tmp_path / str(len(found)), cache, student=student, method="kd", max_steps=2)
        found.append(train(trainer))
    assert found[1] == found[2] == pytest.approx(found[0], rel=1e-6)


def test_float16_halves_the_files_and_changes_losses_little(tmp_path):
    fields = {"method": "th_kde", "max_steps": 2}
    plain = train(cached_trainer(tmp_path / "plain", None, **fields))
    sizes = []
    for dtype in ("float32", "float16"):
        trainer = cached_trainer(tmp_path / dtype, tmp_path / f"cache_{dtype}", teacher_cache_dtype=dtype, **fields)
        assert train(trainer) == pytest.approx(plain, rel=1e-4)
        (folder,) = folders(tmp_path / f"cache_{dtype}")
        sizes.append(sum(path.stat().st_size for path in folder.glob("rows-*")))
    assert sizes[0] - sizes[1] == 40 * 2 * 64 * 2


@pytest.mark.parametrize(
    "fields, stored, width",
    [
        ({}, "logits", NUM_LABELS),
        ({"method": "kd"}, "logits", NUM_LABELS),
        ({"method": "kde"}, "embeddings", 64),
        ({"chunked_losses": True}, "embeddings", 64),
    ],
)
def test_no_more_is_stored_than_is_read(fields, stored, width, tmp_path):
    trainer = cached_trainer(tmp_path / "run", tmp_path / "cache", max_steps=1, **fields)
    assert (trainer.teacher.stored, trainer.teacher.width) == (stored, width)
    train(trainer)
    (folder,) = folders(tmp_path / "cache")
    with safe_open(folder / "rows-0000000000.safetensors", "np") as file:
        assert file.get_slice("teacher").get_shape() == [2, 40, width]


def test_with_more_classes_than_dimensions_the_embedding_is_stored(tmp_path):
    names = [f"class{number}" for number in range(80)]
    split = drawings(80).remove_columns("label")
    split = split.add_column("label", np.arange(80), feature=datasets.ClassLabel(names=names))
    fields = {"method": "th_kd", "max_steps": 3}

    def trainer(folder, **more):
        teacher = resnet("resnet14", num_labels=80, seed=2)
        return DistillationTrainer(
            resnet(num_labels=80, seed=1),
            arguments(tmp_path / folder, **fields, **more),
            teacher=teacher,
            train_dataset=images(split),
            processing_class=PROCESSOR,
        )

    cached = trainer("cached", teacher_cache=str(tmp_path / "cache"))
    assert cached.teacher.stored == "embeddings" and cached.teacher.width == 64
    assert train(cached) == pytest.approx(train(trainer("plain")), rel=1e-6)
    chunked = forbid_running(trainer("chunked", teacher_cache=str(tmp_path / "cache"), chunked_losses=True))
    assert train(chunked) == pytest.approx(losses(cached), rel=1e-5)


@pytest.mark.parametrize("fields", [{}, {"temperature": 2.0}, {"method": None, "teacher_head_ce_weight": 0.5}])
def test_moments_teach_through_the_teachers_head_what_the_embedding_does(fields, tmp_path):
    fields = {**MOMENTS, **fields}
    plain = train(cached_trainer(tmp_path / "plain", None, **fields))
    cached = cached_trainer(tmp_path / "run", tmp_path / "cache", teacher_cache_moments=True, **fields)
    assert (cached.teacher.stored, cached.teacher.width) == ("moments", 65)
    found = train(cached)
    # The sums are taken in another order, whose rounding grows over the steps.
    assert found[0] == pytest.approx(plain[0], rel=1e-6) and found == pytest.approx(plain, rel=1e-3)


def test_moments_of_cosine_heads_are_taken_at_their_scale(tmp_path):
    def trainer(folder, **more):
        shape = {"head_type": "arcface", "head_scale": 16.0}
        fields = {**MOMENTS, "method": "th_kd", **more}
        student, teacher = resnet(seed=1, **shape), resnet("resnet14", seed=2, **shape)
        return cached_trainer(tmp_path / folder, fields.pop("cache", None), None, teacher, student, **fields)

    cached = trainer("cached", cache=tmp_path / "cache", teacher_cache_moments=True)
    assert train(cached) == pytest.approx(train(trainer("plain")), rel=1e-3)


def test_teachers_of_other_libraries_are_cached(tmp_path):
    fields = {"method": "th_kde", "max_steps": 4, "projector": "linear"}
    its = HeadShareImageProcessor(size={"height": 24, "width": 24}, image_mean=[0.5] * 3, image_std=[0.25] * 3)

    def trainer(folder, **more):
        return DistillationTrainer(
            resnet(seed=1),
            arguments(tmp_path / folder, **fields, **more),
            teacher=vit(hidden_size=48, seed=2, image_size=24),
            train_dataset=images(),
            processing_class=PROCESSOR,
            teacher_processing_class=its,
        )

    cached = trainer("cached", teacher_cache=str(tmp_path / "cache"))
    assert train(cached) == pytest.approx(train(trainer("plain")), rel=1e-6)


def test_only_the_classifier_of_the_teacher_is_taken_along(tmp_path):
    trainer = cached_trainer(tmp_path / "run", tmp_path / "cache", max_steps=1)
    assert trainer.teacher.classifier is trainer.teacher.model.classifier
    assert not any(parameter.requires_grad for parameter in trainer.teacher.model.parameters())
    before = snapshot(trainer.teacher.model)
    train(trainer)
    assert_same(snapshot(trainer.teacher.model), before)
    assert not trainer.teacher.model.training


def test_the_classifier_is_copied_to_a_device_where_the_teacher_is_not(tmp_path):
    layer = torch.nn.Linear(4, 2)
    assert _on_device(layer, torch.device("cpu")) is layer
    copied = _on_device(layer, torch.device("meta"))
    assert copied.weight.device.type == "meta" and layer.weight.device.type == "cpu"


def test_evaluation_knows_nothing_of_the_cache(tmp_path):
    evaluation = ImageClassificationDataset(drawings(60, seed=1), PROCESSOR, with_index=True)
    trainer = cached_trainer(tmp_path / "run", tmp_path / "cache", eval_strategy="epoch", eval_dataset=evaluation)
    train(trainer)
    metrics = trainer.evaluate()
    assert 0 <= metrics["eval_accuracy"] <= 1
    assert ROWS not in next(iter(trainer.get_eval_dataloader())) and ROWS in next(iter(trainer.get_train_dataloader()))
    assert {"index", "view", ROWS} <= next(iter(trainer.get_train_dataloader())).keys()


def test_the_teachers_head_mixes_into_the_evaluation_as_without_a_cache(tmp_path):
    evaluation = ImageClassificationDataset(drawings(20, seed=1), PROCESSOR)
    found = []
    for cache in (None, tmp_path / "cache"):
        trainer = cached_trainer(
            tmp_path / str(cache is None), cache, eval_dataset=evaluation, eval_teacher_head_weight=0.5, max_steps=2
        )
        trainer.train()
        found.append(trainer.evaluate())
    assert found[0]["eval_mixed_accuracy"] == found[1]["eval_mixed_accuracy"]
    assert found[0]["eval_loss"] == pytest.approx(found[1]["eval_loss"], rel=1e-6)


@pytest.mark.parametrize("first, second", [(True, False), (False, True)])
def test_a_run_may_go_on_with_a_cache_or_without(first, second, tmp_path):
    def trainer(folder, cached, **fields):
        cache = tmp_path / "cache" if cached else None
        return cached_trainer(folder, cache, save_strategy="steps", save_steps=2, **fields)

    whole = trainer(tmp_path / "whole", first)
    whole.train()
    cut = tmp_path / "cut"
    cut.mkdir()
    shutil.copytree(tmp_path / "whole" / "checkpoint-4", cut / "checkpoint-4")
    shutil.copy(tmp_path / "whole" / "run.json", cut)
    resumed = trainer(cut, second)
    resumed.train(resume_from_checkpoint=True)
    assert losses(resumed) == pytest.approx(losses(whole), rel=1e-6)
    halves = trainer(cut, True, teacher_cache_dtype="float16")
    with pytest.raises(ValueError, match="`teacher_cache` is None there and 'float16' here"):
        halves.train(resume_from_checkpoint=True)
