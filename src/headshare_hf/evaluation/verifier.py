"""What watches the verification accuracy while a network trains."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from accelerate import Accelerator
from torch import nn

from ..data.verification_set import VerificationSet
from .extraction import extract_embeddings
from .pair_bootstrap import bootstrap_intervals
from .processes import on_main_process
from .verification import VerificationResult, check_can_verify, one_view, verify_pairs


@dataclass(frozen=True, eq=False)
class Verifier:
    """
    Scores a model on one or several verification sets.

    Attributes:
        sets (`Sequence[VerificationSet]`): Pairs of images.
        processor (`Any`): The model's image processor.
        flip (`bool`): Add the embeddings of the mirrored images, as is usual for faces.
        batch_size (`int`): Images at a time in every process.
        far_targets (`Sequence[float]`): At which FAR to read the TAR.
        every_epochs (`int`): After how many epochs of training to score.
        bootstrap (`int`): Replicates for [`Verifier.intervals`]; 0 for none.

    Raises:
        ValueError: `every_epochs` is not positive, `bootstrap` is neither 0 nor at least 2, or a set cannot be evaluated,
            see [`check_can_verify`].
    """

    sets: Sequence[VerificationSet]
    processor: Any
    flip: bool = True
    batch_size: int = 256
    far_targets: Sequence[float] = (1e-2, 1e-3)
    every_epochs: int = 1
    bootstrap: int = 0

    def __post_init__(self) -> None:
        if self.every_epochs < 1:
            raise ValueError(f"`every_epochs` is {self.every_epochs}; it must be at least 1")
        if self.bootstrap == 1 or self.bootstrap < 0:
            raise ValueError(f"`bootstrap` is {self.bootstrap}; an interval needs at least 2 replicates, 0 is none")
        for pairs in self.sets:
            check_can_verify(pairs)

    def __call__(self, model: nn.Module, accelerator: Accelerator | None = None) -> dict[str, VerificationResult]:
        """
        Args:
            model (`nn.Module`): What [`extract_embeddings`] embeds with.
            accelerator (`accelerate.Accelerator`, *optional*): All of its processes have to call.

        Returns:
            `dict[str, VerificationResult]`: By the name of the set; empty in every process but the main one.
        """
        found = {pairs.name: self._verify(model, pairs, accelerator) for pairs in self.sets}
        return {name: result for name, result in found.items() if result is not None}

    def intervals(self, results: dict[str, VerificationResult]) -> dict[str, float]:
        """
        The ends of the intervals of [`bootstrap_intervals`] over pairs, of 95 per cent, as a training log holds them:
        `<set>_eer/low`, `<set>_eer/high` and so on, and the number of replicates as `<set>_replicates`. Of 6,000 pairs a
        thousand replicates take some seconds.

        Args:
            results (`dict[str, VerificationResult]`): What calling this has returned.
        """
        ends: dict[str, float] = {}
        for name, result in results.items() if self.bootstrap else ():
            found = bootstrap_intervals(result, num_samples=self.bootstrap, far_targets=self.far_targets)
            ends[f"{name}_replicates"] = self.bootstrap
            for metric, (low, high) in found.items():
                ends.update({f"{name}_{metric}/low": low, f"{name}_{metric}/high": high})
        return ends

    def _verify(
        self, model: nn.Module, pairs: VerificationSet, accelerator: Accelerator | None
    ) -> VerificationResult | None:
        embeddings = extract_embeddings(
            model,
            pairs.dataset(self.processor),
            batch_size=self.batch_size,
            flip=self.flip,
            name=pairs.name,
            accelerator=accelerator,
            progress=False,
        )

        def score() -> VerificationResult:
            rows = one_view(cast(np.ndarray, embeddings), self.flip)
            return verify_pairs(rows[pairs.index_a], rows[pairs.index_b], pairs.is_same, pairs.folds, self.far_targets)

        if accelerator is None:
            return None if embeddings is None else score()
        return on_main_process(accelerator, score)


def verification_metrics(results: dict[str, VerificationResult]) -> dict[str, float]:
    """
    Numbers of some results as a training log holds them: `<set>_accuracy`, `<set>_accuracy_standard_error`,
    `<set>_auc`, `<set>_eer` and `<set>_tar@far=.../at_most`, where there are enough impostor pairs for it.
    """
    metrics = {}
    for name, result in results.items():
        values = {
            "accuracy": result.accuracy,
            "accuracy_standard_error": result.accuracy_standard_error,
            "auc": result.roc.auc,
            "eer": result.roc.eer,
        }
        rates = {key: rate for key, rate in result.tar.items() if rate is not None and key.endswith("/at_most")}
        metrics.update({f"{name}_{key}": value for key, value in {**values, **rates}.items()})
    return metrics
