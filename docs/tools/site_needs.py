"""What every method asks of networks, images and the way of training, found out from the code itself."""

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import nn

from headshare_hf import DistillationConfig, HeadShareConfig, HeadShareForImageClassification
from headshare_hf.losses import COMPANIONS, CompanionLoss, ContrastiveLoss, FeatureShapes, PretrainedCompanionLoss
from headshare_hf.losses.companions import PRETRAINING_EPOCHS, SimKDLoss
from headshare_hf.trainer import METHODS
from headshare_hf.trainer.companions import feature_shapes
from headshare_hf.trainer.config_checks import MAPS


HEADINGS = (
    "`method`",
    "widths of the embeddings",
    "maps",
    "`index`",
    "stage before",
    "parameters of its own",
    "teacher cache",
    "chunks of classes",
    "FSDP, DeepSpeed",
)
# Of whom the parameters are counted.
STUDENT, TEACHER = "resnet8x4", "resnet32x4"
_NONE = "–"
_MAPS = {"hidden_states": "maps", "pre_activations": "maps before their activation", "final_map": "last map"}
# Three pairs that differ in one respect each: channels and edge of stem and stages.
_BASE = ((4, 8), (4, 8), (8, 4), (16, 2))
_WIDER = ((8, 8), (8, 8), (16, 4), (32, 2))
_LONGER = (*_BASE[:3], (12, 3), _BASE[3])


def needs() -> list[list[str]]:
    """A row a method; `th_X` has none of its own, because it needs what X needs, and what `th_kd` does."""
    return [_row(name) for name in METHODS if name.removeprefix("th_") not in COMPANIONS or name in COMPANIONS]


def _row(name: str) -> list[str]:
    args = DistillationConfig(output_dir="unused", method=name, use_cpu=True, report_to="none")
    stage = args.companion_loss is not None and issubclass(args.companion_loss, PretrainedCompanionLoss)
    return [
        f"`{name}`",
        _widths(name, args),
        _maps(args),
        "yes" if args.loss_weights.contrastive else _NONE,
        f"{PRETRAINING_EPOCHS:g} epochs" if stage else _NONE,
        _parameters(args),
        _cache(args),
        "no" if "logits" in args.student_reads | args.teacher_reads else "yes",
        "yes" if args.companion_loss is None else "no",
    ]


def _widths(name: str, args: DistillationConfig) -> str:
    loss, weights = args.companion_loss, args.loss_weights
    if loss is not None and issubclass(loss, SimKDLoss):
        return "any: the student's `map_projector` leads to the teacher's"
    if loss is not None and not _fits(loss, _BASE, _WIDER):
        return "equal, like the channels of all maps" if args.student_reads & MAPS else "equal"
    if args.student_head != "own":
        return "equal"
    if name.startswith("sh_"):
        return "equal, for the teacher around the student's head"
    return "equal, or `projector`" if weights.needs_teacher_head or weights.embedding else "any"


def _maps(args: DistillationConfig) -> str:
    read = [words for field, words in _MAPS.items() if field in args.student_reads | args.teacher_reads]
    loss = args.companion_loss
    if not read or loss is None:
        return _NONE
    return ", ".join([*read, *([] if _fits(loss, _BASE, _LONGER) else ["as many of both"])])


def _cache(args: DistillationConfig) -> str:
    if args.teacher_reads & MAPS:
        return "no"
    return "yes" if args.loss_weights.needs_teacher_forward else _NONE


def _fits(loss: type[CompanionLoss], *maps: tuple[tuple[int, int], ...]) -> bool:
    try:
        with torch.device("meta"):
            loss(*(_shapes(each) for each in maps))
    except ValueError:
        return False
    return True


def _shapes(maps: tuple[tuple[int, int], ...]) -> FeatureShapes:
    shapes = tuple((channels, edge, edge) for channels, edge in maps)
    return FeatureShapes(shapes, shapes, embeddings=maps[-1][0], logits=10, final_map=shapes[-1])


def _parameters(args: DistillationConfig) -> str:
    count = sum(parameter.numel() for parameter in _own_parameters(args))
    return f"{count:,}" if count else _NONE


def _own_parameters(args: DistillationConfig) -> Iterator[nn.Parameter]:
    loss = args.companion_loss
    if loss is not None and issubclass(loss, SimKDLoss):
        width = _network(TEACHER).classifier.in_features
        projected = cast(Any, _network(STUDENT, map_projector={"out_channels": width}))
        yield from projected.headshare.map_projector.parameters()
    elif loss is not None:
        with torch.device("meta"):
            shown = (_seen(STUDENT), _seen(TEACHER))
            yield from (parameter for parameter in loss(*shown).parameters() if parameter.requires_grad)
    elif args.loss_weights.contrastive:
        widths = [_network(name).classifier.in_features for name in (STUDENT, TEACHER)]
        yield from ContrastiveLoss(*widths, torch.arange(100), num_negatives=1).parameters()


def _seen(backbone: str) -> FeatureShapes:
    reads = frozenset({"hidden_states", "pre_activations", "embeddings", "final_map"})
    return feature_shapes(_network(backbone), torch.zeros(1, 3, 32, 32), reads)


def _network(backbone: str, **fields: Any) -> Any:
    with torch.device("meta"):
        return HeadShareForImageClassification(HeadShareConfig(backbone=backbone, num_labels=100, **fields))
