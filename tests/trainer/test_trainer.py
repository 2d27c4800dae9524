"""What training must change, what it must leave alone, and what it must be equal to."""

import pytest
import torch
from toys import ToyImages, arguments, assert_same, losses, resnet, snapshot, vit

from headshare_hf import DistillationTrainer, HeadShareForImageClassification, share_head
from headshare_hf.models import find_classifier
from headshare_hf.trainer import HeadSimilarityCallback, NonFiniteLossError


METHODS = ["plain", "kd", "th_kd", "th_kd_coupled", "kde", "th_kde", "embedding", "sh_kd"]
INHERITING = ["inherited", "embedding_only"]


def _distill(tmp_path, model=None, teacher=None, **fields):
    model = model or resnet(seed=1)
    teacher = teacher or resnet("resnet14", seed=2)
    args = arguments(tmp_path, **{"method": "th_kd", **fields})
    return DistillationTrainer(
        model, args, teacher=teacher, train_dataset=ToyImages(), eval_dataset=ToyImages(24, seed=1)
    )


@pytest.mark.parametrize("method", METHODS)
def test_every_method_moves_the_student_and_leaves_the_teacher(method, tmp_path):
    teacher = None if method == "plain" else resnet("resnet14", seed=2)
    student = resnet(seed=1)
    before = {"student": snapshot(student), "teacher": teacher and snapshot(teacher)}
    trainer = DistillationTrainer(
        student, arguments(tmp_path, method=method), teacher=teacher, train_dataset=ToyImages()
    )
    trainer.train()
    for name, parameter in student.named_parameters():
        assert not torch.equal(parameter, before["student"][name]), name
    if teacher is not None:
        assert_same(snapshot(teacher), before["teacher"])
        assert not any(p.requires_grad or p.grad is not None for p in teacher.parameters())
        assert not teacher.training


def test_a_frozen_head_is_bit_equal_after_training(tmp_path):
    teacher = resnet("resnet14", seed=2)
    trainer = _distill(tmp_path, teacher=teacher, student_head="teacher_frozen", learning_rate=0.5)
    trainer.train()
    assert_same(snapshot(trainer.student.classifier), snapshot(teacher.classifier))
    frozen = set(trainer.student.classifier.parameters())
    in_optimizer = {p for group in trainer.optimizer.param_groups for p in group["params"]}
    assert not frozen & in_optimizer and not frozen & set(trainer.optimizer.state)
    assert all(p.grad is None for p in frozen)


def test_an_initialised_head_starts_as_the_teachers_and_moves(tmp_path):
    teacher = resnet("resnet14", seed=2)
    trainer = _distill(tmp_path, teacher=teacher, student_head="teacher_init")
    assert_same(snapshot(trainer.student.classifier), snapshot(teacher.classifier))
    trainer.train()
    assert not torch.equal(trainer.student.classifier.weight, teacher.classifier.weight)


def test_the_teacher_head_term_changes_what_is_learned(tmp_path):
    with_head = _distill(tmp_path / "a", ce_weight=1.0, kd_weight=1.0, teacher_head_weight=1.0)
    without = _distill(tmp_path / "b", ce_weight=1.0, kd_weight=1.0, teacher_head_weight=0.0)
    for trainer in (with_head, without):
        trainer.train()
    left, right = (t.student.headshare.backbone.conv1.weight for t in (with_head, without))
    assert (left - right).abs().max() > 1e-5


def test_every_loss_part_is_logged_and_adds_up(tmp_path):
    trainer = _distill(tmp_path, ce_weight=1.0, kd_weight=0.5, teacher_head_weight=0.25, embedding_weight=2.0)
    trainer.train()
    rows = [row for row in trainer.state.log_history if "loss" in row]
    assert len(rows) == 3
    for row in rows:
        total = row["loss_ce"] + 0.5 * row["loss_kd"] + 0.25 * row["loss_teacher_head"] + 2 * row["loss_embedding"]
        assert row["loss"] == pytest.approx(total, rel=1e-5)


def test_accumulating_four_batches_of_sixteen_equals_one_of_sixty_four(tmp_path):
    runs = []
    for name, batch, steps in (("whole", 64, 1), ("split", 16, 4)):
        args = arguments(
            tmp_path / name,
            method="th_kd",
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=steps,
            train_sampling_strategy="sequential",
        )
        trainer = DistillationTrainer(vit(seed=1), args, teacher=vit(seed=2), train_dataset=ToyImages(128))
        trainer.train()
        runs.append((losses(trainer), trainer.student.state_dict()))
    assert runs[0][0] == pytest.approx(runs[1][0], rel=1e-5)
    for name, value in runs[0][1].items():
        torch.testing.assert_close(value, runs[1][1][name], rtol=1e-5, atol=1e-6, msg=name)


def test_training_learns_and_evaluation_reports_it(tmp_path):
    args = arguments(tmp_path, method="plain", num_train_epochs=12)
    trainer = DistillationTrainer(
        resnet(seed=1), args, train_dataset=ToyImages(160), eval_dataset=ToyImages(80, seed=1)
    )
    trainer.train()
    metrics = trainer.evaluate()
    # One in five by chance.
    assert metrics["eval_accuracy"] > 0.7
    assert 0 < metrics["eval_mean_per_class_accuracy"] <= 1 and metrics["eval_loss"] > 0


def test_evaluation_does_not_run_the_teacher(tmp_path):
    trainer = _distill(tmp_path)
    trainer.teacher.model.forward = None
    assert "eval_accuracy" in trainer.evaluate()


def test_mixed_prediction_is_the_papers_mixture(tmp_path):
    trainer = _distill(tmp_path, eval_teacher_head_weight=0.3)
    batch = {key: torch.stack([item[key] for item in ToyImages(8)]) for key in ("pixel_values", "labels")}
    trainer.model.eval()
    _, (logits, mixed), _ = trainer.prediction_step(trainer.model, batch, prediction_loss_only=False)
    embeddings = trainer.student(batch["pixel_values"]).embeddings
    head = find_classifier(trainer.teacher.model)
    expected = 0.7 * logits.softmax(1) + 0.3 * head(embeddings).softmax(1)
    torch.testing.assert_close(mixed.exp(), expected)
    metrics = trainer.evaluate()
    assert {"eval_accuracy", "eval_mixed_accuracy"} <= metrics.keys()


def test_bfloat16_trains_close_to_float32(tmp_path):
    full, half = (_distill(tmp_path / str(flag), bf16=flag) for flag in (False, True))
    for trainer in (full, half):
        trainer.train()
    assert losses(half) == pytest.approx(losses(full), rel=0.05)
    assert all(p.dtype == torch.float32 for p in half.student.parameters())


@pytest.mark.parametrize("projector", ["linear", "linear_bn_relu"])
def test_a_projector_joins_different_widths_and_is_not_published(projector, tmp_path):
    trainer = _distill(
        tmp_path, teacher=resnet("resnet8x4", seed=2), projector=projector, save_strategy="epoch", embedding_weight=1.0
    )
    before = snapshot(trainer.projector)
    trainer.train()
    assert any(not torch.equal(value, before[name]) for name, value in trainer.projector.named_parameters())
    trainer.save_model()
    reloaded = HeadShareForImageClassification.from_pretrained(tmp_path)
    assert_same(snapshot(reloaded), snapshot(trainer.student))
    assert (tmp_path / "checkpoint-3" / "auxiliary.safetensors").is_file()
    assert not (tmp_path / "auxiliary.safetensors").exists()


def test_what_is_published_is_the_student_alone(tmp_path):
    from safetensors.torch import load_file

    trainer = _distill(tmp_path, save_strategy="epoch")
    trainer.train()
    trainer.save_model()
    for folder in (tmp_path, tmp_path / "checkpoint-3"):
        assert load_file(folder / "model.safetensors").keys() == trainer.student.state_dict().keys()
    pickles = {path.name for path in tmp_path.iterdir() if path.suffix in {".bin", ".pth", ".pt", ".pkl"}}
    assert not pickles


def test_a_transformers_vit_teaches_a_resnet8x4(tmp_path):
    teacher = vit(hidden_size=256, seed=3)
    trainer = _distill(tmp_path, model=resnet("resnet8x4", seed=1), teacher=teacher, embedding_weight=1.0)
    before = snapshot(teacher)
    trainer.train()
    assert_same(snapshot(teacher), before)
    assert len(losses(trainer)) == 3


def test_a_timm_network_learns_from_a_resnet(tmp_path):
    student = resnet("timm/test_resnet", seed=1)
    trainer = _distill(tmp_path, model=student, projector="linear")
    before = snapshot(student)
    trainer.train()
    assert any(not torch.equal(value, before[name]) for name, value in student.named_parameters())


def test_a_transformers_student_is_read_through_its_classifier(tmp_path):
    student = vit(hidden_size=64, seed=3)
    trainer = _distill(tmp_path, model=student)
    trainer.train()
    assert all("loss_teacher_head" in row for row in trainer.state.log_history if "loss" in row)


def test_head_similarity_is_logged_each_epoch_and_plotted(tmp_path):
    trainer = _distill(tmp_path, num_train_epochs=2)
    trainer.add_callback(HeadSimilarityCallback(trainer, trainer.teacher.model, plot=tmp_path / "heads.png"))
    trainer.train()
    rows = [row for row in trainer.state.log_history if "head_cosine_mean" in row]
    assert [row["epoch"] for row in rows] == [1.0, 2.0]
    assert all(-1 <= row["head_cosine_mean"] <= 1 for row in rows)
    assert (tmp_path / "heads.png").stat().st_size > 1000


def test_heads_of_other_shape_are_not_compared(tmp_path):
    trainer = _distill(tmp_path, teacher=resnet("resnet8x4", seed=2), projector="linear")
    with pytest.raises(ValueError, match="cannot be compared class by class"):
        HeadSimilarityCallback(trainer, trainer.teacher.model)


def test_learning_rate_falls_after_the_given_epochs(tmp_path):
    trainer = _distill(tmp_path, num_train_epochs=4, lr_decay_epochs=[1, 3], lr_decay_rate=0.1, learning_rate=1.0)
    trainer.train()
    rates = [row["learning_rate"] for row in trainer.state.log_history if "learning_rate" in row]
    assert rates == pytest.approx([1.0] * 3 + [0.1] * 6 + [0.01] * 3)


def test_weight_decay_covers_every_tensor_or_skips_norms_and_biases(tmp_path):
    everything = _distill(tmp_path / "a").create_optimizer()
    usual = _distill(tmp_path / "b", decay_norm_and_bias=False).create_optimizer()
    assert len(everything.param_groups[1]["params"]) == 0
    assert any(p.dim() == 1 for p in usual.param_groups[1]["params"])
    assert everything.param_groups[0]["momentum"] == 0.9


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(tmp_path):
    class Broken(ToyImages):
        def __getitem__(self, index):
            item = super().__getitem__(index)
            return {**item, "pixel_values": item["pixel_values"] * (float("nan") if index >= 32 else 1.0)}

    args = arguments(
        tmp_path,
        method="th_kd",
        train_sampling_strategy="sequential",
        save_strategy="steps",
        save_steps=1,
        logging_steps=10,
    )
    trainer = DistillationTrainer(resnet(seed=1), args, teacher=resnet("resnet14", seed=2), train_dataset=Broken())
    with pytest.raises(
        NonFiniteLossError, match=r"loss part ce, kd, teacher_head was not finite at step 3.*checkpoint-2"
    ):
        trainer.train()
    kept = HeadShareForImageClassification.from_pretrained(tmp_path / "checkpoint-2")
    assert all(torch.isfinite(value).all() for value in kept.state_dict().values())
    assert not (tmp_path / "checkpoint-3").exists()


def test_shared_head_of_a_first_student_stays_in_the_teacher(tmp_path):
    first, teacher = resnet(seed=1), resnet("resnet14", seed=2)
    trainer = DistillationTrainer(
        teacher, arguments(tmp_path, learning_rate=0.5), train_dataset=ToyImages(), shared_head_from=first
    )
    trainer.train()
    assert_same(snapshot(teacher.classifier), snapshot(first.classifier))
    assert first.classifier.weight.requires_grad


def test_a_card_needs_what_only_the_caller_knows(tmp_path):
    with pytest.raises(ValueError, match="set `trainer.card` before the model is published"):
        _distill(tmp_path).create_model_card()


def test_one_hook_serves_all_trainers_of_a_model(tmp_path):
    teacher = vit(hidden_size=64, seed=3)
    for number in range(3):
        _distill(tmp_path / str(number), teacher=teacher)
    assert len(teacher.classifier._forward_pre_hooks) == 1


def test_share_head_before_training_is_respected(tmp_path):
    teacher, student = resnet("resnet14", seed=2), resnet(seed=1)
    share_head(teacher, student)
    trainer = _distill(tmp_path, model=student, teacher=teacher)
    trainer.train()
    assert_same(snapshot(student.classifier), snapshot(teacher.classifier))


def test_channels_last_changes_the_layout_of_the_maps_and_only_rounding(tmp_path):
    runs, layouts = {}, {}
    for name, switch in (("plain", False), ("last", True)):
        fields = {"channels_last": switch, "save_strategy": "epoch", "num_train_epochs": 2}
        student, teacher = resnet(seed=1), resnet("resnet14", seed=2)
        for model in (student, teacher):
            model.headshare.backbone.layer3.register_forward_hook(
                lambda module, args, maps, name=name: layouts.setdefault(name, []).append(
                    maps.is_contiguous(memory_format=torch.channels_last)
                )
            )
        runs[name] = _distill(tmp_path / name, student, teacher, **fields)
        runs[name].train()
        assert student.headshare.backbone.layer1[0].conv1.weight.is_contiguous()
    # Six steps of both networks at least.
    assert len(layouts["last"]) >= 12 and all(layouts["last"]) and not any(layouts["plain"])
    torch.testing.assert_close(losses(runs["last"]), losses(runs["plain"]), rtol=1e-3, atol=0)
    student = runs["last"].student
    again = HeadShareForImageClassification.from_pretrained(tmp_path / "last" / "checkpoint-6")
    assert_same(snapshot(again), snapshot(student))
    images = ToyImages(4).images
    assert torch.equal(again.eval()(images).logits, student.eval()(images).logits)


def test_channels_last_is_chosen_by_the_device(tmp_path):
    assert arguments(tmp_path).channels_last is True
    assert arguments(tmp_path, channels_last=False).channels_last is False
