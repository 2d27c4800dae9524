import logging
import pickle

import numpy as np
import PIL.Image
import pytest
import torch
from torch.utils.data import DataLoader
from transformers import ViTImageProcessor

from headshare_hf.data import CorruptImageError, ImageClassificationDataset, collate, load_splits
from headshare_hf.models.image_processing_headshare import HeadShareImageProcessor


PROCESSOR = HeadShareImageProcessor(size={"height": 24, "width": 20})


def _train(dataset, augmentation="crop_flip", **options) -> ImageClassificationDataset:
    return ImageClassificationDataset(dataset, PROCESSOR, training=True, augmentation=augmentation, **options)


def _mixed_modes(make_split, png, pixels):
    modes = ("RGB", "L", "1", "P", "RGBA", "LA", "RGB", "RGB", "CMYK")
    kinds = ["TIFF" if mode == "CMYK" else "PNG" for mode in modes]
    shapes = [(40, 30), (24, 20), (7, 9), (32, 32), (50, 24), (24, 50), (1, 1), (3, 40), (33, 21)]
    cases = enumerate(zip(modes, kinds, shapes, strict=True))
    images = [{"bytes": png(pixels(n, *shape), mode, kind), "path": None} for n, (mode, kind, shape) in cases]
    return make_split(len(images), image=images)


@pytest.mark.parametrize("cache_images", [True, False])
@pytest.mark.parametrize(
    "processor",
    [
        PROCESSOR,
        HeadShareImageProcessor(channel_order="bgr", image_mean=[0.1, 0.2, 0.3]),
        HeadShareImageProcessor(image_mean=[0.5], image_std=[0.25]),
        HeadShareImageProcessor(
            size={"shortest_edge": 28}, crop_size={"height": 24, "width": 24}, do_center_crop=True
        ),
        ViTImageProcessor(size={"height": 16, "width": 16}),
    ],
    ids=["rgb", "bgr", "gray", "center-crop", "vit"],
)
def test_evaluation_equals_the_processor(processor, cache_images, make_split, png, pixels):
    split = _mixed_modes(make_split, png, pixels)
    dataset = ImageClassificationDataset(split, processor, cache_images=cache_images)
    decoded = [PIL.Image.open(path) for path in map(_file, split["image"][:])]
    expected = processor(decoded, return_tensors="pt", do_convert_rgb=True)["pixel_values"]
    for _ in range(2):  # the second time from memory
        batch = dataset.__getitems__(range(len(split)))
        torch.testing.assert_close(batch["pixel_values"], expected, rtol=0, atol=2e-6)
        assert torch.equal(batch["labels"], dataset.labels)


def _file(entry):
    import io

    return io.BytesIO(entry["bytes"])


def test_items_batches_and_attributes(make_split):
    dataset = ImageClassificationDataset(make_split(), PROCESSOR, with_index=True)
    assert len(dataset) == 12 and dataset.num_classes == 3 and dataset.num_corrupt == 0
    assert dataset.label_names == ["a", "b", "c"] and dataset.id2label == {0: "a", 1: "b", 2: "c"}
    assert dataset.labels.tolist() == [0, 1, 2] * 4
    batch = dataset.__getitems__([5, 2])
    assert batch["pixel_values"].shape == (2, 3, 24, 20) and batch["pixel_values"].dtype == torch.float32
    assert batch["labels"].tolist() == [2, 2] and batch["index"].tolist() == [5, 2]
    item = dataset[2]
    assert all(torch.equal(value, batch[name][1]) for name, value in item.items())
    with pytest.raises(IndexError, match="index 12 is outside of 0 to 11"):
        dataset[12]


@pytest.mark.parametrize("augmentation", ["crop_flip", "torchvision/randaugment"])
def test_training_images_without_their_augmentation(augmentation, make_split):
    split = make_split()
    dataset, plain = _train(split, augmentation), ImageClassificationDataset(split, PROCESSOR)
    dataset.set_epoch(3)
    found = dataset.unaugmented([7, 2])
    assert found.dtype == torch.uint8 and found.shape == (2, 3, 24, 20)
    assert torch.equal(found, plain.unaugmented([7, 2]))
    expected = PROCESSOR(list(found), return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(plain.__getitems__([7, 2])["pixel_values"], expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("augmentation", ["crop_flip", "torchvision/randaugment", "timm/rand-m9-mstd0.5"])
def test_augmentation_does_not_depend_on_batches_or_order(augmentation, make_split):
    split = make_split(24)
    dataset = _train(split, augmentation, seed=3)
    whole = dataset.__getitems__(range(24))["pixel_values"]
    fresh = _train(split, augmentation, seed=3, cache_images=False)
    order = np.random.default_rng(0).permutation(24)
    for rows in np.split(order, [1, 5, 16]):
        assert torch.equal(fresh.__getitems__(rows.tolist())["pixel_values"], whole[rows])
    assert torch.equal(fresh[7]["pixel_values"], whole[7])
    dataset.set_epoch(1)
    assert not torch.equal(dataset.__getitems__(range(24))["pixel_values"], whole)
    assert not torch.equal(_train(split, augmentation, seed=4).__getitems__(range(24))["pixel_values"], whole)
    dataset.set_epoch(0)
    assert torch.equal(dataset.__getitems__(range(24))["pixel_values"], whole)


def test_workers_give_the_same_batches_and_see_the_epoch(make_split):
    split = make_split(24)
    plain, dataset = _train(split), _train(split)
    loader = DataLoader(dataset, batch_size=5, num_workers=2, persistent_workers=True, collate_fn=collate)
    for epoch in range(3):
        plain.set_epoch(epoch), dataset.set_epoch(epoch)
        found = torch.cat([batch["pixel_values"] for batch in loader])
        assert torch.equal(found, plain.__getitems__(range(24))["pixel_values"])


def test_workers_fill_the_cache_of_the_main_process(make_split, monkeypatch):
    dataset = _train(make_split(24))
    for _ in DataLoader(dataset, batch_size=6, num_workers=2, collate_fn=collate):
        pass
    monkeypatch.setattr("headshare_hf.data.pixels.decode_row", None)  # nothing is left to decode
    assert dataset.__getitems__(range(24))["pixel_values"].shape == (24, 3, 24, 20)


def test_loader_asks_for_whole_batches(make_split, monkeypatch):
    dataset = _train(make_split(10))
    monkeypatch.setattr(type(dataset), "__getitem__", None)
    sizes = [len(batch["labels"]) for batch in DataLoader(dataset, batch_size=4, collate_fn=collate)]
    assert sizes == [4, 4, 2]


def test_collate_stacks_items_of_other_data_sets():
    items = [{"pixel_values": torch.full((3, 2, 2), float(n)), "labels": n} for n in range(3)]
    batch = collate(items)
    assert batch["pixel_values"].shape == (3, 3, 2, 2) and batch["labels"].tolist() == [0, 1, 2]


def test_recipe_works_on_the_whole_file(make_split, png, pixels):
    split = _mixed_modes(make_split, png, pixels)
    batch = _train(split, "random_resized_crop").__getitems__(range(len(split)))
    assert batch["pixel_values"].shape == (9, 3, 24, 20)
    gray = HeadShareImageProcessor(image_mean=[0.5], image_std=[0.5])
    dataset = ImageClassificationDataset(split, gray, training=True, augmentation="timm/rand-m9")
    assert dataset.__getitems__(range(len(split)))["pixel_values"].shape == (9, 1, 32, 32)


def test_recipe_ends_in_the_channel_order_of_the_processor(make_split):
    split = make_split(6)
    rgb, bgr = (
        ImageClassificationDataset(
            split,
            HeadShareImageProcessor(channel_order=order, image_mean=[0.5] * 3, image_std=[0.5] * 3),
            training=True,
            augmentation="random_resized_crop",
        ).__getitems__(range(6))["pixel_values"]
        for order in ("rgb", "bgr")
    )
    assert torch.equal(rgb.flip(1), bgr) and not torch.equal(rgb, bgr)


@pytest.fixture
def broken(make_split, png, pixels):
    images = [{"bytes": png(pixels(n)), "path": f"{n}.png"} for n in range(9)]
    for row in (4, 7):
        images[row]["bytes"] = images[row]["bytes"][:100]
    return make_split(9, image=images, split="test")


def test_corrupt_row_is_named(broken):
    dataset = ImageClassificationDataset(broken, PROCESSOR)
    with pytest.raises(CorruptImageError, match=r"row 4 of split 'test' \(file 4.png\) cannot be decoded"):
        dataset.__getitems__(range(9))
    with pytest.raises(CorruptImageError, match="row 7 of split 'test'"):
        next(iter(DataLoader(dataset, batch_size=2, sampler=[7, 8], num_workers=1, collate_fn=collate)))


def test_corrupt_row_keeps_its_number_in_a_part(broken, write_folder):
    part = load_splits(write_folder({"test": broken}), ["test"])[0].select([8, 7])
    with pytest.raises(CorruptImageError, match="row 7 of split 'test'"):
        ImageClassificationDataset(part, PROCESSOR)[1]
    with pytest.raises(ValueError, match="no image of split 'test' can be decoded; the first: row 7"):
        ImageClassificationDataset(part.select([1]), PROCESSOR, skip_corrupt=True)


def test_corrupt_rows_are_left_out_with_a_count(broken, caplog):
    with caplog.at_level(logging.WARNING):
        dataset = ImageClassificationDataset(broken, PROCESSOR, skip_corrupt=True, with_index=True)
    assert dataset.num_corrupt == 2 and len(dataset) == 7
    assert dataset.labels.tolist() == [0, 1, 2, 0, 2, 0, 2]
    assert "left out 2 of 9 images of split 'test'; the first: row 4" in caplog.text
    batch = dataset.__getitems__(range(7))
    whole = PROCESSOR(PIL.Image.open(_file(broken[8]["image"])), return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(batch["pixel_values"][6], whole, rtol=0, atol=2e-6)
    assert batch["index"].tolist() == list(range(7))


def test_copy_by_pickle_is_the_same(make_split):
    dataset = _train(make_split())
    batch = dataset.__getitems__(range(12))
    assert torch.equal(
        pickle.loads(pickle.dumps(dataset)).__getitems__(range(12))["pixel_values"], batch["pixel_values"]
    )


def test_useless_augmentation_is_refused(make_split):
    with pytest.raises(ValueError, match="`augmentation` is 'crop' but `training` is False"):
        ImageClassificationDataset(make_split(), PROCESSOR, augmentation="crop")


def test_columns_that_do_not_fit(make_split):
    with pytest.raises(ValueError, match="needs the columns `image` and `label` .a ClassLabel. and has image, target"):
        ImageClassificationDataset(make_split().rename_column("label", "target"), PROCESSOR)


def test_processor_that_does_not_fit(make_split):
    with pytest.raises(ValueError, match="leaves images at different sizes .*do_center_crop=True"):
        ImageClassificationDataset(make_split(), HeadShareImageProcessor(size={"shortest_edge": 32}))
    with pytest.raises(ValueError, match="object has no `image_mean`; use a HeadShareImageProcessor"):
        ImageClassificationDataset(make_split(), object())


def test_image_without_a_label_is_named(make_split):
    split = make_split(5, label=[0, 1, None, 2, None], split="test")
    with pytest.raises(ValueError, match=r"image 2 of split test has no label \(2 have none\); .* the label -1"):
        ImageClassificationDataset(split, PROCESSOR)
    unlabelled = make_split(5, label=[0, 1, -1, 2, -1])
    assert ImageClassificationDataset(unlabelled, PROCESSOR).labels.tolist() == [0, 1, -1, 2, -1]


def test_pictures_are_the_images_of_the_files(make_split, png, pixels):
    split = _mixed_modes(make_split, png, pixels)
    found = ImageClassificationDataset(split, PROCESSOR).pictures([4, 0])
    for row, picture in zip([4, 0], found, strict=True):
        with PIL.Image.open(_file(split[row]["image"])) as expected:
            assert picture.mode == expected.mode and np.array_equal(np.asarray(picture), np.asarray(expected))


def test_pictures_are_turned_upright(make_split, png, pixels):
    import io

    buffer, exif = io.BytesIO(), PIL.Image.Exif()
    exif[0x0112] = 6
    PIL.Image.fromarray(pixels(0, 20, 30)).save(buffer, "PNG", exif=exif)
    split = make_split(2, image=[{"bytes": png(pixels(1)), "path": None}, {"bytes": buffer.getvalue(), "path": None}])
    assert ImageClassificationDataset(split, PROCESSOR).pictures([1])[0].size == (20, 30)
