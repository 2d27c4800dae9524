"""What is refused before the first step, with the message that says what to do."""

import copy
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from toys import ToyImages, arguments, assert_same, losses, resnet, snapshot, vit
from transformers import DeiTConfig, DeiTForImageClassificationWithTeacher, TrainingArguments

from headshare_hf import DistillationTrainer, HeadShareModel, StudentHeadStages
from headshare_hf.data.input_adapter import InputAdapter
from headshare_hf.trainer import METHODS, get_method, reference_weights
from headshare_hf.trainer.backends import resolve_ddp
from headshare_hf.trainer.last_batch import check_last_batch
from headshare_hf.trainer.runs import attach_head_similarity
from headshare_hf.trainer.softening import default_kd_scale
from headshare_hf.trainer.teacher import FrozenTeacher


@pytest.mark.parametrize(("native", "bf16", "told"), [(False, True, 1), (True, True, 0), (False, False, 0)])
def test_a_processor_that_only_imitates_bfloat16_is_named(native, bf16, told, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("headshare_hf.trainer.checks.has_bfloat16", lambda device: native)
    with caplog.at_level("WARNING", "headshare_hf"):
        DistillationTrainer(resnet(), arguments(tmp_path, method="plain", bf16=bf16), train_dataset=ToyImages())
    assert caplog.text.count("no instructions for bfloat16") == told


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"method": "thkd"}, "unknown method 'thkd'; did you mean .*th_kd"),
        ({"temperature": 0.0}, "`temperature` is 0.0; it must be positive"),
        ({"alpha_th": 1.5}, "`alpha_th` is 1.5"),
        ({"alpha_th": 0.5, "teacher_head_weight": 1.0}, "leave out `teacher_head_weight`"),
        ({"alpha_th": 1.0, "kd_weight": 1.0}, "no loss part reaches the student's own head"),
        ({"kd_weight": -1.0}, "weight of `kd` is -1.0"),
        ({"ce_weight": 0.0}, "all loss weights are 0"),
        ({"student_head": "teacher"}, "`student_head` is 'teacher'; allowed: own"),
        ({"projector": "mlp"}, "`projector` is 'mlp'; allowed"),
        ({"teacher_precision": "half"}, "`teacher_precision` is 'half'; allowed"),
        ({"embedding_distance": "l1"}, "`embedding_distance` is 'l1'; allowed: cosine, l2"),
        ({"kd_scale": 0.0}, "`kd_scale` is 0.0; it must be positive"),
        ({"kd_scale": 8.0, "temperature": 2.0}, "`temperature` and `kd_scale` say the same"),
        ({"eval_teacher_head_weight": 2.0}, "`eval_teacher_head_weight` is 2.0"),
        ({"lr_decay_epochs": [1], "max_steps": 5}, "cannot be combined with `max_steps`"),
        ({"lr_decay_rate": 0.0}, "`lr_decay_rate` is 0.0"),
        ({"label_smoothing_factor": 1.0}, r"`label_smoothing_factor` is 1.0; it must be in \[0, 1\)"),
        (
            {"method": "inherited", "ce_weight": 0.0, "kd_weight": 1.0, "label_smoothing_factor": 0.1},
            "`label_smoothing_factor` has no effect without a cross-entropy",
        ),
        ({"lr_decay_epochs": [1], "warmup_steps": 5}, "leave out `warmup_steps`"),
        ({"temperature": 2.0}, "`temperature` has no effect: method 'plain' with these weights has no softened KL"),
        (
            {"method": "rkd", "temperature": 2.0},
            "`temperature` has no effect: method 'rkd' .* no softened KL.*leave it out",
        ),
        ({"method": "embedding", "temperature": 2.0}, "`temperature` has no effect"),
        ({"method": "kd", "kd_weight": 0.0, "ce_weight": 1.0, "temperature": 2.0}, "`temperature` has no effect"),
        ({"kd_scale": 8.0}, "`kd_scale` has no effect: method 'plain' with these weights has no softened KL"),
        ({"method": "kd", "embedding_distance": "l2"}, "`embedding_distance` has no effect: .* no embedding distance"),
    ],
)
def test_wrong_arguments_name_the_field(fields, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        arguments(tmp_path, **fields)


def test_every_row_of_the_table_has_a_summary_and_valid_weights(tmp_path):
    for name, row in METHODS.items():
        assert get_method(name) is row and row.summary and row.source
        args = arguments(tmp_path, method=name)
        assert args.loss_weights.trains_own_head or args.student_head == "teacher_frozen" or args.predicts_with_centers
        assert args.student_head == row.student_head
    assert arguments(tmp_path, method="th_kd", kd_weight=2.0).loss_weights.kd == 2.0
    coupled = arguments(tmp_path, method="kd", ce_weight=1.0, kd_weight=2.0, alpha_th=0.25).loss_weights
    assert (coupled.ce, coupled.kd, coupled.teacher_head, coupled.teacher_head_ce) == (0.75, 1.5, 0.5, 0.25)
    with pytest.raises(ValueError, match="no translation for --distill crd2"):
        reference_weights("crd2", 1, 1, 1, 1, 64)


@pytest.mark.parametrize("name", ["th_kd_coupled", "srrl", "th_srrl", "simkd", "adadistill", "crd", "kd"])
def test_a_method_that_is_somebodys_cites_it(name):
    assert re.search(r"arXiv \d{4}\.\d{5}|openreview", f"{METHODS[name].summary} {METHODS[name].source}")


def test_the_inherited_head_cites_all_who_published_it():
    numbers = re.findall(r"(\w+) \([^)]*arXiv (\d{4}\.\d{5})\)", METHODS["inherited"].source)
    assert numbers == [
        ("ProxylessKD", "2011.00265"),
        ("MarginDistillation", "2003.02586"),
        ("ArcDistill", "2407.01332"),
    ]


def test_the_last_run_of_sh_kd_has_a_row_of_each_published_form():
    assert (METHODS["sh_kd"].kd, METHODS["sh_crd"].contrastive) == (1.0, METHODS["crd"].contrastive)
    kde, shared = METHODS["kde"], METHODS["sh_kde"]
    assert (shared.ce, shared.kd, shared.embedding) == (kde.ce, kde.kd, kde.embedding)


@pytest.mark.parametrize(
    "model, teacher, fields, message",
    [
        (resnet, None, {"method": "kd"}, "method 'kd' .* needs a `teacher`"),
        (resnet, None, {"student_head": "teacher_init"}, "needs a `teacher`"),
        (resnet, None, {"projector": "linear"}, "`projector` has no effect without a `teacher`"),
        (resnet, resnet, {"method": "plain"}, "method 'plain' uses none"),
        (resnet, lambda: resnet("resnet8x4"), {"method": "th_kd"}, "width 256 but the student has width 64"),
        (resnet, lambda: resnet("resnet8x4"), {"method": "kd", "projector": "linear"}, "`projector` has no effect"),
        (resnet, resnet, {"method": "th_kd", "projector": "linear"}, "`projector` has no use"),
        (
            resnet,
            lambda: resnet("resnet8x4"),
            {"method": "kd", "projector": "linear", "eval_teacher_head_weight": 0.5},
            "`projector` has no effect",
        ),
        (
            resnet,
            lambda: resnet("resnet8x4"),
            {"method": "th_kd", "projector": "linear", "student_head": "teacher_frozen"},
            r"build the student with `HeadShareConfig\(embedding_size=256, projector='linear'\)`",
        ),
        (
            lambda: resnet(head_type="cosine"),
            resnet,
            {"method": "kd", "kd_scale": 8.0},
            "needs cosine heads, but that of the teacher is a Linear; use `temperature`",
        ),
        (
            resnet,
            lambda: resnet(head_type="cosine"),
            {"method": "kd", "kd_scale": 8.0},
            "needs cosine heads, but that of the student is a Linear",
        ),
        (
            lambda: resnet(head_type="cosine"),
            lambda: resnet(head_type="cosine"),
            {"method": "embedding", "kd_scale": 8.0},
            "`kd_scale` has no effect: method 'embedding' with these weights has no softened KL",
        ),
        (resnet, None, {"method": "inherited"}, "method 'inherited' .* needs a `teacher`"),
        (lambda: resnet().bfloat16(), None, {}, "the student holds .* in half precision"),
        (lambda: HeadShareModel(resnet().config), None, {}, "the student is a HeadShareModel"),
        (resnet, lambda: torch.nn.Linear(3, 5), {"method": "kd"}, "the teacher is a bare Linear"),
        (
            resnet,
            lambda: resnet().bfloat16(),
            {"method": "kd", "teacher_precision": "float32"},
            "`teacher_precision` is 'float32', but the teacher's weights are not",
        ),
        (resnet, lambda: resnet(num_labels=6), {"method": "kd"}, "6 classes and .* has 5"),
    ],
)
def test_student_and_teacher_must_fit(model, teacher, fields, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        DistillationTrainer(model(), arguments(tmp_path, **fields), teacher=teacher and teacher())


def test_options_of_transformers_without_effect_are_refused(tmp_path):
    with pytest.raises(ValueError, match="`compute_loss_func` has no effect"):
        DistillationTrainer(resnet(), arguments(tmp_path), compute_loss_func=lambda *args: None)
    with pytest.raises(ValueError, match="`model_init` and `hyperparameter_search` are not supported"):
        DistillationTrainer(None, arguments(tmp_path), model_init=resnet)
    with pytest.raises(ValueError, match="`args` is a TrainingArguments; use DistillationConfig"):
        DistillationTrainer(resnet(), TrainingArguments(output_dir=str(tmp_path), use_cpu=True))


def test_parameters_without_a_gradient_are_looked_for_in_students_of_others(tmp_path):
    def decided(student, teacher=None, **fields):
        args = arguments(tmp_path, **fields)
        trainer = DistillationTrainer(student, args, teacher=teacher, train_dataset=ToyImages())
        return trainer.args.ddp_find_unused_parameters

    assert decided(resnet()) is False and decided(vit()) is None
    # Layers of losses are called outside of what DDP wraps, which its search does not bear; others have none.
    assert decided(vit(), vit(seed=1), method="srrl") is False
    for method in ("dkd", "rkd", "pkt"):
        assert decided(vit(), vit(seed=1), method=method) is None
    asked = {"ddp_find_unused_parameters": True}
    assert decided(resnet(), **asked) is True and decided(vit(), vit(seed=1), method="dkd", **asked) is True
    # It means nothing in one process.
    assert decided(vit(), vit(seed=1), method="srrl", **asked) is True
    args = SimpleNamespace(world_size=2, **asked)
    resolve_ddp(args, vit(), torch.nn.Identity())
    with pytest.raises(ValueError, match="is set beside a loss with layers of its own.*leave it out, and freeze what"):
        resolve_ddp(args, vit(), torch.nn.Linear(1, 1))


def test_arguments_stay_as_the_caller_has_them(tmp_path):
    """They may be for other networks too, and be changed for another method."""
    args = arguments(tmp_path, method="kd")
    given = dict(vars(args))
    faces = [resnet(head_type="arcface", seed=seed) for seed in (1, 2)]
    found = [DistillationTrainer(model, args, teacher=other).args for model, other in ((resnet(), resnet()), faces)]
    assert vars(args) == given
    assert [(each.temperature, each.kd_scale) for each in found] == [(4.0, None), (None, default_kd_scale(5))]
    assert replace(args, method="dkd").temperature is None


def test_smoothed_labels_are_for_linear_classifiers_with_logits(tmp_path):
    message = "`label_smoothing_factor` is for linear classifiers whose logits are computed"
    fields = {"label_smoothing_factor": 0.1}
    with pytest.raises(ValueError, match=message):
        DistillationTrainer(resnet(head_type="arcface"), arguments(tmp_path, **fields))
    with pytest.raises(ValueError, match=message):
        DistillationTrainer(resnet(), arguments(tmp_path, chunked_losses=True, **fields))


def test_labels_are_smoothed_and_the_run_is_another_one(tmp_path):
    found = {}
    for smoothing in (0.0, 0.25):
        args = arguments(tmp_path / str(smoothing), method="plain", max_steps=1, label_smoothing_factor=smoothing)
        student = resnet(seed=1)
        trainer = DistillationTrainer(student, args, train_dataset=ToyImages(16))
        images, labels = trainer.train_dataset.images, trainer.train_dataset.labels
        student.train()
        with torch.no_grad():
            logits = copy.deepcopy(student)(images).logits
        expected = torch.nn.functional.cross_entropy(logits, labels, label_smoothing=smoothing)
        trainer.train()
        found[smoothing] = losses(trainer)[0]
        assert found[smoothing] == pytest.approx(float(expected), rel=1e-4)
        assert trainer.identity.get("label_smoothing_factor") == (str(smoothing) if smoothing else None)
    assert found[0.0] != found[0.25]


def test_stages_with_options_of_no_use_are_refused():
    new = {"new_student": resnet, "new_teacher": resnet}
    with pytest.raises(ValueError, match="`temporary_student` is trained already"):
        StudentHeadStages(**new, temporary_student=resnet(), temporary_epochs=3)
    with pytest.raises(ValueError, match="`teacher` has no effect: temporary_method 'plain'"):
        StudentHeadStages(**new, teacher=resnet())


def test_plain_kd_takes_a_teacher_with_any_kind_of_classifier(tmp_path):
    config = DeiTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=16, patch_size=8,
        num_labels=5,
    )  # fmt: skip
    teacher = DeiTForImageClassificationWithTeacher(config)
    args = arguments(tmp_path / "kd", method="kd", max_steps=1)
    trainer = DistillationTrainer(resnet(), args, teacher=teacher, train_dataset=ToyImages(16))
    attach_head_similarity(trainer, teacher)
    trainer.train()
    assert not any("head_cosine_mean" in row for row in trainer.state.log_history)
    with pytest.raises(ValueError, match="has no classifier that can be shared"):
        DistillationTrainer(resnet(), arguments(tmp_path / "th", method="th_kd"), teacher=teacher)


def test_two_ways_to_set_the_head_are_refused(tmp_path):
    args = arguments(tmp_path, method="kd", student_head="teacher_init")
    with pytest.raises(ValueError, match="both set the classifier"):
        DistillationTrainer(resnet(), args, teacher=resnet(), shared_head_from=resnet())


def _images(labels):
    data = ToyImages(len(labels))
    data.labels = torch.tensor(labels)
    return data


@pytest.mark.parametrize(
    "labels, message",
    [
        ([], "train_dataset is empty"),
        ([0, 1, 5], "row 2 of train_dataset has label 5, outside of 0 to 4"),
        ([0, -2], "row 1 of train_dataset has label -2"),
        ([3, 3, 3], "train_dataset has only one class"),
    ],
)
def test_wrong_labels_are_refused(labels, message, tmp_path):
    data = ToyImages(1) if not labels else _images(labels)
    if not labels:
        data.labels = torch.tensor([], dtype=torch.long)
    with pytest.raises(ValueError, match=message):
        DistillationTrainer(resnet(), arguments(tmp_path), train_dataset=data)


def test_class_names_of_data_and_model_must_agree(tmp_path):
    data = ToyImages()
    data.label_names = ["a", "b", "c", "d", "e"]
    model = resnet()
    DistillationTrainer(model, arguments(tmp_path), train_dataset=data)
    model.config.id2label = dict(enumerate("abcde"[::-1]))
    with pytest.raises(ValueError, match="class 0 is 'a' in train_dataset but 'e' in the model"):
        DistillationTrainer(model, arguments(tmp_path), train_dataset=data)
    with pytest.raises(ValueError, match="has 5 classes and the model 6; build the model with num_labels=5"):
        DistillationTrainer(resnet(num_labels=6), arguments(tmp_path), train_dataset=data)


def test_a_plain_datasets_table_is_checked_too(tmp_path):
    from datasets import Dataset

    table = Dataset.from_dict({"label": [0, 9], "pixel_values": [[0.0], [0.0]]})
    with pytest.raises(ValueError, match="row 1 of train_dataset has label 9"):
        DistillationTrainer(resnet(), arguments(tmp_path), train_dataset=table)


def test_a_teacher_whose_logits_are_not_those_of_its_classifier_is_refused():
    class Scaled(type(vit())):
        def forward(self, pixel_values):
            output = super().forward(pixel_values)
            output.logits = output.logits * 2 + 1
            return output

    teacher = Scaled(vit().config)
    frozen = FrozenTeacher(teacher, torch.device("cpu"), InputAdapter(None, None), torch.no_grad)
    with pytest.raises(ValueError, match="are not those of its classifier on its embedding"):
        frozen(torch.randn(2, 3, 16, 16))


@pytest.mark.parametrize(
    ("images", "fields", "refused"),
    [
        (9, {}, True),
        (9, {"dataloader_drop_last": True}, False),
        (9, {"max_steps": 1}, False),
        (9, {"max_steps": 2}, True),
        (10, {}, False),
        (5, {"per_device_train_batch_size": 1}, True),
    ],
)
def test_a_last_batch_of_one_image_is_refused_before_the_first_step(images, fields, refused, tmp_path):
    fields = {"per_device_train_batch_size": 8, "num_train_epochs": 1, "max_steps": -1, **fields}
    args = arguments(tmp_path, method="th_kd", projector="linear_bn_relu", **fields)
    trainer = DistillationTrainer(resnet(), args, teacher=resnet("resnet8x4", seed=1), train_dataset=ToyImages(images))
    before = snapshot(trainer.model)
    if refused:
        with pytest.raises(ValueError, match=r"single image of \d for the last one, which `projector.1` .*drop_last"):
            trainer.train()
        assert trainer.state.global_step == 0
        assert_same(snapshot(trainer.model), before)
    else:
        trainer.train()


class _Tokens(torch.nn.Module):
    """Normalises over the positions of an image, so that one image is enough."""

    def __init__(self, student):
        super().__init__()
        self.student, self.config, self.norm = student, student.config, torch.nn.BatchNorm1d(3)

    def forward(self, pixel_values):
        return self.student(self.norm(pixel_values.flatten(2)).view_as(pixel_values))


def test_layers_that_average_over_positions_take_a_single_image(tmp_path):
    args = arguments(tmp_path, method="plain", per_device_train_batch_size=8)
    for trained in (resnet(), _Tokens(resnet())):
        check_last_batch(trained, args, ToyImages(9))
    vectors = torch.nn.Sequential(resnet(), torch.nn.BatchNorm1d(5))
    vectors[0].forward = lambda pixel_values: torch.zeros(len(pixel_values), 5)
    vectors.forward = lambda pixel_values: vectors[1](vectors[0](pixel_values))
    with pytest.raises(ValueError, match="which `1` cannot normalise"):
        check_last_batch(vectors, args, ToyImages(9))


def test_activation_checkpointing_of_a_network_without_blocks_is_refused(tmp_path):
    with pytest.raises(ValueError, match="checkpointing` is set, but HeadShareForImageClassification .*accumulation"):
        DistillationTrainer(
            resnet(), arguments(tmp_path, **{_checkpointing(tmp_path): True}), train_dataset=ToyImages()
        )


def _checkpointing(folder):
    known = arguments(folder).to_dict()
    return "activation_checkpointing" if "activation_checkpointing" in known else "gradient_checkpointing"


@pytest.mark.parametrize("fields", [{"method": "kd"}, {"method": "th_kd", "projector": "linear"}])
def test_activation_checkpointing_reaches_the_student(fields, tmp_path):
    name = _checkpointing(tmp_path)
    args = arguments(tmp_path, max_steps=1, **{name: True}, **fields)
    student = vit(seed=1)
    trainer = DistillationTrainer(student, args, teacher=resnet("resnet8x4", seed=2), train_dataset=ToyImages())
    trainer.train()
    assert any(getattr(module, "gradient_checkpointing", False) for module in student.modules())
