import logging
import os
import pickle
import struct

import numpy as np
import pytest
import torch
from record_bytes import MAGIC, part, payload, write_index, write_parts
from torch.utils.data import DataLoader

from headshare_hf.data import CorruptImageError, ImageClassificationDataset, collate, load_images, load_splits
from headshare_hf.data import record_images as module
from headshare_hf.data.record_images import RecordImages, pack_image, unpack_image
from headshare_hf.data.recordio import RecordError, rebuild_index
from headshare_hf.models.image_processing_headshare import HeadShareImageProcessor


PROCESSOR = HeadShareImageProcessor(size={"height": 32, "width": 32})


@pytest.fixture
def write_faces(tmp_path, png, pixels):
    """Function `(count, num_classes, name, **changes)` to a headerless record file of `count` images."""

    def write(count=12, num_classes=3, name="train", **changes):
        path = tmp_path / f"{name}.rec"
        labels = changes.get("labels", [number % num_classes for number in range(count)])
        images = changes.get("images", [png(pixels(number)) for number in range(count)])
        write_parts(path, [part(payload(image, label)) for image, label in zip(images, labels, strict=True)])
        return path

    return write


@pytest.fixture
def insightface(tmp_path, png, pixels):
    """Folder laid out as InsightFace's: header, six images of three identities, one record for each identity."""
    records = [payload(b"", 7, 10)]
    records += [payload(png(pixels(number)), float(number // 2), number=number + 1) for number in range(6)]
    records += [payload(b"", 2 * identity + 1, 2 * identity + 3) for identity in range(3)]
    write_parts(tmp_path / "train.rec", [part(record) for record in records])
    (tmp_path / "property").write_text("3,32,32")
    return tmp_path


def test_insightface_header_says_which_records_are_images(insightface, png, pixels):
    images = load_images(insightface, "train")
    assert len(images) == 6 and images.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert images.label_names == ["LABEL_0", "LABEL_1", "LABEL_2"]
    assert [entry["bytes"] for entry in images.entries(range(6))] == [png(pixels(number)) for number in range(6)]
    assert [images.number(row) for row in (0, 5)] == [1, 6]


def test_header_that_the_index_does_not_bear_out(insightface):
    lines = (insightface / "train.idx").read_text().splitlines()
    (insightface / "train.idx").write_text("\n".join(lines[:3] + lines[4:]) + "\n")
    with pytest.raises(ValueError, match="record 0 of .* says that records 1 to 6 are images, but the index has 5"):
        load_images(insightface, "train")


def test_without_header_every_record_is_an_image(write_faces):
    images = load_images(write_faces(), "train")
    assert len(images) == 12 and images.labels.tolist() == [0, 1, 2] * 4


def test_first_of_several_labels_is_the_class(tmp_path, png, pixels):
    contents = [payload(png(pixels(number)), float(number % 2), 0.25, -3.5) for number in range(4)]
    write_parts(tmp_path / "train.rec", [part(content) for content in contents])
    images = load_images(tmp_path, "train")
    assert images.labels.tolist() == [0, 1, 0, 1]
    assert images.entries([3])[0]["bytes"] == png(pixels(3))
    record = unpack_image(contents[1], "record 1")
    assert record.labels.tolist() == [1, 0.25, -3.5]


@pytest.mark.parametrize("labels", [(5,), (5, 0.5), (1, 2, 3)])
def test_packed_images_are_the_bytes_of_the_format(labels):
    packed = pack_image(b"image", labels, 77)
    assert packed == payload(b"image", *labels, number=77)
    assert unpack_image(packed, "it").image == b"image" and unpack_image(packed, "it").labels.tolist() == list(labels)


def test_label_that_float32_cannot_hold():
    with pytest.raises(ValueError, match="class 16777217 of image 3 is above 16777216"):
        pack_image(b"", [16777217], 3)


def test_label_of_a_record_in_parts(tmp_path, png, pixels):
    # The magic number in the number of the image cuts the header itself, and another in the image cuts that.
    contents = [payload(png(pixels(number)), float(number)) for number in range(3)]
    number = int.from_bytes(MAGIC, "little")
    header = struct.pack("<If", 0, 1.0), struct.pack("<IQ", 0, 0)
    image = png(pixels(1))
    whole = payload(image, 1.0, number=number)
    assert whole == header[0] + MAGIC + header[1] + image
    records = [part(contents[0]), part(header[0], 1) + part(header[1] + image, 3), part(contents[2])]
    write_parts(tmp_path / "train.rec", records)
    images = load_images(tmp_path, "train")
    assert images.labels.tolist() == [0, 1, 2] and images.entries([1])[0]["bytes"] == image


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (1.5, "record 4 of .*train.rec has label 1.5; labels are whole numbers from zero"),
        (-1.0, "record 4 of .*train.rec has label -1.0"),
        (float("nan"), "record 4 of .*train.rec has label nan"),
        (float("inf"), "record 4 of .*train.rec has label inf"),
        (7.0, "record 4 of .* has label 7, but no record has label 3; renumber the classes .*, or write .*property"),
    ],
)
def test_label_that_is_no_class(label, message, write_faces):
    labels = [float(number % 3) for number in range(12)]
    labels[4] = label
    with pytest.raises(ValueError, match=message):
        load_images(write_faces(labels=labels), "train")


def test_single_class(write_faces):
    with pytest.raises(ValueError, match="train.rec has only the class 0; a classifier needs two or more"):
        load_images(write_faces(4, num_classes=1), "train")
    path = write_faces(4, labels=[2] * 4)
    (path.parent / "property").write_text("3,32,32")
    with pytest.raises(ValueError, match="train.rec has only the class 2; a classifier needs two or more"):
        load_images(path, "train")


def test_property_with_fewer_or_more_classes(write_faces):
    path = write_faces()
    (path.parent / "property").write_text("2,32,32\n")
    with pytest.raises(ValueError, match="record 2 of .* has label 2, but .*property says 2 classes"):
        load_images(path, "train")
    (path.parent / "property").write_text("5,32,32\n")
    assert len(load_images(path, "train").label_names) == 5
    assert len(load_images(write_faces(labels=[0, 4] * 6), "train").label_names) == 5
    with pytest.raises(ValueError, match="record 1 of .* has label 5, but .*property says 5 classes"):
        load_images(write_faces(labels=[0, 5] * 6), "train")
    (path.parent / "property").write_text("many")
    with pytest.raises(ValueError, match="property is 'many'; it must be number of classes, height and width"):
        load_images(path, "train")


def test_broken_header_is_named_when_labels_are_read(write_faces, png, pixels):
    path = write_faces()
    records = [part(payload(png(pixels(number)), float(number % 3))) for number in range(12)]
    offsets = write_parts(path, records[:5] + [part(b"short")] + records[6:])
    with pytest.raises(RecordError, match="record 5 of .*train.rec has 5 bytes, less than its header of 24"):
        load_images(path, "train")
    write_parts(path, records[:5] + [part(struct.pack("<IfQQ", 9, 0, 0, 0) + b"few")] + records[6:])
    with pytest.raises(RecordError, match="record 5 of .* has 27 bytes, but its header says that 9 labels follow"):
        load_images(path, "train")
    offsets = write_parts(path, records)
    write_index(path, {**dict(enumerate(offsets)), 5: offsets[5] + 4})
    with pytest.raises(RecordError, match=f"record 5 of .*: no record starts at byte {offsets[5] + 4}"):
        load_images(path, "train")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({4: 5}, "record 3 of .*train.rec ends at byte {4}, but the index has record 4 start at byte {5}; rebuild"),
        ({4: 3}, "record 3 of .*train.rec ends at byte {4}, but the index has record 4 start at byte {3}; rebuild"),
        ({4: None}, "record 3 of .*train.rec ends at byte {4}, but the index has record 5 start at byte {5}"),
        ({0: None}, "train.rec begins at byte 0, but the index has record 1 start at byte {1}"),
        ({11: None}, "record 10 of .*train.rec ends at byte {11}, but the index has no record behind it and the file"),
    ],
)
def test_index_that_is_not_that_of_the_whole_file(changes, message, write_faces):
    path = write_faces()
    offsets = [int(line.split()[1]) for line in path.with_suffix(".idx").read_text().splitlines()]
    places = {key: changes.get(key, key) for key in range(12)}
    write_index(path, {key: offsets[place] for key, place in places.items() if place is not None})
    with pytest.raises(RecordError, match=message.format(*offsets)):
        load_images(path, "train")
    rebuild_index(path)
    assert len(load_images(path, "train")) == 12


@pytest.mark.parametrize("bit", [2, 5, 12, 20])
def test_length_with_a_wrong_bit(bit, write_faces):
    path = write_faces()
    content, start = bytearray(path.read_bytes()), int(path.with_suffix(".idx").read_text().splitlines()[3].split()[1])
    content[start + 4 + bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)
    with pytest.raises(RecordError, match="record 3 of .*train.rec ends at byte .*, but the index has record 4 start"):
        load_images(path, "train")


def test_cut_file_is_refused(write_faces):
    path = write_faces()
    os.truncate(path, path.stat().st_size - 40)
    with pytest.raises(RecordError, match="record 11 of .*train.rec is truncated: .*; fetch the file again"):
        load_images(path, "train")


def test_records_in_any_order_and_in_parts_make_up_a_file(tmp_path, png, pixels):
    # As a file of InsightFace: header, three images of which the second is in parts, two identities; records shuffled.
    image = png(pixels(1)) + bytes(-len(png(pixels(1))) % 4)
    records = {
        4: part(payload(b"", 1, 2)),
        2: part(payload(image, 1.0), 1) + part(b"tail", 3),
        0: part(payload(b"", 4, 6)),
        1: part(payload(png(pixels(0)), 0.0)),
        5: part(payload(b"", 2, 4)),
        3: part(payload(png(pixels(2)), 1.0)),
    }
    offsets = dict(zip(records, np.cumsum([0, *map(len, records.values())]).tolist(), strict=False))
    path = tmp_path / "train.rec"
    path.write_bytes(b"".join(records.values()))
    write_index(path, offsets)
    images = load_images(path, "train")
    assert images.labels.tolist() == [0, 1, 1] and images.entries([1])[0]["bytes"] == image + MAGIC + b"tail"
    # Records of no image are part of the file too.
    write_index(path, {key: place for key, place in offsets.items() if key != 5})
    with pytest.raises(
        RecordError, match=f"record 1 of .* ends at byte {offsets[5]}, but the index has record 3 start"
    ):
        load_images(path, "train")
    # The last part of one in parts is cut off from it.
    write_index(path, {**offsets, 6: offsets[0] - len(part(b"tail", 3))})
    with pytest.raises(RecordError, match="record 6 of .*: no record starts at byte"):
        load_images(path, "train")


def test_corrupt_images_are_named_or_left_out(write_faces, png, pixels, caplog):
    images = [png(pixels(number)) for number in range(12)]
    images[4], images[11] = images[4][:100], images[11][:-40]
    path = write_faces(images=images)
    images = load_images(path, "train")
    dataset = ImageClassificationDataset(images, PROCESSOR)
    with pytest.raises(CorruptImageError, match=r"row 4 of split 'train' \(file .*train.rec, record 4\) cannot be"):
        dataset[4]
    with pytest.raises(CorruptImageError, match=r"row 11 of split 'train' \(file .*train.rec, record 11\) cannot be"):
        dataset[11]
    with caplog.at_level(logging.WARNING):
        dataset = ImageClassificationDataset(images, PROCESSOR, skip_corrupt=True)
    assert dataset.num_corrupt == 2 and len(dataset) == 10 and "left out 2 of 12 images" in caplog.text
    assert dataset.labels.tolist() == [0, 1, 2, 0, 2, 0, 1, 2, 0, 1]
    assert torch.equal(dataset[9]["pixel_values"], ImageClassificationDataset(images, PROCESSOR)[10]["pixel_values"])


def test_splits_share_the_classes_of_the_first(write_faces):
    folder = write_faces().parent
    write_faces(2, labels=[2, 0], name="val")
    train, val = load_splits(folder, ("train", "val"))
    assert val.split == "val" and val.labels.tolist() == [2, 0] and val.label_names == train.label_names
    write_faces(2, labels=[2, 3], name="val")
    with pytest.raises(ValueError, match="record 1 of .*val.rec has label 3, but the first split has 3 classes"):
        load_splits(folder, ("train", "val"))
    with pytest.raises(ValueError, match="has no split 'test'; splits: train, val"):
        load_splits(folder, ("train", "test"))
    with pytest.raises(ValueError, match="`label_column` is 'id', but the record files of .* have no such thing"):
        load_images(folder, "train", label_column="id")


def test_validation_part_and_few_samples(write_faces):
    path = write_faces(30)
    train, validation = load_splits(path, ("train", "val"), validation_fraction=0.2, seed=1)
    assert np.bincount(validation.labels).tolist() == [2, 2, 2] and len(train) == 24
    numbers = [[images.number(row) for row in range(len(images))] for images in (train, validation)]
    assert sorted(sum(numbers, [])) == list(range(30)) and numbers[1] == sorted(numbers[1])
    assert all(number % 3 == label for number, label in zip(numbers[1], validation.labels, strict=True))
    few = load_splits(path, ["train"], max_samples=[6])[0]
    assert np.bincount(few.labels).tolist() == [2, 2, 2]
    with pytest.raises(ValueError, match="takes all images of class 'LABEL_2'"):
        load_splits(write_faces(12, labels=[0] * 6 + [1] * 5 + [2]), ("train", "val"), validation_fraction=0.7)


def test_equal_to_the_same_images_in_columns(write_faces, make_split):
    options = {"training": True, "augmentation": "crop_flip", "seed": 5}
    records = ImageClassificationDataset(load_images(write_faces(), "train"), PROCESSOR, **options)
    columns = ImageClassificationDataset(make_split(), PROCESSOR, **options)
    found, expected = (dataset.__getitems__(range(12)) for dataset in (records, columns))
    assert all(torch.equal(found[name], expected[name]) for name in ("pixel_values", "labels"))


@pytest.mark.parametrize(
    ("num_workers", "start"), [(0, None), (2, "fork"), pytest.param(2, "spawn", marks=pytest.mark.slow)]
)
def test_workers_give_the_same_batches(num_workers, start, write_faces):
    images = load_images(write_faces(24), "train")
    dataset = ImageClassificationDataset(images, PROCESSOR, cache_images=False)
    options = {"num_workers": num_workers, "multiprocessing_context": start} if num_workers else {}
    loader = DataLoader(dataset, batch_size=5, collate_fn=collate, **options)
    found = torch.cat([batch["pixel_values"] for batch in loader])
    assert found.shape[0] == 24 and torch.equal(found, dataset.__getitems__(range(24))["pixel_values"])


def test_copy_by_pickle_is_the_same(write_faces):
    images = load_images(write_faces(), "train").select([3, 7])
    copy = pickle.loads(pickle.dumps(images))
    assert copy.entries([0, 1]) == images.entries([0, 1]) and copy.labels.tolist() == [0, 1]
    assert copy.number(1) == 7 and len(copy) == 2


@pytest.fixture
def count_scans(monkeypatch):
    """A list that grows by one at every pass over a record file."""
    scans, read = [], module._read_labels
    monkeypatch.setattr(module, "_read_labels", lambda *arguments: scans.append(1) or read(*arguments))
    return scans


def test_labels_are_read_once(write_faces, tmp_path_factory, count_scans):
    cache, path = str(tmp_path_factory.mktemp("cache")), write_faces()
    first, second = (RecordImages(path, cache_dir=cache) for _ in range(2))
    assert len(count_scans) == 1 and np.array_equal(first.labels, second.labels)
    assert second.labels.dtype == np.int64
    write_faces(labels=[0, 1, 1, 2] * 3)
    os.utime(path, ns=(1, 1))
    assert RecordImages(path, cache_dir=cache).labels.tolist() == [0, 1, 1, 2] * 3 and len(count_scans) == 2


def test_folder_for_labels_that_cannot_be_written(write_faces, tmp_path, count_scans, caplog):
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the folder should be")
    with caplog.at_level(logging.INFO):
        images = [RecordImages(write_faces(), cache_dir=str(blocked)) for _ in range(2)]
    assert len(count_scans) == 2 and images[1].labels.tolist() == [0, 1, 2] * 4
    assert "the labels of" in caplog.text and "are not kept for the next time" in caplog.text


def test_labels_far_into_a_sparse_file(tmp_path, png, pixels):
    # 4 GiB of zeros between two images: neither time nor memory may depend on it.
    path, places = tmp_path / "train.rec", []
    first, last = (part(payload(png(pixels(number, 4, 4)), float(number))) for number in (0, 1))
    with open(path, "wb") as file:
        for head in [first, *[MAGIC + struct.pack("<I", 2**29 - 4)] * 8, last]:
            places.append(file.tell())
            file.write(head)
            file.seek(0 if head in (first, last) else 2**29 - 4, os.SEEK_CUR)
    if path.stat().st_blocks * 512 > 2**30:
        pytest.skip("the file system has no sparse files")
    write_index(path, dict(enumerate(places)))
    images = load_images(path, "train")
    assert places[-1] > 2**32 - 100 and images.labels.tolist() == [*[0] * 9, 1]
    assert images.entries([9])[0]["bytes"] == png(pixels(1, 4, 4))


def test_fingerprints_tell_files_and_choices_apart(write_faces, png, pixels):
    first = RecordImages(write_faces())
    same = RecordImages(write_faces(name="copy"))
    other = RecordImages(write_faces(name="other", images=[png(pixels(0, 9 + number)) for number in range(12)]))
    parts = [first.select([0, 1, 2]), first.select([2, 1, 0])]
    fingerprints = [images.fingerprint for images in (first, same, other, *parts)]
    assert fingerprints[0] == fingerprints[1] and len(set(fingerprints)) == 4
