"""Margin heads in the trainer: what is shared, what is frozen, and what a step is equal to."""

import math

import pytest
import torch
from PIL import Image
from toys import ToyImages, arguments, assert_same, losses, resnet, snapshot

from headshare_hf import (
    DistillationTrainer,
    HeadShareForImageClassification,
    HeadShareImageProcessor,
    HeadShareModel,
    StudentHeadStages,
    run_student_head_kd,
)
from headshare_hf.data import ImageClassificationDataset, load_splits
from headshare_hf.losses import cross_entropy, kd_loss
from headshare_hf.models import CENTERS_FILE
from headshare_hf.trainer import RunFolderError, run_or_reuse
from headshare_hf.trainer.softening import default_kd_scale


FACE = {"head_type": "arcface", "head_scale": 16.0, "head_margin": 0.3}


def _face(seed, backbone="resnet8", **fields):
    return resnet(backbone, seed=seed, **{**FACE, **fields})


def _trainer(folder, student=None, teacher=None, **fields):
    return DistillationTrainer(
        student or _face(1), arguments(folder, **fields), teacher=teacher, train_dataset=ToyImages()
    )


@pytest.mark.parametrize("head_type", ["arcface", "cosface", "adaface"])
def test_training_lowers_the_loss_with_margin(head_type, tmp_path):
    trainer = _trainer(tmp_path, resnet(head_type=head_type, head_scale=16.0), num_train_epochs=15)
    trainer.train()
    logged = losses(trainer)
    assert sum(logged[-3:]) < 0.5 * sum(logged[:3])
    if head_type == "adaface":
        assert trainer.student.classifier.margin.norm_mean < 20


@pytest.mark.parametrize("method", ["inherited", "embedding_only"])
def test_an_inherited_head_stays_that_of_the_teacher(method, tmp_path):
    teacher, student = _face(2, "resnet14"), _face(1)
    before, start = snapshot(teacher), snapshot(student.headshare)
    trainer = _trainer(tmp_path, student, teacher, method=method)
    trainer.train()
    assert_same(snapshot(teacher), before)
    assert torch.equal(trainer.student.classifier.weight, teacher.classifier.weight)
    for name, parameter in trainer.student.headshare.named_parameters():
        assert not torch.equal(parameter, start[name]), name


def test_one_step_of_th_kd_is_the_written_out_sum(tmp_path):
    teacher, student = _face(2, "resnet14").eval(), _face(1)
    data = ToyImages(16)
    images, labels = data.images, data.labels
    again = _face(1).train()
    output = again(images)
    with torch.no_grad():
        target = teacher(images).logits
    shared = teacher.classifier(output.embeddings)
    expected = (
        0.5 * cross_entropy(again.classifier.margin_logits(output.logits, labels, output.embeddings), labels)
        + 0.5 * cross_entropy(teacher.classifier.margin_logits(shared, labels, output.embeddings), labels)
        + 0.75 * kd_loss(output.logits, target, 2.0)
        + 0.75 * kd_loss(shared, target, 2.0)
    )
    args = arguments(tmp_path, method="th_kd_coupled", kd_scale=8.0, max_steps=1)
    trainer = DistillationTrainer(student, args, teacher=teacher, train_dataset=data)
    trainer.train()
    assert losses(trainer)[0] == pytest.approx(float(expected.detach()), rel=1e-5)


def test_sh_kd_trains_the_teacher_around_the_students_centers(tmp_path):
    first, teacher = _face(1), _face(2, "resnet14")
    trainer = DistillationTrainer(
        teacher, arguments(tmp_path), shared_head_from=first, train_dataset=ToyImages(), eval_dataset=ToyImages(20)
    )
    trainer.train()
    assert torch.equal(teacher.classifier.weight, first.classifier.weight)
    assert teacher.classifier.weight.grad is None


def test_a_face_checkpoint_keeps_the_centers_in_their_own_file_and_resumes(tmp_path):
    fields = {"num_train_epochs": 2, "save_strategy": "epoch", "learning_rate": 0.02}
    whole = _trainer(tmp_path / "whole", _face(1, head_type="adaface"), **fields)
    whole.train()
    # The first checkpoint of the same run stands for one that was cut.
    cut = _trainer(tmp_path / "whole", _face(1, head_type="adaface"), **fields)
    checkpoint = tmp_path / "whole" / "checkpoint-3"
    assert (checkpoint / CENTERS_FILE).is_file()
    cut.train(resume_from_checkpoint=str(checkpoint))
    assert_same(snapshot(cut.student), snapshot(whole.student))


def test_the_published_folder_gives_classifier_and_embedding_network(tmp_path):
    trainer = _trainer(tmp_path, num_train_epochs=1)
    run_or_reuse(trainer)
    student = trainer.student.eval()
    images = ToyImages(4).images
    classifier = HeadShareForImageClassification.from_pretrained(tmp_path).eval()
    assert torch.equal(classifier(images).logits, student(images).logits)
    (tmp_path / CENTERS_FILE).unlink()
    network = HeadShareModel.from_pretrained(tmp_path).eval()
    assert torch.equal(network(images).embeddings, student(images).embeddings)


def test_bf16_keeps_logits_and_margin_in_float32(tmp_path):
    trainer = _trainer(tmp_path, teacher=_face(2, "resnet14"), method="th_kd_coupled", bf16=True)
    trainer.train()
    assert all(torch.tensor(losses(trainer)).isfinite())
    assert trainer.student.classifier.weight.dtype == torch.float32


@pytest.mark.parametrize(
    "teacher, fields, expected",
    [
        (_face, {"method": "kd"}, (None, 1.96)),
        (_face, {"method": "kd", "temperature": 3.0}, (3.0, None)),
        (_face, {"method": "kd", "kd_scale": 5.0}, (None, 5.0)),
        (lambda seed: resnet(seed=seed), {"method": "kd"}, (4.0, None)),
        (_face, {"method": "embedding"}, (None, None)),
    ],
)
def test_cosine_heads_have_a_scale_of_their_own_by_default(teacher, fields, expected, tmp_path):
    trainer = _trainer(tmp_path, teacher=teacher(2), **fields)
    assert (trainer.args.temperature, trainer.args.kd_scale) == expected
    assert trainer.objective.kd_scale == expected[1]


def test_the_default_scale_is_that_of_adacos():
    assert default_kd_scale(93_431) == pytest.approx(2**0.5 * math.log(93_430), abs=0.005)
    assert default_kd_scale(2) > 0


@pytest.mark.parametrize(
    "change, field",
    [
        ({"head_margin": 0.5}, "configuration.head_margin"),
        ({"head_scale": 32.0}, "configuration.head_scale"),
        ({"head_type": "cosface"}, "configuration.head_type"),
        ({"head_gradient": "straight_through"}, "configuration.head_gradient"),
    ],
)
def test_a_run_with_another_head_is_another_run(change, field, tmp_path):
    run_or_reuse(_trainer(tmp_path, _face(1)))
    with pytest.raises(RunFolderError, match=f"`{field}` is"):
        run_or_reuse(_trainer(tmp_path, _face(1, **change)))


@pytest.mark.parametrize("change", [{"warmup_steps": 2}, {"bf16": True}, {"lr_scheduler_kwargs": {"x": 1}}])
def test_a_run_with_another_schedule_or_precision_is_another_run(change, tmp_path):
    run_or_reuse(_trainer(tmp_path))
    with pytest.raises(RunFolderError, match=f"`{next(iter(change))}` is"):
        run_or_reuse(_trainer(tmp_path, **change))


def test_images_prepared_otherwise_are_another_run(tmp_path):
    for split in ("red", "blue"):
        (tmp_path / "images" / split).mkdir(parents=True)
        for index in range(4):
            Image.new("RGB", (16, 16), split).save(tmp_path / "images" / split / f"{index}.png")
    (split,) = load_splits(tmp_path / "images", ["train"])

    def run(augmentation="none", mean=0.5):
        processor = HeadShareImageProcessor(size={"height": 16, "width": 16}, image_mean=[mean] * 3)
        data = ImageClassificationDataset(split, processor, training=True, augmentation=augmentation)
        run_or_reuse(
            DistillationTrainer(
                resnet(num_labels=2, id2label=data.id2label), arguments(tmp_path / "run"), train_dataset=data
            )
        )

    run()
    run()
    for change in ({"augmentation": "flip"}, {"mean": 0.4}):
        with pytest.raises(RunFolderError, match="`preparation` is"):
            run(**change)


def test_sh_kd_with_a_temporary_student_that_has_no_kl(tmp_path):
    stages = StudentHeadStages(
        new_student=_face,
        new_teacher=lambda seed: _face(seed, "resnet14"),
        temporary_method="embedding",
        teacher=_face(2, "resnet14"),
    )
    args = arguments(tmp_path, method="sh_kd", kd_scale=8.0, max_steps=1)
    _, results = run_student_head_kd(stages, args, train_dataset=ToyImages())
    assert len(results) == 3


def test_an_adaface_teacher_is_no_second_head_with_a_margin(tmp_path):
    teacher = _face(2, "resnet14", head_type="adaface")
    with pytest.raises(ValueError, match="the teacher's AdaFace head measures the length of its own embeddings"):
        _trainer(tmp_path, teacher=teacher, method="th_kd_coupled")
    _trainer(tmp_path, teacher=teacher, method="th_kd").train()


def test_images_without_label_are_left_out_of_training(tmp_path):
    data = ToyImages()
    data.labels = data.labels.clone()
    data.labels[::3] = -1
    trainer = DistillationTrainer(_face(1), arguments(tmp_path), train_dataset=data)
    trainer.train()
    assert all(torch.tensor(losses(trainer)).isfinite())
    model, images = _face(1).train(), ToyImages(4).images
    assert model(images, labels=torch.full((4,), -1)).loss == 0
