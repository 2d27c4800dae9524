"""The `evaluate` modules that come with this package."""

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    import evaluate


_METRICS = Path(__file__).parent / "metrics"


def metric_names() -> list[str]:
    """The names that [`load_metric`] knows."""
    return sorted(script.stem for script in _METRICS.glob("*/*.py"))


def load_metric(name: str, **kwargs: Any) -> "evaluate.EvaluationModule":
    """
    A metric of this package, from its local file: no connection is needed.

    Args:
        name (`str`): `"topk_accuracy"`, `"mean_per_class_accuracy"`, `"verification"`, `"ijb_verification"` or
            `"ijb_identification"`.
        kwargs: Arguments of `evaluate.load` and of the metric, e.g. `ks=(1, 3)`.

    Raises:
        ValueError: There is no such metric; the nearest name and all names are listed.
    """
    names = metric_names()
    if name not in names:
        close = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
        hint = f"; did you mean {close[0]}?" if close else ";"
        raise ValueError(f"unknown metric {name!r}{hint} This package has: {', '.join(names)}")
    # Takes seconds to import, which who trains should not wait for.
    import evaluate

    return evaluate.load(str(_METRICS / name), **kwargs)
