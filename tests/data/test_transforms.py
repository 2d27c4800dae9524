import numpy as np
import PIL.Image
import pytest
import torch
from torchvision.transforms import functional as TF

from headshare_hf.data.randomness import random_bits, random_integers
from headshare_hf.data.transforms import BATCH_AUGMENTATIONS, BatchAugmentation, Normalizer, crop_and_flip
from headshare_hf.models.image_processing_headshare import HeadShareImageProcessor


def _batch(count: int = 40, height: int = 32, width: int = 32, channels: int = 3) -> torch.Tensor:
    return torch.randint(0, 256, (count, channels, height, width), dtype=torch.uint8)


def _one_by_one(images, tops, lefts, flips, padding, fill, processor):
    """What torchvision makes of PIL images with the same offsets."""
    found = []
    for image, top, left, flip in zip(images, tops, lefts, flips, strict=True):
        image = PIL.Image.fromarray(image.permute(1, 2, 0).numpy())
        width, height = image.size
        image = TF.crop(TF.pad(image, padding, fill), top, left, height, width)
        image = TF.to_tensor(TF.hflip(image) if flip else image)
        found.append(TF.normalize(image, processor.image_mean, processor.image_std))
    return torch.stack(found)


@pytest.mark.parametrize("name", ["none", "flip", "crop", "crop_flip", "crop_white"])
@pytest.mark.parametrize("size", [(32, 32), (20, 33)])
def test_batch_equals_torchvision_image_by_image(name, size):
    images, rows = _batch(64, *size), np.arange(100, 164)
    padding, flip, fill = BATCH_AUGMENTATIONS[name]
    tops = random_integers(2 * padding + 1, 7, 3, rows, 0)
    lefts = random_integers(2 * padding + 1, 7, 3, rows, 1)
    flips = random_bits(7, 3, rows, 2) >= 2**63 if flip else np.zeros(64, dtype=bool)
    processor = HeadShareImageProcessor()
    expected = _one_by_one(images, tops.tolist(), lefts.tolist(), flips.tolist(), padding, fill, processor)
    found = Normalizer(processor)(BatchAugmentation(BATCH_AUGMENTATIONS[name], seed=7)(images, rows, epoch=3))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_every_offset_and_both_directions_occur():
    images = _batch(1, 8, 8).expand(4000, -1, -1, -1)
    found = BatchAugmentation(BATCH_AUGMENTATIONS["crop_flip"], seed=0)(images, np.arange(4000), epoch=0)
    assert len({image.numpy().tobytes() for image in found}) == 9 * 9 * 2


def test_crop_never_mirrors():
    ramp = torch.arange(1, 33, dtype=torch.uint8).expand(200, 1, 32, 32)
    found = BatchAugmentation(BATCH_AUGMENTATIONS["crop"], seed=0)(ramp, np.arange(200), epoch=0)
    middle = found[:, :, 8:24, 8:24].int()
    assert (middle.diff(dim=3) == 1).all()


def test_input_stays_as_it_was():
    images = _batch(4)
    before = images.clone()
    crop_and_flip(images, [-4, 4, 0, 1], [4, -4, 0, 1], [True, False, True, False])
    assert torch.equal(images, before)


def test_shift_beyond_the_image_leaves_zeros():
    assert not crop_and_flip(_batch(2, 4, 4), [4, -4], [0, 0], [False, True]).any()


@pytest.mark.parametrize(
    "options", [{}, {"do_normalize": False}, {"do_rescale": False}, {"rescale_factor": 1 / 127.5}]
)
def test_normalizer_follows_the_processor(options):
    processor = HeadShareImageProcessor(do_resize=False, **options)
    images = _batch(8)
    expected = processor(list(images), return_tensors="pt")["pixel_values"].float()
    torch.testing.assert_close(Normalizer(processor)(images), expected, rtol=1e-6, atol=1e-6)


def test_normalizer_with_one_channel():
    processor = HeadShareImageProcessor(image_mean=[0.92], image_std=[0.22])
    images = _batch(2, channels=1)
    torch.testing.assert_close(Normalizer(processor)(images), (images / 255 - 0.92) / 0.22, rtol=0, atol=2e-6)
