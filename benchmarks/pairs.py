"""
The ten-fold protocol of 6,000 pairs (LFW and its kin): accuracy, ROC and validation rate, beside passes over the pairs.

    python benchmarks/pairs.py [--insightface CHECKOUT]

The other side goes over the pairs once for every threshold of every fold: 400 of them for the accuracy and the mean ROC,
and 4,000 for the threshold of a FAR of 1e-3. All six results must be the same to the last bit.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from harness import Case, agree, compare, parser, prepare, report
from insightface_functions import take
from sklearn.model_selection import KFold
from sklearn.preprocessing import normalize

from headshare_hf.data import contiguous_folds
from headshare_hf.evaluation import pair_similarities, verify_pairs
from headshare_hf.evaluation.cross_validation import cross_validate, held_out_rates


FAR, FOLDS = 1e-3, 10
GRID, FAR_GRID = np.arange(0, 4, 0.01), np.arange(0, 4, 0.001)
RESULTS = ("mean TAR", "mean FAR", "accuracy of every fold", "validation rate", "its deviation", "its FAR")
OURS, WHOLE = "this package", "verify_pairs (with AUC, EER, TAR of all pairs)"


def make(num_pairs: int, size: int = 512) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings `(2 * num_pairs, size)` of unit length, two of each pair after another, and which pairs are one person."""
    generator = np.random.default_rng(0)
    same = np.tile(np.repeat([True, False], num_pairs // 20), 10)
    persons = generator.standard_normal((2, num_pairs, size))
    persons[1] = np.where(same[:, None], persons[0], persons[1])
    embeddings = persons + 2.9 * generator.standard_normal(persons.shape)
    return normalize(embeddings.transpose(1, 0, 2).reshape(2 * num_pairs, size)), same


def plain(embeddings: np.ndarray, same: np.ndarray) -> list[Any]:
    """As it is usually written, a threshold after the other."""
    distance = np.sum(np.square(embeddings[0::2] - embeddings[1::2]), axis=1)
    tars, fars = np.zeros((FOLDS, len(GRID))), np.zeros((FOLDS, len(GRID)))
    accuracies, validation = np.zeros(FOLDS), np.zeros((FOLDS, 2))
    for fold, (train, test) in enumerate(KFold(FOLDS).split(distance)):
        right = [_rates(distance[train], same[train], threshold)[2] for threshold in GRID]
        for column, threshold in enumerate(GRID):
            tars[fold, column], fars[fold, column], _ = _rates(distance[test], same[test], threshold)
        accuracies[fold] = _rates(distance[test], same[test], GRID[np.argmax(right)])[2]
        found = [_rates(distance[train], same[train], threshold)[1] for threshold in FAR_GRID]
        limit = np.interp(FAR, found, FAR_GRID) if max(found) >= FAR else 0.0
        validation[fold] = _rates(distance[test], same[test], limit)[:2]
    rate, false = validation.T
    return [tars.mean(axis=0), fars.mean(axis=0), accuracies, rate.mean(), rate.std(), false.mean()]


def _rates(distance: np.ndarray, same: np.ndarray, threshold: float) -> tuple[float, float, float]:
    """TAR, FAR and accuracy."""
    accepted = distance < threshold
    true, false = np.sum(accepted & same), np.sum(accepted & ~same)
    positive = np.sum(same)
    negative = len(same) - positive
    return true / positive, false / negative, (true + negative - false) / len(same)


def of_insightface(checkout: Path) -> Callable[[np.ndarray, np.ndarray], list[Any]]:
    """Insightface's own functions. Of SciPy its `interp1d`, which no longer takes repeated values, is NumPy's here."""
    names = ["LFold", "calculate_roc", "calculate_accuracy", "calculate_val", "calculate_val_far", "evaluate"]
    interpolate = SimpleNamespace(interp1d=lambda x, y, kind: lambda value: np.interp(value, x, y))
    environment = {"np": np, "KFold": KFold, "interpolate": interpolate}
    return take(checkout, "eval/verification.py", names, environment)[-1]


def ours(embeddings: np.ndarray, same: np.ndarray) -> list[Any]:
    """The same six results."""
    similarities, folds = pair_similarities(embeddings[0::2], embeddings[1::2]), contiguous_folds(len(same))
    found = cross_validate(similarities, same, folds)
    held_out = held_out_rates(similarities, same, folds, FAR)
    return [found.tar, found.far, found.accuracy, held_out.tar.mean(), held_out.tar.std(), held_out.far.mean()]


def run(arguments: argparse.Namespace) -> None:
    embeddings, same = make(600 if arguments.quick else 6000)
    checkout = arguments.insightface
    other, name = (plain, "loops") if checkout is None else (of_insightface(checkout), "insightface")
    expected = other(embeddings, same)
    compared = zip(RESULTS, ours(embeddings, same), expected, strict=True)
    difference = max(agree(what, found, value, 0) for what, found, value in compared)
    whole = verify_pairs(embeddings[0::2], embeddings[1::2], same)
    agreement = {
        OURS: difference,
        WHOLE: agree("accuracy of every fold", whole.accuracy_per_fold, expected[2], 0),
    }
    cases = [
        Case(name, lambda: other(embeddings, same)),
        Case(OURS, lambda: ours(embeddings, same)),
        Case(WHOLE, lambda: verify_pairs(embeddings[0::2], embeddings[1::2], same)),
    ]
    rows = compare(cases, arguments.rounds)
    title = f"Ten-fold protocol of {len(same)} pairs, embeddings of {embeddings.shape[1]} in float64"
    notes = [
        f"{', '.join(RESULTS)} equal to the last bit; accuracy {np.mean(expected[2]):.4f}, "
        f"validation rate {expected[3]:.4f} at a FAR of {expected[5]:.4f}"
    ]
    report("pairs", title, rows, agreement, {OURS: 60}, arguments, notes)


if __name__ == "__main__":
    options = parser(__doc__, rival="insightface").parse_args()
    prepare(options)
    run(options)
