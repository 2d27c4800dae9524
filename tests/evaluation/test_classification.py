"""Accuracies against scikit-learn, `torch.topk` and formulas written out; what is refused; how little is kept."""

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, top_k_accuracy_score
from torch import nn
from transformers import EvalPrediction, Trainer, TrainingArguments
from transformers.modeling_outputs import ImageClassifierOutput

from headshare_hf.evaluation import ClassificationCounts, ClassificationMetrics, classification, head_similarity


NUM_LABELS = 11


def scores(num_images=400, num_labels=NUM_LABELS, unused=()):
    """Scores that are right about half of the time, and labels without the classes `unused`."""
    used = torch.tensor([label for label in range(num_labels) if label not in unused])
    labels = used[torch.randint(len(used), (num_images,))]
    return torch.randn(num_images, num_labels) + 1.5 * nn.functional.one_hot(labels, num_labels), labels


def counted(logits, labels, batch_size=64, **kwargs):
    counts = ClassificationCounts(logits.shape[1], **kwargs)
    for start in range(0, len(labels), batch_size):
        counts.update(logits[start : start + batch_size], labels[start : start + batch_size])
    return counts


def test_accuracies_are_those_of_scikit_learn():
    logits, labels = scores()
    results = counted(logits, labels).compute()
    expected = {
        "accuracy": top_k_accuracy_score(labels, logits, k=1, labels=range(NUM_LABELS)),
        "top5_accuracy": top_k_accuracy_score(labels, logits, k=5, labels=range(NUM_LABELS)),
        "mean_per_class_accuracy": balanced_accuracy_score(labels, logits.argmax(1)),
    }
    assert results == pytest.approx(expected, abs=1e-12)
    assert 0.2 < results["accuracy"] < results["top5_accuracy"] < 1


def test_mean_per_class_is_over_the_classes_that_occur():
    logits, labels = scores(unused=(0, 3, 10))
    per_class = [(logits.argmax(1)[labels == c] == c).double().mean() for c in labels.unique()]
    assert len(per_class) == NUM_LABELS - 3
    expected = torch.stack(per_class).mean().item()
    assert counted(logits, labels).compute()["mean_per_class_accuracy"] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("k", [1, 2, 3, 10])
def test_without_ties_an_image_is_correct_where_topk_has_it(k):
    logits, labels = scores()
    expected = (logits.topk(k).indices == labels[:, None]).any(1).double().mean().item()
    name = "accuracy" if k == 1 else f"top{k}_accuracy"
    assert counted(logits, labels, ks=(1, k) if k > 1 else (1,)).compute()[name] == expected


def test_ties_count_against_the_image():
    constant = torch.zeros(NUM_LABELS, NUM_LABELS)
    counts = ClassificationCounts(NUM_LABELS)
    counts.update(constant, torch.arange(NUM_LABELS))
    assert set(counts.compute().values()) == {0.0}
    # The first class ties with one other: not first, but among the first five.
    counts.reset()
    tied = constant.clone()
    tied[:, :2] = 1.0
    counts.update(tied[:1], torch.tensor([0]))
    assert counts.compute() == {"accuracy": 0.0, "top5_accuracy": 1.0, "mean_per_class_accuracy": 0.0}


@pytest.mark.parametrize("num_labels, has_top5", [(1, False), (5, False), (6, True)])
def test_top5_needs_more_than_five_classes(num_labels, has_top5):
    results = counted(*scores(20, num_labels)).compute()
    assert ("top5_accuracy" in results) == has_top5
    assert "accuracy" in results


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_precision_and_numpy_give_the_same_counts(dtype):
    logits, labels = scores()
    logits = logits.to(dtype)
    expected = counted(logits.double(), labels).compute()
    assert counted(logits, labels.int()).compute() == expected
    assert counted(logits.double().numpy(), labels.numpy()).compute() == expected


def test_infinite_scores_are_ranked():
    counts = ClassificationCounts(2)
    counts.update(torch.tensor([[float("inf"), 0.0], [float("-inf"), 0.0]]), torch.tensor([0, 0]))
    assert counts.compute()["accuracy"] == 0.5


def test_predicted_classes_give_the_same_top1():
    logits, labels = scores()
    counts = ClassificationCounts(NUM_LABELS, ks=(1,))
    counts.update_classes(logits.argmax(1).numpy(), labels)
    assert counts.compute() == counted(logits, labels, ks=(1,)).compute()


def test_size_does_not_depend_on_the_number_of_images():
    def numbers(counts):
        tensors = [value for value in vars(counts).values() if isinstance(value, torch.Tensor)]
        assert all(tensor.untyped_storage().nbytes() == 8 * tensor.numel() for tensor in tensors)
        return sum(tensor.numel() for tensor in tensors), set(vars(counts))

    counts = ClassificationCounts(NUM_LABELS)
    before = numbers(counts)
    for _ in range(50):
        counts.update(*scores(100))
    assert int(counts.seen.sum()) == 5000
    assert numbers(counts) == before == (3 * NUM_LABELS, {"num_labels", "ks", "seen", "correct"})


@pytest.mark.parametrize(
    "logits, labels, message",
    [
        (torch.zeros(2, 4), torch.tensor([0, 3]), r"logits have shape \(2, 4\); expected \(batch_size, 3\)"),
        (torch.zeros(3), torch.tensor([0, 1, 2]), r"logits have shape \(3,\)"),
        (torch.zeros(2, 3), torch.tensor([0]), r"labels have shape \(1,\) beside logits \(2, 3\); expected \(2,\)"),
        (torch.zeros(2, 3), torch.tensor([[0], [1]]), r"labels have shape \(2, 1\)"),
        (
            torch.zeros(2, 3),
            torch.tensor([0.0, 1.0]),
            "a label must be an integer class number, but the dtype is torch.float32",
        ),
        (torch.zeros(2, 3), torch.tensor([0, 3]), r"label 3 of image 1 in the batch is outside of 0 \.\.\. 2"),
        (torch.zeros(2, 3), torch.tensor([-100, 0]), "label -100 of image 0"),
        (torch.full((2, 3), torch.nan), torch.tensor([0, 1]), "6 scores of 2 images are NaN"),
    ],
)
def test_a_bad_batch_is_refused_and_not_counted(logits, labels, message):
    counts = ClassificationCounts(3)
    with pytest.raises(ValueError, match=message):
        counts.update(logits, labels)
    with pytest.raises(ValueError, match="no images were counted"):
        counts.compute()


@pytest.mark.parametrize(
    "predictions, labels, ks, message",
    [
        ([0, 1], [0, 1], (1, 5), "predicted classes have no second choice"),
        ([0, 1], [0], (1,), r"predicted classes \(2,\) and labels \(1,\)"),
        ([0, 3], [0, 1], (1,), "predicted class 3 of image 1"),
        ([0, 1], [0, 7], (1,), "label 7 of image 1"),
        ([0.5, 1.0], [0, 1], (1,), "a predicted class must be an integer class number"),
    ],
)
def test_bad_predicted_classes_are_refused(predictions, labels, ks, message):
    with pytest.raises(ValueError, match=message):
        ClassificationCounts(3, ks).update_classes(torch.tensor(predictions), torch.tensor(labels))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((0,), "`num_labels` is 0"),
        ((3, (5,)), r"`ks` is \(5,\); it must be different positive numbers, 1 among them"),
        ((3, (1, 1)), "`ks` is"),
        ((3, (1, 0)), "`ks` is"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ClassificationCounts(*arguments)


def test_counts_grow_but_do_not_shrink():
    counts = ClassificationCounts(2, (1,))
    counts.update_classes([1], [1])
    counts.grow(4)
    counts.update_classes([0], [3])
    assert counts.compute() == {"accuracy": 0.5, "mean_per_class_accuracy": 0.5}
    with pytest.raises(ValueError, match="counts of 4 classes cannot shrink to 3"):
        counts.grow(3)


def test_metrics_are_given_after_the_last_batch_and_start_again():
    logits, labels = scores()
    metrics = ClassificationMetrics(NUM_LABELS)
    for _ in range(2):
        assert metrics(EvalPrediction(logits[:300], labels[:300]), compute_result=False) == {}
        found = metrics(EvalPrediction(logits[300:], labels[300:]), compute_result=True)
        assert found == counted(logits, labels).compute()


def test_a_pair_gives_mixed_metrics_and_one_output_none():
    logits, labels = scores()
    mixed = (logits + nn.functional.one_hot(labels, NUM_LABELS)).log_softmax(1)
    metrics = ClassificationMetrics(NUM_LABELS)
    found = metrics(EvalPrediction((logits, mixed), labels), compute_result=True)
    assert found["accuracy"] == counted(logits, labels).compute()["accuracy"]
    expected = {f"mixed_{name}": value for name, value in counted(mixed, labels).compute().items()}
    assert found == {**counted(logits, labels).compute(), **expected}
    assert found["mixed_accuracy"] > found["accuracy"]
    alone = metrics(EvalPrediction(logits, labels), compute_result=True)
    assert not any(name.startswith("mixed_") for name in alone)


def test_more_than_two_outputs_are_refused():
    logits, labels = scores(4)
    with pytest.raises(ValueError, match="the model gives 3 outputs; .*ignore_keys"):
        ClassificationMetrics(NUM_LABELS)(EvalPrediction((logits, logits, logits), labels))


def test_reset_forgets_an_evaluation_that_was_interrupted():
    logits, labels = scores()
    metrics = ClassificationMetrics(NUM_LABELS)
    metrics(EvalPrediction(torch.zeros_like(logits), labels), compute_result=False)
    metrics.reset()
    assert metrics(EvalPrediction(logits, labels), compute_result=True) == counted(logits, labels).compute()


class Toy(nn.Module):
    """Returns its input as logits."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, pixel_values, labels=None):
        logits = self.scale * pixel_values
        return ImageClassifierOutput(loss=nn.functional.cross_entropy(logits, labels), logits=logits)


def test_the_trainer_of_transformers_uses_it_batch_by_batch(tmp_path):
    logits, labels = scores(50)
    images = [{"pixel_values": row, "labels": label} for row, label in zip(logits, labels, strict=True)]
    arguments = TrainingArguments(tmp_path, per_device_eval_batch_size=16, batch_eval_metrics=True, use_cpu=True)
    trainer = Trainer(Toy(), arguments, eval_dataset=images, compute_metrics=ClassificationMetrics(NUM_LABELS))
    expected = counted(logits, labels).compute()
    for _ in range(2):
        found = trainer.evaluate()
        assert {name: found[f"eval_{name}"] for name in expected} == expected


def test_the_trainer_of_transformers_may_give_all_batches_at_once(tmp_path):
    logits, labels = scores(50)
    images = [{"pixel_values": row, "labels": label} for row, label in zip(logits, labels, strict=True)]
    arguments = TrainingArguments(tmp_path, per_device_eval_batch_size=16, use_cpu=True)
    metrics, expected = ClassificationMetrics(NUM_LABELS), counted(logits, labels).compute()
    assert metrics(EvalPrediction(logits, labels)) == metrics(EvalPrediction(logits, labels)) == expected
    found = Trainer(Toy(), arguments, eval_dataset=images, compute_metrics=metrics).evaluate()
    assert {name: found[f"eval_{name}"] for name in expected} == expected


def test_head_similarity_is_cosine_and_distance():
    a, b = torch.randn(7, 5), torch.randn(7, 5)
    bias_a, bias_b = torch.randn(7), torch.randn(7)
    found = head_similarity(a, b, bias_a, bias_b)
    cosine = np.array([float(x @ y) / float(x.norm() * y.norm()) for x, y in zip(a, b, strict=True)])
    np.testing.assert_allclose(found["cosine_per_class"].numpy(), cosine, atol=1e-6)
    expected = {"cosine_mean": cosine.mean(), "cosine_min": cosine.min(), "cosine_std": cosine.std()}
    expected["bias_distance"] = float(np.linalg.norm(bias_a.numpy() - bias_b.numpy()))
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert all(type(found[name]) is float for name in expected)


def test_many_classes_are_compared_some_at_a_time(monkeypatch):
    torch.manual_seed(0)
    one, other = torch.randn(10, 3), torch.randn(10, 3)
    whole = head_similarity(one, other)
    monkeypatch.setattr(classification, "_CLASSES_AT_A_TIME", 4)
    sizes, doubled = [], classification._double
    monkeypatch.setattr(classification, "_double", lambda part: sizes.append(len(part)) or doubled(part))
    found = head_similarity(one, other)
    assert torch.equal(found.pop("cosine_per_class"), whole.pop("cosine_per_class")) and found == whole
    assert sizes == [4, 4, 4, 4, 2, 2]
    other[6] = 0
    with pytest.raises(ValueError, match="the second head has only zeros for class 6"):
        head_similarity(one, other)


def test_a_head_is_similar_to_itself_scaled():
    weight = torch.randn(4, 3, requires_grad=True)
    found = head_similarity(weight, 3 * weight)
    assert found["cosine_mean"] == pytest.approx(1) and found["cosine_std"] == pytest.approx(0, abs=1e-9)
    assert "bias_distance" not in found
    assert not found["cosine_per_class"].requires_grad


def test_a_missing_bias_is_zero():
    weight, bias = torch.randn(4, 3), torch.tensor([3.0, 0.0, 4.0, 0.0])
    assert head_similarity(weight, weight, bias)["bias_distance"] == pytest.approx(5)
    assert head_similarity(weight, weight, None, bias)["bias_distance"] == pytest.approx(5)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((torch.ones(2, 3), torch.ones(2, 4)), r"weights of shape \(2, 3\) and \(2, 4\)"),
        ((torch.ones(3), torch.ones(3)), r"weights of shape \(3,\)"),
        ((torch.tensor([[1.0], [0.0]]), torch.ones(2, 1)), "the first head has only zeros for class 1"),
        ((torch.ones(2, 1), torch.zeros(2, 1)), "the second head has only zeros for class 0"),
        ((torch.ones(2, 1), torch.ones(2, 1), torch.ones(3), torch.ones(3)), r"biases of shape .*; expected \(2,\)"),
    ],
)
def test_heads_that_cannot_be_compared_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        head_similarity(*arguments)
