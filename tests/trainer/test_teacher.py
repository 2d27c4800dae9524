"""The teacher sees what it was trained on, and is loaded whole or not at all."""

import copy
import io
import logging
from functools import partial

import pytest
import torch
from safetensors.torch import load_file, save_file
from toys import ToyImages, arguments, resnet, vit
from transformers import SwinConfig

from headshare_hf import DistillationTrainer, HeadShareImageProcessor
from headshare_hf.data.input_adapter import InputAdapter
from headshare_hf.models import CosineHead
from headshare_hf.trainer import load_classifier, load_teacher
from headshare_hf.trainer.loading import load_with_new_head
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
    with pytest.raises(
        ValueError, match="lacks trained values for the classifier of ViTFor.*`new_head`.*`embeddings_on"
    ) as caught:
        load_teacher(str(tmp_path))
    assert "(missing keys: classifier.bias, classifier.weight); random ones cannot teach" in str(caught.value)


@pytest.fixture
def console():
    """What transformers logs."""
    stream = io.StringIO()
    handler, logger = logging.StreamHandler(stream), logging.getLogger("transformers")
    logger.addHandler(handler)
    yield stream
    logger.removeHandler(handler)


LOADERS = {
    "load_classifier": load_classifier,
    "load_with_new_head": partial(load_with_new_head, label_names=["ant", "bee"]),
    "embeddings_only": partial(load_teacher, embeddings_only=True),
}
every_loader = pytest.mark.parametrize("load", LOADERS.values(), ids=LOADERS)


def _weights_beside(config, model, folder):
    """A folder with the configuration of one network and the weights of another one."""
    model.save_pretrained(folder)
    config.save_pretrained(folder)
    HeadShareImageProcessor().save_pretrained(folder)
    return str(folder)


def _refusal(load, folder):
    with pytest.raises(ValueError) as caught:
        load(folder)
    assert len(str(caught.value)) < 1500 and "new_head" not in str(caught.value)
    return str(caught.value)


@every_loader
def test_weights_of_another_architecture_are_recognized_and_not_listed(load, tmp_path, console):
    told = _refusal(load, _weights_beside(vit().config, resnet(), tmp_path))
    assert (
        f"{tmp_path} does not fit ViTForImageClassification (its tensors are those of resnet8); missing keys: vit.emb"
        in told
    )
    assert "vit.layernorm.bias and 17 more; unexpected keys: headshare.backbone.bn1.bias, " in told
    assert told.endswith(". Load it with the class and configuration that it was saved from.")
    assert not console.getvalue()


@every_loader
def test_weights_of_a_third_package_are_told_by_their_prefix(load, tmp_path, console):
    config = SwinConfig(
        image_size=16, patch_size=4, embed_dim=8, depths=[1], num_heads=[2], window_size=2, num_labels=5
    )
    told = _refusal(load, _weights_beside(config, vit(), tmp_path))
    assert (
        "does not fit SwinForImageClassification (22 of its 24 tensors are under `vit.`); missing keys: swin." in told
    )
    assert told.endswith(". Load it with the class and configuration that it was saved from.")
    assert not console.getvalue()


def test_weights_in_the_layout_of_a_source_are_converted(tmp_path):
    source = torch.nn.ModuleDict({"module": resnet("resnet14").headshare.backbone})
    vit().config.save_pretrained(tmp_path)
    save_file(source.state_dict(), tmp_path / "model.safetensors", metadata={"format": "pt"})
    told = _refusal(load_classifier, str(tmp_path))
    assert " (its tensors look like resnet14 in the layout of the authors' code); missing keys: " in told
    assert told.endswith(". Convert it with `python -m headshare_hf.hub.convert`.")


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.", "module._orig_mod."])
def test_what_a_wrapper_adds_to_the_names_is_named(wrapper, tmp_path):
    wrapped = {f"{wrapper}{name}": tensor for name, tensor in vit().state_dict().items()}
    vit().config.save_pretrained(tmp_path)
    save_file(wrapped, tmp_path / "model.safetensors", metadata={"format": "pt"})
    told = _refusal(load_classifier, str(tmp_path))
    assert f" (24 of its 24 tensors are under `{wrapper.split('.')[0]}.`); missing keys: " in told
    assert told.endswith(f". Save the model that is wrapped, `model.{wrapper}save_pretrained(...)`.")


def test_what_is_good_enough_is_still_reported(tmp_path, console):
    state = {**vit().state_dict(), "stranger": torch.zeros(1)}
    vit().save_pretrained(tmp_path, state_dict=state)
    load_classifier(str(tmp_path))
    assert "LOAD REPORT" in console.getvalue() and "stranger" in console.getvalue()


def test_class_centers_of_a_teacher_are_no_missing_weights_to_warn_of(tmp_path, console):
    resnet(head_type="arcface").save_pretrained(tmp_path)
    load_classifier(str(tmp_path))
    assert not console.getvalue()


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
