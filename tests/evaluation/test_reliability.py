"""Calibration by hand and against a loop over the bins."""

import json

import numpy as np
import pytest
import torch

from headshare_hf.evaluation import Calibration, ClassificationCounts, calibration, pool_calibrations


def test_four_images_by_hand():
    """Two bins with half of their images right, and mean confidences of 0.65 and 0.85."""
    rows = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.7, 0.3]], dtype=torch.float64)
    labels = torch.tensor([0, 0, 0, 0])
    found = calibration(rows, labels, bins=4)
    assert found.edges == (0, 0.25, 0.5, 0.75, 1) and found.counts == (0, 0, 2, 2)
    assert found.confidence == (None, None, pytest.approx(0.65), pytest.approx(0.85))
    assert found.accuracy == (None, None, 0.5, 0.5)
    assert found.expected_calibration_error == pytest.approx((2 * 0.15 + 2 * 0.35) / 4)
    one = calibration(rows, labels, bins=1)
    assert one == (pytest.approx(0.75 - 0.5), (0, 1), (4,), (pytest.approx(0.75),), (0.5,))


def test_too_sure_and_too_unsure_bins_do_not_cancel():
    """0.6 and right, 0.9 and wrong: (0.4 + 0.9) / 2."""
    rows = torch.tensor([[0.6, 0.4], [0.9, 0.1]], dtype=torch.float64)
    assert calibration(rows, [0, 1], bins=2).expected_calibration_error == pytest.approx(0.25)
    assert calibration(rows, [0, 1], bins=4).expected_calibration_error == pytest.approx(0.65)


def test_an_edge_belongs_to_the_bin_below():
    rows = torch.tensor([[0.5, 0.5 - 1e-9, 1e-9], [1.0, 0.0, 0.0]], dtype=torch.float64)
    assert calibration(rows, [0, 0], bins=2).counts == (1, 1)


@pytest.mark.parametrize("bins", [15, 10, 3])
def test_it_is_the_loop_over_bins(bins):
    labels = torch.randint(7, (500,))
    logits = 2 * torch.randn(500, 7) + 3 * torch.nn.functional.one_hot(labels, 7)
    rows = logits.softmax(dim=1)
    found = calibration(rows, labels, bins)
    sure, guess = rows.double().max(dim=1)
    error, right = 0.0, (guess == labels).numpy()
    for index, (low, high) in enumerate(zip(found.edges, found.edges[1:], strict=False)):
        inside = ((sure > low) & (sure <= high)).numpy()
        assert found.counts[index] == inside.sum()
        if inside.any():
            assert found.accuracy[index] == pytest.approx(right[inside].mean())
            error += inside.mean() * abs(right[inside].mean() - sure.numpy()[inside].mean())
    assert found.expected_calibration_error == pytest.approx(error)
    assert found.expected_calibration_error > 0.01


def test_what_is_sure_and_right_has_no_error_and_sure_and_wrong_has_all():
    rows = torch.eye(3)
    assert calibration(rows, [0, 1, 2]).expected_calibration_error == 0
    assert calibration(rows, [1, 2, 0]).expected_calibration_error == 1


def test_ties_count_as_in_the_accuracy():
    logits, labels = torch.zeros(4, 2), torch.tensor([0, 0, 1, 1])
    counts = ClassificationCounts(2)
    counts.update(logits, labels)
    found = calibration(logits.softmax(dim=1), labels, bins=1)
    assert found.accuracy == (counts.compute()["accuracy"],) == (0.0,)


def test_seeds_are_pooled_bin_by_bin():
    first = Calibration(0.02, (0.0, 0.5, 1.0), (0, 4), (None, 0.8), (None, 0.5))
    second = Calibration(0.04, (0.0, 0.5, 1.0), (2, 12), (0.4, 0.6), (0.5, 0.75))
    found = pool_calibrations([first, second])
    # The error is that of the networks, not of the common bins.
    assert found.expected_calibration_error == pytest.approx(0.03) and found.counts == (2, 16)
    assert found.confidence == pytest.approx((0.4, 0.65)) and found.accuracy == pytest.approx((0.5, 0.6875))
    assert pool_calibrations([first]) == first
    with pytest.raises(ValueError, match="`calibrations` is empty"):
        pool_calibrations([])
    with pytest.raises(ValueError, match="the calibrations have other bins"):
        pool_calibrations([first, second._replace(edges=(0.0, 0.6, 1.0))])


def test_arrays_and_json():
    rows = np.array([[0.25, 0.75], [0.5, 0.5]], dtype=np.float32)
    found = calibration(rows, np.array([1, 0], dtype=np.int32))
    assert found == calibration(torch.from_numpy(rows).double(), torch.tensor([1, 0]))
    assert json.loads(json.dumps(found._asdict(), allow_nan=False))["confidence"][0] is None


@pytest.mark.parametrize(
    "rows, labels, bins, message",
    [
        (torch.eye(2), [0, 1], 0, "`bins` is 0; it must be at least 1"),
        (torch.randn(2, 3), [0, 1], 15, "row 0 is no distribution .* of logits, give"),
        (torch.tensor([[1.0, 0.0], [0.7, 0.7]]), [0, 1], 15, "row 1 is no distribution"),
        (torch.tensor([[float("nan"), 1.0]]), [0], 15, "row 0 is no distribution"),
        (torch.eye(2), [0, 2], 15, "label 2 of image 1 is outside of 0 ... 1"),
        (torch.eye(2), [0], 15, r"labels have shape \(1,\)"),
        (torch.empty(0, 2), torch.empty(0, dtype=torch.int64), 15, r"probabilities have shape \(0, 2\)"),
    ],
)
def test_what_is_no_probability_is_refused(rows, labels, bins, message):
    with pytest.raises(ValueError, match=message):
        calibration(rows, labels, bins)
