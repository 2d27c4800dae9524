"""The `evaluate` modules of the IJB protocols: loaded offline, fed in every way that `evaluate` has."""

import numpy as np
import pytest
import torch
from evaluate import EvaluationModule

from headshare_hf.evaluation import Roc, load_metric, metric_names, probe_rates, reduce_probes
from headshare_hf.evaluation.batch_metric import BatchMetric


CONVERSIONS = [lambda x: x, lambda x: x.numpy(), lambda x: x.tolist(), list]


@pytest.fixture(autouse=True)
def no_files(monkeypatch):
    """What `evaluate` would write predictions with must never be called."""

    def refuse(self, *args, **kwargs):
        raise AssertionError("an Arrow writer was opened")

    monkeypatch.setattr(EvaluationModule, "_init_writer", refuse)


@pytest.fixture
def pairs():
    is_same = torch.rand(300) < 0.2
    return torch.randn(300) + 2 * is_same, is_same.long()


@pytest.fixture
def probes():
    scores = torch.randn(90, 7)
    mates = torch.randint(-1, 7, (90,))
    scores[torch.arange(90), mates.clamp(min=0)] += 2.0 * (mates >= 0)
    return scores, mates


def test_both_are_shipped():
    assert {"ijb_verification", "ijb_identification"} <= set(metric_names())


@pytest.mark.parametrize("convert", CONVERSIONS)
def test_pairs_in_batches_of_any_kind(convert, pairs):
    scores, labels = pairs
    metric = load_metric("ijb_verification", fars=(1e-2, 0.1))
    for start in range(0, 300, 128):
        rows = slice(start, start + 128)
        metric.add_batch(predictions=convert(scores[rows]), references=convert(labels[rows]))
    found = metric.compute()
    roc = Roc.from_scores(scores, labels == 1)
    expected = {
        f"tar@far=1e-{k}/{rule}": roc.tar_at_far(10**-k, rule) for k in (1, 2) for rule in ("nearest", "at_most")
    }
    assert found == pytest.approx({**expected, "auc": roc.auc, "eer": roc.eer}, abs=1e-6)


def test_default_rates_of_pairs(pairs):
    scores, labels = pairs
    found = load_metric("ijb_verification").compute(predictions=scores, references=labels == 1)
    assert len(found) == 14 and "tar@far=1e-6/nearest" in found and "tar@far=1e-1/at_most" in found


@pytest.mark.parametrize("convert", CONVERSIONS)
def test_probes_in_batches_of_any_kind(convert, probes):
    scores, mates = probes
    metric = load_metric("ijb_identification", ranks=(1, 3), fpirs=(0.2,))
    metric.add_batch(predictions=convert(scores[:50]), references=convert(mates[:50]))
    found = metric.compute(predictions=convert(scores[50:]), references=convert(mates[50:]))
    assert found == pytest.approx(probe_rates(*reduce_probes(scores, mates), (1, 3), (0.2,)))
    assert set(found) == {"rank1", "rank3", "tpir@fpir=0.2"}


@pytest.mark.parametrize("convert", CONVERSIONS[:3])
def test_one_by_one_and_compute_starts_again(convert, pairs, probes):
    for name, data in (("ijb_verification", pairs), ("ijb_identification", probes)):
        metric, expected = load_metric(name), load_metric(name).compute(predictions=data[0], references=data[1])
        for _ in range(2):
            for prediction, reference in zip(*data, strict=True):
                metric.add(prediction=convert(prediction), reference=convert(reference))
            assert metric.compute() == pytest.approx(expected, abs=1e-6)


def test_probes_are_kept_as_two_numbers():
    metric = load_metric("ijb_identification")
    metric.add_batch(predictions=torch.randn(10, 500), references=torch.arange(10))
    assert [array.shape for array in metric.batches[0]] == [(10,), (10,)]


@pytest.mark.parametrize("name", ["ijb_verification", "ijb_identification"])
def test_what_is_refused(name):
    metric = load_metric(name)
    with pytest.raises(ValueError, match=f"{name} has no batches"):
        metric.compute()
    with pytest.raises(ValueError, match=f"{name} needs both `predictions` and"):
        metric.add_batch(predictions=[0.5])
    with pytest.raises(ValueError, match=f"{name} needs both `prediction` and"):
        metric.add(prediction=0.5)
    with pytest.raises(ValueError, match="`num_process` is 2, but batches stay in their process"):
        load_metric(name, num_process=2)
    assert "predictions" in metric.features and "IARPA Janus" in metric.citation


def test_pairs_that_do_not_fit():
    metric = load_metric("ijb_verification")
    with pytest.raises(ValueError, match=r"one similarity and one label for each pair.*\(2,\).*\(3,\)"):
        metric.add_batch(predictions=[0.5, 0.1], references=[1, 0, 0])
    with pytest.raises(ValueError, match="references of ijb_verification are 1 for one person and 0 for two"):
        metric.add_batch(predictions=[0.5, 0.1], references=[1, -1])
    with pytest.raises(ValueError, match="score 1 is nan"):
        metric.compute(predictions=np.array([0.5, np.nan]), references=[1, 0])


def test_a_module_has_to_say_what_it_keeps_and_what_it_gives():
    metric = BatchMetric.__new__(BatchMetric)
    with pytest.raises(NotImplementedError, match="BatchMetric does not implement reduce"):
        BatchMetric.reduce(metric, [], [])
    with pytest.raises(NotImplementedError, match="BatchMetric does not implement finish"):
        BatchMetric.finish(metric, np.zeros(1), np.zeros(1))
