"""TAR and FAR of folds at a threshold from the others, against passes over the pairs for every threshold."""

import numpy as np
import pytest

from headshare_hf.evaluation.cross_validation import FAR_GRID, held_out_rates


def scores(num_pairs, gap=0.3, seed=0):
    generator = np.random.default_rng(seed)
    same = generator.random(num_pairs) < 0.4
    return np.clip(generator.normal(0.1, 0.12, num_pairs) + gap * same, -1, 1), same


def looped(similarities, is_same, folds, far):
    """In each fold the threshold at which the FAR of the others, joined by straight lines, is the one asked for."""
    distance, found = 2 - 2 * similarities, []
    for fold in np.unique(folds):
        others, inside = (folds != fold) & ~is_same, folds == fold
        rates = [(distance[others] < threshold).mean() for threshold in FAR_GRID]
        threshold = np.interp(far, rates, FAR_GRID) if max(rates) >= far else 0
        accepted = distance[inside] < threshold
        found.append((accepted[is_same[inside]].mean(), accepted[~is_same[inside]].mean(), threshold))
    return [list(values) for values in zip(*found, strict=True)]


@pytest.mark.parametrize("far", [1e-3, 0.017, 0.2, 1])
@pytest.mark.parametrize("num_folds", [2, 10])
def test_equals_the_loops(num_folds, far):
    similarities, same = scores(1000)
    folds = np.random.default_rng(1).permutation(np.arange(1000) % num_folds) * 3 - 7
    found = held_out_rates(similarities, same, folds, far)
    assert [values.tolist() for values in found] == looped(similarities, same, folds, far)
    assert abs(found.far.mean() - far) < 0.02 and found.tar.mean() > found.far.mean() or far == 1


def test_nothing_is_accepted_where_no_distance_reaches_the_far():
    """The other impostors are opposite to each other, which no distance of the grid reaches."""
    similarities, same = np.array([0.9, -1, 0.9, -1.0]), np.array([True, False] * 2)
    found = held_out_rates(similarities, same, np.arange(4) // 2)
    assert found.threshold.tolist() == [0, 0] and found.tar.tolist() == found.far.tolist() == [0, 0]


def test_refusals():
    similarities, same = scores(40)
    folds = np.arange(40) % 4
    for far in (0, 1.5, np.nan):
        with pytest.raises(ValueError, match=f"`far` is {far}; it must be a fraction in"):
            held_out_rates(similarities, same, folds, far)
    with pytest.raises(ValueError, match="a fold has pairs of one kind only, and so no TAR or no FAR"):
        held_out_rates(similarities, folds > 0, folds)
    with pytest.raises(ValueError, match="all pairs are in one fold"):
        held_out_rates(similarities, same, folds * 0)


def test_rounded_cosines_are_told_how_to_be_computed():
    similarities, same = scores(40)
    similarities[7] = 1.0078125  # the next number after 1 in bfloat16
    with pytest.raises(ValueError, match="similarity 7 is 1.0078125; .* in float32 or better; .* to `verify_pairs`"):
        held_out_rates(similarities, same, np.arange(40) % 4)
    similarities[7] = np.nextafter(np.float32(1), np.float32(2))
    held_out_rates(similarities, same, np.arange(40) % 4)
