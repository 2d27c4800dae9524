import os

import datasets
import pytest

from headshare_hf.data.sources import read_splits


def test_folder_of_parquet_is_left_as_it_was(make_split, write_folder):
    folder = write_folder({"train": make_split(), "test": make_split(6)})
    before = sorted(os.walk(folder))
    train, test = read_splits(folder, ("train", "test"))
    assert (len(train), len(test)) == (12, 6)
    assert sorted(os.walk(folder)) == before


def test_converted_files_go_to_the_cache_folder(make_split, write_folder, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    read_splits(write_folder({"train": make_split()}), ["train"], cache_dir=str(cache))
    assert list(cache.rglob("*.arrow"))


def test_single_file_is_train(make_split, tmp_path):
    path = tmp_path / "toys.parquet"
    make_split().to_parquet(path)
    assert len(read_splits(path, ["train"])[0]) == 12
    with pytest.raises(ValueError, match="toys.parquet has no split 'test'; splits: train"):
        read_splits(path, ["test"])


@pytest.mark.parametrize("kind", ["parquet", "images"])
def test_missing_split_lists_what_is_there(kind, make_split, write_folder, write_images):
    if kind == "parquet":
        folder = write_folder({"train": make_split(), "test": make_split()})
    else:
        folder = write_images("train/a/1.png", "test/a/1.png")
    with pytest.raises(ValueError, match="has no split 'validation'; splits: (train, test|test, train)"):
        read_splits(folder, ["validation"])


@pytest.mark.parametrize("name", ["./nowhere", "a/b/c", "~/nowhere-at-all", "nowhere.parquet"])
def test_missing_folder(name):
    with pytest.raises(FileNotFoundError, match="does not exist; give a folder, a parquet file or the id"):
        read_splits(name, ["train"])


def test_hub_id_offline():
    with pytest.raises(FileNotFoundError, match="nobody/nothing is no local folder, and on the Hub: .*nobody/nothing"):
        read_splits("nobody/nothing", ["train"])


def test_configurations(make_split, tmp_path, write_images):
    for name in ("big", "small"):
        (tmp_path / name).mkdir()
        make_split(12 if name == "big" else 6).to_parquet(tmp_path / name / "train.parquet")
    configs = "".join(f"- config_name: {name}\n  data_files: {name}/*.parquet\n" for name in ("big", "small"))
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    assert len(read_splits(tmp_path, ["train"], config_name="small")[0]) == 6
    with pytest.raises(ValueError, match="`config_name` is 'small', but .*train.parquet has no configurations"):
        read_splits(tmp_path / "big" / "train.parquet", ["train"], config_name="small")


def test_files_that_order_their_classes_differently(make_split, write_folder):
    folder = write_folder({"train": make_split(), "test": make_split(names=("a", "c", "b"))})
    with pytest.raises(ValueError, match="class 1 is 'b' in .*train-.*parquet but 'c' in .*test-.*parquet"):
        read_splits(folder, ("train", "test"))
    assert len(read_splits(folder, ["test"])[0]) == 12


def test_class_names_of_other_columns_may_differ(make_split, write_folder):
    def with_pose(names):
        return make_split().add_column("pose", [0, 1] * 6, feature=datasets.ClassLabel(names=names))

    folder = write_folder({"train": with_pose(["left", "right"]), "test": with_pose(["up", "down"])})
    assert len(read_splits(folder, ("train", "test"), label_column="label")) == 2
    with pytest.raises(ValueError, match="class 0 is 'left' in"):
        read_splits(folder, ("train", "test"))
