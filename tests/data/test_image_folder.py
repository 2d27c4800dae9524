import pytest

from headshare_hf.data import load_splits
from headshare_hf.data.image_folder import ImageFolder


def test_without_splits_all_is_train(write_images):
    # Neither a class nor a file that is called like a split may be taken for one.
    root = write_images("bus/test_1.png", "bus/2.JPG", "train/1.png", "car/1.png", "car/notes.txt.png")
    folder = ImageFolder(root)
    assert folder.splits == ["train"]
    dataset = folder.read("train")
    assert dataset.features["label"].names == ["bus", "car", "train"]
    assert dataset["label"][:] == [0, 0, 1, 1, 2]
    assert dataset[1]["image"]["path"].endswith("test_1.png")


def test_split_folders(write_images):
    root = write_images("train/cat/1.png", "train/dog/1.png", "train/dog/2.png", "val/dog/3.png", "val/cat/4.png")
    (root / ".cache").mkdir()
    (root / "train" / "readme.txt").write_text("no image")
    train, validation = load_splits(root, ("train", "val"))
    assert ImageFolder(root).splits == ["train", "val"]
    assert train["label"][:] == [0, 1, 1] and validation["label"][:] == [0, 1]
    assert str(validation.split) == "val"


def test_empty_class_folder_is_a_class(write_images):
    root = write_images("train/cat/1.png", "train/dog/1.png", "test/cat/1.png", "test/dog/1.png", "train/owl/1.png")
    with pytest.raises(ValueError, match="class 2 is 'owl' in split 'train' of .* but missing in split 'test'"):
        load_splits(root, ("train", "test"))
    (root / "test" / "owl").mkdir()
    assert load_splits(root, ("train", "test"))[1].features["label"].names == ["cat", "dog", "owl"]


def test_image_outside_of_a_class_folder_is_named(write_images):
    root = write_images("train/cat/1.png", "train/dog/1.png", "test/1.png")
    assert len(ImageFolder(root).read("train")) == 2
    with pytest.raises(ValueError, match="test/1.png does not lie in a class folder directly below .*test"):
        ImageFolder(root).read("test")


def test_folder_without_images(tmp_path):
    with pytest.raises(ValueError, match="holds neither parquet files nor images"):
        ImageFolder(tmp_path)
