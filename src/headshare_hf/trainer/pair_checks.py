"""What is looked at before the first step where pairs are scored while a network trains."""

import logging
from typing import Any

from ..data import shared_identities
from ..evaluation import Verifier, tar_key
from .config import DistillationConfig


logger = logging.getLogger(__name__)


def check_identities(verifier: Verifier, train_dataset: Any) -> None:
    """
    Warns where people of the verification sets are trained on: the result then says little about strangers.

    It is a warning because published numbers are made that way too: MS-Celeb-1M shows some people of the test sets.
    """
    known = getattr(train_dataset, "label_names", None) or []
    for pairs in verifier.sets:
        shared = shared_identities(known, pairs.names or [])
        if shared:
            logger.warning(
                "%d of the people of %s are also in the training set, e.g. %s", len(shared), pairs.name, shared[0]
            )


def check_best_metric(verifier: Verifier, args: DistillationConfig, eval_dataset: Any) -> None:
    """
    Checks that `metric_for_best_model`, where it is one of pairs, will be there when checkpoints are compared.

    Raises:
        ValueError: Pairs are not scored before every comparison, or there is no such number; those that there are are
            listed.
    """
    wanted = str(args.metric_for_best_model or "").removeprefix("eval_")
    names = [f"{pairs.name}_" for pairs in verifier.sets]
    if args.eval_strategy == "no" or not (wanted.startswith(tuple(names)) or (wanted and not eval_dataset)):
        return
    known = [
        f"{name}{metric}"
        for pairs, name in zip(verifier.sets, names, strict=True)
        for metric in _metrics(pairs, verifier)
    ]
    if wanted not in known:
        raise ValueError(f"`metric_for_best_model` is {wanted!r}, and the pairs give {', '.join(known)}")
    if args.eval_strategy != "epoch" or verifier.every_epochs != 1:
        raise ValueError(
            f"`metric_for_best_model` is {wanted!r}, which is known after every {verifier.every_epochs} epochs, and checkpoints "
            f"are compared by `eval_strategy` {str(getattr(args.eval_strategy, 'value', args.eval_strategy))!r}; set that to "
            "'epoch', and `every_epochs` of the verification to 1"
        )


def _metrics(pairs: Any, verifier: Verifier) -> list[str]:
    impostors = int((~pairs.is_same).sum())
    fars = [far for far in verifier.far_targets if far * impostors >= 1]
    return ["accuracy", "auc", "eer", *(tar_key(far, "at_most") for far in fars)]
