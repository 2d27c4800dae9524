"""Intervals and paired tests against SciPy's and numbers worked out by hand; what is missing; what is refused."""

import json

import numpy as np
import pytest
from scipy import stats

from headshare_hf.evaluation import compare_paired, summarize


VALUES = {
    "kd": {42: 0.700, 43: 0.712, 44: 0.707},
    "th_kd": {44: 0.716, 42: 0.713, 43: 0.719},
    "sh_kd": {42: 0.731, 43: 0.741, 44: 0.752, 45: 0.760},
    "plain": {42: 0.699, 43: 0.714, 44: 0.704},
}
SHARED = (42, 43, 44)


def sample(method, seeds=SHARED):
    return [VALUES[method][seed] for seed in seeds]


@pytest.mark.parametrize("confidence", [0.95, 0.5])
def test_a_summary_is_the_t_interval(confidence):
    found = summarize(VALUES, confidence)
    assert list(found) == list(VALUES)
    summary, values = found["th_kd"], sample("th_kd")
    assert summary.seeds == SHARED and summary.values == tuple(values)
    low, high = stats.t.interval(confidence, 2, np.mean(values), stats.sem(values))
    expected = (np.mean(values), np.std(values, ddof=1), low, high, confidence)
    assert summary[2:] == pytest.approx(expected, rel=1e-12)


def test_three_seeds_by_hand():
    """Mean 2, deviation 1: 2 ± 4.302653 / √3, the 97.5 % point of Student's t with two degrees of freedom."""
    summary = summarize({"kd": {0: 1.0, 1: 2.0, 2: 3.0}})["kd"]
    assert summary.high - 2 == 2 - summary.low == pytest.approx(4.30265273 / 3**0.5, rel=1e-8)


def test_differences_are_the_paired_t_test():
    found = compare_paired(VALUES, "kd", confidence=0.9)
    assert list(found) == ["th_kd", "sh_kd", "plain"]
    for method, row in found.items():
        test = stats.ttest_rel(sample(method), sample("kd"))
        interval = test.confidence_interval(0.9)
        gains = np.subtract(sample(method), sample("kd"))
        assert row.seeds == SHARED
        expected = (gains.mean(), gains.std(ddof=1), interval.low, interval.high, test.pvalue)
        assert row[1:6] == pytest.approx(expected, rel=1e-9)


def test_the_correction_is_holm_s():
    """The sorted p values times 3, 2 and 1, and never below the one before."""
    found = compare_paired(VALUES, "kd")
    p_values = sorted((row.p_value, method) for method, row in found.items())
    (first, best), (second, middle), (third, worst) = p_values
    assert found[best].p_adjusted == pytest.approx(3 * first)
    assert found[middle].p_adjusted == pytest.approx(max(3 * first, 2 * second))
    assert found[worst].p_adjusted == pytest.approx(max(3 * first, 2 * second, third))
    two = compare_paired({name: VALUES[name] for name in ("kd", "plain")}, "kd")["plain"]
    assert two.p_adjusted == two.p_value


def test_the_correction_keeps_the_order_and_ends_at_one():
    close = {f"m{i}": {seed: 0.5 + noise for seed, noise in enumerate((0.01 * i, -0.1, 0.1))} for i in range(5)}
    rows = compare_paired({"kd": dict.fromkeys(range(3), 0.5), **close}, "kd").values()
    adjusted = [row.p_adjusted for row in sorted(rows, key=lambda row: row.p_value)]
    assert adjusted == sorted(adjusted) and adjusted[-1] == 1.0


def test_equal_p_values_stay_equal():
    """By the rule for the second alone it would be half of the first."""
    row, twin = compare_paired({"kd": VALUES["kd"], "one": VALUES["th_kd"], "two": VALUES["th_kd"]}, "kd").values()
    assert row.p_adjusted == twin.p_adjusted == 2 * row.p_value < 1


def test_seeds_that_the_baseline_lacks_are_left_out():
    few = {"kd": {1: 0.5, 2: 0.6}, "one": {2: 0.7, 3: 0.9}, "none": {4: 0.7}}
    found = compare_paired(few, "kd")
    assert found["one"] == ((2,), pytest.approx(0.1), None, None, None, None, None)
    assert found["none"] == ((), None, None, None, None, None, None)
    assert summarize(few)["none"] == ((4,), (0.7,), 0.7, None, None, None, 0.95)


def test_without_tests_nothing_is_corrected_for():
    values = {"kd": VALUES["kd"], "th_kd": VALUES["th_kd"], "late": {42: 0.9}}
    row = compare_paired(values, "kd")["th_kd"]
    assert row.p_adjusted == row.p_value


@pytest.mark.parametrize("gain", [0.0, 0.1])
def test_equal_differences_have_no_t(gain):
    # 0.8 - 0.7 and 0.3 - 0.2 are different floats.
    base = {1: 0.7, 2: 0.2, 3: 0.5}
    row = compare_paired({"kd": base, "th_kd": {seed: value + gain for seed, value in base.items()}}, "kd")["th_kd"]
    assert row.mean == pytest.approx(gain) and row.standard_deviation == 0
    assert row[3:] == (None, None, None, None)
    summary = summarize({"kd": {1: 0.7, 2: 0.7}})["kd"]
    assert summary[2:6] == (0.7, 0.0, None, None)


def test_more_alike_runs_make_a_narrower_interval_than_the_summaries():
    """What pairing is for: a gain of 1 point on seeds that differ by 5."""
    values = {"kd": {1: 0.60, 2: 0.65, 3: 0.70}, "th_kd": {1: 0.61, 2: 0.661, 3: 0.709}}
    row, summary = compare_paired(values, "kd")["th_kd"], summarize(values)["th_kd"]
    assert 0 < row.low < row.high < 0.02
    assert summary.high - summary.low > 0.2


def test_results_go_through_json():
    rows = {**compare_paired(VALUES, "kd"), **summarize(VALUES)}
    for row in rows.values():
        assert json.loads(json.dumps(row._asdict(), allow_nan=False)).keys() == set(row._fields)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"kd": {}}, "method 'kd' has no seeds"),
        ({"kd": {"42": 0.7}}, "seed '42' of method 'kd' is no integer; the keys of a JSON file are text"),
        ({"kd": {1: 0.7, 2: float("nan")}}, "seed 2 of method 'kd' has the value nan"),
        ({"kd": {1: 0.7}, "th_kd": {3: float("inf")}}, "seed 3 of method 'th_kd' has the value inf"),
    ],
)
def test_bad_values_are_refused(values, message):
    for function in (summarize, lambda values: compare_paired(values, "kd")):
        with pytest.raises(ValueError, match=message):
            function(values)


def test_bad_options_are_refused():
    with pytest.raises(
        ValueError, match="the baseline 'crd' is not among the methods; there are kd, th_kd, sh_kd, plain"
    ):
        compare_paired(VALUES, "crd")
    for confidence in (0, 1, 95):
        with pytest.raises(ValueError, match=f"`confidence` is {confidence}; it must be between 0 and 1"):
            summarize(VALUES, confidence)
