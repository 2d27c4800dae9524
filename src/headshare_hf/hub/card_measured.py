"""What `run_verification` measured after a training comes into the card of the run."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ..evaluation import load_face_model, tar_key
from ..models.card_metrics import HubMetric, find_pair_metric, find_search_metric
from ..models.hub_card import is_own_card
from ..models.hub_commit import CARD_FILE
from .card import render_text
from .card_fields import LOCAL_DATA, data_type
from .card_verification import SUBJECTS, TASK


# In the folder of a run; never published.
KEPT_FILE = "measured.json"
TEMPLATE = Path(__file__).with_name("card_measured.md")
# What results belong to, and what is said where it is another.
_IDENTIFYING = {"weights_sha256": "other weights than those", "processor": "another image processor than that"}
# The sections of a card that `render_card` wrote; results are those before it.
_METHOD = "\n## Method\n"
_GALLERIES = "mean of both galleries"


@dataclass(frozen=True)
class _Value:
    """One number: what it is called in the metadata behind its set and in the table, and how sure it is."""

    metric: HubMetric
    value: float
    ends: tuple[float, float] | None
    over: str | None = None
    part: str = ""

    @property
    def title(self) -> str:
        return ", ".join(filter(None, (self.metric.name, self.part)))

    @property
    def shown(self) -> str:
        ends = "" if self.ends is None else f" [{100 * self.ends[0]:.2f}, {100 * self.ends[1]:.2f}]"
        return f"{100 * self.value:.2f}{ends}"


class _Set:
    """A set in the record of an evaluation, as a card speaks of it."""

    def __init__(self, name: str, record: Mapping[str, Any]) -> None:
        is_pairs = record["protocol"] == "pairs"
        self.name, self.record = name, record
        self.num_genuine, self.num_impostor = record["num_genuine"], record["num_impostor"]
        self.size = f"{record['num_pairs']:,} pairs" + ("" if is_pairs else " of templates")
        switches = {"norm": "feature norms", "detector_score": "detector scores"}
        on = [text for key, text in switches.items() if record.get(key)]
        self.switches = ", ".join([f"with{'' if record['flip'] else 'out'} mirrored images", *on])
        self.switches += "" if record.get("complete", True) else ", part of the protocol"
        self.key = f"{name}, {self.size}, {self.switches}"
        self.remarks = record["remarks"]
        self.values = [*self._pairs(), *self._search()]

    @property
    def bootstrap(self) -> str:
        """What the brackets are; empty where there are none."""
        found = self.record["bootstrap"]
        if found is None:
            return ""
        further = ", 1:N over probes" if self.record.get("identification") else ""
        return (
            f"{100 * found['level']:g} per cent, by {found['num_samples']:,} replicates of the bootstrap over "
            f"{found['over']}{further}"
        )

    def results(self, task_name: str) -> list[EvalResult]:
        """As the Hub's metadata has them."""
        return [
            EvalResult(
                task_type=TASK,
                task_name=task_name,
                dataset_type=data_type(f"{LOCAL_DATA}{self.name}"),
                dataset_name=self.name,
                metric_type=value.metric.type,
                metric_name=f"{value.metric.name}, {self.name}, {value.part or self.size}, {self.switches}",
                metric_value=round(value.value, 6),
                metric_args=self._args(value),
            )
            for value in self.values
        ]

    def _args(self, value: _Value) -> dict[str, Any] | None:
        if value.ends is None:
            return None
        found = self.record["bootstrap"]
        bootstrap = {"level": found["level"], "replicates": found["num_samples"], "over": value.over or found["over"]}
        return {"interval": [round(end, 6) for end in value.ends], **bootstrap}

    def _pairs(self) -> Iterator[_Value]:
        record = self.record
        found = {
            name: (record[name], record.get(f"{name}_interval"))
            for name in ("accuracy", "auc", "eer")
            if name in record
        }
        found.update({tar_key(p["far"], p["rule"]): (p["tar"], p["interval"]) for p in record["tar"]})
        for name, (value, ends) in found.items():
            metric = find_pair_metric(name, record.get("num_folds"))
            # Of a TAR for which there are too few impostor pairs a remark tells.
            if value is not None and metric is not None:
                yield _Value(metric, value, ends)

    def _search(self) -> Iterator[_Value]:
        rates = (self.record.get("identification") or {}).get("mean", {})
        for name, value in rates.items():
            metric = find_search_metric(name)
            if metric is not None:
                ends = (rates[f"{name}/low"], rates[f"{name}/high"]) if f"{name}/low" in rates else None
                yield _Value(metric, value, ends, "probes", _GALLERIES)


def add_results(folder: str | Path, results: str | Path) -> None:
    """
    Adds what [`run_verification`] measured to the card in the folder of a run, as text and as metadata. Results of the
    same set and switches that were added before are replaced. They are kept in the folder too, in `measured.json`, so that
    a card which is written anew has them again.

    Args:
        folder (`str` or `Path`): Of the run, with model, image processor and `README.md`.
        results (`str` or `Path`): The `results.json` of an evaluation of this model.

    Raises:
        FileNotFoundError: There are no such results.
        ValueError: They are of stored features, of other weights, of another image processor or of another precision than
            float32, or no results; or the card is missing, or is none that [`render_card`] wrote.
    """
    path, card_path = Path(results), Path(folder) / CARD_FILE
    if not card_path.is_file():
        raise ValueError(
            f"{folder} has no {CARD_FILE}, the model card; write it with `render_card` of headshare_hf.hub"
        )
    measured, sets = _read_sets(path, Path(folder))
    card = ModelCard.load(card_path)
    if not is_own_card(card) or _METHOD not in card.text:
        raise ValueError(
            f"{card_path} is no card that `render_card` wrote; run the recipe again, or write the results into its "
            "`model-index` yourself"
        )
    kept = Path(folder, KEPT_FILE)
    earlier = _read_kept(kept, measured)
    _with_sets(card, sets).save(card_path)
    found = {entry.key: [entry.name, entry.record] for entry in [*earlier, *sets]}
    kept.write_text(
        json.dumps({"model": measured, "results": list(found.values())}, indent=2) + "\n", encoding="utf-8"
    )


def add_kept_results(folder: str | Path, card_path: Path) -> None:
    """
    Adds to a card what [`add_results`] has added to that of a folder before. Nothing, where weights or image processor
    beside the card are others than those that were evaluated.

    Args:
        folder (`str` or `Path`): Of the run.
        card_path (`Path`): The card, which [`render_card`] has just written, in a folder with the model.

    Raises:
        ValueError: What was kept is damaged.
    """
    kept = Path(folder, KEPT_FILE)
    if kept.is_file():
        sets = _read_kept(kept, load_face_model(str(card_path.parent)).describe())
        _with_sets(ModelCard.load(card_path), sets).save(card_path)


def _read_kept(path: Path, model: Mapping[str, Any]) -> list[_Set]:
    """What was added before, where it is of this model."""
    if not path.is_file():
        return []
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        sets = [_Set(name, record) for name, record in content["results"]]
        is_same = all(content["model"][name] == model[name] for name in _IDENTIFYING)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error!r}); delete it, and add the results to the card again") from error
    return sets if is_same else []


def _read_sets(path: Path, folder: Path) -> tuple[dict[str, Any], list[_Set]]:
    """What the model that was evaluated is known by, and the results by set."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; `run_verification` writes it into its output folder")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        _check_model(record["model"], path, folder)
        found = [_Set(name, entry) for name, entry in record["sets"].items()]
    except (AttributeError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not the `results.json` of `run_verification`; give that") from error
    if not found:
        raise ValueError(f"{path} has no results; evaluate this model and give its `results.json`")
    return {name: record["model"][name] for name in _IDENTIFYING}, found


def _check_model(model: Mapping[str, Any], path: Path, folder: Path) -> None:
    if "features" in model:
        raise ValueError(f"{path} has the results of stored features, and nothing says which weights made them")
    precision = model.get("precision", "float32")
    if precision != "float32":
        raise ValueError(
            f"{path} has the results of a network that computed in {precision}, which the card has no place for; evaluate it "
            "without `--mixed_precision` and give that `results.json`"
        )
    own = load_face_model(str(folder)).describe()
    for key, what in _IDENTIFYING.items():
        if model[key] != own[key]:
            raise ValueError(
                f"{path} has the results of {what} of {folder}; evaluate this model and give its `results.json`"
            )


def _with_sets(card: ModelCard, sets: list[_Set]) -> ModelCard:
    data, text = cast(ModelCardData, card.data), card.text
    earlier = data.eval_results or []
    tasks = [result.task_name for result in earlier if result.task_type == TASK and result.task_name]
    added = [result for found in sets for result in found.results((tasks or [SUBJECTS["faces"].task])[0])]
    names = {result.metric_name for result in added}
    data.eval_results = [*(result for result in earlier if result.metric_name not in names), *added]
    data.metrics = sorted({result.metric_type for result in data.eval_results})
    for found in sets:
        before = rf"<!-- measured: {re.escape(found.key)} -->\n.*?<!-- measured -->\n\n?"
        text = re.sub(before, "", text, flags=re.DOTALL)
        text = text.replace(_METHOD, f"\n{render_text(TEMPLATE, found=found)}{_METHOD}", 1)
    return ModelCard(f"---\n{data.to_yaml()}\n---\n{text}")
