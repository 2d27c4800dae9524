"""The 1:N protocol of IJB-B and IJB-C: is a person found in a gallery, and is nobody found who is not in it?"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from ..data.ijb import IjbIdentification, IjbProtocol
from .arrays import to_array
from .ijb_bootstrap import percentile_interval
from .ijb_templates import pool_templates


RANKS = (1, 5, 10)
FPIRS = (0.01, 0.1)

_BLOCK_ENTRIES = 1 << 25


def reduce_probes(scores: Any, mates: Any) -> tuple[np.ndarray, np.ndarray]:
    """
    Two numbers a probe, from which all rates of searches in one gallery follow, however large the gallery is.

    Args:
        scores (`torch.Tensor` or `np.ndarray` of shape `(batch_size, gallery_size)`):
            Similarity of every probe to every entry of the gallery.
        mates (`torch.Tensor` or `np.ndarray` of integers and shape `(batch_size,)`):
            Entry of the probe's person in the gallery; -1 for a person who is not in it (a non-mated probe).

    Returns:
        `tuple[np.ndarray, np.ndarray]` of shape `(batch_size,)`: Score of the own entry, of the highest one for a
        non-mated probe; and rank, one plus the number of other entries that score at least as high, 0 for a non-mated
        probe.

    Raises:
        ValueError: The shapes do not fit, a mate is no entry, or a score is NaN.
    """
    scores, mates = _tensor(scores), _tensor(mates)
    _check_batch(scores, mates)
    own = scores.gather(1, mates.clamp(min=0)[:, None].long())
    ranks = torch.where(mates >= 0, (scores >= own).sum(dim=1), 0)
    kept = torch.where(mates >= 0, own[:, 0], scores.amax(dim=1))
    return kept.double().cpu().numpy(), ranks.cpu().numpy()


def probe_rates(
    scores: np.ndarray, found: np.ndarray, ranks: Sequence[int] = RANKS, fpirs: Sequence[float] = FPIRS
) -> dict[str, float]:
    """
    Rates of searches in one gallery.

    - Rank k, closed set: the share of mated probes whose own entry is among the k highest. A tie counts against the
      probe.
    - TPIR at an FPIR, open set: the share of mated probes whose own entry is the highest one and scores at least the
      threshold. FPIR is the share of the non-mated probes of which some entry does; of the thresholds whose FPIR is not
      above the one asked for, that of the largest TPIR counts (P. J. Phillips, P. Grother, R. Micheals, "Evaluation
      methods in face recognition", Handbook of Face Recognition, 2011: detection and identification rate at rank 1).

    Args:
        scores (`np.ndarray` of shape `(num_probes,)`): From [`reduce_probes`].
        found (`np.ndarray` of shape `(num_probes,)`): The ranks from there.
        ranks (`Sequence[int]`, *optional*, defaults to 1, 5 and 10): Which ranks.
        fpirs (`Sequence[float]`, *optional*, defaults to 0.01 and 0.1): Which FPIRs.

    Returns:
        `dict[str, float]`: `rank1`, ..., `tpir@fpir=0.01`, ...; fractions in [0, 1].

    Raises:
        ValueError: A rank is below 1, an FPIR is outside of [0, 1], no probe was mated, or none was non-mated and an FPIR
            is asked for.
    """
    mated = found > 0
    own, false, found = scores[mated], np.sort(scores[~mated])[::-1], found[mated]
    _check_counts(len(found), len(false), ranks, fpirs)
    result = {f"rank{k}": float(np.mean(found <= k)) for k in ranks}
    for fpir in fpirs:
        # The number of non-mated probes that may reach the threshold; the next one has to be below it.
        allowed = int(np.searchsorted(np.arange(1, len(false) + 1) / len(false), fpir, side="right"))
        limit = false[allowed] if allowed < len(false) else -np.inf
        result[f"tpir@fpir={fpir:g}"] = float(np.mean((found == 1) & (own > limit)))
    return result


def evaluate_identification(
    features: Any,
    protocol: IjbProtocol,
    identification: IjbIdentification,
    *,
    flip: bool = True,
    norm: bool = True,
    detector_score: bool = True,
    ranks: Sequence[int] = RANKS,
    fpirs: Sequence[float] = FPIRS,
    num_resamples: int = 0,
    confidence: float = 0.95,
    seed: int = 0,
    progress: bool = True,
) -> dict[str, dict[str, float]]:
    """
    Evaluates features of images by the 1:N protocol of IJB-B or IJB-C: all mixed probes are searched for in either
    gallery, and the numbers of both are averaged. See [`probe_rates`] for the definitions.

    Intervals are those of the percentile bootstrap over probe templates: a draw has as many of them, with replacement and
    the same ones in all galleries. The galleries stay as they are, and the probes of one person count as independent, so
    that the intervals are somewhat narrow.

    Args:
        features (`np.ndarray`, `np.memmap` or `torch.Tensor` of shape `(num_images, embedding_size)`):
            In the order of `protocol.image_names`; with `flip` twice as wide, see [`pool_templates`].
        protocol ([`IjbProtocol`]): Images and templates.
        identification ([`IjbIdentification`]): Galleries and probes.
        flip (`bool`, *optional*, defaults to `True`): Add the features of image and mirror image.
        norm (`bool`, *optional*, defaults to `True`): Keep the length of features as a weight.
        detector_score (`bool`, *optional*, defaults to `True`): Weight images by the score of the face detector.
        ranks (`Sequence[int]`, *optional*, defaults to 1, 5 and 10): Which ranks.
        fpirs (`Sequence[float]`, *optional*, defaults to 0.01 and 0.1): Which FPIRs.
        num_resamples (`int`, *optional*, defaults to 0): Draws of the bootstrap; 0 for no intervals.
        confidence (`float`, *optional*, defaults to 0.95): Of the intervals.
        seed (`int`, *optional*, defaults to 0): Of the bootstrap.
        progress (`bool`, *optional*, defaults to `True`): Show progress bars, on a terminal.

    Returns:
        `dict[str, dict[str, float]]`: The rates of every gallery by its name (`"G1"` and `"G2"`, or `"S1"` and `"S2"`),
        their average as `"mean"`, and as `"joined"` the ranks in both galleries together, which insightface prints. With
        `num_resamples`, the ends of the interval of `rank1` are `rank1/low` and `rank1/high`, and so on.

    Raises:
        ValueError: The features do not fit (see [`pool_templates`]), a gallery has no mated or no non-mated probes (of a
            draw, too), or an argument is out of range.
    """
    if num_resamples == 1 or num_resamples < 0:
        raise ValueError(f"`num_resamples` is {num_resamples}; an interval needs at least 2, and 200 are usual")
    options = {"flip": flip, "norm": norm, "detector_score": detector_score}
    templates = pool_templates(features, protocol, progress=progress, **options)
    probes = templates[identification.probe_templates]
    galleries = identification.galleries
    joined = tuple(np.concatenate(part) for part in zip(*galleries.values(), strict=True))
    searches = {
        name: search(probes, identification.probe_subjects, templates[rows], subjects)
        for name, (rows, subjects) in {**galleries, "joined": joined}.items()
    }
    results = _all_rates(searches, ranks, fpirs)
    if num_resamples:
        draws = _bootstrap(searches, ranks, fpirs, num_resamples, seed, progress)
        for name, rates in results.items():
            for key in list(rates):
                interval = percentile_interval(np.array([draw[name][key] for draw in draws]), confidence)
                rates[f"{key}/low"], rates[f"{key}/high"] = interval
    return results


def _all_rates(
    searches: dict[str, tuple[np.ndarray, np.ndarray]], ranks: Sequence[int], fpirs: Sequence[float]
) -> dict[str, dict[str, float]]:
    """Of every gallery, their mean, and of the joined one."""
    results = {name: probe_rates(*found, ranks, fpirs) for name, found in searches.items() if name != "joined"}
    parts = list(results.values())
    results["mean"] = {key: sum(part[key] for part in parts) / len(parts) for key in parts[0]}
    return {**results, "joined": probe_rates(*searches["joined"], ranks, ())}


def _bootstrap(
    searches: dict[str, tuple[np.ndarray, np.ndarray]],
    ranks: Sequence[int],
    fpirs: Sequence[float],
    num_resamples: int,
    seed: int,
    progress: bool,
) -> list[dict[str, dict[str, float]]]:
    """The rates of every draw of probes."""
    num_probes, generator = len(searches["joined"][0]), np.random.default_rng(seed)
    results = []
    for number in tqdm(range(num_resamples), desc="bootstrap, 1:N", disable=None if progress else True):
        drawn = generator.integers(num_probes, size=num_probes)
        sample = {name: (scores[drawn], found[drawn]) for name, (scores, found) in searches.items()}
        try:
            results.append(_all_rates(sample, ranks, fpirs))
        except ValueError as error:
            raise ValueError(
                f"in draw {number}, {error}. The protocol is too small to bootstrap, use num_resamples=0"
            ) from error
    return results


def search(
    probes: np.ndarray, probe_subjects: np.ndarray, gallery: np.ndarray, gallery_subjects: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """
    Searches for every probe in a gallery, in blocks of 256 MB of similarities.

    Args:
        probes (`np.ndarray` of shape `(num_probes, embedding_size)`): Features of unit length.
        probe_subjects (`np.ndarray` of integers and shape `(num_probes,)`): Their persons.
        gallery (`np.ndarray` of shape `(gallery_size, embedding_size)`): Features of unit length.
        gallery_subjects (`np.ndarray` of integers and shape `(gallery_size,)`): Their persons, all different.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: What [`reduce_probes`] returns, of all probes.

    Raises:
        ValueError: A person is in the gallery twice.
    """
    order = np.argsort(gallery_subjects)
    ordered = gallery_subjects[order]
    twice = np.flatnonzero(ordered[1:] == ordered[:-1])
    if len(twice):
        raise ValueError(f"person {ordered[twice[0]]} is in the gallery twice; a gallery has one entry of each person")
    place = np.searchsorted(ordered, probe_subjects).clip(max=len(ordered) - 1)
    mates = np.where(ordered[place] == probe_subjects, order[place], -1)
    columns = torch.from_numpy(gallery).T
    rows = max(1, _BLOCK_ENTRIES // len(gallery))
    parts = []
    for start in range(0, len(probes), rows):
        part = slice(start, start + rows)
        parts.append(reduce_probes(torch.from_numpy(probes[part]) @ columns, mates[part]))
    scores, found = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return scores, found


def _tensor(values: Any) -> torch.Tensor:
    return values if isinstance(values, torch.Tensor) else torch.from_numpy(to_array(values))


def _check_batch(scores: torch.Tensor, mates: torch.Tensor) -> None:
    if scores.ndim != 2 or not scores.shape[1] or mates.shape != scores.shape[:1]:
        raise ValueError(
            f"scores have shape {tuple(scores.shape)} and mates {tuple(mates.shape)}; expected (batch_size, "
            "gallery_size) and (batch_size,)"
        )
    if mates.is_floating_point():
        raise ValueError(f"mates have dtype {mates.dtype}; expected integers, the entries of the gallery")
    bad = ((mates < -1) | (mates >= scores.shape[1])).nonzero()
    if len(bad):
        row = int(bad[0])
        raise ValueError(
            f"mate {int(mates[row])} of probe {row} in the batch is no entry of a gallery of {scores.shape[1]}; use -1 "
            "for a person who is not in it"
        )
    nans = scores.isnan().any(dim=1).nonzero()
    if len(nans):
        raise ValueError(f"scores of probe {int(nans[0])} in the batch are NaN; look at its features")


def _check_counts(num_mated: int, num_others: int, ranks: Sequence[int], fpirs: Sequence[float]) -> None:
    for k in ranks:
        if k < 1:
            raise ValueError(f"rank {k} does not exist; ranks start from 1")
    for fpir in fpirs:
        if not 0 <= fpir <= 1:
            raise ValueError(f"FPIR {fpir} is outside of [0, 1]")
    if not num_mated:
        raise ValueError(
            "no probe has its person in the gallery, so that there is no rank; check the persons' numbers"
        )
    if fpirs and not num_others:
        raise ValueError(
            "every probe has its person in the gallery, so that there is no FPIR; use fpirs=() for ranks alone"
        )
