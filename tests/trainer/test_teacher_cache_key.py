"""A teacher cache is never that of something else."""

import json

import datasets
import pytest
from cached_runs import (
    CROPS,
    MOMENTS,
    PROCESSOR,
    cached_trainer,
    drawings,
    folders,
    forbid_running,
    images,
    second_run,
    train,
)
from PIL import Image
from toys import NUM_LABELS, arguments, resnet

from headshare_hf import DistillationTrainer, HeadShareImageProcessor
from headshare_hf.data import ImageClassificationDataset, load_splits
from headshare_hf.trainer import TeacherCacheError


_PIXELS = {"image_mean": [0.5] * 3}


def test_a_seed_needs_no_cache_of_its_own_where_views_are_fixed(tmp_path):
    train(cached_trainer(tmp_path / "first", tmp_path / "cache", images(seed=3)))
    other = forbid_running(cached_trainer(tmp_path / "second", tmp_path / "cache", images(seed=4), seed=7))
    assert train(other) == pytest.approx(
        train(cached_trainer(tmp_path / "plain", None, images(seed=4), seed=7)), rel=1e-6
    )


def test_moments_belong_to_one_temperature(tmp_path):
    for number, temperature in enumerate((4.0, 3.0, 4.0)):
        fields = {**MOMENTS, "temperature": temperature, "teacher_cache_moments": True, "max_steps": 1}
        train(cached_trainer(tmp_path / str(number), tmp_path / "cache", **fields))
    keys = [json.loads((folder / "key.json").read_text()) for folder in folders(tmp_path / "cache")]
    assert sorted(key["temperature"] for key in keys) == [3.0, 4.0]


@pytest.mark.parametrize(
    "change",
    [
        lambda: {"teacher": resnet("resnet14", seed=5)},
        lambda: {"data": images(augmentation="none")},
        lambda: {"data": images(**CROPS)},
        lambda: {"data": images(drawings(30))},
        lambda: {"data": images(drawings(seed=1))},
        lambda: {
            "data": ImageClassificationDataset(
                drawings(), HeadShareImageProcessor(size={"height": 16, "width": 16}, **_PIXELS), training=True
            )
        },
        lambda: {"teacher_precision": "bfloat16"},
        lambda: {"teacher_cache_dtype": "float16"},
        lambda: {"method": "th_kde"},
    ],
    ids=["teacher", "augmentation", "crops", "length", "images", "processor", "precision", "dtype", "embedding"],
)
def test_what_the_rows_depend_on_has_a_folder_of_its_own(change, tmp_path):
    train(cached_trainer(tmp_path / "first", tmp_path / "cache", max_steps=1))
    (first,) = folders(tmp_path / "cache")
    before = {path.name: path.stat().st_mtime_ns for path in first.glob("rows-*")}
    train(second_run(tmp_path, **change()))
    assert len(folders(tmp_path / "cache")) == 2
    assert {path.name: path.stat().st_mtime_ns for path in first.glob("rows-*")} == before


def test_a_teacher_with_other_statistics_has_a_folder_of_its_own(tmp_path):
    train(cached_trainer(tmp_path / "first", tmp_path / "cache", max_steps=1))
    other = DistillationTrainer(
        resnet(seed=1),
        arguments(tmp_path / "second", method="th_kd", max_steps=1, teacher_cache=str(tmp_path / "cache")),
        teacher=resnet("resnet14", seed=2),
        train_dataset=images(),
        processing_class=PROCESSOR,
        teacher_processing_class=HeadShareImageProcessor(size={"height": 16, "width": 16}, **_PIXELS),
    )
    train(other)
    assert len(folders(tmp_path / "cache")) == 2


def test_images_exchanged_below_the_same_names_are_noticed(tmp_path):
    for name, seed in (("first", 0), ("second", 1)):
        data = images(drawings(seed=seed))
        data.fingerprint = "the same"
        train(cached_trainer(tmp_path / name, tmp_path / "cache", data, max_steps=1))
    assert len(folders(tmp_path / "cache")) == 2


def test_one_image_exchanged_in_its_file_is_noticed(tmp_path):
    for label in range(NUM_LABELS):
        (tmp_path / "data" / "train" / f"class{label}").mkdir(parents=True)
    for number, row in enumerate(drawings(40).cast_column("image", datasets.Image())):
        row["image"].save(tmp_path / "data" / "train" / f"class{row['label']}" / f"{number}.png")
    for name in ("first", "second"):
        (split,) = load_splits(str(tmp_path / "data"), ["train"])
        train(cached_trainer(tmp_path / name, tmp_path / "cache", images(split), max_steps=1))
        (_, exchanged, *_) = sorted((tmp_path / "data").rglob("*.png"))
        Image.new("RGB", (20, 20), "red").save(exchanged)
    assert len(folders(tmp_path / "cache")) == 2


def test_the_folder_of_one_cache_serves_that_one_only(tmp_path):
    train(cached_trainer(tmp_path / "first", tmp_path / "cache", max_steps=1))
    (folder,) = folders(tmp_path / "cache")
    train(forbid_running(cached_trainer(tmp_path / "second", folder, max_steps=1)))
    other = cached_trainer(tmp_path / "third", folder, teacher=resnet("resnet14", seed=5), max_steps=1)
    with pytest.raises(ValueError, match="holds teacher outputs of something else: teacher.weights is '.*' there"):
        other.train()


def test_a_key_that_does_not_fit_its_folder_is_refused(tmp_path):
    train(cached_trainer(tmp_path / "first", tmp_path / "cache", max_steps=1))
    (folder,) = folders(tmp_path / "cache")
    key = json.loads((folder / "key.json").read_text())
    (folder / "key.json").write_text(json.dumps({**key, "images": 41}))
    with pytest.raises(ValueError, match="of something else: images is 41 there and 40 now"):
        second_run(tmp_path).train()


def test_a_damaged_file_stops_the_run_before_its_first_step(tmp_path):
    train(cached_trainer(tmp_path / "first", tmp_path / "cache", max_steps=1))
    (folder,) = folders(tmp_path / "cache")
    path = folder / "rows-0000000000.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(TeacherCacheError, match=f"{path} cannot be read .*; delete this file"):
        second_run(tmp_path).train()
    path.unlink()
    assert train(second_run(tmp_path)) and path.is_file()
