"""The numbers of a student beside its teacher: each against the function or the forward pass that it is of."""

import json

import pytest
import torch
from counted_images import CountingImages, accuracy, forward
from torch.nn import functional as F
from toys import NUM_LABELS, ToyImages, resnet, snapshot, vit

from headshare_hf import HeadShareImageProcessor, share_head
from headshare_hf.data import ImageClassificationDataset
from headshare_hf.evaluation import (
    analyze_student,
    calibration,
    class_alignment,
    effective_dimension,
    head_similarity,
    linear_cka,
)


OWN = {
    "num_images",
    "accuracy",
    "mean_per_class_accuracy",
    "nll",
    "expected_calibration_error",
    "calibration",
    "alignment",
    "effective_dimension",
}
HEADS = {"head_similarity", "head_similarity_min", "head_bias_distance"}
CROSSED = {"teacher_head_accuracy", "student_head_on_teacher", "teacher_alignment", "mixed_accuracy"}
ALWAYS = {"agreement", "cka", "cka_debiased", "teacher_accuracy", "teacher_effective_dimension", "mixed_alpha_th"}
SHARED = {*ALWAYS, *HEADS, *CROSSED}


@pytest.fixture
def images():
    return CountingImages(30)


def test_own_numbers_are_those_of_the_forward_pass(images):
    student = resnet()
    found = analyze_student(student, None, images, batch_size=7)
    output = forward(student, images)
    sure = calibration(output.logits.double().softmax(1), images.labels)
    assert found.keys() == OWN and images.seen == list(range(30))
    assert found["num_images"] == 30
    assert found["accuracy"] == found["mean_per_class_accuracy"] == accuracy(output.logits, images)
    expected = {
        "nll": F.cross_entropy(output.logits.double(), images.labels).item(),
        "expected_calibration_error": sure.expected_calibration_error,
        "alignment": class_alignment(output.embeddings, images.labels, student.classifier.weight),
        "effective_dimension": effective_dimension(output.embeddings),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-4)
    assert found["calibration"]["counts"] == list(sure.counts)
    confidence = [None if value is None else pytest.approx(value, rel=1e-4) for value in sure.confidence]
    assert found["calibration"]["confidence"] == confidence and None in confidence


def test_numbers_with_a_teacher(images):
    student, teacher = resnet(), resnet("resnet20", seed=1)
    found = analyze_student(student, teacher, images, batch_size=7)
    assert found.keys() == OWN | SHARED
    assert {name: found[name] for name in OWN} == analyze_student(student, None, images, batch_size=7)
    own, other = forward(student, images), forward(teacher, images)
    with torch.no_grad():
        crossed, back = teacher.classifier(own.embeddings), student.classifier(other.embeddings)
    heads = (student.classifier, teacher.classifier)
    similarity = head_similarity(*(head.weight for head in heads), *(head.bias for head in heads))
    expected = {
        "agreement": (own.logits.argmax(1) == other.logits.argmax(1)).double().mean().item(),
        "teacher_accuracy": accuracy(other.logits, images),
        "teacher_head_accuracy": accuracy(crossed, images),
        "mixed_accuracy": accuracy(0.5 * own.logits.softmax(1) + 0.5 * crossed.softmax(1), images),
        "mixed_alpha_th": 0.5,
        "student_head_on_teacher": accuracy(back, images),
        "cka": linear_cka(own.embeddings, other.embeddings),
        "cka_debiased": linear_cka(own.embeddings, other.embeddings, debiased=True),
        "teacher_alignment": class_alignment(own.embeddings, images.labels, teacher.classifier.weight),
        "teacher_effective_dimension": effective_dimension(other.embeddings),
        "head_similarity": similarity["cosine_mean"],
        "head_similarity_min": similarity["cosine_min"],
        "head_bias_distance": similarity["bias_distance"],
    }
    assert {name: found[name] for name in SHARED} == pytest.approx(expected, rel=1e-4)
    assert len({found[name] for name in ("accuracy", "teacher_head_accuracy", "student_head_on_teacher")}) > 1


def test_the_share_of_the_teachers_head_in_the_mixture(images):
    student, teacher = resnet(), resnet("resnet20", seed=1)
    with torch.no_grad():
        # Sure of what it says, so that the mixture is neither head alone.
        teacher.classifier.weight *= 3
    found = [analyze_student(student, teacher, images, alpha_th=share) for share in (0.0, 0.3, 1.0)]
    own = forward(student, images)
    crossed = teacher.classifier(own.embeddings).detach()
    mixture = 0.7 * own.logits.softmax(1) + 0.3 * crossed.softmax(1)
    assert [row["mixed_alpha_th"] for row in found] == [0.0, 0.3, 1.0]
    assert found[0]["mixed_accuracy"] == found[0]["accuracy"]
    assert found[1]["mixed_accuracy"] == accuracy(mixture, images)
    assert found[2]["mixed_accuracy"] == found[2]["teacher_head_accuracy"]
    with pytest.raises(ValueError, match=r"`alpha_th` is 1.5; it must be in \[0, 1\]"):
        analyze_student(student, teacher, images, alpha_th=1.5)


def test_a_student_that_is_its_teacher(images):
    found = analyze_student(resnet(), resnet(), images)
    assert found["agreement"] == 1 and found["cka"] == pytest.approx(1) and found["cka_debiased"] == pytest.approx(1)
    assert found["teacher_head_accuracy"] == found["student_head_on_teacher"] == found["accuracy"]
    assert found["teacher_alignment"] == found["alignment"]
    assert found["head_similarity_min"] == pytest.approx(1) and found["head_bias_distance"] == 0


def test_a_shared_head_is_the_same_head(images):
    student, teacher = resnet(), resnet("resnet20", seed=1)
    share_head(student, teacher)
    found = analyze_student(student, teacher, images)
    assert found["teacher_head_accuracy"] == found["accuracy"] and found["head_similarity"] == pytest.approx(1)
    assert found["cka"] < 0.999


def test_other_widths_leave_numbers_out(images):
    found = analyze_student(resnet(), resnet("resnet8x4", seed=1), images)
    assert found.keys() == OWN | SHARED
    assert {name for name, value in found.items() if value is None} == HEADS | CROSSED
    assert 0 < found["cka"] < 1


def test_a_network_that_has_collapsed_keeps_its_accuracy(images):
    """With constant embeddings, as dead units leave them: what was trained must not get lost, nor look better than it is."""
    student, teacher = resnet(seed=1), resnet(seed=2)
    for name, parameter in student.named_parameters():
        if not name.startswith("classifier"):
            torch.nn.init.zeros_(parameter)
    found = analyze_student(student, teacher, images)
    assert 0 <= found["accuracy"] <= 1 and found["teacher_effective_dimension"] > 1
    assert [found[name] for name in ("alignment", "effective_dimension", "cka", "cka_debiased")] == [None] * 4


def test_a_cosine_head_has_no_bias(images):
    student, teacher = resnet(head_type="cosine"), resnet(head_type="cosine", seed=1)
    found = analyze_student(student, teacher, images)
    assert found["head_bias_distance"] is None and found["head_similarity"] is not None


def test_a_transformers_teacher(images):
    teacher = vit(hidden_size=64)
    found = analyze_student(resnet(image_size=16), teacher, images, batch_size=8)
    with torch.no_grad():
        logits = teacher.eval()(images.images).logits
        features = teacher.vit(images.images).last_hidden_state[:, 0]
    assert found["teacher_effective_dimension"] == pytest.approx(effective_dimension(features), rel=1e-4)
    assert found["agreement"] == (logits.argmax(1) == forward(resnet(), images).logits.argmax(1)).double().mean()


def test_results_go_through_json(images):
    found = analyze_student(resnet(), resnet("resnet8x4"), images)
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_top5_where_there_are_six_classes():
    images = ToyImages(12, num_labels=6)
    found = analyze_student(resnet(num_labels=6), None, images)
    assert found["accuracy"] <= found["top5_accuracy"] <= 1


def test_nothing_is_changed(images):
    student, teacher = resnet().train(), resnet(seed=1).train()
    student.headshare.backbone.eval()
    modes = [[module.training for module in model.modules()] for model in (student, teacher)]
    weights = [snapshot(model) for model in (student, teacher)]
    state = torch.random.get_rng_state()
    analyze_student(student, teacher, images, max_images=9)
    for model, mode, weight in zip((student, teacher), modes, weights, strict=True):
        assert [module.training for module in model.modules()] == mode
        assert all(torch.equal(value, weight[name]) for name, value in model.state_dict().items())
    assert torch.is_grad_enabled() and torch.equal(torch.random.get_rng_state(), state)


def test_modes_come_back_after_an_error():
    student = resnet().train()
    with pytest.raises(ValueError, match="the data set gives pixel_values but no `labels`"):
        analyze_student(student, None, [{"pixel_values": torch.zeros(3, 16, 16)}])
    assert student.training


def test_some_images_are_drawn_from_all_of_them():
    seen = []
    for _ in range(2):
        images = CountingImages(200)
        found = analyze_student(resnet(), None, images, max_images=20, batch_size=6)
        assert found["num_images"] == len(images.seen) == len(set(images.seen)) == 20
        seen.append(images.seen)
    assert seen[0] == seen[1] == sorted(seen[0]) and seen[0][0] < 40 and seen[0][-1] > 160
    images = CountingImages(5)
    assert analyze_student(resnet(), None, images, max_images=20)["num_images"] == 5


def test_a_data_set_of_batches(tmp_path):
    from datasets import ClassLabel, Dataset, Features, Image
    from PIL import Image as Pictures

    labels = [index % NUM_LABELS for index in range(10)]
    pictures = [Pictures.effect_noise((16, 16), 20 * (label + 1)).convert("RGB") for label in labels]
    features = Features({"image": Image(), "label": ClassLabel(names=list("abcde"))})
    rows = Dataset.from_dict({"image": pictures, "label": labels}, features=features)
    processor = HeadShareImageProcessor(size={"height": 16, "width": 16})
    images = ImageClassificationDataset(rows, processor)
    student = resnet()
    found = analyze_student(student, None, images, batch_size=4)
    with torch.no_grad():
        batch = images.__getitems__(range(10))
        logits = student.eval()(batch["pixel_values"]).logits
    assert found["nll"] == pytest.approx(F.cross_entropy(logits, batch["labels"]).item(), rel=1e-4)


def test_no_image_and_no_number_are_refused(images):
    with pytest.raises(ValueError, match="the data set has no images"):
        analyze_student(resnet(), None, ToyImages(0))
    images.images[3] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        analyze_student(resnet(), None, images)
