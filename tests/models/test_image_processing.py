import json

import numpy as np
import PIL.Image
import pytest
import torch
from torchvision.transforms import functional as TF
from torchvision.transforms import v2
from transformers import AutoImageProcessor

from headshare_hf import HeadShareConfig
from headshare_hf.models.image_processing_headshare import HeadShareImageProcessor


def _image(height: int = 32, width: int = 32, mode: str = "RGB") -> PIL.Image.Image:
    pixels = np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return PIL.Image.fromarray(pixels).convert(mode)


def _pixel_values(processor: HeadShareImageProcessor, image, **options) -> torch.Tensor:
    return processor(image, return_tensors="pt", **options)["pixel_values"][0]


def test_defaults_are_those_of_cifar100():
    image = _image()
    expected = TF.normalize(TF.to_tensor(image), (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761))
    torch.testing.assert_close(_pixel_values(HeadShareImageProcessor(), image), expected, rtol=0, atol=1e-6)


def test_images_of_any_size_are_resized_and_cropped():
    image = _image(40, 60)
    found = _pixel_values(HeadShareImageProcessor(size={"height": 20, "width": 24}, do_normalize=False), image)
    expected = v2.functional.resize(v2.functional.pil_to_tensor(image), [20, 24]).float() / 255
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    cropped = HeadShareImageProcessor(do_resize=False, do_center_crop=True, crop_size={"height": 10, "width": 12})
    expected = _pixel_values(HeadShareImageProcessor(do_resize=False), image)[:, 15:25, 24:36]
    torch.testing.assert_close(_pixel_values(cropped, image), expected, rtol=0, atol=1e-6)


def test_batch_of_different_sizes():
    images = [_image(40, 60), _image(32, 32), _image(3, 50)]
    processor = HeadShareImageProcessor()
    batch = processor(images, return_tensors="pt")["pixel_values"]
    assert batch.shape == (3, 3, 32, 32)
    for image, found in zip(images, batch, strict=True):
        torch.testing.assert_close(found, _pixel_values(processor, image))


def test_bgr_reverses_channels_and_statistics_follow_that_order():
    mean, std = [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]
    image = _image()
    found = _pixel_values(HeadShareImageProcessor(channel_order="bgr", image_mean=mean, image_std=std), image)
    expected = TF.normalize(TF.to_tensor(image).flip(0), mean, std)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    per_call = _pixel_values(HeadShareImageProcessor(image_mean=mean, image_std=std), image, channel_order="bgr")
    assert torch.equal(per_call, found)


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "YCbCr", "RGB"])
def test_every_mode_becomes_rgb_or_gray(mode):
    image = _image(mode=mode)
    rgb = _pixel_values(HeadShareImageProcessor(do_normalize=False), image)
    torch.testing.assert_close(rgb, TF.to_tensor(image.convert("RGB")), rtol=0, atol=1e-6)
    gray = _pixel_values(HeadShareImageProcessor(image_mean=[0.5], image_std=[0.25]), image)
    torch.testing.assert_close(gray, (TF.to_tensor(image.convert("L")) - 0.5) / 0.25, rtol=0, atol=1e-6)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_laid_over_white(mode):
    image = PIL.Image.new("RGBA", (4, 4), (255, 0, 0, 255))
    image.putpixel((1, 2), (0, 0, 0, 0))
    if mode == "P":
        image = PIL.Image.new("P", (4, 4), 1)
        image.putpixel((1, 2), 0)
        image.putpalette([0, 0, 0, 255, 0, 0])
        image.info["transparency"] = 0
    found = _pixel_values(HeadShareImageProcessor(do_resize=False, do_normalize=False), image.convert(mode))
    assert found[:, 2, 1].tolist() == [1, 1, 1]
    assert found[:, 0, 0].min() < 1


def test_arrays_and_tensors():
    processor, image = HeadShareImageProcessor(), _image()
    expected = _pixel_values(processor, image)
    array = np.array(image)
    assert torch.equal(_pixel_values(processor, array), expected)
    assert torch.equal(_pixel_values(processor, torch.from_numpy(array).permute(2, 0, 1)), expected)
    gray = np.array(image.convert("L"))[:, :, None]
    assert torch.equal(_pixel_values(processor, gray), _pixel_values(processor, image.convert("L")))


def test_image_three_pixels_high():
    image = _image(3, 50)
    found = _pixel_values(HeadShareImageProcessor(do_resize=False, do_normalize=False), image)
    torch.testing.assert_close(found, TF.to_tensor(image), rtol=0, atol=1e-6)


def test_save_and_load(tmp_path):
    processor = HeadShareImageProcessor(
        size={"height": 20, "width": 24}, channel_order="bgr", image_mean=[0.1, 0.2, 0.3], do_center_crop=True
    )
    processor.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "preprocessor_config.json").read_text())["channel_order"] == "bgr"
    image = _image(40, 40)
    HeadShareConfig().save_pretrained(tmp_path)
    for loaded in (HeadShareImageProcessor.from_pretrained(tmp_path), AutoImageProcessor.from_pretrained(tmp_path)):
        assert isinstance(loaded, HeadShareImageProcessor)
        assert loaded.to_dict() == processor.to_dict()
        assert torch.equal(_pixel_values(loaded, image), _pixel_values(processor, image))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channel_order": "rbg"}, "`channel_order` is 'rbg'; allowed with 3 channels: rgb, bgr"),
        (
            {"channel_order": "bgr", "image_mean": [0.5], "image_std": [0.5]},
            "`channel_order` is 'bgr'; allowed with 1 channels: rgb",
        ),
        ({"image_mean": [0.5]}, "`image_mean` has 1 values and `image_std` 3"),
        ({"image_mean": [0.5, 0.5]}, r"`image_mean` is \(0.5, 0.5\); give a list of three values, or of one"),
        ({"image_std": 0.5}, "`image_std` is 0.5; give a list of three values"),
        ({"image_std": [0.5, 0.0, 0.5]}, "every value must be positive"),
    ],
)
def test_wrong_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        HeadShareImageProcessor(**options)
    if "image_mean" not in options:
        with pytest.raises(ValueError, match=message):
            HeadShareImageProcessor()(_image(), **options)


def test_images_that_cannot_be_brought_to_the_channels():
    with pytest.raises(ValueError, match="the array has 3 channels and the image processor 1; pass a PIL image"):
        HeadShareImageProcessor(image_mean=[0.5], image_std=[0.5])(np.array(_image()))
    deep = PIL.Image.fromarray(np.zeros((8, 8), dtype=np.uint16))
    with pytest.raises(ValueError, match="the image has mode I;16, more than 8 bits per channel"):
        HeadShareImageProcessor()(deep)
