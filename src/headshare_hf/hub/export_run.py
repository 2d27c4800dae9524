"""A whole export: the files, what they cost, and how long they take."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset
from transformers import AutoConfig, AutoModel, AutoModelForImageClassification

from ..data import ImageClassificationDataset, load_splits, load_verification_set
from ..data.input_adapter import input_statistics
from ..data.pixels import working_size
from ..evaluation import Verifier
from ..evaluation.face_model import load_image_processor
from ..models import HeadShareConfig, HeadShareForImageClassification, HeadShareModel
from ..models.configuration_headshare import has_placeholder_labels
from ..models.damaged_files import damage_named
from ..models.hub_cache import CONFIG_FILE, INDEX_FILE, WEIGHTS_FILE, cached_commit, explained
from .export import DEFAULT_OPSET, check_can_export, export_onnx, export_program
from .latency import LatencyEntry, latency_table
from .onnx_model import OnnxModel
from .quantization import MODES, quantize_onnx
from .revisions import split_revision


_ONNX, _INT8, _PROGRAM, _RECORD, _TABLE = "model.onnx", "model.int8.onnx", "model.pt2", "export.json", "latency.md"
_FILES = (_ONNX, _INT8, _PROGRAM, _RECORD, _TABLE)


@dataclass(frozen=True)
class ExportOptions:
    """
    Options of [`run_export`].

    Args:
        model (`str`): Hub id or folder of a model of this package, with its image processor.
        output (`str` or `Path`): Folder of the results.
        revision (`str`, *optional*): Branch, tag or commit of a model on the Hub.
        embeddings_only (`bool`, *optional*, defaults to `False`): Leave out the classifier.
        opset (`int`, *optional*, defaults to 18): Version of ONNX's operators.
        torch_export (`bool`, *optional*, defaults to `False`): Also write `model.pt2`.
        quantize (`str`, *optional*): `"dynamic"` or `"static"`: also write `model.int8.onnx`.
        data (`str`, *optional*): Images with labels to measure the cost of 8 bits on, see [`load_splits`].
        image_column, label_column, config_name (`str`, *optional*): Of `data`, as there.
        split (`str`, *optional*, defaults to `"test"`): Which split of `data`.
        calibration_split (`str`, *optional*, defaults to `"train"`):
            Which split of `data` static quantization takes its ranges from.
        pairs (`str`, *optional*):
            A set of pairs to measure the cost on, see [`load_verification_set`]. Without `data` its images are also
            those that static quantization takes its ranges from.
        flip (`bool`, *optional*, defaults to `True`): Verify with the embedding of the mirrored image added.
        teacher (`str`, *optional*):
            Hub id, `id@revision` or folder of an image classifier to compare the latency with.
        batch_sizes (`Sequence[int]`, *optional*, defaults to `(1, 32)`): Of the latency table.
        repeats (`int`, *optional*, defaults to 20): Repetitions of the latency table.

    Raises:
        ValueError: Options contradict each other, or one has no effect; says which.
    """

    model: str
    output: Path
    revision: str | None = None
    embeddings_only: bool = False
    opset: int = DEFAULT_OPSET
    torch_export: bool = False
    quantize: str | None = None
    data: str | None = None
    image_column: str | None = None
    label_column: str | None = None
    config_name: str | None = None
    split: str = "test"
    calibration_split: str = "train"
    pairs: str | None = None
    flip: bool = True
    teacher: str | None = None
    batch_sizes: Sequence[int] = (1, 32)
    repeats: int = 20

    def __post_init__(self) -> None:
        object.__setattr__(self, "output", Path(self.output))
        if self.quantize not in (None, *MODES):
            raise ValueError(f"`quantize` is {self.quantize!r}; allowed: {', '.join(MODES)}")
        if self.quantize is None and (self.data is not None or self.pairs is not None):
            raise ValueError(
                "`data` and `pairs` measure what 8 bits cost; give `quantize` with them, or leave them out"
            )
        if self.quantize == "static" and self.data is None and self.pairs is None:
            raise ValueError("static quantization takes the ranges of activations from images; give `data` or `pairs`")
        if self.data is not None and self.embeddings_only:
            raise ValueError(
                "`data` measures the accuracy of the classifier, which `embeddings_only` leaves out; give `pairs`"
            )
        columns = [name for name in ("image_column", "label_column", "config_name") if getattr(self, name) is not None]
        if self.data is None and columns:
            raise ValueError(f"`{columns[0]}` has no effect without `data`; leave it out")
        if self.repeats < 1 or not self.batch_sizes or min(self.batch_sizes) < 1:
            raise ValueError(
                f"`batch_sizes` are {list(self.batch_sizes)} and `repeats` {self.repeats}; numbers from 1 on are allowed"
            )
        if self.pairs is None and not self.flip:
            raise ValueError("`flip` has no effect without `pairs`; leave it out")


def run_export(options: ExportOptions) -> dict[str, Any]:
    """
    Writes `model.onnx`, on request `model.int8.onnx` and `model.pt2`, `export.json` with what is known of them, and
    `latency.md`. Files of these names from an earlier export to the same folder are deleted first, for they may be of
    another model.

    The latency is that of the same part of all networks: of the embeddings where `embeddings_only` is set, the model
    has no classifier, or one of the heads is a cosine head (a teacher's class centers are often not there), and
    otherwise of the logits.

    Args:
        options ([`ExportOptions`]): What to do.

    Returns:
        `dict[str, Any]`: What `export.json` holds.

    Raises:
        OSError: There is no such model or teacher, or one is neither in the cache nor to be reached; nothing is written
            then.
        ImportError, ValueError: As [`export_onnx`], [`quantize_onnx`] and the loading of data.
    """
    model, processor = _load(options)
    embeddings = options.embeddings_only or _without_logits(model.config, isinstance(model, HeadShareModel))
    entries = {}
    if options.teacher is not None:
        entries["teacher, torch"], embeddings = _teacher_entry(options.teacher, embeddings)
    images = None if options.quantize is None else _images(options, model, processor)
    check_can_export(options.opset)
    # Nothing that is known to fail beforehand costs the files of an earlier export.
    _clear(options.output)
    path = options.output / _ONNX
    record: dict[str, Any] = {"model": options.model, "revision": options.revision}
    part = {"processor": processor, "embeddings_only": options.embeddings_only}
    record["onnx"] = export_onnx(model, path, opset=options.opset, **part).to_dict()
    if options.torch_export:
        record["torch_export"] = export_program(model, options.output / _PROGRAM, **part).to_dict()
    if images is not None:
        record["int8"] = quantize_onnx(path, options.output / _INT8, mode=str(options.quantize), **images).to_dict()
    _write_record(options, record)
    entries |= _student_entries(options, model, processor, embeddings)
    measured = "embeddings, without classifiers" if embeddings else "logits, with classifiers"
    table = latency_table(entries, options.batch_sizes, repeats=options.repeats, measured=measured)
    record["latency"] = table.to_dict()
    _write_record(options, record)
    (options.output / _TABLE).write_text(table.to_markdown(), encoding="utf-8")
    return record


def _write_record(options: ExportOptions, record: dict[str, Any]) -> None:
    (options.output / _RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _load(options: ExportOptions) -> tuple[nn.Module, Any]:
    name, revision = options.model, options.revision
    config, _ = HeadShareConfig.get_config_dict(name, revision=revision)
    if config.get("model_type") != "headshare":
        raise ValueError(
            f"{name} is a model of type {config.get('model_type')!r}, and this export reads type 'headshare'; for "
            "others use optimum"
        )
    only = options.embeddings_only or HeadShareModel.__name__ in (config.get("architectures") or [])
    kind = HeadShareModel if only else HeadShareForImageClassification
    # Weights and image processor are of the commit that the configuration was read from.
    revision = cached_commit(name, {"revision": revision}) or revision
    processor = load_image_processor(name, revision)
    return kind.from_pretrained(name, revision=revision, dtype=torch.float32), processor


def _images(options: ExportOptions, model: Any, processor: Any) -> dict[str, Any]:
    """What [`quantize_onnx`] takes its ranges from and measures its cost on."""
    pairs = None if options.pairs is None else load_verification_set(options.pairs)
    evaluation: Dataset | None = None if pairs is None else pairs.dataset(processor)
    calibration: Dataset | None = evaluation
    if options.data is not None:
        *others, evaluation = _labeled(options, options.data, model, processor)
        calibration = others[0] if others else None
    return {
        "calibration": calibration if options.quantize == "static" else None,
        "evaluation": evaluation,
        "verifier": None if pairs is None else Verifier([pairs], processor, flip=options.flip),
    }


def _labeled(options: ExportOptions, data: str, model: Any, processor: Any) -> list[ImageClassificationDataset]:
    """The splits of `data` that are asked for, with one label map."""
    if not isinstance(model, HeadShareForImageClassification):
        raise ValueError(f"the model has no classifier whose accuracy `data` ({data}) could measure; give `pairs`")
    names = [options.calibration_split, options.split] if options.quantize == "static" else [options.split]
    columns = {name: getattr(options, name) for name in ("image_column", "label_column", "config_name")}
    splits = [ImageClassificationDataset(split, processor) for split in load_splits(data, names, **columns)]
    _check_classes(splits[0], data, model.config)
    return splits


def _check_classes(images: ImageClassificationDataset, data: str, config: Any) -> None:
    if images.num_classes != config.num_labels:
        raise ValueError(
            f"{data} has {images.num_classes} classes and the model {config.num_labels}; give the data set that it was "
            "trained for"
        )
    if not has_placeholder_labels(config):
        for index, name in images.id2label.items():
            if config.id2label[index] != name:
                raise ValueError(
                    f"class {index} is {name!r} in {data} and {config.id2label[index]!r} in the model; give the data set "
                    "that it was trained for"
                )


def _clear(output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    for name in _FILES:
        (output / name).unlink(missing_ok=True)


def _without_logits(config: Any, bare: bool = False) -> bool:
    return bare or (config.model_type == "headshare" and config.head_type != "linear")


def _student_entries(options: ExportOptions, model: Any, processor: Any, embeddings: bool) -> dict[str, LatencyEntry]:
    size, channels = working_size(processor), model.config.num_channels
    networks: dict[str, nn.Module] = {"student, torch": (model.base_model if embeddings else model).eval()}
    networks["student, ONNX"] = OnnxModel(options.output / _ONNX, embeddings)
    if options.quantize is not None:
        networks[f"student, ONNX int8 {options.quantize}"] = OnnxModel(options.output / _INT8, embeddings)
    return {name: LatencyEntry(network, size, channels) for name, network in networks.items()}


def _teacher_entry(teacher: str, embeddings: bool) -> tuple[LatencyEntry, bool]:
    """The teacher's part to measure, and whether it is that without the classifier."""
    name, revision = split_revision(teacher)
    with explained(name, {"revision": revision}, CONFIG_FILE):
        config = AutoConfig.from_pretrained(name, revision=revision)
    options = {"revision": cached_commit(name, {"revision": revision}) or revision}
    processor = load_image_processor(name, **options)
    embeddings = embeddings or _without_logits(config)
    kind: Any = AutoModel if embeddings else AutoModelForImageClassification
    with damage_named(name, options), explained(name, options, WEIGHTS_FILE, INDEX_FILE):
        model = kind.from_pretrained(name, dtype=torch.float32, **options)
    # As the trainer reads them, of any image processor.
    statistics = input_statistics(processor, model)
    if statistics is None or statistics.size is None:
        raise ValueError(
            f"the image processor of the teacher {teacher}, a {type(processor).__name__}, does not say which size and which "
            "statistics images have; leave `teacher` out"
        )
    return LatencyEntry(model.eval(), statistics.size, len(statistics.mean)), embeddings


def render_export(record: dict[str, Any], latency: str) -> str:
    """
    Args:
        record (`dict[str, Any]`): What [`run_export`] returns.
        latency (`str`): Content of `latency.md`.

    Returns:
        `str`: Markdown.
    """
    lines = ["| file | MB | checked against torch: largest difference (largest value) |", "| --- | ---: | --- |"]
    for key in ("onnx", "torch_export"):
        if key in record:
            found = record[key]
            parts = [
                f"`{output}` {values['max_abs_difference']:.2g} ({values['scale']:.3g})"
                for output, values in found["differences"].items()
            ]
            lines.append(f"| {found['file']} | {found['size_mb']:.2f} | {', '.join(parts)} |")
    if "int8" in record:
        int8 = record["int8"]
        lines.append(f"| {int8['file']} ({int8['mode']}) | {int8['size_mb_after']:.2f} | see below |")
        lines += ["", _render_cost(int8)]
    return "\n".join([*lines, "", latency])


def _render_cost(record: dict[str, Any]) -> str:
    cost = record["cost"]
    where = f"{cost['num_images']} images" + (" of noise" if record["images"] == "noise" else "")
    cosine = cost["embedding_cosine"]
    lines = ["| on " + where + " | float32 | int8 |", "| --- | ---: | ---: |"]
    for name, before in cost.get("before", {}).items():
        lines.append(f"| {name} | {before:.4f} | {cost['after'][name]:.4f} |")
    verification = cost.get("verification", {"before": {}, "after": {}})
    for name, before in verification["before"].items():
        lines.append(f"| {name} | {before:.4f} | {verification['after'][name]:.4f} |")
    lines.append(f"| cosine of embeddings, mean (least) | 1 | {cosine['mean']:.4f} ({cosine['min']:.4f}) |")
    if "agreement" in cost:
        lines.append(f"| same first class | 1 | {cost['agreement']:.4f} |")
    return "\n".join(lines)
