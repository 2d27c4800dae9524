"""The exact ROC curve of any number of scores, from one sort of either class."""

from typing import Any

import numpy as np

from .arrays import to_array


FAR_RULES = ("nearest", "at_most")


class Roc:
    """
    An exact ROC curve: false accept rate (FAR) and true accept rate (TAR) at every threshold. A score equal to the
    threshold is accepted, and equal scores are always accepted together.

    Papers read TAR at a FAR by two rules, which can differ on the same scores:

    - `"nearest"`: the point whose FAR is nearest to the one asked for, and there the largest TAR. If two points are as
      near, the one of larger FAR counts. The points are those of scikit-learn's `roc_curve`, which leaves out points
      within a straight run. This is what insightface's `eval_ijbc.py` prints.
    - `"at_most"`: the largest TAR of all thresholds whose FAR is not above the one asked for.

    Built by [`Roc.from_scores`].

    Args:
        genuine (`np.ndarray` of shape `(num_genuine,)`): Scores of pairs of one person, ascending.
        impostor (`np.ndarray` of shape `(num_impostor,)`): Scores of pairs of two persons, ascending.
    """

    def __init__(self, genuine: np.ndarray, impostor: np.ndarray) -> None:
        self._genuine, self._impostor = genuine, impostor
        self.num_genuine, self.num_impostor = len(genuine), len(impostor)
        # Every genuine value, from the highest, starts a step of the curve; between two of them it runs level.
        values, counts = np.unique(genuine, return_counts=True)
        values = values[::-1]
        accepted = np.cumsum(counts[::-1])
        before = self.num_impostor - np.searchsorted(impostor, values, side="right")
        after = self.num_impostor - np.searchsorted(impostor, values, side="left")
        # (0, 0), then alternately the end of a level run and the end of the step at a genuine value, then (N, P).
        self._fps = np.concatenate([[0], np.stack([before, after], axis=1).ravel(), [self.num_impostor]])
        self._tps = np.repeat(np.concatenate([[0], accepted]), 2)

    @classmethod
    def from_scores(cls, scores: Any, is_same: Any) -> "Roc":
        """
        Args:
            scores (`np.ndarray` or `torch.Tensor` of shape `(num_pairs,)`):
                Similarities of any floating dtype, higher for more alike. float64 and float32 are compared as they are,
                shorter ones as float32.
            is_same (`np.ndarray` or `torch.Tensor` of shape `(num_pairs,)`):
                Whether the pair is one person, `bool`.

        Raises:
            TypeError: The scores are not floating, or `is_same` is not `bool`.
            ValueError: The shapes do not fit, a score is not finite, or a class has no pair.
        """
        values, same = _scores_array(scores), to_array(is_same)
        if same.dtype != np.bool_:
            raise TypeError(f"`is_same` has dtype {same.dtype}; expected bool: give `labels == 1`")
        if values.ndim != 1 or same.shape != values.shape:
            raise ValueError(
                f"`scores` have shape {values.shape} and `is_same` has shape {same.shape}; both must be (num_pairs,)"
            )
        _check_finite(values)
        genuine, impostor = values[same], values[~same]
        for part, name, meaning in ((genuine, "genuine", "True"), (impostor, "impostor", "False")):
            if not len(part):
                raise ValueError(
                    f"there is no {name} pair among {len(values)}: `is_same` is never {meaning}, and a ROC curve needs "
                    "pairs of both kinds"
                )
            # In place, on the copies that the selection made; numpy sorts with vector instructions.
            part.sort()
        return cls(genuine, impostor)

    def tar_at_far(self, far: float, rule: str) -> float:
        """
        Args:
            far (`float`): A FAR in [0, 1]. Below `1 / num_impostor` the rules still give a number, see
                [`Roc.is_measurable`].
            rule (`str`): One of `FAR_RULES`.

        Returns:
            `float`: TAR, a fraction in [0, 1].

        Raises:
            ValueError: The FAR is outside of [0, 1], or the rule is unknown.
        """
        return float(self._operating_point(far, rule)[1] / self.num_genuine)

    def threshold_at_far(self, far: float, rule: str) -> float:
        """
        The lowest score that is accepted at the point which [`Roc.tar_at_far`] takes, infinity if none is. By
        `"at_most"` this is the highest threshold that reaches the TAR.

        Raises:
            ValueError: As [`Roc.tar_at_far`].
        """
        return self._threshold(*self._operating_point(far, rule))

    def far_at_threshold(self, threshold: float) -> float:
        """
        The share of impostor scores that are at least `threshold`.

        Raises:
            ValueError: The threshold is NaN.
        """
        if np.isnan(threshold):
            raise ValueError("`threshold` is NaN; give a number or an infinity")
        # A scalar of Python keeps the dtype of the scores and would be rounded to it.
        below = np.searchsorted(self._impostor, np.float64(threshold), side="left")
        return float((self.num_impostor - below) / self.num_impostor)

    def is_measurable(self, far: float) -> bool:
        """Whether there are enough impostors for this FAR: whether a single false accept is not above it."""
        return 1 / self.num_impostor <= far

    @property
    def auc(self) -> float:
        """
        Area under the curve, which is the share of pairs (genuine score, impostor score) in the right order, equal ones
        counted half (Mann-Whitney). The counts are integers, so that there is one rounding.
        """
        twice = np.diff(self._fps) * (self._tps[1:] + self._tps[:-1])
        return int(twice.sum()) / (2 * self.num_genuine * self.num_impostor)

    @property
    def eer(self) -> float:
        """Equal error rate: where FAR = 1 - TAR on the curve, points joined by straight lines."""
        # Both rates times num_genuine * num_impostor: integers, so that there is one rounding.
        far, frr = self._fps * self.num_genuine, (self.num_genuine - self._tps) * self.num_impostor
        end = int(np.argmax(far >= frr))
        start, missing, rise, fall = (
            int(n) for n in (far[end - 1], frr[end - 1], far[end] - far[end - 1], frr[end - 1] - frr[end])
        )
        crossing = start * (rise + fall) + rise * (missing - start)
        return crossing / ((rise + fall) * self.num_genuine * self.num_impostor)

    def points(self, max_points: int = 2000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """
        Points to draw: (0, 0), every genuine value from the highest, and (1, 1). Between two points the TAR stays that of
        the left one (`drawstyle="steps-post"`).

        Args:
            max_points (`int`, *optional*, defaults to 2000): How many at most. If there are more, half are chosen evenly
                in TAR and half evenly in the logarithm of FAR; those that are left are exact.

        Returns:
            `tuple[np.ndarray, np.ndarray, np.ndarray]`: FAR, TAR and threshold, ascending in FAR.

        Raises:
            ValueError: `max_points` is below 4.
        """
        if max_points < 4:
            raise ValueError(f"`max_points` is {max_points}; it must be at least 4")
        fps, tps = np.append(self._fps[:-1:2], self.num_impostor), np.append(self._tps[:-1:2], self.num_genuine)
        if len(fps) > max_points:
            kept = self._spread(fps, max_points)
            fps, tps = fps[kept], tps[kept]
        thresholds = [self._threshold(false, true) for false, true in zip(fps, tps, strict=True)]
        return fps / self.num_impostor, tps / self.num_genuine, np.asarray(thresholds)

    def _spread(self, fps: np.ndarray, max_points: int) -> np.ndarray:
        half = max_points // 2
        even = np.linspace(0, len(fps) - 1, half).round().astype(np.int64)
        by_rate = np.searchsorted(fps, np.geomspace(1, self.num_impostor, half), side="left")
        return np.unique(np.concatenate([even, by_rate.clip(max=len(fps) - 1)]))

    def _operating_point(self, far: float, rule: str) -> tuple[int, int]:
        """Numbers of accepted impostor and genuine pairs."""
        if not 0 <= far <= 1:
            raise ValueError(f"`far` is {far}; it must be a fraction in [0, 1]")
        if rule not in FAR_RULES:
            raise ValueError(f"unknown rule {rule!r}; use one of {', '.join(FAR_RULES)}")
        return self._nearest(far) if rule == "nearest" else self._at_most(far)

    def _at_most(self, far: float) -> tuple[int, int]:
        allowed = int(np.searchsorted(self._fps / self.num_impostor, far, side="right"))
        # Within a level run the least FAR, so that the threshold is a genuine score.
        index = int(np.searchsorted(self._tps, self._tps[allowed - 1], side="left"))
        return int(self._fps[index]), int(self._tps[index])

    def _nearest(self, far: float) -> tuple[int, int]:
        points = np.concatenate([self._kept_corners(), self._kept_inside(far)])
        distance = np.abs(points[:, 0] / self.num_impostor - far)
        fps, tps = max(map(tuple, points[distance == distance.min()].tolist()))
        return fps, tps

    def _kept_corners(self) -> np.ndarray:
        """
        The ends of level runs and of steps that scikit-learn keeps. A step and a level run always differ, so only steps
        at successive genuine values, with no impostor between, can be a straight run.
        """
        steps = np.stack([np.diff(self._fps), np.diff(self._tps)], axis=1)
        exists = steps.any(axis=1)
        steps, ends = steps[exists], np.stack([self._fps, self._tps], axis=1)[1:][exists]
        turns = np.concatenate([(steps[1:] != steps[:-1]).any(axis=1), [True]])
        turns[0] = True
        return np.concatenate([[[0, 0]], ends[turns]])

    def _kept_inside(self, far: float) -> np.ndarray:
        """Of the level run around `far`, the points that scikit-learn keeps because the number of ties changes there."""
        end = int(np.searchsorted(self._fps / self.num_impostor, far, side="right"))
        if end % 2 == 0 or end == len(self._fps) or self._fps[end] == self._fps[end - 1]:
            return np.empty((0, 2), dtype=np.int64)
        run = self._impostor[self.num_impostor - self._fps[end] : self.num_impostor - self._fps[end - 1]][::-1]
        accepted = np.append(np.flatnonzero(run[1:] != run[:-1]) + 1, len(run))
        ties = np.diff(accepted, prepend=0)
        kept = ties[1:] != ties[:-1]
        if end == 1 and len(kept):
            kept[0] = True  # The first point of all is kept whatever follows.
        fps = self._fps[end - 1] + accepted[:-1][kept]
        return np.stack([fps, np.full_like(fps, self._tps[end])], axis=1)

    def _threshold(self, fps: int, tps: int) -> float:
        """The lowest of the accepted scores."""
        lowest_impostor = self._impostor[-fps] if fps else np.inf
        lowest_genuine = self._genuine[-tps] if tps else np.inf
        return float(min(lowest_impostor, lowest_genuine))


def _scores_array(scores: Any) -> np.ndarray:
    values = to_array(scores)
    if not np.issubdtype(values.dtype, np.floating):
        raise TypeError(f"`scores` have dtype {values.dtype}; expected a floating one")
    return values.astype(np.float32) if values.dtype == np.float16 else values


def _check_finite(values: np.ndarray) -> None:
    # The sum finds out without a mask as long as the scores. It may also overflow, and then the mask decides.
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(values.sum(dtype=np.float64)):
            return
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise ValueError(
            f"score {bad[0]} is {values[bad[0]]} ({len(bad)} of {len(values)} are not finite); "
            "look for an image whose feature is not finite or zero"
        )
