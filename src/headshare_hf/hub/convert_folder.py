"""A checkpoint of another repository becomes a folder that `from_pretrained` loads."""

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch

from ..models import (
    CENTERS_FILE,
    HeadShareConfig,
    HeadShareForImageClassification,
    HeadShareImageProcessor,
    HeadShareModel,
)
from ..models.backbone_face import height_and_width
from .convert_centers import read_centers
from .convert_files import Checkpoint, read_checkpoint
from .convert_images import image_processor_of, size_of
from .convert_layouts import Layout, infer_layout
from .convert_weights import convert_backbone_state_dict, convert_state_dict


# insightface trains with this scale whatever the margin.
_FACE_SCALE = 64.0


@dataclass(frozen=True)
class ConversionOptions:
    """
    What a checkpoint does not tell, or is to be checked against.

    Args:
        backbone (`str`, *optional*):
            Name of the network; found by the tensors where it is not given. Needed for `timm/<name>`.
        entry (`str`, *optional*): The entry of a training checkpoint to take, where several are state dicts.
        num_labels (`int`, *optional*): Number of classes; the classifier's own is used, and must be this one.
        image_size (`int` or `list[int]`, *optional*):
            One side, or height and width, in pixels. Defaults to what a face network was built for, to what timm
            notes, or to 32.
        centers (`Sequence[str | os.PathLike]`, *optional*):
            All files with the class centers of a face network, see [`read_centers`].
        labels (`str` or `os.PathLike`, *optional*): A text file with the name of a class in each line, in their order.
        channel_order (`str`, *optional*, defaults to `"rgb"`):
            Order of the channels that the network was trained with.
        mean (`Sequence[float]`, *optional*): Means of images in [0, 1]; defaults to those of the source.
        std (`Sequence[float]`, *optional*): Standard deviations, likewise.
        head_type (`str`, *optional*): As in [`HeadShareConfig`]; defaults to `"linear"`, for `centers` to `"cosine"`.
        head_scale (`float`, *optional*): Likewise; defaults to 64, with which insightface trains.
        overwrite (`bool`, *optional*, defaults to `False`): Whether to replace an earlier conversion.
    """

    backbone: str | None = None
    entry: str | None = None
    num_labels: int | None = None
    image_size: int | list[int] | None = None
    centers: Sequence[str | os.PathLike] = ()
    labels: str | os.PathLike | None = None
    channel_order: str = "rgb"
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    head_type: str | None = None
    head_scale: float | None = None
    overwrite: bool = False


def convert_checkpoint(
    source: str | os.PathLike, out: str | os.PathLike, options: ConversionOptions | None = None
) -> list[str]:
    """
    Writes a checkpoint as a folder with model and image processor.

    It becomes a [`HeadShareForImageClassification`] where the source has a classifier or `centers` are given, and a
    [`HeadShareModel`] otherwise. Every tensor must be accounted for. Nothing in the source is run.

    Args:
        source (`str` or `os.PathLike`):
            A file of Alibaba-MIIL/HeadSharingKD, HobbitLong/RepDistiller, deepinsight/insightface
            (`recognition/arcface_torch`), Xiaoccer/MobileFaceNet_Pytorch, TreB1eN/InsightFace_Pytorch (MobileFaceNet)
            or timm: `torch.save`'s or safetensors, a state dict or a training checkpoint that has one.
        out (`str` or `os.PathLike`): The folder; it appears when it is complete.
        options ([`ConversionOptions`], *optional*): What the checkpoint does not tell.

    Returns:
        `list[str]`: What was made of what, one sentence each.

    Raises:
        FileNotFoundError: There is no such source.
        FileExistsError: `out` is there already and not empty.
        ValueError: The source cannot be read, or is no known network, or not the one that was named; names the file,
            tensor or option.
    """
    options, out = options or ConversionOptions(), Path(out).expanduser()
    _check_target(out, options.overwrite)
    checkpoint = read_checkpoint(source, options.entry)
    try:
        size = None if options.image_size is None else list(height_and_width(options.image_size))
        layout = infer_layout(checkpoint.weights, options.backbone, size)
        model = _model(checkpoint, layout, options)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    config = cast(HeadShareConfig, model.config)
    processor, origin = image_processor_of(config, options.channel_order, options.mean, options.std)
    _write(model, processor, out)
    return [*_told(checkpoint, model, options), origin, f"wrote {out}"]


def _model(
    checkpoint: Checkpoint, layout: Layout, options: ConversionOptions
) -> HeadShareForImageClassification | HeadShareModel:
    centers = read_centers(options.centers) if options.centers else None
    if centers is None and layout.classifier is None:
        _refuse_without_classifier(options)
        config = _config(layout, options, {})
        model = HeadShareModel(config)
        model.load_state_dict(convert_backbone_state_dict(checkpoint.weights, config))
        return model
    if centers is not None and layout.classifier is not None:
        raise ValueError(f"the source has a classifier of its own, {layout.classifier}; leave `centers` out")
    found = layout.num_labels if centers is None else len(centers)
    if found is None:
        raise ValueError(f"the classifier {layout.classifier} has neither weight nor bias")
    if options.num_labels not in (None, found):
        raise ValueError(f"`num_labels` is {options.num_labels} but the source has {found} classes")
    config = _config(layout, options, {"num_labels": found, **_head(options, centers), **_labels(options, found)})
    classifier = HeadShareForImageClassification(config)
    if centers is None:
        classifier.load_state_dict(convert_state_dict(checkpoint.weights, config))
    else:
        classifier.headshare.load_state_dict(convert_backbone_state_dict(checkpoint.weights, config))
        _load_centers(classifier, centers)
    return classifier


def _refuse_without_classifier(options: ConversionOptions) -> None:
    for name in ("num_labels", "labels", "head_type", "head_scale"):
        if getattr(options, name) is not None:
            raise ValueError(f"`{name}` is given but the source has no classifier; give `centers` or leave it out")


def _config(layout: Layout, options: ConversionOptions, further: dict) -> HeadShareConfig:
    size = layout.image_size or size_of(layout.backbone)
    return HeadShareConfig(
        backbone=layout.backbone,
        num_channels=layout.num_channels,
        image_size=size[0] if size[0] == size[1] else size,
        embedding_size=layout.embedding_size,
        **further,
    )


def _head(options: ConversionOptions, centers: torch.Tensor | None) -> dict:
    head_type = options.head_type or ("linear" if centers is None else "cosine")
    if centers is not None and head_type == "linear":
        raise ValueError("`head_type` is 'linear' but class centers have no bias; leave it out or take 'cosine'")
    if centers is None and head_type == "linear" and options.head_scale is not None:
        raise ValueError("`head_scale` is given but a linear head has no scale; leave it out")
    default = None if head_type == "linear" else _FACE_SCALE
    return {"head_type": head_type, "head_scale": default if options.head_scale is None else options.head_scale}


def _labels(options: ConversionOptions, num_labels: int) -> dict:
    if options.labels is None:
        return {}
    try:
        lines = Path(options.labels).expanduser().read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{options.labels} is no text in UTF-8: {error}") from error
    names = [line.strip() for line in lines]
    repeated = sorted(name for name, count in Counter(names).items() if count > 1)
    if "" in names or repeated:
        raise ValueError(f"{options.labels} has {'an empty line' if '' in names else f'{repeated[0]!r} twice'}")
    if len(names) != num_labels:
        raise ValueError(f"{options.labels} names {len(names)} classes but the source has {num_labels}")
    return {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}


def _load_centers(model: HeadShareForImageClassification, centers: torch.Tensor) -> None:
    width = model.headshare.embedding_size
    if centers.shape[1] != width:
        raise ValueError(f"the class centers have width {centers.shape[1]} but the embedding has {width}")
    model.classifier.load_state_dict({"weight": centers})


def _check_target(out: Path, overwrite: bool) -> None:
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"{out} is a file; give a folder")
    if out.resolve() == Path.cwd():
        raise ValueError(f"{out} is the current folder, which cannot be put in place as a whole; give one in it")
    if not overwrite and _names(out):
        raise FileExistsError(f"{out} is not empty; give another folder, or `overwrite` for an earlier conversion")


def _names(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()


def _write(
    model: HeadShareForImageClassification | HeadShareModel, processor: HeadShareImageProcessor, out: Path
) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    # A name that begins with a dot, in the same folder, so that the last step is one rename.
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as temporary:
        fresh = Path(temporary) / "new"
        fresh.mkdir()
        model.save_pretrained(fresh)
        processor.save_pretrained(fresh)
        foreign = sorted(_names(out) - _names(fresh) - {CENTERS_FILE})
        if foreign:
            raise FileExistsError(f"{out} has {', '.join(foreign)}, which no conversion wrote; give another folder")
        _replace(out, fresh, Path(temporary) / "old")


def _replace(out: Path, fresh: Path, old: Path) -> None:
    if out.exists():
        shutil.move(out, old)
    try:
        fresh.rename(out)
    except OSError:
        if old.exists():
            shutil.move(old, out)
        raise


def _told(
    checkpoint: Checkpoint, model: HeadShareForImageClassification | HeadShareModel, options: ConversionOptions
) -> list[str]:
    config = model.config
    body = f"{type(model).__name__}: {config.backbone}, image_size {config.image_size}"
    if isinstance(model, HeadShareModel):
        return [*checkpoint.notes, f"{body}, {model.embedding_size} features, no classifier"]
    head = f"{config.head_type} head of {config.num_labels} classes"
    if config.head_type != "linear":
        head += f" with scale {config.head_scale:g}"
    # No file tells how many files there were; the number of classes shows it where some are missing.
    files = f"{len(options.centers)} file{'s' if len(options.centers) > 1 else ''}"
    centers = [f"took {config.num_labels} class centers from {files}"] if options.centers else []
    return [*checkpoint.notes, *centers, f"{body}, {model.headshare.embedding_size} features, {head}"]
