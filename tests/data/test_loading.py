import datasets
import numpy as np
import pytest

from headshare_hf.data import ImageClassificationDataset, load_images, load_splits
from headshare_hf.models.image_processing_headshare import HeadShareImageProcessor


def _renamed(
    dataset: datasets.Dataset, labels: list, image: str = "img", label: str = "fine_label"
) -> datasets.Dataset:
    return dataset.rename_column("image", image).remove_columns("label").add_column(label, labels)


def test_columns_are_brought_to_one_form(make_split, write_folder):
    folder = write_folder({"train": make_split()})
    dataset = load_images(folder, "train")
    assert dataset.column_names == ["image", "label", "row"]
    assert dataset.features["image"] == datasets.Image(decode=False)
    assert dataset.features["label"] == datasets.ClassLabel(names=["a", "b", "c"])
    assert dataset["label"][:4] == [0, 1, 2, 0] and dataset["row"][:3] == [0, 1, 2]
    assert dataset[2]["image"]["path"] == "2.png" and dataset[2]["image"]["bytes"].startswith(b"\x89PNG")


def test_text_labels_share_the_map_of_the_first_split(make_split, write_folder):
    train = _renamed(make_split(6), ["owl", "cat", "dog"] * 2)
    test = _renamed(make_split(3), ["dog", "owl", "dog"])
    train, test = load_splits(write_folder({"train": train, "test": test}), ("train", "test"))
    assert train.features == test.features and test.features["label"].names == ["cat", "dog", "owl"]
    assert test["label"][:] == [1, 2, 1]


def test_text_label_that_training_lacks(make_split, write_folder):
    train, test = _renamed(make_split(2), ["cat", "dog"]), _renamed(make_split(2), ["cat", "owl"])
    with pytest.raises(ValueError, match="row 1 of split 'test' of .* has label 'owl', which the first split lacks"):
        load_splits(write_folder({"train": train, "test": test}), ("train", "test"))


def test_parquet_without_image_features(make_split, tmp_path):
    # Files of other tools hold plain bytes, or a struct without the metadata of datasets.
    entries = make_split(3)["image"][:]
    plain = datasets.Features(image={"bytes": datasets.Value("binary"), "path": datasets.Value("string")})
    for name, images, features in (
        ("bytes", [entry["bytes"] for entry in entries], datasets.Features(image=datasets.Value("binary"))),
        ("struct", entries, plain),
    ):
        path = tmp_path / f"{name}.parquet"
        dataset = datasets.Dataset.from_dict({"image": images}, features=features).add_column("label", [0, 1, 2])
        dataset.to_parquet(path)
        assert load_images(path, "train")[1]["image"]["bytes"] == entries[1]["bytes"]


def test_validation_part_takes_the_place_of_the_second_split(make_split, write_folder):
    folder = write_folder({"train": make_split(30)})
    train, validation = load_splits(folder, ("train", "test"), validation_fraction=0.2, seed=1)
    assert sorted(train["row"][:] + validation["row"][:]) == list(range(30))
    assert np.bincount(validation["label"][:]).tolist() == [2, 2, 2]


def test_few_samples_per_split(make_split, write_folder):
    folder = write_folder({"train": make_split(30), "test": make_split(12)})
    train, test = load_splits(folder, ("train", "test"), max_samples=(9, None))
    assert np.bincount(train["label"][:]).tolist() == [3, 3, 3] and len(test) == 12


def test_options_that_do_not_fit(make_split, write_folder):
    folder = write_folder({"train": make_split()})
    with pytest.raises(ValueError, match="`validation_fraction` needs two splits, training and validation, not 1"):
        load_splits(folder, ["train"], validation_fraction=0.1)
    with pytest.raises(ValueError, match="`max_samples` has 2 entries for 1 splits"):
        load_splits(folder, ["train"], max_samples=(1, 2))


def test_empty_split(make_split, write_folder):
    folder = write_folder({"train": make_split(), "test": make_split().select([])})
    with pytest.raises(ValueError, match="split 'test' of .* is empty"):
        load_splits(folder, ("train", "test"))


def test_requested_columns(make_split, write_folder):
    dataset = make_split().add_column("thumbnail", ["none"] * 12).add_column("parity", ["odd", "even"] * 6)
    folder = write_folder({"train": dataset})
    assert load_images(folder, "train", label_column="parity").features["label"].names == ["even", "odd"]
    with pytest.raises(ValueError, match="has no column 'photo'; columns: image, label, thumbnail, parity"):
        load_images(folder, "train", image_column="photo")


def test_embedded_example_set(repository):
    train, test = load_splits(repository / "examples" / "data" / "omniglot-8alphabets", ("train", "test"))
    assert (len(train), len(test)) == (3630, 1210)
    assert train.features == test.features and train.features["label"].num_classes == 242
    assert set(np.bincount(train["label"][:])) == {15} and set(np.bincount(test["label"][:])) == {5}
    gray = HeadShareImageProcessor(image_mean=[0.9196], image_std=[0.2252])
    pixels = ImageClassificationDataset(train, gray).__getitems__(range(512))["pixel_values"]
    assert pixels.shape == (512, 1, 32, 32)
    assert abs(pixels.mean()) < 0.05 and abs(pixels.std() - 1) < 0.05
