import random

import numpy as np
import PIL.Image
import pytest
import torch
from torchvision.transforms import InterpolationMode, v2

from headshare_hf.data.randomness import random_bits, seeded_generators
from headshare_hf.data.recipes import TORCHVISION_POLICIES, RecipeAugmentation, augmentation_names
from headshare_hf.models.image_processing_headshare import HeadShareImageProcessor


NAMES = ["random_resized_crop", *TORCHVISION_POLICIES, "timm/rand-m9-mstd0.5", "timm/augmix-m3-w2", "timm/v0"]


@pytest.fixture
def images(pixels):
    return [PIL.Image.fromarray(pixels(number, 20 + number, 30)) for number in range(6)]


@pytest.mark.parametrize("name", NAMES)
def test_recipe_depends_on_seed_epoch_and_index_alone(name, images):
    recipe = RecipeAugmentation(name, (16, 18), HeadShareImageProcessor(), seed=1)
    rows = np.arange(6)
    first = [np.asarray(image) for image in recipe(images, rows, epoch=0)]
    assert {image.shape for image in first} == {(16, 18, 3)}
    random.seed(9), np.random.seed(9), torch.manual_seed(9)
    backwards = recipe(images[::-1], rows[::-1], epoch=0)[::-1]
    assert all(np.array_equal(one, other) for one, other in zip(first, backwards, strict=True))
    later = recipe(images, rows, epoch=1)
    other_seed = RecipeAugmentation(name, (16, 18), HeadShareImageProcessor(), seed=2)(images, rows, epoch=0)
    assert not all(np.array_equal(one, other) for one, other in zip(first, later, strict=True))
    assert not all(np.array_equal(one, other) for one, other in zip(first, other_seed, strict=True))


def test_torchvision_recipe_is_crop_flip_and_policy(images):
    processor = HeadShareImageProcessor(resample=PIL.Image.Resampling.BICUBIC)
    found = RecipeAugmentation("torchvision/trivialaugment", (16, 16), processor, seed=4)(images, np.arange(6), 2)
    crop = v2.RandomResizedCrop((16, 16), interpolation=InterpolationMode.BICUBIC)
    parts = v2.Compose([crop, v2.RandomHorizontalFlip(), v2.TrivialAugmentWide()])
    with seeded_generators() as seed_all:
        for image, result, bits in zip(images, found, random_bits(4, 2, np.arange(6), 3), strict=True):
            seed_all(int(bits))
            assert np.array_equal(np.asarray(parts(image)), np.asarray(result))


def test_global_generators_are_left_alone(images):
    recipe = RecipeAugmentation("timm/rand-m9-mstd0.5", (16, 16), HeadShareImageProcessor(), seed=1)
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = random.random(), np.random.rand(), torch.rand(1).item()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    recipe(images, np.arange(6), epoch=0)
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == expected


def test_timm_takes_gray_and_bgr_statistics(images):
    for processor in (
        HeadShareImageProcessor(image_mean=[0.5], image_std=[0.5]),
        HeadShareImageProcessor(channel_order="bgr"),
    ):
        found = RecipeAugmentation("timm/rand-m9", (16, 16), processor, seed=0)(images, np.arange(6), epoch=0)
        assert {image.size for image in found} == {(16, 16)}


def test_unknown_name_names_the_nearest():
    with pytest.raises(ValueError, match="unknown augmentation 'crop-flip'; did you mean crop_flip"):
        RecipeAugmentation("crop-flip", (16, 16), HeadShareImageProcessor(), seed=0)
    with pytest.raises(ValueError, match="all of them: none, flip, crop, crop_flip, crop_white, random_resized_crop"):
        RecipeAugmentation("xyzw", (16, 16), HeadShareImageProcessor(), seed=0)


def test_config_unknown_to_timm_is_named():
    with pytest.raises(ValueError, match="timm does not know the augmentation 'rnd-m9' of 'timm/rnd-m9'"):
        RecipeAugmentation("timm/rnd-m9", (16, 16), HeadShareImageProcessor(), seed=0)


def test_all_names_are_listed():
    assert set(augmentation_names()) >= {"none", "flip", "crop", "crop_flip", "torchvision/autoaugment"}
