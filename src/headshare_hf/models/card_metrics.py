"""The metrics of model cards: what evaluation calls them, what the Hub does, and what people read."""

import difflib
import re
from collections.abc import Iterable
from typing import Any, NamedTuple


class HubMetric(NamedTuple):
    """
    What the Hub calls a metric.

    Attributes:
        type (`str`): Identifier of a metric of the Hub, or a name that nothing else there has.
        name (`str`): Shown beside the value; tells apart metrics of one type.
    """

    type: str
    name: str


# Names that evaluation gives, without the `eval_` of the Trainer. Metrics of the mixed prediction are not here: they
# need the teacher's head, which the published weights do not have.
METRICS: dict[str, HubMetric] = {
    "accuracy": HubMetric("accuracy", "Top-1 accuracy"),
    "top5_accuracy": HubMetric("accuracy", "Top-5 accuracy"),
    "mean_per_class_accuracy": HubMetric("accuracy", "Mean per-class accuracy"),
}
# Those of a set of pairs; what stands in braces differs from set to set.
PAIR_METRICS: dict[str, HubMetric] = {
    "accuracy": HubMetric("accuracy", "Accuracy over {folds} folds"),
    "auc": HubMetric("roc_auc", "Area under the ROC curve"),
    "eer": HubMetric("eer", "Equal error rate"),
    "tar@far={far}/at_most": HubMetric("tar", "TAR at FAR {far} (rule at_most)"),
    "tar@far={far}/nearest": HubMetric("tar", "TAR at FAR {far} (rule nearest)"),
}
# Those of a search in a gallery.
SEARCH_METRICS: dict[str, HubMetric] = {
    "rank{k}": HubMetric("identification_rate", "Rank-{k} identification rate"),
    "tpir@fpir={fpir}": HubMetric("tpir", "TPIR at FPIR {fpir}"),
}


def find_pair_metric(name: str, folds: int | None = None) -> HubMetric | None:
    """
    A metric of pairs as the Hub calls it.

    Args:
        name (`str`): A name of [`verification_metrics`] without that of the set.
        folds (`int`, *optional*): Folds of the accuracy.

    Returns:
        [`HubMetric`], or `None` where there is no such metric.
    """
    return _find(PAIR_METRICS, name, folds=folds)


def find_search_metric(name: str) -> HubMetric | None:
    """
    A metric of a search in a gallery as the Hub calls it.

    Args:
        name (`str`): A name of [`evaluate_identification`].

    Returns:
        [`HubMetric`], or `None` where there is no such metric.
    """
    return _find(SEARCH_METRICS, name)


def _find(table: dict[str, HubMetric], name: str, **values: Any) -> HubMetric | None:
    for known, metric in table.items():
        found = _pattern(known).fullmatch(name)
        if found is not None:
            return HubMetric(metric.type, metric.name.format(**values, **found.groupdict()))
    return None


def check_metric_list(kinds: Any, place: str) -> None:
    """
    Checks the list of metrics in the metadata of a card, which the Hub filters by.

    Args:
        kinds (`Any`): What stands there.
        place (`str`): Where it is in the metadata, for the message of an error.

    Raises:
        ValueError: It is no list, or no card of this package has one of these types.
    """
    if not isinstance(kinds, list):
        raise ValueError(f"`{place}` is {kinds!r}; expected a list, such as [accuracy]")
    for index, kind in enumerate(kinds):
        _check_type(kind, f"{place}[{index}]")


def check_metric(metric: dict[str, Any], place: str) -> None:
    """
    Checks one metric in the metadata of a card.

    Args:
        metric (`dict[str, Any]`): Its `type`, `name` and `value`. In a name, a comma ends what the metric is called.
        place (`str`): Where it is in the metadata, for the message of an error.

    Raises:
        ValueError: No card of this package has this type, or this name of that type, or the value is no fraction.
    """
    kind, name, value = (metric.get(field) for field in ("type", "name", "value"))
    _check_type(kind, f"{place}.type")
    names = [entry.name for entry in _known() if entry.type == kind]
    if not any(_pattern(entry).fullmatch(str(name).split(", ")[0]) for entry in names):
        raise ValueError(
            f"`{place}.name` is {name!r}; of type {kind!r} a card of headshare_hf knows: {_listed(names)}"
        )
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise ValueError(f"`{place}.value` is {value!r}; expected a fraction in [0, 1], not per cent")


def _check_type(kind: Any, place: str) -> None:
    types = sorted({entry.type for entry in _known()})
    if kind not in types:
        near = difflib.get_close_matches(str(kind), types, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"`{place}` is {kind!r}; {hint}A card of headshare_hf knows: {_listed(types)}")


def _known() -> list[HubMetric]:
    return [*METRICS.values(), *PAIR_METRICS.values(), *SEARCH_METRICS.values()]


def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^\\s/]+)", re.escape(template)))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
