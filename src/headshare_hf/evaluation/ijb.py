"""The 1:1 protocol of IJB-B and IJB-C: TAR at low FAR by both rules in use, with confidence intervals."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..data.ijb import IjbProtocol
from .ijb_bootstrap import TemplateBootstrap, percentile_interval
from .ijb_templates import pool_templates, score_pairs
from .pair_bootstrap import Interval
from .roc import FAR_RULES, Roc
from .verification import tar_key


IJB_FARS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)


@dataclass(frozen=True, eq=False)
class IjbResult:
    """
    What [`evaluate_ijb`] returns.

    Args:
        metrics (`dict[str, float]`):
            Fractions in [0, 1]: `tar@far=1e-6/nearest` (the rule of insightface) and `tar@far=1e-6/at_most`, the
            same for every FAR (see [`Roc`]), then `auc` and `eer`.
        roc ([`Roc`]): The curve.
        scores (`np.ndarray` of `float64` and shape `(num_pairs,)`): Similarity of every pair.
        intervals (`dict[str, Interval]`): Confidence interval of every TAR by the rule `at_most`.
    """

    metrics: dict[str, float]
    roc: Roc
    scores: np.ndarray
    intervals: dict[str, Interval] = field(default_factory=dict)


def evaluate_ijb(
    features: Any,
    protocol: IjbProtocol,
    *,
    flip: bool = True,
    norm: bool = True,
    detector_score: bool = True,
    fars: Sequence[float] = IJB_FARS,
    num_resamples: int = 200,
    confidence: float = 0.95,
    seed: int = 0,
    progress: bool = True,
) -> IjbResult:
    """
    Evaluates features of images by the 1:1 protocol of IJB-B or IJB-C.

    Args:
        features (`np.ndarray`, `np.memmap` or `torch.Tensor` of shape `(num_images, embedding_size)`):
            In the order of `protocol.image_names`; with `flip` twice as wide, see [`pool_templates`].
        protocol ([`IjbProtocol`]): Templates and pairs.
        flip (`bool`, *optional*, defaults to `True`): Add the features of image and mirror image.
        norm (`bool`, *optional*, defaults to `True`): Keep the length of features as a weight.
        detector_score (`bool`, *optional*, defaults to `True`): Weight images by the score of the face detector.
        fars (`Sequence[float]`, *optional*, defaults to 1e-6, 1e-5, ..., 1e-1): FARs at which to read the TAR.
        num_resamples (`int`, *optional*, defaults to 200): Draws of the bootstrap over templates, see
            [`TemplateBootstrap`]; 0 for no intervals.
        confidence (`float`, *optional*, defaults to 0.95): Of the intervals.
        seed (`int`, *optional*, defaults to 0): Of the bootstrap.
        progress (`bool`, *optional*, defaults to `True`): Show progress bars, on a terminal.

    Returns:
        [`IjbResult`]

    Raises:
        ValueError: The features do not fit (see [`pool_templates`]), the protocol lacks genuine or impostor pairs, or
            an argument is out of range.
    """
    if not fars:
        raise ValueError("`fars` is empty; give the FARs at which to read the TAR, e.g. (1e-4,)")
    options = {"flip": flip, "norm": norm, "detector_score": detector_score}
    templates = pool_templates(features, protocol, progress=progress, **options)
    scores = score_pairs(templates, protocol.pair_first, protocol.pair_second, progress=progress)
    roc = Roc.from_scores(scores, protocol.is_same)
    result = IjbResult(roc_metrics(roc, fars), roc, scores)
    if num_resamples:
        bootstrap = TemplateBootstrap(
            protocol.pair_first, protocol.pair_second, protocol.is_same, protocol.num_templates, num_resamples, seed
        )
        draws = bootstrap.tar_at_most(scores, fars, progress=progress)
        for far, values in zip(fars, draws.T, strict=True):
            result.intervals[tar_key(far, "at_most")] = percentile_interval(values, confidence)
    return result


def roc_metrics(roc: Roc, fars: Sequence[float]) -> dict[str, float]:
    """
    TAR at every FAR by both rules, area under the curve and equal error rate.

    Args:
        roc ([`Roc`]): The curve.
        fars (`Sequence[float]`): FARs in [0, 1].

    Returns:
        `dict[str, float]`: Fractions in [0, 1], named as in [`IjbResult`].

    Raises:
        ValueError: A FAR is outside of [0, 1].
    """
    tars = {tar_key(far, rule): roc.tar_at_far(far, rule) for rule in FAR_RULES for far in fars}
    return {**tars, "auc": roc.auc, "eer": roc.eer}
