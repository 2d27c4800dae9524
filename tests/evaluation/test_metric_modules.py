"""The `evaluate` modules: loaded offline from their files, fed in every way that `evaluate` has, and storing nothing."""

from pathlib import Path

import evaluate
import numpy as np
import pytest
import torch
from evaluate import EvaluationModule
from sklearn.metrics import balanced_accuracy_score, top_k_accuracy_score

import headshare_hf.evaluation
from headshare_hf.evaluation import load_metric, metric_names


NUM_LABELS = 8
FOLDER = Path(headshare_hf.evaluation.__file__).parent / "metrics"


@pytest.fixture
def batch():
    labels = torch.randint(NUM_LABELS, (90,))
    return torch.randn(90, NUM_LABELS) + torch.nn.functional.one_hot(labels, NUM_LABELS), labels


def topk(logits, labels, k):
    return top_k_accuracy_score(labels, logits, k=k, labels=range(NUM_LABELS))


@pytest.fixture(autouse=True)
def no_files(monkeypatch):
    """What `evaluate` would write predictions with must never be called."""

    def refuse(self, *args, **kwargs):
        raise AssertionError("an Arrow writer was opened")

    monkeypatch.setattr(EvaluationModule, "_init_writer", refuse)


def test_all_modules_are_shipped():
    assert {"mean_per_class_accuracy", "topk_accuracy", "verification"} <= set(metric_names())
    assert metric_names() == sorted(path.name for path in FOLDER.iterdir() if path.name != "__pycache__")


@pytest.mark.parametrize("path", [FOLDER / "topk_accuracy", FOLDER / "topk_accuracy" / "topk_accuracy.py"])
def test_top_k_by_path(path, batch):
    logits, labels = batch
    metric = evaluate.load(str(path))
    assert metric.name == "topk_accuracy"
    expected = {"accuracy": topk(logits, labels, 1), "top5_accuracy": topk(logits, labels, 5)}
    assert metric.compute(predictions=logits, references=labels) == pytest.approx(expected)


@pytest.mark.parametrize("convert", [lambda x: x, lambda x: x.numpy(), lambda x: x.tolist(), list])
def test_batches_of_any_kind_add_up(convert, batch):
    logits, labels = batch
    metric = load_metric("topk_accuracy", ks=(1, 2, 3))
    for part in range(0, 90, 40):
        metric.add_batch(predictions=convert(logits[part : part + 40]), references=convert(labels[part : part + 40]))
    found = metric.compute()
    assert found == pytest.approx(
        {f"top{k}_accuracy" if k > 1 else "accuracy": topk(logits, labels, k) for k in (1, 2, 3)}
    )


@pytest.mark.parametrize("convert", [lambda x: x, np.asarray, lambda x: x.tolist()])
def test_single_images_add_up_and_compute_starts_again(convert, batch):
    logits, labels = batch
    metric = load_metric("topk_accuracy")
    for _ in range(2):
        for prediction, reference in zip(logits[:20], labels[:20], strict=True):
            metric.add(prediction=convert(prediction), reference=convert(reference))
        assert metric.compute()["accuracy"] == pytest.approx(topk(logits[:20], labels[:20], 1))


def test_mean_per_class_from_numbers_and_from_logits(batch):
    logits, labels = batch
    expected = balanced_accuracy_score(labels, logits.argmax(1))
    metric = evaluate.load(str(FOLDER / "mean_per_class_accuracy"))
    assert metric.compute(predictions=logits.argmax(1), references=labels) == {
        "mean_per_class_accuracy": pytest.approx(expected)
    }
    assert metric.compute(predictions=logits, references=labels)["mean_per_class_accuracy"] == pytest.approx(expected)


def test_mean_per_class_learns_of_classes_batch_by_batch():
    metric = load_metric("mean_per_class_accuracy")
    metric.add_batch(predictions=[0, 0], references=[0, 1])
    metric.add_batch(predictions=[6, 2, 2], references=[4, 2, 0])
    # Class 0: 1 of 2; 1: 0 of 1; 2: 1 of 1; 4: 0 of 1; class 6 is predicted but does not occur.
    assert metric.compute() == {"mean_per_class_accuracy": 1.5 / 4}


def test_modules_combine(batch):
    logits, labels = batch
    combined = evaluate.combine([load_metric("topk_accuracy"), load_metric("mean_per_class_accuracy")])
    combined.add_batch(predictions=logits[:50], references=labels[:50])
    found = combined.compute(predictions=logits[50:], references=labels[50:])
    assert set(found) == {"accuracy", "top5_accuracy", "mean_per_class_accuracy"}
    assert found["accuracy"] == pytest.approx(topk(logits, labels, 1))


def test_features_and_description_are_told():
    metric = load_metric("topk_accuracy")
    assert metric.features["predictions"].feature.dtype == "float32"
    assert [sorted(option) for option in load_metric("mean_per_class_accuracy").features] == [
        ["predictions", "references"]
    ] * 2
    assert "ks" in metric.compute.__doc__ and "2201.06945" in metric.citation


def test_nothing_of_the_predictions_is_kept():
    def kept(metric):
        return sum(v.numel() for v in vars(metric.counts).values() if isinstance(v, torch.Tensor))

    metric = load_metric("topk_accuracy")
    logits, labels = torch.randn(64, NUM_LABELS), torch.randint(NUM_LABELS, (64,))
    metric.add_batch(predictions=logits, references=labels)
    before = kept(metric), set(vars(metric))
    for _ in range(30):
        metric.add_batch(predictions=logits, references=labels)
    assert (kept(metric), set(vars(metric))) == before
    assert before[0] == 3 * NUM_LABELS
    assert not [path for path in Path(metric.data_dir).rglob("*") if path.is_file()]


@pytest.mark.parametrize("name", ["topk_accuracy", "mean_per_class_accuracy"])
def test_what_is_refused(name):
    metric = load_metric(name)
    with pytest.raises(ValueError, match=f"{name} counted no images"):
        metric.compute()
    with pytest.raises(ValueError, match=f"{name} needs both"):
        metric.compute(predictions=[[0.0, 1.0]])
    with pytest.raises(ValueError, match=f"{name} needs both `prediction` and"):
        metric.add(prediction=[0.0, 1.0])
    with pytest.raises(ValueError, match="label 9 of image 0"):
        metric.add_batch(predictions=[[0.0, 1.0]], references=[9])
    with pytest.raises(ValueError, match="`num_process` is 2, but counts stay in their process"):
        load_metric(name, num_process=2)


def test_top_k_needs_scores():
    with pytest.raises(ValueError, match=r"predictions of topk_accuracy have shape \(3,\); expected logits"):
        load_metric("topk_accuracy").add_batch(predictions=[0, 1, 2], references=[0, 1, 2])


def test_class_numbers_must_be_integers():
    with pytest.raises(ValueError, match="a predicted class must be an integer class number"):
        load_metric("mean_per_class_accuracy").add_batch(predictions=[0.0, 1.0], references=[0, 1])


def test_unknown_name_gives_the_nearest():
    with pytest.raises(ValueError, match="unknown metric 'top_k'; did you mean topk_accuracy"):
        load_metric("top_k")
    with pytest.raises(ValueError, match=f"unknown metric 'zzz'; This package has: {', '.join(metric_names())}$"):
        load_metric("zzz")


def test_a_module_has_to_say_what_it_selects():
    from headshare_hf.evaluation.counting_metric import CountingMetric

    with pytest.raises(NotImplementedError, match="CountingMetric does not implement select"):
        CountingMetric.select(CountingMetric.__new__(CountingMetric), {})
