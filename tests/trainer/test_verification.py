"""Pairs of images that are scored while a network trains, and the recipe sections that name them."""

import json
import logging

import numpy as np
import pytest
from PIL import Image
from toys import ToyImages, arguments, resnet
from transformers import EarlyStoppingCallback

from headshare_hf import DistillationTrainer, HeadShareImageProcessor
from headshare_hf.data import VerificationSet, write_verification_bin
from headshare_hf.evaluation import Verifier, add_flipped, bootstrap_intervals, extract_embeddings, verify_pairs
from headshare_hf.trainer import run_or_reuse
from headshare_hf.trainer.recipe import build_data, run_recipe
from headshare_hf.trainer.recipe_arguments import build_recipe
from headshare_hf.trainer.recipe_sections import DataArguments, VerificationArguments


def _png(folder, name, color):
    path = folder / f"{name}.png"
    Image.new("RGB", (16, 16), color).save(path)
    return {"bytes": path.read_bytes(), "path": None}


@pytest.fixture
def pairs(tmp_path):
    """Reds, greens and blues of ten shades; every pair of one color is the same."""
    shades = [
        tuple(20 * level + 40 if channel == color else 10 for channel in range(3))
        for color in range(3)
        for level in range(10)
    ]
    images = [_png(tmp_path, str(number), shade) for number, shade in enumerate(shades)]
    names = [f"color {number // 10}" for number in range(30)]
    first = np.arange(40) % 30
    second = np.where(np.arange(40) % 2 == 0, first // 10 * 10 + (first + 3) % 10, (first + 10) % 30)
    return VerificationSet("colors", images, first, second, np.arange(40) % 2 == 0, names=names)


def _processor():
    return HeadShareImageProcessor(size={"height": 16, "width": 16}, image_mean=[0.5] * 3, image_std=[0.5] * 3)


def test_a_verifier_is_extraction_and_the_protocol(pairs):
    model = resnet().eval()
    found = Verifier([pairs], _processor())(model)
    rows = extract_embeddings(model, pairs.dataset(_processor()), flip=True)
    rows = add_flipped(rows[:, :64], rows[:, 64:])
    expected = verify_pairs(rows[pairs.index_a], rows[pairs.index_b], pairs.is_same)
    assert found["colors"].accuracy == expected.accuracy and found["colors"].roc.auc == expected.roc.auc
    assert np.array_equal(found["colors"].similarities, expected.similarities)


def test_every_epoch_is_verified_and_the_results_say_so(pairs, tmp_path):
    args = arguments(tmp_path / "run", num_train_epochs=2)
    verifier = Verifier([pairs], _processor(), flip=False)
    trainer = DistillationTrainer(resnet(), args, train_dataset=ToyImages(), verifier=verifier)
    results = run_or_reuse(trainer)
    logged = [row for row in trainer.state.log_history if "eval_colors_accuracy" in row]
    assert [row["epoch"] for row in logged] == [1.0, 2.0, 2.0]
    assert results["eval_colors_auc"] == logged[-1]["eval_colors_auc"] and "eval_accuracy" not in results
    assert {"eval_colors_accuracy", "eval_colors_eer"} <= results.keys()
    # Twenty impostor pairs cannot show a FAR of 1e-2.
    assert not any("tar@far" in name for name in results)


@pytest.mark.parametrize("images", [None, ToyImages(16, seed=5)])
def test_the_best_checkpoint_is_chosen_by_pairs(images, pairs, tmp_path):
    verifier = Verifier([pairs], _processor(), flip=False)
    args = arguments(
        tmp_path, num_train_epochs=4, eval_strategy="epoch", save_strategy="epoch", load_best_model_at_end=True,
        metric_for_best_model="colors_auc", greater_is_better=True,
    )  # fmt: skip
    trainer = DistillationTrainer(
        resnet(), args, train_dataset=ToyImages(), eval_dataset=images, verifier=verifier,
        callbacks=[EarlyStoppingCallback(early_stopping_patience=1)],
    )  # fmt: skip
    # Each epoch is told what it has reached, so that the second is the best, and the third the last.
    told = iter([0.5, 0.9, 0.7, 0.8])
    verify = trainer.verify

    def verified(*args):
        verify(*args)
        trainer._verified = (trainer.state.global_step, {"eval_colors_auc": next(told)})
        return {}

    trainer.verify = verified
    trainer.train()
    assert trainer.state.epoch == 3 and trainer.state.best_metric == 0.9
    assert trainer.state.best_model_checkpoint.endswith("checkpoint-6")
    # After the training nothing of it is left in an evaluation.
    assert "eval_colors_auc" not in (trainer.evaluate() if images else {})


@pytest.mark.parametrize(
    "images, fields, every, message",
    [
        (
            None,
            {"metric_for_best_model": "lfw_auc"},
            1,
            "is 'lfw_auc', and the pairs give colors_accuracy, colors_auc",
        ),
        (None, {"metric_for_best_model": "colors_tar@far=1e-3/at_most"}, 1, "the pairs give colors_accuracy"),
        (ToyImages(16), {"metric_for_best_model": "eval_colors_auk"}, 1, "is 'colors_auk', and the pairs give"),
        (ToyImages(16), {"metric_for_best_model": "colors_auc"}, 2, "known after every 2 epochs"),
        (
            ToyImages(16),
            {"metric_for_best_model": "colors_auc", "eval_strategy": "steps", "save_strategy": "steps"},
            1,
            "`eval_strategy` 'steps'; set that to 'epoch'",
        ),
    ],
)
def test_a_best_checkpoint_that_could_not_be_chosen_is_refused(images, fields, every, message, pairs, tmp_path):
    fields = {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True, **fields}
    verifier = Verifier([pairs], _processor(), every_epochs=every)
    with pytest.raises(ValueError, match=message):
        DistillationTrainer(
            resnet(), arguments(tmp_path, **fields), train_dataset=ToyImages(), eval_dataset=images, verifier=verifier
        )


def test_other_metrics_choose_as_ever(pairs, tmp_path):
    fields = {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True}
    args = arguments(tmp_path, metric_for_best_model="accuracy", **fields)
    verifier = Verifier([pairs], _processor(), every_epochs=2)
    trainer = DistillationTrainer(
        resnet(), args, train_dataset=ToyImages(), eval_dataset=ToyImages(16), verifier=verifier
    )
    trainer.train()
    assert trainer.state.best_metric > 0


def test_the_best_equal_error_rate_is_the_lowest(tmp_path):
    assert arguments(tmp_path, metric_for_best_model="lfw_eer").greater_is_better is False
    assert arguments(tmp_path, metric_for_best_model="lfw_auc").greater_is_better is True
    assert arguments(tmp_path, metric_for_best_model="lfw_eer", greater_is_better=True).greater_is_better is True


def test_intervals_are_those_of_the_bootstrap(pairs):
    verifier = Verifier([pairs], _processor(), far_targets=(0.1,), bootstrap=30)
    results = verifier(resnet().eval())
    found, expected = (
        verifier.intervals(results),
        bootstrap_intervals(results["colors"], num_samples=30, far_targets=(0.1,)),
    )
    assert found.pop("colors_replicates") == 30
    assert found == {
        f"colors_{name}/{end}": getattr(interval, end)
        for name, interval in expected.items()
        for end in ("low", "high")
    }
    assert Verifier([pairs], _processor()).intervals(results) == {}
    with pytest.raises(ValueError, match="`bootstrap` is 1; an interval needs at least 2 replicates, 0 is none"):
        Verifier([pairs], _processor(), bootstrap=1)


def test_people_in_both_sets_are_counted(pairs, tmp_path, caplog):
    train = ToyImages()
    train.label_names = ["color 1", "color 2", "a", "b", "c"]
    model = resnet()
    model.config.id2label = dict(enumerate(train.label_names))
    with caplog.at_level(logging.WARNING, "headshare_hf"):
        DistillationTrainer(model, arguments(tmp_path), train_dataset=train, verifier=Verifier([pairs], _processor()))
    assert "2 of the people of colors are also in the training set, e.g. color 1" in caplog.text


@pytest.fixture
def folder(tmp_path):
    for split, count in (("train", 4), ("test", 3)):
        for number, name in enumerate(("red", "green", "blue", "gray", "white")):
            (tmp_path / "images" / split / name).mkdir(parents=True)
            for index in range(count):
                color = (40 * number, 30 * index, 200 - 40 * number)
                Image.new("RGB", (20, 18), color).save(tmp_path / "images" / split / name / f"{index}.png")
    return tmp_path


def test_held_out_classes_become_pairs(folder):
    data = DataArguments(name=str(folder / "images"), held_out_classes=["gray", "white"], image_size=[16, 12])
    found = build_data(data, 0, VerificationArguments(held_out_pairs=20, flip=False))
    assert found.train.label_names == found.evaluation.label_names == ["blue", "green", "red"]
    assert len(found.train) == 12 and len(found.evaluation) == 9
    (pairs,) = found.verifier.sets
    assert pairs.name == "held_out" and set(pairs.names) == {"gray", "white"} and len(pairs.images) == 14
    assert found.train[0]["pixel_values"].shape == (3, 16, 12) and not found.verifier.flip


def test_a_recipe_without_classes_to_evaluate(folder, pairs):
    write_verification_bin(folder / "colors.bin", pairs)
    recipe = build_recipe(
        {
            "student": {"backbone": "mobilefacenet_1x", "head_type": "arcface", "embedding_size": 32},
            "data": {"name": str(folder / "images"), "eval_split": None, "image_size": 16, "channel_order": "bgr"},
            "verification": {"sets": [str(folder / "colors.bin")], "preparation": "flat colors"},
            "training": {"output_dir": str(folder / "run"), "max_steps": 1, "use_cpu": True, "report_to": "none"},
        }
    )
    trainer, results = run_recipe(recipe)
    assert trainer.eval_dataset is None and "eval_accuracy" not in results
    assert 0 <= results["eval_colors_accuracy"] <= 1
    assert HeadShareImageProcessor.from_pretrained(folder / "run").channel_order == "bgr"
    assert trainer.student.headshare.embedding_size == 32


@pytest.mark.parametrize(
    "data, verification, message",
    [
        ({"held_out_classes": ["gray"]}, None, "`data.held_out_classes` has no effect without section `verification`"),
        ({}, {}, "section `verification` needs `sets`, or `data.held_out_classes`"),
    ],
)
def test_contradicting_sections_are_refused(data, verification, message, folder):
    arguments_of_data = DataArguments(name=str(folder / "images"), **data)
    with pytest.raises(ValueError, match=message):
        build_data(arguments_of_data, 0, None if verification is None else VerificationArguments(**verification))


def test_two_sets_of_one_name_are_refused(folder, pairs):
    write_verification_bin(folder / "colors.bin", pairs)
    again = folder / "again"
    again.mkdir()
    write_verification_bin(again / "colors.bin", pairs)
    sets = VerificationArguments(sets=[str(folder / "colors.bin"), str(again / "colors.bin")])
    with pytest.raises(ValueError, match="two sets called 'colors'"):
        build_data(DataArguments(name=str(folder / "images")), 0, sets)


def test_a_validation_share_needs_an_evaluation_split():
    with pytest.raises(ValueError, match="`data.validation_fraction` has no effect without `eval_split`"):
        DataArguments(name="x", eval_split=None, validation_fraction=0.1)


@pytest.mark.parametrize("size", [[1, 2, 3], True, [16, 2.5]])
def test_a_wrong_image_size_is_refused(size):
    with pytest.raises(ValueError, match="`data.image_size` is .*; it must be one int, or"):
        DataArguments(name="x", image_size=size)


def test_what_the_card_needs_is_asked_for_before_training(folder, pairs):
    write_verification_bin(folder / "colors.bin", pairs)
    recipe = build_recipe(
        {
            "student": {"backbone": "resnet8", "head_type": "arcface"},
            "data": {"name": str(folder / "images"), "eval_split": None},
            "verification": {"sets": [str(folder / "colors.bin")]},
            "training": {"output_dir": str(folder / "run"), "use_cpu": True},
        }
    )
    with pytest.raises(ValueError, match="section `verification` needs `preparation`"):
        run_recipe(recipe)
    assert not (folder / "run").exists()


def test_thresholds_of_earlier_weights_do_not_outlive_training(tmp_path):
    model = resnet(head_type="cosine")
    model.config.verification_thresholds = [
        {"far": 0.01, "rule": "at_most", "similarity": 0.5, "set": "x", "num_impostor": 500, "flip": True}
    ]
    trainer = DistillationTrainer(model, arguments(tmp_path), train_dataset=ToyImages())
    run_or_reuse(trainer)
    assert trainer.student.config.verification_thresholds is None
    assert json.loads((tmp_path / "config.json").read_text())["verification_thresholds"] is None
