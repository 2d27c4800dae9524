"""The ROC curve against scikit-learn, on ordinary, heavily tied and degenerate scores."""

import re

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score, roc_curve

from headshare_hf.evaluation import FAR_RULES, Roc


FARS = (0, 1e-6, 1e-3, 0.01, 0.1, 0.2, 0.25, 0.37, 0.5, 0.9, 1)


def draw(generator, dtype=np.float64):
    """Scores of either class with as many ties as `digits` leaves: none, some, or nothing but ties."""
    genuine, impostors = generator.integers(1, 30), generator.integers(1, 60)
    is_same = generator.permutation(np.arange(genuine + impostors) < genuine)
    scores = generator.standard_normal(len(is_same)) + generator.choice([-2, 0, 1, 3]) * is_same
    digits = generator.choice([-1, 0, 1, 9])
    return np.round(scores, digits).astype(dtype), is_same


def nearest(scores, is_same, far):
    """The rule of insightface's `eval_ijbc.py`: the nearest point from the end of scikit-learn's curve."""
    fars, tars, _ = roc_curve(is_same, scores, drop_intermediate=True)
    points = [(abs(f - far), -f, -t) for f, t in zip(fars, tars, strict=True)]
    return -min(points)[2]


def at_most(scores, is_same, far):
    return max(np.mean(scores[is_same] >= t) for t in [*scores, np.inf] if np.mean(scores[~is_same] >= t) <= far)


@pytest.mark.parametrize("seed", range(60))
def test_tar_at_far_is_that_of_scikit_learn(seed):
    generator = np.random.default_rng(seed)
    for _ in range(4):
        scores, is_same = draw(generator, generator.choice([np.float64, np.float32]))
        roc = Roc.from_scores(scores, is_same)
        # Between two points at the same distance lie rates that are odd multiples of half a step.
        steps = [k / (2 * roc.num_impostor) for k in range(0, 2 * roc.num_impostor + 1, 3)]
        for far in (*FARS, *steps):
            assert roc.tar_at_far(far, "nearest") == nearest(scores, is_same, far)
            assert roc.tar_at_far(far, "at_most") == at_most(scores, is_same, far)


@pytest.mark.parametrize(
    ("genuine", "impostor"),
    [
        ([1.0], [1.0]),
        ([1.0], [0.0]),
        ([0.0], [1.0]),
        ([5.0, 5.0, 5.0], [5.0, 5.0]),
        ([3.0, 2.0, 1.0], [3.0, 2.0, 1.0]),  # Equal steps: a straight run of which only the ends are points.
        ([4.0, 3.0, 2.0, 1.0, 0.5], [4.0, 3.0, 3.0, 2.0, 2.0, 0.7, 0.6]),
        (
            [0.0],
            [9.0, 9.0, 8.0, 8.0, 7.0],
        ),  # Impostors above all genuine scores: the first point is kept whatever follows.
        ([0.0], [9.0, 8.0, 7.0, 6.0, 5.0]),
        ([-0.0, 0.0], [0.0, -0.0, -1.0]),
    ],
)
def test_degenerate_curves(genuine, impostor):
    scores = np.array(genuine + impostor)
    is_same = np.arange(len(scores)) < len(genuine)
    roc = Roc.from_scores(scores, is_same)
    for far in np.linspace(0, 1, 41):
        assert roc.tar_at_far(far, "nearest") == nearest(scores, is_same, far)
        assert roc.tar_at_far(far, "at_most") == at_most(scores, is_same, far)
    assert roc.auc == pytest.approx(roc_auc_score(is_same, scores), abs=1e-15)


@pytest.mark.parametrize("seed", range(20))
def test_thresholds_give_the_rates_that_they_stand_for(seed):
    scores, is_same = draw(np.random.default_rng(seed))
    roc = Roc.from_scores(scores, is_same)
    for far in FARS:
        for rule in FAR_RULES:
            threshold = roc.threshold_at_far(far, rule)
            assert np.mean(scores[is_same] >= threshold) == roc.tar_at_far(far, rule)
            assert roc.far_at_threshold(threshold) == np.mean(scores[~is_same] >= threshold)
        threshold = roc.threshold_at_far(far, "at_most")
        assert roc.far_at_threshold(threshold) <= far
        assert threshold == np.inf or threshold in scores[is_same]


@pytest.mark.parametrize("seed", range(20))
def test_auc_and_eer(seed):
    scores, is_same = draw(np.random.default_rng(seed))
    roc = Roc.from_scores(scores, is_same)
    wins = np.subtract.outer(scores[is_same], scores[~is_same])
    assert roc.auc == ((wins > 0) + 0.5 * (wins == 0)).mean() or roc.auc == pytest.approx(
        roc_auc_score(is_same, scores), abs=1e-15
    )
    fars, tars, _ = roc_curve(is_same, scores, drop_intermediate=False)
    # The difference of both errors grows along the curve; it is zero at the equal error rate.
    position = np.interp(0, fars + tars - 1, np.arange(len(fars)))
    assert roc.eer == pytest.approx(np.interp(position, np.arange(len(fars)), fars), abs=1e-12)


def test_numbers_are_rounded_once():
    scores, is_same = np.arange(40) / 40, np.arange(40) % 20 >= 9
    assert Roc.from_scores(np.append(scores, [0.5, 0.5]), np.append(is_same, [True, False])).auc == pytest.approx(
        roc_auc_score(np.append(is_same, [True, False]), np.append(scores, [0.5, 0.5])), abs=1e-15
    )
    # One of 20 impostors above one of 20 genuine scores.
    genuine, impostor = np.append(np.arange(20, 39), 1), np.append(np.arange(-20, -1), 50)
    roc = Roc.from_scores(np.concatenate([genuine, impostor]).astype(float), np.arange(40) < 20)
    assert roc.eer == 0.05


@pytest.mark.parametrize("max_points", [4, 9, 2000])
@pytest.mark.parametrize("seed", range(8))
def test_points_lie_on_the_curve(seed, max_points):
    scores, is_same = draw(np.random.default_rng(seed))
    roc = Roc.from_scores(scores, is_same)
    fars, tars, thresholds = roc.points(max_points)
    assert len(fars) <= max_points and (fars[0], tars[0], fars[-1], tars[-1]) == (0, 0, 1, 1)
    assert (np.diff(fars) >= 0).all() and (np.diff(tars) >= 0).all() and (np.diff(thresholds) <= 0).all()
    assert fars.tolist() == [np.mean(scores[~is_same] >= t) for t in thresholds]
    assert tars.tolist() == [np.mean(scores[is_same] >= t) for t in thresholds]


def test_points_of_a_long_curve_are_spread_over_low_rates_too():
    generator = np.random.default_rng(0)
    scores = np.concatenate([generator.normal(2, 1, 3000), generator.normal(0, 1, 50000)])
    fars, tars, _ = Roc.from_scores(scores, np.arange(53000) < 3000).points(200)
    assert 150 < len(fars) <= 200
    assert sum((fars > 0) & (fars < 1e-2)) > 40 and sum(fars > 0.1) > 20 and np.diff(tars).max() < 0.02


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_tensors_of_any_floating_dtype(dtype):
    scores, is_same = torch.randn(200).to(dtype), torch.rand(200) < 0.3
    roc = Roc.from_scores(scores, is_same)
    expected = Roc.from_scores(scores.double().numpy(), is_same.numpy())
    assert all(roc.tar_at_far(far, rule) == expected.tar_at_far(far, rule) for far in FARS for rule in FAR_RULES)
    assert roc.auc == expected.auc


def test_scores_of_the_caller_stay_as_they_are():
    scores, is_same = draw(np.random.default_rng(0))
    before = scores.copy()
    Roc.from_scores(scores, is_same)
    assert (scores == before).all()


def test_threshold_is_not_rounded_to_the_scores():
    roc = Roc.from_scores(np.array([0.5, 0.1], dtype=np.float32), np.array([True, False]))
    assert (
        roc.far_at_threshold(float(np.float32(0.1))) == 1 and roc.far_at_threshold(float(np.float32(0.1)) + 1e-12) == 0
    )


def test_what_can_be_measured():
    roc = Roc.from_scores(np.append(np.zeros(1000), 1.0), np.arange(1001) == 1000)
    assert roc.is_measurable(1e-3) and not roc.is_measurable(0.99e-3)
    assert (roc.num_genuine, roc.num_impostor) == (1, 1000)
    assert roc.tar_at_far(1e-9, "at_most") == 1


def test_two_rules_differ():
    # At a FAR of 0.3 of four impostors, 0.25 is nearest, and so is it the largest that is not above; at 0.4 it is 0.5.
    roc = Roc.from_scores(np.array([9, 7, 5, 8, 6, 4, 3.0]), np.arange(7) < 3)
    assert (roc.tar_at_far(0.3, "nearest"), roc.tar_at_far(0.3, "at_most")) == (2 / 3, 2 / 3)
    assert (roc.tar_at_far(0.4, "nearest"), roc.tar_at_far(0.4, "at_most")) == (1, 2 / 3)


def bad(scores, is_same=(True, False)):
    return lambda: Roc.from_scores(np.asarray(scores), np.asarray(is_same))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (bad([1, 0]), TypeError, "`scores` have dtype int64; expected a floating one"),
        (bad([1.0, 0.0], [1, 0]), TypeError, "`is_same` has dtype int64; expected bool: give `labels == 1`"),
        (bad([[1.0], [0.0]]), ValueError, "`scores` have shape (2, 1) and `is_same` has shape (2,); both must be"),
        (bad([1.0, 0.0, 0.0]), ValueError, "`scores` have shape (3,) and `is_same` has shape (2,)"),
        (bad([[1.0, 0.0]], [[True, False]]), ValueError, "`scores` have shape (1, 2)"),
        (bad([1.0, np.nan]), ValueError, "score 1 is nan (1 of 2 are not finite)"),
        (bad([np.inf, -np.inf]), ValueError, "score 0 is inf (2 of 2 are not finite)"),
        (bad([1.0, 0.0], [False, False]), ValueError, "there is no genuine pair among 2: `is_same` is never True"),
        (bad([1.0, 0.0], [True, True]), ValueError, "there is no impostor pair among 2: `is_same` is never False"),
    ],
)
def test_refused_scores(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()


def test_large_scores_that_overflow_their_sum_are_finite():
    assert Roc.from_scores(np.array([1e308, 1e308, 0.0]), np.array([True, True, False])).auc == 1


def test_refused_questions():
    roc = Roc.from_scores(np.array([1.0, 0.0]), np.array([True, False]))
    for far in (-0.1, 1.1, np.nan):
        with pytest.raises(ValueError, match=f"`far` is {far}; it must be a fraction"):
            roc.tar_at_far(far, "nearest")
    with pytest.raises(ValueError, match="unknown rule 'best'; use one of nearest, at_most"):
        roc.threshold_at_far(0.1, "best")
    with pytest.raises(ValueError, match="`threshold` is NaN"):
        roc.far_at_threshold(np.nan)
    with pytest.raises(ValueError, match="`max_points` is 3; it must be at least 4"):
        roc.points(3)
