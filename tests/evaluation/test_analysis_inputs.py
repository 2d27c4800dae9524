"""A teacher beside a student is shown the images as it wants them, or refused."""

import pytest
import torch
from counted_images import CountingImages, accuracy, forward
from toys import NUM_LABELS, resnet, vit

from headshare_hf import HeadShareImageProcessor
from headshare_hf.data.input_adapter import InputAdapter, input_statistics
from headshare_hf.evaluation import analyze_student, effective_dimension
from headshare_hf.evaluation.analysis import check_comparable


@pytest.fixture
def images():
    return CountingImages(30)


def processor(**fields):
    return HeadShareImageProcessor(size={"height": 16, "width": 16}, **fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"image_mean": [0.5, 0.5, 0.5]},
        {"image_std": [0.1, 0.2, 0.3], "rescale_factor": 1 / 127.5},
        {"channel_order": "bgr"},
        {"do_center_crop": True, "crop_size": {"height": 12, "width": 12}},
    ],
)
def test_a_teacher_gets_its_own_pixel_values_as_in_training(fields, images):
    mine, its = processor(), processor(**fields)
    teacher = resnet("resnet20", seed=1)
    found = analyze_student(resnet(), teacher, images, processor=mine, teacher_processor=its)
    seen = InputAdapter(input_statistics(mine), input_statistics(its))(images.images)
    with torch.no_grad():
        expected = teacher.eval()(seen)
    assert found["teacher_effective_dimension"] == pytest.approx(effective_dimension(expected.embeddings), rel=1e-4)
    assert found["teacher_accuracy"] == accuracy(expected.logits, images)
    assert found["accuracy"] == accuracy(forward(resnet(), images).logits, images)
    as_it_is = analyze_student(resnet(), teacher, images, teacher_processor=its)
    assert as_it_is["teacher_effective_dimension"] != pytest.approx(found["teacher_effective_dimension"], rel=1e-4)


def test_a_teacher_of_another_size_is_shown_that_size(images):
    teacher = vit(hidden_size=64, image_size=24)
    its = HeadShareImageProcessor(size={"height": 24, "width": 24})
    found = analyze_student(resnet(), teacher, images, processor=processor(), teacher_processor=its)
    assert 0 <= found["agreement"] <= 1


def test_what_cannot_be_compared_shows_without_the_student_being_run(images):
    student, teacher = resnet(), resnet(seed=1)
    check_comparable(student, teacher, images)
    assert images.seen == [0, 1]
    with pytest.raises(ValueError, match="7 classes and .* has 5"):
        check_comparable(student, resnet(num_labels=7), images)
    with pytest.raises(ValueError, match="reads 3 channels and the teacher 1"):
        gray = HeadShareImageProcessor(size={"height": 16, "width": 16}, image_mean=[0.5], image_std=[0.5])
        check_comparable(student, resnet(), images, processor(), gray)
    deep = vit()
    deep.classifier = torch.nn.Sequential(torch.nn.Linear(32, 32), torch.nn.Linear(32, NUM_LABELS))
    with pytest.raises(ValueError, match="has no classifier that can be shared"):
        check_comparable(resnet(image_size=16), deep, images)


@pytest.mark.parametrize(
    "teacher, options, message",
    [
        (lambda: resnet(image_size=[16, 24]), {}, r"`image_size` is \(32, 32\) for the student and \(16, 24\)"),
        (lambda: vit(), {}, r"`image_size` is \(32, 32\) for the student and \(16, 16\)"),
        (lambda: resnet(num_channels=1), {}, "`num_channels` is 3 for the student and 1"),
        (lambda: resnet(num_labels=7), {}, "7 classes and .* has 5"),
        (lambda: None, {"batch_size": 0}, "`batch_size` is 0; it must be at least 1"),
        (lambda: None, {"max_images": 0}, "`max_images` is 0; it must be at least 1"),
    ],
)
def test_what_cannot_be_compared_is_refused(teacher, options, message, images):
    with pytest.raises(ValueError, match=message):
        analyze_student(resnet(), teacher(), images, **options)
    assert not images.seen
