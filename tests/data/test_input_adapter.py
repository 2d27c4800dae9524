"""From the images of a student to those of its teacher."""

import pytest
import torch
from toys import resnet
from transformers import EfficientNetImageProcessor, MobileViTImageProcessor

from headshare_hf import HeadShareImageProcessor
from headshare_hf.data.input_adapter import InputAdapter, InputStatistics, input_statistics


RGB = InputStatistics((0.5, 0.4, 0.3), (0.2, 0.25, 0.3), (16, 16))


def _normalised(images, statistics):
    images = images if statistics.channel_order == "rgb" else images.flip(1)
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (statistics.mean, statistics.std))
    return (images - mean) / std


@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_input_is_normalised_as_if_for_the_teacher(order):
    images = torch.rand(2, 3, 16, 16)
    other = InputStatistics((0.1, 0.6, 0.9), (0.5, 0.1, 0.7), (16, 16), order)
    adapted = InputAdapter(RGB, other)(_normalised(images, RGB))
    torch.testing.assert_close(adapted, _normalised(images, other), rtol=1e-5, atol=1e-5)


def test_the_same_statistics_leave_the_batch_untouched():
    batch = torch.randn(2, 3, 16, 16)
    assert InputAdapter(RGB, RGB)(batch) is batch
    assert InputAdapter(None, None)(batch) is batch


def test_a_processor_that_does_not_normalise_or_rescale_otherwise_is_understood():
    plain = HeadShareImageProcessor(do_normalize=False)
    assert input_statistics(plain)[:2] == ((0.0,) * 3, (1.0,) * 3)
    raw = HeadShareImageProcessor(do_rescale=False, image_mean=[127.5] * 3, image_std=[51.0] * 3)
    assert input_statistics(raw)[:2] == ((0.5,) * 3, (0.2,) * 3)


def test_statistics_of_the_teacher_alone_are_of_no_use():
    with pytest.raises(ValueError, match="pass the student's image processor as `processing_class`"):
        InputAdapter(None, RGB)


def test_a_teacher_of_another_size_gets_its_size():
    adapter = InputAdapter(RGB, RGB._replace(size=(24, 20)))
    assert adapter(torch.randn(2, 3, 16, 16)).shape == (2, 3, 24, 20)


def test_other_channels_are_refused():
    with pytest.raises(ValueError, match="student reads 3 channels and the teacher 1"):
        InputAdapter(RGB, InputStatistics((0.5,), (0.5,)))


def test_statistics_are_read_from_processors_and_timm_configurations():
    processor = HeadShareImageProcessor(
        size={"height": 20, "width": 24}, image_mean=[0.1, 0.2, 0.3], channel_order="bgr"
    )
    found = input_statistics(processor)
    assert found.mean == (0.1, 0.2, 0.3) and found.size == (20, 24) and found.channel_order == "bgr"
    assert input_statistics(None, resnet()) is None
    timm_like = resnet()
    timm_like.config.pretrained_cfg = {"mean": [0.5] * 3, "std": [0.25] * 3, "input_size": [3, 64, 48]}
    assert input_statistics(None, timm_like) == InputStatistics((0.5,) * 3, (0.25,) * 3, (64, 48))


SIXTEEN = {"height": 16, "width": 16}


@pytest.mark.parametrize("order", ["rgb", "bgr"])
@pytest.mark.parametrize(
    "teacher",
    [
        MobileViTImageProcessor(size=SIXTEEN, crop_size=SIXTEEN),
        MobileViTImageProcessor(size=SIXTEEN, crop_size=SIXTEEN, do_flip_channel_order=False),
        EfficientNetImageProcessor(size=SIXTEEN, image_mean=[0.1, 0.2, 0.3], image_std=[0.2, 0.25, 0.5]),
        EfficientNetImageProcessor(size=SIXTEEN, include_top=False),
        EfficientNetImageProcessor(size=SIXTEEN, include_top=False, rescale_offset=True, rescale_factor=1 / 127.5),
        EfficientNetImageProcessor(size=SIXTEEN, rescale_offset=True, rescale_factor=1 / 127.5),
        EfficientNetImageProcessor(size=SIXTEEN, rescale_offset=True, do_normalize=False),
    ],
    ids=["mobilevit", "mobilevit-rgb", "top", "plain", "offset", "top-offset", "not-normalised"],
)
def test_a_batch_becomes_what_the_processor_of_the_teacher_gives(teacher, order):
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    student = HeadShareImageProcessor(size=SIXTEEN, image_mean=[0.5, 0.4, 0.3], channel_order=order)
    adapter = InputAdapter(input_statistics(student), input_statistics(teacher))
    adapted = adapter(student(list(images), return_tensors="pt")["pixel_values"])
    expected = teacher(images, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(adapted, expected, rtol=0, atol=1e-5)


def test_a_teacher_whose_processor_does_not_resize_gets_images_as_they_are():
    teacher = EfficientNetImageProcessor(do_resize=False, size={"height": 346, "width": 346})
    assert input_statistics(teacher).size is None
    assert InputAdapter(RGB, input_statistics(teacher))(torch.randn(2, 3, 16, 16)).shape == (2, 3, 16, 16)
    teacher = EfficientNetImageProcessor(do_resize=False, do_center_crop=True, crop_size={"height": 20, "width": 24})
    assert input_statistics(teacher).size == (20, 24)
