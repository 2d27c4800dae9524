"""The networks and losses of the tests of sharded losses, for one process and for several."""

import torch
from dense_losses import make_head
from torch import nn


# Uneven, so that one shard begins and ends elsewhere than the other.
NUM_LABELS, SPLIT, WIDTH, OWN_WIDTH, PIXELS = 13, 8, 6, 3, 5
TEMPERATURES = (4.0, 2.0)
KINDS = {WIDTH: "linear", OWN_WIDTH: "adaface"}
NAMES = ("through_the_teacher", "kd", "ce", "sampled")


def shard(head: nn.Module, start: int, stop: int) -> nn.Module:
    """A head with the classes from `start` to `stop` alone."""
    part = make_head(KINDS[head.weight.shape[1]], head.weight.shape[1], stop - start)
    with torch.no_grad():
        for name, parameter in part.named_parameters():
            parameter.copy_(head.get_parameter(name)[start:stop])
    return part.requires_grad_(head.weight.requires_grad)


def heads() -> tuple[nn.Module, nn.Module]:
    """The teacher's, frozen, and the student's own."""
    teacher, own = (make_head(KINDS[width], width, NUM_LABELS) for width in (WIDTH, OWN_WIDTH))
    return teacher.requires_grad_(False), own


def backbone(width: int) -> nn.Module:
    """From images to embeddings."""
    torch.manual_seed(width)
    return nn.Linear(PIXELS, width)


def losses(name, inputs, networks, teacher_head, own_head, cross_entropy, kd) -> torch.Tensor:
    """The loss called `name`, with the functions of one process or of several."""
    wide, narrow = networks
    images, labels, teacher = inputs["images"], inputs["labels"], inputs["teacher"]
    if name == "through_the_teacher":
        return kd(wide(images), teacher_head, teacher, teacher_head)
    if name == "kd":
        return kd(narrow(images), own_head, teacher, teacher_head)
    return cross_entropy(narrow(images), labels, own_head, 0.5 if name == "sampled" else 1.0)
