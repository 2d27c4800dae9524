"""The teacher sees what it was trained on, and is loaded whole or not at all."""

import copy

import pytest
import torch
from safetensors.torch import load_file, save_file
from toys import ToyImages, arguments, resnet, vit

from headshare_hf import DistillationTrainer, HeadShareImageProcessor
from headshare_hf.data.input_adapter import InputAdapter
from headshare_hf.models import CosineHead
from headshare_hf.trainer import load_teacher
from headshare_hf.trainer.teacher import FrozenTeacher, read_by, teacher_autocast


def test_the_trainer_feeds_the_teacher_its_own_statistics(tmp_path):
    seen = []
    teacher = vit(hidden_size=64, image_size=24, seed=3)
    teacher.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["pixel_values"]), with_kwargs=True
    )
    mine = HeadShareImageProcessor(size={"height": 16, "width": 16}, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    its = HeadShareImageProcessor(size={"height": 24, "width": 24}, image_mean=[0.0] * 3, image_std=[1.0] * 3)
    trainer = DistillationTrainer(
        resnet(),
        arguments(tmp_path, method="th_kd", max_steps=1),
        teacher=teacher,
        train_dataset=ToyImages(16),
        processing_class=mine,
        teacher_processing_class=its,
    )
    trainer.train()
    assert seen[0].shape == (16, 3, 24, 24)
    assert seen[0].mean().item() == pytest.approx(ToyImages(16).images.mean().item() * 0.5 + 0.5, abs=0.02)


def test_a_teacher_is_loaded_by_name_with_its_processor(tmp_path):
    teacher = resnet("resnet14", seed=2)
    teacher.save_pretrained(tmp_path / "teacher")
    HeadShareImageProcessor().save_pretrained(tmp_path / "teacher")
    model, processor = load_teacher(str(tmp_path / "teacher"))
    assert torch.equal(model.classifier.weight, teacher.classifier.weight)
    assert processor.image_mean == HeadShareImageProcessor().image_mean
    trainer = DistillationTrainer(
        resnet(), arguments(tmp_path / "run", method="kd", max_steps=1), teacher=str(tmp_path / "teacher"),
        train_dataset=ToyImages(16), processing_class=HeadShareImageProcessor(),
    )  # fmt: skip
    trainer.train()


def test_a_teacher_in_a_folder_may_come_with_its_processor(tmp_path):
    teacher = resnet(seed=2)
    teacher.save_pretrained(tmp_path / "teacher")
    own = HeadShareImageProcessor(size={"height": 24, "width": 24}, image_mean=[0.1] * 3)
    args = arguments(tmp_path / "run", method="kd", max_steps=1)
    trainer = DistillationTrainer(
        resnet(), args, teacher=tmp_path / "teacher", teacher_processing_class=own,
        train_dataset=ToyImages(16), processing_class=HeadShareImageProcessor(),
    )  # fmt: skip
    adapted = trainer.teacher._adapter(torch.zeros(1, 3, 16, 16))
    expected = (torch.tensor(HeadShareImageProcessor().image_mean) - 0.1) / torch.tensor(own.image_std)
    assert adapted.shape[-2:] == (24, 24) and torch.allclose(adapted.mean((0, 2, 3)), expected, atol=1e-5)
    trainer.train()


def test_a_shared_head_may_be_named_by_its_folder(tmp_path):
    student = resnet(seed=2)
    student.save_pretrained(tmp_path / "student")
    for place in (tmp_path / "student", str(tmp_path / "student")):
        model = resnet(seed=1)
        DistillationTrainer(model, arguments(tmp_path / "run"), shared_head_from=place)
        assert torch.equal(model.classifier.weight, student.classifier.weight)
        assert not model.classifier.weight.requires_grad


def test_a_teacher_without_its_head_is_refused(tmp_path):
    vit().save_pretrained(tmp_path)
    HeadShareImageProcessor().save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = {k: v for k, v in load_file(path).items() if not k.startswith("classifier")}
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks trained values for \['classifier.bias', 'classifier.weight'\]"):
        load_teacher(str(tmp_path))


@pytest.mark.parametrize("precision, dtype", [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_the_teacher_computes_in_the_precision_asked_for(precision, dtype):
    with teacher_autocast(precision, torch.device("cpu"), None)():
        assert torch.nn.Linear(4, 2)(torch.randn(1, 4)).dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_gradients_through_a_head_in_half_precision_do_not_underflow(dtype):
    """Of a softmax over thousands of classes and a small weight, most are no numbers in float16."""
    torch.manual_seed(0)
    head, embeddings = torch.nn.Linear(64, 9999).to(dtype).requires_grad_(False), torch.randn(64, 64)
    gradients = []
    for layer in (head, copy.deepcopy(head).float()):
        rows = embeddings.clone().requires_grad_()
        target = torch.nn.functional.linear(embeddings.flip(0), head.weight.float()).softmax(1)
        loss = -0.02 / 16 * (read_by(layer, rows).log_softmax(1) * target).sum(1).mean()
        gradients.append(torch.autograd.grad(loss, rows)[0])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-5, atol=1e-9)
    assert read_by(head, embeddings).dtype == torch.float32


def test_a_cosine_head_in_half_precision_gives_the_gradient_of_its_float32_copy():
    torch.manual_seed(0)
    head, embeddings = CosineHead(64, 9999, 16.0).half().requires_grad_(False), torch.randn(64, 64)
    gradients = []
    for layer in (head, copy.deepcopy(head).float()):
        rows = embeddings.clone().requires_grad_()
        loss = -0.02 / 16 * read_by(layer, rows).log_softmax(1)[:, :100].mean()
        gradients.append(torch.autograd.grad(loss, rows)[0])
    difference, length = (vector.norm() for vector in (gradients[0] - gradients[1], gradients[1]))
    assert 0 < length and difference <= 1e-5 * length


@pytest.mark.parametrize("fold", [False, None])
def test_a_teacher_of_this_package_computes_its_scores_outside_of_autocast(fold):
    teacher = resnet(seed=2)
    with torch.no_grad():
        teacher.classifier.weight.mul_(10)
    autocast = teacher_autocast("bfloat16", torch.device("cpu"), None)
    frozen = FrozenTeacher(teacher, torch.device("cpu"), InputAdapter(None, None), autocast, fold=fold)
    output = frozen(torch.randn(4, 3, 16, 16))
    assert output.logits.dtype == torch.float32
    assert torch.allclose(output.logits, teacher.classifier(output.embeddings.float()), atol=1e-5)
