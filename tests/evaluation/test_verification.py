"""Ten-fold accuracy against the stored numbers and against loops over thresholds; intervals; what is refused."""

import time

import numpy as np
import pytest
import torch
from golden_data import load_golden
from sklearn.model_selection import KFold

from headshare_hf.data import VerificationSet, contiguous_folds
from headshare_hf.evaluation import (
    Roc,
    Verifier,
    add_flipped,
    bootstrap_intervals,
    load_metric,
    pair_bootstrap,
    pair_similarities,
    tar_key,
    verify_pairs,
    verify_similarities,
)
from headshare_hf.evaluation.cross_validation import cross_validate
from headshare_hf.evaluation.verification import check_can_verify


@pytest.fixture(scope="module")
def stored():
    return load_golden("face/lfw_protocol")


def scores(num_pairs, gap=0.3, seed=0):
    generator = np.random.default_rng(seed)
    same = np.arange(num_pairs) // (num_pairs // 20) % 2 == 0
    return np.clip(generator.normal(0.1, 0.12, num_pairs) + gap * same, -1, 1), same


def looped(similarities, is_same, folds):
    """The protocol as it is told: a pass over the pairs for every threshold in every fold."""
    distance, accuracies = 2 - 2 * similarities, []
    for fold in np.unique(folds):
        train, test = folds != fold, folds == fold
        right = [((distance[train] < t) == is_same[train]).mean() for t in np.arange(0, 4, 0.01)]
        threshold = np.arange(0, 4, 0.01)[np.argmax(right)]
        accuracies.append(((distance[test] < threshold) == is_same[test]).mean())
    return np.array(accuracies)


def test_stored_protocol(stored):
    embeddings, same = stored["embeddings"], stored["is_same"].bool()
    result = verify_pairs(embeddings[0::2], embeddings[1::2], same)
    assert np.array_equal(result.accuracy_per_fold, stored["accuracy_per_fold"].numpy())
    found = cross_validate(result.similarities, result.is_same, result.folds)
    np.testing.assert_allclose(found.tar, stored["tpr"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.far, stored["fpr"], rtol=0, atol=1e-12)
    accuracies = stored["accuracy_per_fold"].numpy()
    metrics = result.metrics()
    assert metrics["accuracy"] == pytest.approx(accuracies.mean())
    assert metrics["accuracy_std"] == pytest.approx(accuracies.std())
    assert metrics["accuracy_standard_error"] == pytest.approx(accuracies.std(ddof=1) / np.sqrt(10))


def test_length_of_embeddings_does_not_matter(stored):
    a, b, same = stored["embeddings"][0::2], stored["embeddings"][1::2], stored["is_same"].bool()
    lengths = torch.linspace(0.1, 40, len(a))[:, None]
    found = verify_pairs((a * lengths).numpy(), b / lengths, same.numpy())
    assert np.array_equal(found.accuracy_per_fold, stored["accuracy_per_fold"].numpy())


@pytest.mark.parametrize("num_pairs", [200, 240, 607])
@pytest.mark.parametrize("random_folds", [False, True])
def test_equals_the_loops(num_pairs, random_folds):
    similarities, same = scores(num_pairs)
    folds = np.empty(num_pairs, dtype=np.int64)
    for number, (_, test) in enumerate(KFold(10).split(same)):
        folds[test] = number
    if random_folds:
        folds = np.random.default_rng(1).permutation(folds) * 3 - 7
    found = verify_similarities(similarities, same, folds if random_folds else None)
    assert np.array_equal(found.accuracy_per_fold, looped(similarities, same, folds))
    assert 0.5 < found.accuracy < 1
    right = [((2 - 2 * similarities < t) == same).mean() for t in np.arange(0, 4, 0.01)]
    assert found.threshold == pytest.approx(1 - np.argmax(right) * 0.01 / 2)


def test_sorted_pairs_get_folds_of_both_kinds():
    """In a list of all matched and then all mismatched pairs contiguous folds would be biased to below chance."""
    similarities, same = scores(403, gap=0.05)
    order = np.argsort(~same, kind="stable")
    found = verify_similarities(similarities[order], same[order], far_targets=())
    assert found.remarks == (
        "ten neighboring parts would have pairs of one kind only; folds were made within each kind",
    )
    biased = verify_similarities(similarities[order], same[order], contiguous_folds(403))
    assert biased.accuracy < 0.5 < found.accuracy
    assert np.array_equal(found.accuracy_per_fold, looped(found.similarities, found.is_same, found.folds))


def test_threshold_of_a_fold_comes_from_the_others():
    """In the first fold all similarities are lower, so that the threshold of the other is wrong there."""
    similarities = np.array([0.3, 0.3, 0.1, 0.1, 0.9, 0.9, 0.5, 0.5])
    found = verify_similarities(similarities, np.array([True, True, False, False] * 2), np.arange(8) // 4)
    assert found.accuracy_per_fold.tolist() == [0.5, 0.5]
    assert found.accuracy_std == 0


def test_equal_images_have_no_negative_distance():
    vectors = torch.randn(40, 7, dtype=torch.float32)
    same = np.arange(40) % 2 == 0
    other = torch.where(torch.tensor(same)[:, None], vectors, -vectors)
    found = verify_pairs(vectors, other, same)
    rates = cross_validate(found.similarities, same, found.folds)
    assert rates.tar[0] == 0 and rates.tar[1] == 1 and rates.far[399] == 0 and found.accuracy == 1
    assert rates.best_threshold == 0.01 and set(rates.threshold) == {0.01}


def test_much_faster_than_loops():
    similarities, same = scores(6000)
    folds = contiguous_folds(6000)
    started = time.perf_counter()
    expected = looped(similarities, same, folds)
    slow = time.perf_counter() - started
    fast = []
    for _ in range(5):
        started = time.perf_counter()
        found = cross_validate(similarities, same, folds)
        fast.append(time.perf_counter() - started)
    assert np.array_equal(found.accuracy, expected)
    assert slow / min(fast) > 20


def test_rates_are_those_of_the_roc():
    similarities, same = scores(4000)
    result = verify_similarities(torch.tensor(similarities), torch.tensor(same), far_targets=(1e-2, 1e-3))
    roc = Roc.from_scores(similarities, same)
    expected = {
        f"tar@far=1e-{n}/{rule}": roc.tar_at_far(10.0**-n, rule) for n in (2, 3) for rule in ("nearest", "at_most")
    }
    assert result.tar == expected and 0 < result.tar["tar@far=1e-3/at_most"] < 1 and result.remarks == ()
    assert result.metrics()["auc"] == roc.auc and result.metrics()["eer"] == roc.eer


def test_what_cannot_be_measured_is_none():
    result = verify_similarities(*scores(2000))
    assert result.tar["tar@far=1e-3/at_most"] is not None and result.tar["tar@far=1e-3/nearest"] is not None
    assert result.tar["tar@far=1e-4/at_most"] is None and result.metrics()["tar@far=1e-4/nearest"] is None
    assert result.remarks == (
        "TAR at FAR 0.0001 cannot be measured with 1000 impostor pairs: one false accept is already a FAR of 0.001",
    )


@pytest.mark.parametrize(("far", "name"), [(1e-3, "1e-3"), (0.01, "1e-2"), (2.5e-5, "2.5e-5"), (1.0, "1e0")])
def test_keys_name_the_rule(far, name):
    assert tar_key(far, "at_most") == f"tar@far={name}/at_most"


def test_flipped_embeddings_are_added_and_normalized():
    plain, flipped = torch.randn(5, 8, dtype=torch.bfloat16), torch.randn(5, 8, dtype=torch.bfloat16)
    expected = torch.nn.functional.normalize(plain.double() + flipped.double())
    np.testing.assert_allclose(add_flipped(plain, flipped), expected, atol=1e-12)
    with pytest.raises(ValueError, match=r"shape \(5, 8\) cannot be added to mirrored ones of \(4, 8\)"):
        add_flipped(plain, flipped[:4])
    with pytest.raises(ValueError, match="row 0 of the sum of both has length 0.0"):
        add_flipped(plain, -plain)


def test_similarity_is_the_cosine():
    a, b = torch.randn(9, 4), torch.randn(9, 4)
    found = pair_similarities(a, b)
    np.testing.assert_allclose(found, torch.nn.functional.cosine_similarity(a.double(), b.double()), atol=1e-12)
    assert found.dtype == np.float64 and np.abs(pair_similarities(a, a)).max() <= 1


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"a": torch.ones(20)}, ValueError, r"`embeddings_a` have shape \(20,\)"),
        ({"b": torch.ones(19, 4)}, ValueError, r"shape \(20, 4\) and \(19, 4\) are no pairs"),
        ({"a": torch.zeros(20, 4)}, ValueError, r"row 0 of embeddings_a has length 0.0 \(20 of 20 are zero"),
        ({"b": torch.full((20, 4), torch.nan)}, ValueError, "row 0 of embeddings_b has length nan"),
        ({"same": torch.ones(20, dtype=torch.bool)}, ValueError, "there is no impostor pair"),
        ({"same": torch.ones(20)}, TypeError, "`is_same` has dtype float32"),
        ({"same": torch.ones(19, dtype=torch.bool)}, ValueError, r"`is_same` has shape \(19,\)"),
        ({"folds": np.zeros(20)}, ValueError, "all pairs are in one fold"),
        ({"folds": np.arange(19)}, ValueError, r"`folds` have shape \(19,\) for 20 pairs"),
    ],
)
def test_pairs_that_are_refused(change, error, message):
    given = {
        "a": torch.ones(20, 4),
        "b": torch.ones(20, 4),
        "same": torch.arange(20) % 2 == 0,
        "folds": None,
        **change,
    }
    with pytest.raises(error, match=message):
        verify_pairs(given["a"], given["b"], given["same"], given["folds"])


def test_similarities_that_are_no_cosines():
    same = np.arange(20) % 2 == 0
    with pytest.raises(ValueError, match="similarity 3 is 1.5; cosines lie between -1 and 1"):
        verify_similarities(np.where(np.arange(20) == 3, 1.5, 0.0), same)
    with pytest.raises(ValueError, match="6 pairs cannot be divided into 10 folds"):
        verify_similarities(np.zeros(6), same[:6])


def test_intervals_over_pairs():
    """Near the normal interval of independent pairs, the same for a seed, and narrower for a lower level."""
    result = verify_similarities(*scores(2000, gap=0.35))
    found = bootstrap_intervals(result, seed=1)
    assert set(found) == {"accuracy", "auc", "eer", "tar@far=1e-3/at_most"}
    for name, value in (("auc", result.roc.auc), ("eer", result.roc.eer)):
        assert found[name].low < value < found[name].high
    assert found == bootstrap_intervals(result, seed=1) != bootstrap_intervals(result, seed=2)
    low, high = found["accuracy"]
    assert low < result.accuracy < high
    half = 1.96 * np.sqrt(result.accuracy * (1 - result.accuracy) / 2000)
    assert (high - low) / 2 == pytest.approx(half, rel=0.25)
    low, high = found["tar@far=1e-3/at_most"]
    assert low < result.tar["tar@far=1e-3/at_most"] < high
    narrow = bootstrap_intervals(result, seed=1, level=0.5)["accuracy"]
    assert found["accuracy"].low < narrow.low < narrow.high < found["accuracy"].high


def test_one_replicate_is_the_protocol_on_the_drawn_pairs(monkeypatch):
    similarities, same = scores(400)
    similarities = similarities.round(2)  # with ties
    result = verify_similarities(similarities, same)
    kept = []

    def keep(*arguments):
        kept.extend(weights.copy() for weights in draw(*arguments))
        return iter(kept)

    draw = pair_bootstrap._draw_pairs
    monkeypatch.setattr(pair_bootstrap, "_draw_pairs", keep)
    found = bootstrap_intervals(result, num_samples=1, far_targets=(0.1,))
    drawn = np.repeat(np.arange(400), kept[0][0])
    assert len(drawn) == 400 and len(set(drawn)) < 300
    for fold in range(10):
        assert same[drawn][result.folds[drawn] == fold].sum() == same[result.folds == fold].sum()
    again = verify_similarities(similarities[drawn], same[drawn], result.folds[drawn], far_targets=(0.1,))
    assert found["accuracy"] == pytest.approx([again.accuracy] * 2)
    assert found["tar@far=1e-1/at_most"] == pytest.approx([again.tar["tar@far=1e-1/at_most"]] * 2)
    assert found["auc"] == pytest.approx([again.roc.auc] * 2)
    assert found["eer"] == pytest.approx([again.roc.eer] * 2)


def test_intervals_over_people_are_wider():
    """All pairs of 24 people, where each person is either easy or hard in all pairs."""
    generator = np.random.default_rng(0)
    people = np.repeat(np.arange(24), 20)
    names_a = [f"p{n}" for n in people]
    same = np.tile(np.arange(20) % 2 == 0, 24)
    names_b = [f"p{n if one else (n + 1 + k) % 24}" for k, (n, one) in enumerate(zip(people, same, strict=True))]
    names_b = [
        b if one or b != a else "p0" if a != "p0" else "p1" for a, b, one in zip(names_a, names_b, same, strict=True)
    ]
    hard = people % 3 == 0
    similarities = np.clip(generator.normal(0, 0.05, 480) + np.where(same & ~hard, 0.5, 0.0), -1, 1)
    result = verify_similarities(similarities, same, generator.permutation(480) % 10)
    pairs = bootstrap_intervals(result, num_samples=300)["accuracy"]
    by_person = bootstrap_intervals(result, num_samples=300, names_a=names_a, names_b=names_b)["accuracy"]
    assert by_person.low < pairs.low < result.accuracy < pairs.high < by_person.high


def test_intervals_that_are_refused():
    result = verify_similarities(*scores(200))
    for options in ({"level": 1.0}, {"num_samples": 0}):
        with pytest.raises(ValueError, match="must lie between 0 and 1, and `num_samples`"):
            bootstrap_intervals(result, **options)
    for options in ({"names_a": ["a"] * 200}, {"names_a": ["a"] * 200, "names_b": ["a"] * 3}):
        with pytest.raises(ValueError, match=r"need one name for each of 200 pairs; there are \[200, (None|3)\]"):
            bootstrap_intervals(result, **options)
    names_b = np.where(result.is_same, "a", "b")
    with pytest.raises(ValueError, match="2 people are too few: a replicate has only pairs of one kind"):
        bootstrap_intervals(result, names_a=["a"] * 200, names_b=names_b)


@pytest.mark.parametrize("convert", [torch.tensor, np.asarray, lambda values: values.tolist()])
def test_module_collects_batches(convert):
    similarities, same = scores(400)
    expected = verify_similarities(similarities, same).metrics()
    metric = load_metric("verification")
    for _ in range(2):
        for part in range(0, 300, 100):
            metric.add_batch(
                predictions=convert(similarities[part : part + 100]), references=convert(same[part : part + 100])
            )
        metric.add(prediction=similarities[300], reference=int(same[300]))
        found = metric.compute(predictions=convert(similarities[301:]), references=convert(same[301:].astype(int)))
        assert found == expected
    assert load_metric("verification", far_targets=(0.05,)).compute(predictions=similarities, references=same)[
        "tar@far=5e-2/at_most"
    ] == pytest.approx(Roc.from_scores(similarities, same).tar_at_far(0.05, "at_most"))


def test_module_refuses():
    metric = load_metric("verification")
    with pytest.raises(ValueError, match="verification has no pairs; call `add_batch` before"):
        metric.compute()
    with pytest.raises(ValueError, match="verification needs both `predictions` and"):
        metric.compute(predictions=[0.1])
    with pytest.raises(ValueError, match="verification needs both `prediction` and"):
        metric.add(reference=1)
    with pytest.raises(ValueError, match=r"predictions of shape \(2,\) and references of shape \(1,\)"):
        metric.add_batch(predictions=[0.1, 0.2], references=[1])
    with pytest.raises(ValueError, match="references of verification are 1 for one person and 0 for two"):
        metric.add_batch(predictions=[0.1, 0.2], references=[1, 2])
    with pytest.raises(ValueError, match="`num_process` is 2, but the folds need all pairs in their order"):
        load_metric("verification", num_process=2)


def test_few_pairs_give_an_interval():
    """One pair of each kind in a fold, so that no other could be drawn in its place."""
    result = verify_similarities(*scores(20, gap=0.15))
    assert (np.bincount(result.folds) == 2).all()
    for name, (low, high) in bootstrap_intervals(result, num_samples=200, far_targets=()).items():
        assert low < high, name


@pytest.mark.parametrize(("num_pairs", "within_folds"), [(180, False), (200, True), (6000, True)])
def test_pairs_are_drawn_within_fold_and_kind_where_there_are_ten(num_pairs, within_folds):
    same = np.arange(num_pairs) % 2 == 0
    result = verify_similarities(scores(num_pairs)[0], same)
    kept = np.concatenate(list(pair_bootstrap._draw_pairs(result, 5, np.random.default_rng(0))))
    assert (kept[:, same].sum(axis=1) == same.sum()).all() and (kept.sum(axis=1) == num_pairs).all()
    groups = [(result.folds == fold) & (same == kind) for fold in range(10) for kind in (True, False)]
    as_often = all((kept[:, group].sum(axis=1) == group.sum()).all() for group in groups)
    assert as_often == within_folds


def _set(is_same, folds=None) -> VerificationSet:
    count = len(is_same)
    images = [{"bytes": None, "path": f"{number}.png"} for number in range(2)]
    return VerificationSet("own", images, [0] * count, [1] * count, is_same, folds)


@pytest.mark.parametrize(
    ("is_same", "folds", "message"),
    [
        ([True] * 20, None, "pairs of one kind|impostor"),
        ([True, False] * 10, [3] * 20, "all pairs are in one fold"),
        ([True, False] * 3, None, "6 pairs cannot be divided into 10 folds"),
    ],
)
def test_sets_without_a_result_are_refused_before_they_are_embedded(is_same, folds, message):
    pairs = _set(is_same, folds)
    for check in (check_can_verify, lambda pairs: Verifier([_set([True, False] * 10), pairs], processor=None)):
        with pytest.raises(ValueError, match=f"the verification set own cannot be evaluated: .*({message})"):
            check(pairs)
