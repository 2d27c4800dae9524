"""Training with losses over chunks of classes: the numbers of the dense losses, and no matrix of logits."""

import pytest
import torch
from toys import NUM_LABELS, ToyImages, arguments, assert_same, losses, resnet, snapshot, vit

from headshare_hf import DistillationTrainer
from headshare_hf.trainer import large_heads


FACE = {"head_type": "arcface", "head_scale": 16.0, "head_margin": 0.3}
ADAPTIVE = {"head_type": "adaface", "head_scale": 16.0}
METHODS = [
    ("plain", {}, {}),
    ("th_kd_coupled", {}, {"projector": "linear"}),
    ("th_kd_coupled", FACE, {"kd_scale": 8.0}),
    ("inherited", FACE, {}),
    ("kde", {}, {}),
    ("plain", ADAPTIVE, {}),
]


def _trained(folder, method, head, fields, **more):
    wide = "projector" in fields
    teacher = None if method == "plain" else resnet("resnet8x4" if wide else "resnet14", seed=2, **head)
    args = arguments(folder, method=method, **fields, **more)
    trainer = DistillationTrainer(
        resnet(seed=1, **head), args, teacher=teacher, train_dataset=ToyImages(), eval_dataset=ToyImages(20)
    )
    trainer.train()
    return trainer


@pytest.mark.parametrize("method, head, fields", METHODS)
def test_chunks_give_the_losses_and_weights_of_the_dense_form(method, head, fields, tmp_path):
    dense = _trained(tmp_path / "dense", method, head, fields)
    chunked = _trained(tmp_path / "chunked", method, head, fields, chunked_losses=True)
    assert losses(chunked) == pytest.approx(losses(dense), rel=1e-4)
    for name, value in snapshot(dense.student).items():
        torch.testing.assert_close(chunked.student.state_dict()[name], value, rtol=1e-3, atol=1e-4)
    assert dense.evaluate()["eval_loss"] == pytest.approx(chunked.evaluate()["eval_loss"], rel=1e-3)


def test_no_classifier_is_run_while_training(tmp_path):
    student, teacher = resnet(seed=1), resnet("resnet14", seed=2)
    args = arguments(tmp_path, method="th_kd_coupled", chunked_losses=True)
    trainer = DistillationTrainer(student, args, teacher=teacher, train_dataset=ToyImages())
    called = []
    for model in (student, teacher):
        model.classifier.register_forward_hook(lambda *_: called.append(1))
    trainer.train()
    assert not called


def test_a_foreign_teacher_is_asked_for_its_embedding(tmp_path):
    student = resnet(seed=1, embedding_size=32, projector="linear")
    runs = []
    for chunked in (False, True):
        args = arguments(tmp_path / str(chunked), method="th_kd_coupled", chunked_losses=chunked, max_steps=1)
        start = snapshot(student)
        trainer = DistillationTrainer(student, args, teacher=vit(), train_dataset=ToyImages())
        trainer.train()
        runs.append(losses(trainer))
        student.load_state_dict(start)
    assert runs[1] == pytest.approx(runs[0], rel=1e-5)


def test_many_classes_switch_by_themselves(tmp_path, monkeypatch):
    student = resnet(seed=1)
    assert not large_heads.uses_chunks(arguments(tmp_path), student, None)
    monkeypatch.setattr(large_heads, "CHUNKED_FROM", NUM_LABELS)
    assert large_heads.uses_chunks(arguments(tmp_path), student, None)
    assert not large_heads.uses_chunks(arguments(tmp_path, chunked_losses=False), student, None)
    assert not large_heads.uses_chunks(arguments(tmp_path), vit(), None)


def test_a_student_whose_classifier_cannot_be_left_out_is_refused(tmp_path):
    with pytest.raises(ValueError, match="the student is a ViTForImageClassification, whose classifier"):
        DistillationTrainer(vit(), arguments(tmp_path, chunked_losses=True), train_dataset=ToyImages())


def test_a_chunked_run_resumes_exactly(tmp_path):
    fields = {"num_train_epochs": 2, "save_strategy": "epoch", "chunked_losses": True, "method": "th_kd_coupled"}

    def trainer():
        args = arguments(tmp_path, **fields)
        return DistillationTrainer(
            resnet(seed=1, **FACE), args, teacher=resnet("resnet14", seed=2, **FACE), train_dataset=ToyImages()
        )

    whole = trainer()
    whole.train()
    cut = trainer()
    cut.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert_same(snapshot(cut.student), snapshot(whole.student))
