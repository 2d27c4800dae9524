"""The model card: metadata that the Hub reads, and text that people read, from one record of facts."""

import difflib
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jinja2
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ..losses import COMPANIONS, PretrainedCompanionLoss
from ..losses.companions import PRETRAINING_EPOCHS
from ..models import backbone_names
from ..models.card_metrics import METRICS
from ..models.card_thresholds import threshold_call, threshold_table
from .card_checks import check_fields, is_non_commercial
from .card_fields import LOCAL_DATA, CardFields, CardHead, CardMethod, CardResult, data_type
from .card_verification import SUBJECTS, TASK, head_text, interval_text, pair_results, pair_rows


TEMPLATE = Path(__file__).with_name("card_template.md")


TASKS = {"image-classification": "Image Classification"}

# Every loss part as it is written in the card's equation.
TERMS = {
    "ce": "CE(p_s, y)",
    "kd": "T² KL(p_t || p_s)",
    "teacher_head": "T² KL(p_t || p_th)",
    "teacher_head_ce": "CE(p_th, y)",
    "embedding": "||z_s - z_t||²",
    "contrastive": "CRD(e_s, e_t)",
    "companion": "D(f_s, f_t)",
}

# Symbols of the equation, in the order in which the card explains them.
SYMBOLS = {
    "y": "`y` is the label",
    "p_s": "`p_s` is the output of the student's own classifier",
    "p_th": "`p_th` is the output of the teacher's frozen classifier on the student's embedding",
    "p_t": "`p_t` is the teacher's output",
    "z_s": "`z_s` and `z_t` are the embeddings of student and teacher, {length}",
    "e_s": "`e_s` and `e_t` are the embeddings of student and teacher, each after a linear layer to the unit sphere",
    "f_s": "`f_s` and `f_t` are what {companion} reads of student and teacher ({compared})",
}

TEACHER_TAGS = ("knowledge-distillation", "arxiv:2201.06945")


def render_card(card: CardFields) -> ModelCard:
    """
    The model card of a network that this package trained.

    Nothing is sent anywhere. `card.save(path)` writes it, and `ModelCard.load(path)` reads it back. Values are
    fractions in the metadata, as the Hub's metrics have them, and per cent in the text.

    Args:
        card ([`CardFields`]): All facts.

    Returns:
        `huggingface_hub.ModelCard`

    Raises:
        ValueError: A field is missing, empty or contradicts another one, or a metric or task is unknown.
    """
    check_fields(card)
    return fill_template(TEMPLATE, _metadata(card), card=card, **_derived(card))


def fill_template(template: Path, metadata: ModelCardData, **values: Any) -> ModelCard:
    """
    A card from a template of this folder.

    Args:
        template (`Path`): The file; what it includes is beside it.
        metadata (`huggingface_hub.ModelCardData`): The YAML block.
        values: What the template asks for.

    Raises:
        jinja2.UndefinedError: A value is missing.
    """
    return ModelCard(f"---\n{metadata.to_yaml()}\n---\n\n{render_text(template, **values)}")


def render_text(template: Path, **values: Any) -> str:
    """
    The text of a template of this folder.

    Args:
        template (`Path`): The file; what it includes is beside it.
        values: What the template asks for.

    Raises:
        jinja2.UndefinedError: A value is missing.
    """
    # huggingface_hub's own `from_template` renders what is undefined as nothing.
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(template.parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(thousands="{:,}".format, number="{:g}".format, duration=_duration, megabytes=_megabytes)
    return environment.get_template(template.name).render(**values)


def _metadata(card: CardFields) -> ModelCardData:
    task = TASK if card.verification else "image-classification"
    subject_tags = SUBJECTS[card.verification.subject].tags if card.verification else ()
    teacher_tags = TEACHER_TAGS if card.teacher else ()
    method_tag = card.method.name.replace("_", "-")
    pairs = pair_results(card.verification) if card.verification else []
    results = [*pairs, *(_eval_result(result) for result in card.results)]
    return ModelCardData(
        library_name="transformers",
        pipeline_tag=task,
        license=card.license,
        license_name=card.license_name,
        license_link=card.license_link,
        base_model=card.base_model,
        datasets=[card.dataset.id] if card.dataset.is_on_hub else None,
        tags=[task, "headshare_hf", *teacher_tags, method_tag, *subject_tags, *card.tags],
        metrics=sorted({result.metric_type for result in results}),
        model_name=card.model.name,
        eval_results=results,
    )


def _eval_result(result: CardResult) -> EvalResult:
    metric = _look_up(METRICS, result.metric, "metric")
    return EvalResult(
        task_type=result.task,
        task_name=_look_up(TASKS, result.task, "task"),
        dataset_type=data_type(result.dataset_id),
        dataset_name=result.dataset_name,
        dataset_split=result.split,
        metric_type=metric.type,
        metric_name=metric.name,
        metric_value=round(result.value, 6),
    )


def _derived(card: CardFields) -> dict[str, Any]:
    """What the template cannot take from a field as it is."""
    verification = card.verification
    thresholds = verification.thresholds if verification else ()
    return {
        **describe_objective(card.method, card.model.head),
        "head": head_text(card.model.head),
        "data_name": card.dataset.id.removeprefix(LOCAL_DATA),
        # Other architectures are those of transformers itself.
        "has_own_code": card.model.backbone in backbone_names() or card.model.backbone.startswith("timm/"),
        "subject": SUBJECTS[verification.subject] if verification else None,
        "subject_name": verification.subject if verification else None,
        "threshold_call": threshold_call(thresholds, verification is not None and verification.flip),
        "threshold_table": threshold_table(thresholds),
        "pair_rows": pair_rows(verification) if verification else [],
        "interval_text": interval_text(verification.sets) if verification else "",
        "has_fold_errors": any(
            p.accuracy_standard_error is not None for p in (verification.sets if verification else ())
        ),
        "non_commercial": verification is not None
        and (is_non_commercial(card.license) or is_non_commercial(card.dataset.license)),
        "results": [
            (_look_up(METRICS, result.metric, "metric").name, _value(result), result) for result in card.results
        ],
        "teacher_metrics": [
            f"{_look_up(METRICS, name, 'metric').name.lower()} {_per_cent(value)} per cent"
            for name, value in (card.teacher.metrics if card.teacher else {}).items()
        ],
        "sampling": [
            (f"{result.num_images:,}", _per_cent(math.sqrt(result.value * (1 - result.value) / result.num_images)))
            for result in card.results
            if result.metric == "accuracy"
        ],
        "most_seeds": max((result.num_seeds for result in card.results), default=1),
    }


def describe_objective(method: CardMethod, head: CardHead | None) -> dict[str, Any]:
    """The equation and what has to be said about it, as `card_objective.md` needs them."""
    weights = {name: weight for name, weight in asdict(method.weights).items() if weight}
    terms = [f"{weight:g} {_look_up(TERMS, name, 'loss part')}" for name, weight in weights.items()]
    equation, kd_scale = " + ".join(terms), method.options.get("kd_scale")
    softened = "T²" in equation
    temperature = f"s / {kd_scale:g}" if kd_scale else f"{method.temperature:g}" if softened else ""
    as_they_are = method.options.get("embedding_distance") == "l2"
    length = "as they are" if as_they_are else "scaled to length 1"
    has_margin = head is not None and len(head.margin) > 0
    companion = method.options.get("companion", "")
    compared = _look_up(COMPANIONS, companion, "companion").summary if companion else ""
    facts = {"length": length, "companion": companion, "compared": compared}
    pretraining = _pretraining(companion, method.options.get("pretraining_epochs") or PRETRAINING_EPOCHS)
    return {
        "method": method,
        "equation": f"L = {equation}" + (f",   T = {temperature}" if softened else ""),
        "symbols": [text.format(**facts) for symbol, text in SYMBOLS.items() if f"{symbol}," in _tokens(equation)],
        "pretraining": pretraining,
        "softened": softened,
        "kd_scale": kd_scale,
        "margin": has_margin and "CE(" in equation,
    }


def _pretraining(companion: str, epochs: float) -> str:
    """What is said of the stage before the training proper; empty where there is none."""
    loss = COMPANIONS[companion].loss if companion else None
    if loss is None or not issubclass(loss, PretrainedCompanionLoss):
        return ""
    what = "the student's backbone" if loss.pretrains_backbone else "what reads the teacher's maps"
    return f"Before that, {what} was trained for {epochs:g} epochs with the own loss of `{companion}` alone."


def _tokens(equation: str) -> str:
    """The symbols of an equation, each with a comma behind it, so that `p_t` is not found in `p_th`."""
    words = equation.replace("(", " ").replace(")", " ").replace("|", " ").replace(",", " ").split()
    return "".join(f"{word}," for word in words)


def _look_up(table: dict[str, Any], name: str, kind: str) -> Any:
    if name in table:
        return table[name]
    close = difflib.get_close_matches(name, table, n=2, cutoff=0.4)
    hint = f"; did you mean {' or '.join(close)}?" if close else ";"
    raise ValueError(f"unknown {kind} {name!r}{hint} A model card knows: {', '.join(table)}")


def _value(result: CardResult) -> str:
    error = "" if result.standard_error is None else f" ± {_per_cent(result.standard_error)}"
    return f"{_per_cent(result.value)}{error}"


def _per_cent(fraction: float) -> str:
    return f"{100 * fraction:.2f}"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.2f} MB"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
