"""Training with losses over chunks of classes: the numbers of the dense losses, and no matrix of logits."""

import sys
from types import SimpleNamespace

import pytest
import torch
from dense_losses import make_head
from torch.utils._python_dispatch import TorchDispatchMode
from toys import NUM_LABELS, ToyImages, arguments, assert_same, losses, resnet, snapshot, vit

from headshare_hf import DistillationTrainer
from headshare_hf.losses.class_matrix import ClassMatrix
from headshare_hf.models import find_classifier
from headshare_hf.trainer import large_heads


# A function has the name of the module, and a class that of the package.
chunked_kd, trainer_module = (sys.modules[f"headshare_hf.{name}"] for name in ("losses.chunked_kd", "trainer.trainer"))
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


@pytest.mark.parametrize("head", [{}, FACE], ids=["linear", "arcface"])
def test_a_frozen_copy_of_the_teacher_s_head_is_gone_through_once_for_both(head, tmp_path, monkeypatch):
    taken = []
    for name in ("_scores_of_one_head", "_scores_of_two_heads"):
        function = getattr(chunked_kd, name)
        monkeypatch.setattr(
            chunked_kd, name, lambda *args, name=name, function=function: taken.append(name) or function(*args)
        )
    fields = {"student_head": "teacher_frozen", "alpha_th": 0.0, "kd_weight": 2.0}
    dense = _trained(tmp_path / "dense", "kd", head, fields)
    once = _trained(tmp_path / "once", "kd", head, fields, chunked_losses=True)
    assert taken == 3 * ["_scores_of_one_head"]
    monkeypatch.setattr(trainer_module, "frozen_twin", lambda *_: None)
    twice = _trained(tmp_path / "twice", "kd", head, fields, chunked_losses=True)
    assert taken[3:] == 3 * ["_scores_of_two_heads"]
    assert losses(once) == pytest.approx(losses(dense), rel=1e-5)
    assert losses(once) == pytest.approx(losses(twice), rel=1e-5)
    for name, value in snapshot(twice.student).items():
        torch.testing.assert_close(once.student.state_dict()[name], value, rtol=1e-3, atol=1e-5)


def test_which_heads_are_frozen_copies():
    def heads(kind="arcface", **fields):
        return [make_head(kind, 6, 9, **fields).requires_grad_(False) for _ in range(2)]

    for kind in ("linear", "arcface"):
        head, teacher = heads(kind)
        assert large_heads.frozen_twin(head, teacher) is teacher
        assert large_heads.frozen_twin(head, head) is head
        head.weight.requires_grad_()
        assert large_heads.frozen_twin(head, teacher) is None
    head, teacher = heads()
    teacher.weight[8, 5] += 1e-3
    assert large_heads.frozen_twin(head, teacher) is None
    assert large_heads.frozen_twin(head.double(), make_head("arcface", 6, 9).requires_grad_(False)) is None
    assert large_heads.frozen_twin(heads(scale=8.0)[0], heads()[0]) is None
    without_bias, linear = heads("linear")
    without_bias.bias = None
    assert large_heads.frozen_twin(without_bias, linear) is None
    assert large_heads.frozen_twin(without_bias, heads()[0]) is None
    assert large_heads.frozen_twin(linear, None) is None and large_heads.frozen_twin(None, linear) is None


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


class _LargestProduct(TorchDispatchMode):
    """The most columns of any result that has a row for each of `images`."""

    def __init__(self, images):
        super().__init__()
        self.images, self.columns = images, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        for tensor in found if isinstance(found, (tuple, list)) else (found,):
            if torch.is_tensor(tensor) and tensor.dim() == 2 and len(tensor) == self.images:
                self.columns = max(self.columns, tensor.shape[1])
        return found


@pytest.mark.parametrize("chunked", [True, False])
def test_the_logits_of_a_foreign_teacher_are_held_where_losses_need_them_only(chunked, tmp_path):
    """Its classifier sees two images once, to be checked; afterwards it is as it was."""
    student, teacher = resnet(seed=1, embedding_size=32, projector="linear", num_labels=300), vit(300)
    before, rows = snapshot(teacher), []
    find_classifier(teacher).register_forward_hook(lambda module, args, output: rows.append(output.shape))
    args = arguments(tmp_path, method="th_kd_coupled", chunked_losses=chunked)
    trainer = DistillationTrainer(student, args, teacher=teacher, train_dataset=ToyImages())
    trainer.train()
    wide = [shape for shape in rows if shape[1] == 300]
    assert set(wide) == ({(2, 300)} if chunked else {(16, 300)}) and (len(wide) == 2) == chunked
    with _LargestProduct(16) as seen:
        output = trainer.teacher(torch.randn(16, 3, 16, 16))
    assert seen.columns == (32 if chunked else 300) and output.embeddings.shape == (16, 32)
    assert_same(snapshot(teacher), before)
    assert teacher(torch.randn(1, 3, 16, 16)).logits.shape == (1, 300)


def test_a_foreign_teacher_with_a_second_head_is_still_refused(tmp_path):
    class TwoHeads(type(vit())):
        def forward(self, *args, **kwargs):
            output = super().forward(*args, **kwargs)
            output.logits = output.logits + 1
            return output

    teacher = TwoHeads(vit().config)
    student = resnet(seed=1, embedding_size=32, projector="linear")
    args = arguments(tmp_path, method="th_kd_coupled", chunked_losses=True)
    with pytest.raises(ValueError, match="not those of its classifier on its embedding"):
        DistillationTrainer(student, args, teacher=teacher, train_dataset=ToyImages()).train()


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_chunks_have_the_precision_of_the_training(precision, tmp_path, monkeypatch):
    monkeypatch.setattr("headshare_hf.losses.products.has_bfloat16", lambda device: True)
    seen, of = [], ClassMatrix.of.__func__
    monkeypatch.setattr(ClassMatrix, "of", classmethod(lambda cls, head: seen.append(of(cls, head)) or seen[-1]))
    _trained(tmp_path, "th_kd_coupled", {}, {"bf16": precision == "bf16", "chunked_losses": True, "max_steps": 1})
    expected = torch.bfloat16 if precision == "bf16" else None
    assert seen and {classes.rounded for classes in seen} == {expected}


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


def _refused_kernel(tmp_path, student=None, **fields):
    args = arguments(tmp_path, **{"large_head_kernel": "liger", "chunked_losses": True, **fields})
    DistillationTrainer(student or resnet(), args, train_dataset=ToyImages())


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"large_head_kernel": "tritn"}, "`large_head_kernel` is 'tritn'; allowed: auto, chunked, liger"),
        ({"chunked_losses": None}, "not computed over chunks; set `chunked_losses`"),
        ({"class_sample_rate": 0.5}, "`class_sample_rate` leaves classes out; or leave `large_head_kernel` out"),
        ({}, "its kernels need a GPU"),
    ],
)
def test_a_kernel_that_cannot_be_used_is_refused(fields, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        _refused_kernel(tmp_path, **fields)


def test_the_kernel_is_for_linear_classifiers_that_learn_and_for_whole_ones(tmp_path):
    frozen = resnet()
    frozen.classifier.requires_grad_(False)
    for student in (resnet(**FACE), frozen):
        with pytest.raises(ValueError, match="the student has no linear classifier that learns"):
            _refused_kernel(tmp_path, student)
    args = arguments(tmp_path, large_head_kernel="liger")
    args.shard_heads = True
    with pytest.raises(ValueError, match="`shard_heads` splits the classes"):
        large_heads.check_kernel(args, resnet().classifier, True)


def test_the_kernel_has_to_be_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "liger_kernel", None)
    args = SimpleNamespace(
        large_head_kernel="liger", shard_heads=False, class_sample_rate=1, device=torch.device("cuda")
    )
    with pytest.raises(ImportError, match="needs liger-kernel"):
        large_heads.check_kernel(args, resnet().classifier, True)


def test_the_kernel_computes_the_cross_entropy(tmp_path, monkeypatch):
    """As a step with it, on the CPU: the loss of a stand-in comes back."""
    expected = _trained(tmp_path / "chunked", "plain", {}, {}, chunked_losses=True)
    monkeypatch.setattr(trainer_module, "check_kernel", lambda *_: None)
    calls = []
    monkeypatch.setattr(
        sys.modules["headshare_hf.losses.liger"],
        "liger_cross_entropy",
        lambda z, labels, head: calls.append(1) or torch.nn.functional.cross_entropy(head(z), labels),
    )
    found = _trained(tmp_path / "liger", "plain", {}, {}, chunked_losses=True, large_head_kernel="liger")
    assert len(calls) == 3 and losses(found) == pytest.approx(losses(expected), rel=1e-5)
