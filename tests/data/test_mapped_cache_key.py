"""Data sets whose images are kept in files: equal to others, found again, and kept apart from what looks like them."""

import json
import multiprocessing

import pytest
import torch
from torch.utils.data import DataLoader

from headshare_hf.data import CorruptImageError, ImageClassificationDataset, collate, load_splits
from headshare_hf.data.mapped_cache_key import image_cache_key
from headshare_hf.models.image_processing_headshare import HeadShareImageProcessor
from headshare_hf.trainer.recipe import build_data
from headshare_hf.trainer.recipe_sections import DataArguments


class _Images:
    """Images whose fingerprint does not show what they are."""

    def __init__(self, split="train", fingerprint="a", changed=None) -> None:
        self.split, self.fingerprint, self._changed = split, fingerprint, changed

    def __len__(self) -> int:
        return 40

    def entries(self, rows) -> list[dict]:
        return [{"bytes": f"{row} {row == self._changed}".encode(), "path": None} for row in rows]


def test_what_a_key_depends_on():
    settings = {"resample": 2, "image_mean": [0.5]}
    key = image_cache_key(_Images(), settings)
    assert key == image_cache_key(_Images(), {**settings, "image_mean": [0.1]})
    assert key == json.loads(json.dumps(key))
    others = [_Images(split="test"), _Images(fingerprint="b"), _Images(changed=0), _Images(changed=39)]
    keys = [image_cache_key(images, settings) for images in others]
    keys.append(image_cache_key(_Images(), {**settings, "resample": 3}))
    assert all(other != key for other in keys)


def _dataset(split, folder, **options) -> ImageClassificationDataset:
    processor = options.pop("processor", HeadShareImageProcessor(size={"height": 24, "width": 20}))
    return ImageClassificationDataset(split, processor, image_cache=folder, **options)


def _pixels(dataset: ImageClassificationDataset) -> torch.Tensor:
    return dataset.__getitems__(range(len(dataset)))["pixel_values"]


@pytest.fixture
def blind(monkeypatch):
    """Function after which nothing can be decoded."""
    return lambda: monkeypatch.setattr("headshare_hf.data.pixels.decode_row", None)


@pytest.mark.parametrize("augmentation", ["none", "crop_flip"])
def test_images_are_those_without_a_cache(augmentation, make_split, tmp_path, blind):
    split, options = make_split(), {"augmentation": augmentation, "training": True, "seed": 3}
    expected = _pixels(_dataset(split, None, **options, cache_images=False))
    assert torch.equal(_pixels(_dataset(split, tmp_path, **options)), expected)
    blind()
    assert torch.equal(_pixels(_dataset(split, tmp_path, **options, cache_images=False)), expected)


def test_another_process_decodes_nothing(write_images, tmp_path, blind):
    """With a key that is made anew of the same folder."""
    folder = write_images(*(f"images/{name}/{number}.png" for name in "ab" for number in range(4))) / "images"
    cache = tmp_path / "cache"
    expected = _pixels(_dataset(load_splits(folder, ["train"])[0], cache))

    def child():
        blind()
        assert torch.equal(_pixels(_dataset(load_splits(folder, ["train"])[0], cache)), expected)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join()
    assert process.exitcode == 0


def test_workers_share_the_files(make_split, tmp_path, blind):
    dataset = _dataset(make_split(24), tmp_path)
    for _ in DataLoader(dataset, batch_size=6, num_workers=2, collate_fn=collate):
        pass
    blind()
    assert torch.equal(_pixels(dataset), _pixels(_dataset(make_split(24), tmp_path)))


def test_a_corrupt_image_is_named(make_split, png, pixels, tmp_path):
    images = [{"bytes": png(pixels(number)), "path": f"{number}.png"} for number in range(6)]
    images[4]["bytes"] = images[4]["bytes"][:100]
    with pytest.raises(CorruptImageError, match="row 4 of split 'train'"):
        _pixels(_dataset(make_split(6, image=images), tmp_path))


def _folders(tmp_path) -> int:
    return len(list(tmp_path.iterdir()))


@pytest.mark.parametrize(
    "settings, same",
    [
        ({"image_mean": [0.1, 0.2, 0.3]}, True),
        ({"channel_order": "bgr"}, False),
        ({"size": {"height": 20, "width": 24}}, False),
        ({"resample": 0}, False),
        ({"image_mean": [0.5], "image_std": [0.5]}, False),
    ],
    ids=["mean", "channel-order", "size", "resample", "gray"],
)
def test_images_prepared_otherwise_are_kept_apart(settings, same, make_split, tmp_path):
    size = {"size": {"height": 24, "width": 20}}
    for options in ({}, settings):
        processor = HeadShareImageProcessor(**{**size, **options})
        expected = _pixels(ImageClassificationDataset(make_split(), processor, cache_images=False))
        assert torch.equal(_pixels(_dataset(make_split(), tmp_path, processor=processor)), expected)
    assert _folders(tmp_path) == (1 if same else 2)


def test_other_splits_and_images_are_kept_apart(make_split, png, pixels, tmp_path):
    changed = [{"bytes": png(pixels(number + (number == 11))), "path": f"{number}.png"} for number in range(12)]
    splits = [make_split(), make_split(split="test"), make_split().select(range(3, 12)), make_split(image=changed)]
    for number, split in enumerate(splits, start=1):
        assert torch.equal(_pixels(_dataset(split, tmp_path)), _pixels(_dataset(split, None, cache_images=False)))
        assert _folders(tmp_path) == number
    _dataset(make_split(), tmp_path)
    assert _folders(tmp_path) == len(splits)


def test_a_file_that_was_replaced_is_decoded_anew(write_images, png, pixels, tmp_path):
    folder, cache = write_images("images/a/0.png", "images/a/1.png", "images/b/0.png") / "images", tmp_path / "cache"
    before = _pixels(_dataset(load_splits(folder, ["train"])[0], cache))
    (folder / "a" / "1.png").write_bytes(png(pixels(99, 8, 8)))
    after = _pixels(_dataset(load_splits(folder, ["train"])[0], cache))
    assert [torch.equal(*pair) for pair in zip(before, after, strict=True)] == [True, False, True]


def test_a_recipe_of_augmentation_keeps_nothing(make_split, tmp_path):
    options = {"training": True, "augmentation": "random_resized_crop"}
    with pytest.raises(ValueError, match="`image_cache` has no effect with augmentation 'random_resized_crop'"):
        _dataset(make_split(), tmp_path, **options)


def test_the_field_of_a_recipe(write_images, tmp_path, blind):
    names = [f"images/{split}/{name}/{n}.png" for split in ("train", "test") for name in "ab" for n in range(2)]
    section = DataArguments(name=str(write_images(*names) / "images"), image_cache=str(tmp_path / "cache"))
    first = build_data(section, 0)
    expected = [_pixels(first.train), _pixels(first.evaluation)]
    blind()
    again = build_data(section, 0)
    assert all(map(torch.equal, expected, [_pixels(again.train), _pixels(again.evaluation)]))
    assert _folders(tmp_path / "cache") == 2
