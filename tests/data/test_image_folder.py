import os
from pathlib import Path

import pytest
from PIL import Image

from headshare_hf.data import load_splits
from headshare_hf.data.image_folder import ImageFolder, files_below


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


@pytest.fixture
def store(write_images):
    """A folder of images of cats and dogs, and an empty folder for links beside it."""
    root = write_images(*(f"store/{split}/{name}/1.png" for split in ("train", "val") for name in ("cat", "dog")))
    (root / "links").mkdir()
    return root / "store"


def test_class_folders_may_be_links(store):
    links = store.parent / "links"
    for name in ("cat", "dog"):
        (links / name).symlink_to(store / "train" / name)
    (dataset,) = load_splits(links, ["train"])
    assert dataset.features["label"].names == ["cat", "dog"] and dataset["label"][:] == [0, 1]
    assert dataset[1]["image"]["path"] == str(links / "dog" / "1.png")


def test_splits_may_be_links(store):
    links = store.parent / "links"
    for name in ("train", "val"):
        (links / name).symlink_to(store / name)
    train, validation = load_splits(links, ("train", "val"))
    assert train["label"][:] == validation["label"][:] == [0, 1]


@pytest.mark.parametrize("target", ["", "train", "train/cat"])
def test_links_in_a_circle_end(target, store):
    (store / "train" / "cat" / ".loop").symlink_to(store / target)
    files = list(files_below(store))
    assert len(files) == 4 and {file.name for file in files} == {"1.png"}
    assert ImageFolder(store).read("train")["label"][:] == [0, 1]


def test_jpeg_files_of_other_names_count(write_images):
    root = write_images("cat/1.jfif", "cat/2.JFIF", "dog/3.jpe")
    assert ImageFolder(root).read("train")["label"][:] == [0, 0, 1]


def test_a_split_that_is_a_link_to_another_has_its_images(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "train" / name).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(tmp_path / "train" / name / "x.png")
    (tmp_path / "val").symlink_to("train")
    (tmp_path / "train" / "c").symlink_to("a")
    folder = ImageFolder(tmp_path)
    assert [len(folder.read(split)) for split in ("train", "val")] == [3, 3]


def test_an_image_that_is_a_link_to_nowhere_is_found_missing(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (4, 4)).save(tmp_path / name / "x.png")
    (tmp_path / "b" / "y.png").symlink_to("gone.png")
    assert len(ImageFolder(tmp_path).read("train")) == 3


def test_hidden_folders_are_left_out(tmp_path):
    for name in ("a", "b", ".trash"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (4, 4)).save(tmp_path / name / "x.png")
    assert {path.parent.name for path in files_below(tmp_path)} == {"a", "b"}


def test_folders_that_may_not_be_read_are_left_out(tmp_path, monkeypatch):
    scan = os.scandir
    for name in ("a", "b", "lost+found"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (4, 4)).save(tmp_path / name / "x.png")

    def refuse(path):
        if Path(path).name == "lost+found":
            raise PermissionError(path)
        return scan(path)

    monkeypatch.setattr("headshare_hf.data.image_folder.os.scandir", refuse)
    assert sorted(path.parent.name for path in files_below(tmp_path)) == ["a", "b"]
