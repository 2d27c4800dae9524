"""The views that a data set says it shows are those that it shows."""

import pytest
import torch
from torch.utils.data import DataLoader

from headshare_hf.data import ImageClassificationDataset, collate
from headshare_hf.models.image_processing_headshare import HeadShareImageProcessor


PROCESSOR = HeadShareImageProcessor(size={"height": 24, "width": 20})


def _train(split, augmentation, **options) -> ImageClassificationDataset:
    return ImageClassificationDataset(
        split, PROCESSOR, training=True, augmentation=augmentation, with_index=True, with_view=True, **options
    )


@pytest.mark.parametrize(
    "augmentation, repeated, count",
    [
        ("none", None, 1),
        ("flip", None, 2),
        ("crop_flip", 3, 3),
        ("crop_white", 2, 2),
        ("torchvision/trivialaugment", 2, 2),
        ("timm/rand-m9-mstd0.5", 2, 2),
    ],
)
@pytest.mark.parametrize("workers", [0, 2])
def test_every_batch_is_one_of_the_views(augmentation, repeated, count, workers, make_split):
    dataset = _train(make_split(12), augmentation, seed=5, augmentation_views=repeated)
    every = dataset.every_view()
    views = every.__getitems__(range(12))["pixel_values"]
    assert dataset.num_views == count and len(every) == 12 and views.shape == (12, count, 3, 24, 20)
    seen = set()
    loader = DataLoader(dataset, batch_size=5, shuffle=True, num_workers=workers, collate_fn=collate)
    for epoch in range(5):
        dataset.set_epoch(epoch)
        for batch in loader:
            assert torch.equal(batch["pixel_values"], views[batch["index"], batch["view"]])
            seen |= set(batch["view"].tolist())
    assert seen == set(range(count))


def test_views_of_an_image_differ_and_are_independent_of_the_batch(make_split):
    dataset = _train(make_split(12), "crop_flip", augmentation_views=3)
    every = dataset.every_view()
    views = every.__getitems__(range(12))["pixel_values"]
    assert not torch.equal(views[:, 0], views[:, 1]) and not torch.equal(views[:, 1], views[:, 2])
    assert torch.equal(every.__getitems__([7, 2])["pixel_values"], views[[7, 2]])
    assert torch.equal(every[7]["pixel_values"], views[7])


def test_augmentations_come_again_after_that_many_epochs(make_split):
    split = make_split(12)
    dataset, endless = _train(split, "crop_flip", augmentation_views=3), _train(split, "crop_flip")
    for epoch in range(7):
        dataset.set_epoch(epoch), endless.set_epoch(epoch % 3)
        batch = dataset.__getitems__(range(12))
        assert torch.equal(batch["pixel_values"], endless.__getitems__(range(12))["pixel_values"])
        assert batch["view"].tolist() == [epoch % 3] * 12


def test_without_a_number_of_views_every_epoch_has_its_own(make_split):
    dataset = _train(make_split(12), "crop")
    assert dataset.num_views is None
    dataset.set_epoch(9)
    assert dataset.__getitems__([1, 2])["view"].tolist() == [9, 9]
    with pytest.raises(ValueError, match="'crop' makes another image in every epoch; set `augmentation_views`"):
        dataset.every_view()


@pytest.mark.parametrize("repeated, message", [(0, "`augmentation_views` is 0; it must be at least 1"), (-2, "is -2")])
def test_a_number_of_views_that_is_none_is_refused(repeated, message, make_split):
    with pytest.raises(ValueError, match=message):
        _train(make_split(12), "crop", augmentation_views=repeated)


@pytest.mark.parametrize("augmentation, count", [("flip", 2), ("none", 1)])
def test_repeating_what_repeats_anyway_is_refused(augmentation, count, make_split):
    with pytest.raises(
        ValueError, match=f"no use with augmentation '{augmentation}', .* more than {count} of an image"
    ):
        _train(make_split(12), augmentation, augmentation_views=4)


def test_settings_of_the_views_are_those_that_change_them(make_split):
    split = make_split(12)
    flips = [_train(split, "flip", seed=seed) for seed in (1, 2)]
    crops = [_train(split, "crop", seed=seed, augmentation_views=2) for seed in (1, 2)]
    assert flips[0].view_settings == flips[1].view_settings != crops[0].view_settings
    assert crops[0].view_settings != crops[1].view_settings
    assert crops[0].preparation["augmentation_views"] == "2" and "augmentation_views" not in flips[0].preparation
    assert flips[0].preparation != flips[1].preparation


def test_fingerprints_are_of_the_images(make_split, png, pixels):
    split, same = make_split(12), make_split(12)
    other = make_split(12, image=[{"bytes": png(pixels(n + 50)), "path": None} for n in range(12)])
    fingerprints = [_train(part, "flip").fingerprint for part in (split, same, other, split.select(range(6)))]
    assert fingerprints[0] == fingerprints[1] and len(set(fingerprints)) == 3
