"""Teachers whose classifier is not read: of other classes, of none, or without any."""

import pytest
import torch
from companion_runs import make, networks
from torch.nn import functional as F
from toys import ToyImages, arguments, assert_same, losses, resnet, snapshot, vit

from headshare_hf import (
    DistillationTrainer,
    HeadShareConfig,
    HeadShareForImageClassification,
    HeadShareImageProcessor,
    HeadShareModel,
)
from headshare_hf.data import ImageClassificationDataset
from headshare_hf.hub import CardDataset
from headshare_hf.trainer import describe_run, load_teacher
from headshare_hf.trainer.embedder import without_classes
from headshare_hf.trainer.recipe import build_teacher
from headshare_hf.trainer.recipe_sections import ModelArguments
from headshare_hf.trainer.runs import attach_head_similarity


def _backbone(**fields):
    torch.manual_seed(3)
    return HeadShareModel(HeadShareConfig(backbone="resnet20", **fields)).eval()


def _trainer(folder, teacher, **fields):
    return DistillationTrainer(
        resnet(seed=1), arguments(folder, **fields), teacher=teacher, train_dataset=ToyImages(32)
    )


@pytest.mark.parametrize("fields", [{"method": "embedding"}, {"method": "rkd"}, {"method": "similarity"}])
def test_a_backbone_without_a_classifier_teaches_its_embedding(fields, tmp_path):
    teacher = _backbone()
    before = snapshot(teacher)
    trainer = _trainer(tmp_path / "backbone", teacher, **fields)
    trainer.train()
    assert_same(before, snapshot(teacher))
    # As the same backbone under a classifier, whatever its classes are.
    classifier = resnet("resnet20", num_labels=9)
    classifier.headshare.load_state_dict(before)
    other = _trainer(tmp_path / "classifier", classifier, **fields)
    other.train()
    assert losses(other) == losses(trainer)


@pytest.mark.parametrize(
    "fields", [{"method": "kd"}, {"method": "th_kd"}, {"method": "srrl"}, {"method": "embedding", "student_head": "teacher_init"}]
)  # fmt: skip
def test_what_reads_the_classes_of_a_teacher_needs_them(fields, tmp_path):
    with pytest.raises(ValueError, match="the teacher has no classifier, and method .* reads one"):
        _trainer(tmp_path, _backbone(), **fields)
    with pytest.raises(ValueError, match="9 classes and .* has 5"):
        _trainer(tmp_path, resnet("resnet20", num_labels=9), **fields)


def test_its_card_counts_the_backbone_alone(tmp_path):
    teacher = _backbone()
    processor = HeadShareImageProcessor(size={"height": 16, "width": 16})
    trainer = DistillationTrainer(
        resnet(),
        arguments(tmp_path, method="rkd"),
        teacher=teacher,
        train_dataset=ToyImages(),
        processing_class=processor,
    )
    dataset = CardDataset("Colors", "local/colors", "MIT", {"train": 48, "test": 16})
    card = describe_run(trainer, dataset, {"eval_accuracy": 0.5, "train_seconds": 1.0})
    assert card.teacher.num_parameters == teacher.num_parameters()


def test_a_transformers_network_of_other_classes_teaches_its_embedding(tmp_path):
    trainer = _trainer(tmp_path, vit(num_labels=9, hidden_size=64), method="embedding", max_steps=1)
    trainer.train()
    assert len(losses(trainer)) == 1


def test_a_backbone_is_loaded_without_its_classifier(tmp_path):
    ours, theirs = _backbone(), vit(9)
    for name, model in (("ours", ours), ("theirs", theirs.base_model)):
        model.save_pretrained(tmp_path / name)
        HeadShareImageProcessor().save_pretrained(tmp_path / name)
        with pytest.raises(ValueError, match="lacks trained values|missing keys: classifier.bias"):
            load_teacher(str(tmp_path / name))
        section = ModelArguments(name_or_path=str(tmp_path / name), embeddings_only=True)
        loaded, processor = build_teacher(section, ["a", "b"])
        assert not loaded.has_classes and processor.size["height"] == 32
        assert not any(parameter.any() for parameter in loaded.classifier.parameters())
        assert_same(snapshot(loaded.base_model), snapshot(model))


def test_a_damaged_backbone_is_refused(tmp_path):
    model = vit(9)
    state = {name: value for name, value in model.state_dict().items() if "layernorm_before" not in name}
    model.save_pretrained(tmp_path, state_dict=state)
    HeadShareImageProcessor().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"missing keys: vit[^:]*layernorm_before.weight\. Load it with"):
        load_teacher(str(tmp_path), embeddings_only=True)


def test_its_embeddings_are_cached(tmp_path):
    import datasets
    import numpy as np
    from PIL import Image

    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 16, 3), dtype=np.uint8)
    features = datasets.Features(image=datasets.Image(decode=False), label=datasets.ClassLabel(names=list("abcde")))
    columns = {"image": [Image.fromarray(image) for image in noise], "label": np.arange(16) % 5}
    processor = HeadShareImageProcessor(size={"height": 16, "width": 16})
    images = ImageClassificationDataset(
        datasets.Dataset.from_dict(columns, features=features, split="train"), processor, training=True
    )
    found = []
    for cache in (None, str(tmp_path / "cache")):
        args = arguments(tmp_path / f"run{cache is None}", method="embedding", teacher_cache=cache)
        trainer = DistillationTrainer(
            resnet(seed=1), args, teacher=_backbone(), train_dataset=images, processing_class=processor
        )
        trainer.train()
        found.append(losses(trainer))
    assert found[0] == pytest.approx(found[1], rel=1e-5)


@pytest.mark.parametrize("head_type", ["arcface", "combined", "cosine"])
def test_a_face_network_without_its_centers_teaches(head_type, tmp_path):
    margin = [1.0, 0.3, 0.1] if head_type == "combined" else None
    resnet("resnet20", head_type=head_type, head_margin=margin).save_pretrained(tmp_path / "face")
    (tmp_path / "face" / "class_centers.safetensors").unlink()
    HeadShareImageProcessor().save_pretrained(tmp_path / "face")
    teacher, _ = load_teacher(str(tmp_path / "face"), embeddings_only=True)
    trainer = _trainer(tmp_path / "run", teacher, method="rkd", max_steps=1)
    trainer.train()
    assert losses(trainer)[0] > 0


def test_heads_are_not_compared_where_the_teacher_has_none(tmp_path):
    teacher = vit(num_labels=5, hidden_size=64)
    without_classes(teacher)
    trainer = _trainer(tmp_path, teacher, method="embedding")
    attach_head_similarity(trainer, teacher)
    trainer.train()
    assert not any("head_cosine_mean" in row for row in trainer.state.log_history)


@pytest.mark.parametrize("num_labels", [5, 9, None])
def test_adadistill_publishes_its_centers_whatever_the_classes_of_the_teacher(num_labels, tmp_path):
    teacher = resnet("resnet14", num_labels=num_labels or 5, seed=2)
    student = resnet(seed=1, head_type="cosface", head_scale=16.0)
    trainer = make(tmp_path, "adadistill", (student, teacher if num_labels else teacher.headshare))
    trainer.train()
    centers, images = trainer.auxiliaries["companion"].head.weight, ToyImages(32).images
    # Of both batches: the first that a class has is taken as it is.
    assert centers.norm(dim=1).min() > 0.5 and trainer.student.classifier.weight is centers
    trainer.save_model()
    published = HeadShareForImageClassification.from_pretrained(tmp_path).eval()
    expected = 16 * F.normalize(published(images).embeddings) @ F.normalize(centers).t()
    torch.testing.assert_close(published(images).logits, expected, rtol=1e-4, atol=1e-4)


def test_adadistill_leaves_a_head_alone_that_has_another_source(tmp_path):
    (student, teacher), (other, _) = networks("adadistill"), networks("adadistill")
    frozen = make(tmp_path / "frozen", "adadistill", (student, teacher), student_head="teacher_frozen")
    trained = make(tmp_path / "trained", "kd", (other, teacher), companion="adadistill")
    for trainer in (frozen, trained):
        trainer.train()
        assert not torch.equal(trainer.student.classifier.weight, trainer.auxiliaries["companion"].head.weight)
    assert_same(snapshot(student.classifier), snapshot(teacher.classifier))
    assert other.classifier.weight.requires_grad
