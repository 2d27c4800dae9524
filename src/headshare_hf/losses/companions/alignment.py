"""Checks of options and of the maps of two networks, and the layers that make maps comparable."""

import math
from collections.abc import Sequence

from torch import nn

from .features import FeatureShapes, MapShape, Shape


def check_same_number(name: str, student: Sequence[Shape], teacher: Sequence[Shape], least: int = 1) -> None:
    """
    Checks that there are as many maps of the student as of the teacher, and at least `least`.

    Raises:
        ValueError: There are not.
    """
    if len(student) != len(teacher) or len(student) < least:
        raise ValueError(
            f"{name} compares map by map and needs the same number of both, at least {least}, but the student has "
            f"{len(student)} and the teacher {len(teacher)}; take networks with as many stages, or a loss on the last "
            "map (similarity), on embeddings or on logits"
        )


def check_same_channels(name: str, student: Sequence[MapShape], teacher: Sequence[MapShape], least: int) -> None:
    """
    Checks that maps of the same place have the same number of channels.

    Raises:
        ValueError: They have not, or [`check_same_number`].
    """
    check_same_number(name, student, teacher, least)
    channels = [shape[0] for shape in student], [shape[0] for shape in teacher]
    if channels[0] != channels[1]:
        raise ValueError(
            f"{name} has no layer between student and teacher and needs the same channels, but the student's maps have "
            f"{channels[0]} and the teacher's {channels[1]}; take networks of the same width, or attention, nst or vid"
        )


def check_positions(name: str, student: Sequence[MapShape], teacher: Sequence[MapShape]) -> None:
    """
    Checks that some pair of maps has more than one position in common, because scaled to length 1 a single number says
    nothing.

    Raises:
        ValueError: None has.
    """
    if all(min(own[1], other[1]) * min(own[2], other[2]) == 1 for own, other in zip(student, teacher, strict=True)):
        raise ValueError(
            f"{name} compares where maps are large, but those of the student, {list(student)}, and of the teacher, "
            f"{list(teacher)}, have a single position in common; use larger images, or similarity"
        )


def check_same_classes(name: str, student: FeatureShapes, teacher: FeatureShapes, least: int = 1) -> None:
    """
    Checks that both networks have the same number of classes, and at least `least`.

    Raises:
        ValueError: They have not.
    """
    if student.num_labels != teacher.num_labels or student.num_labels < least:
        raise ValueError(
            f"{name} compares class by class and needs the same number of both, at least {least}, but the student has "
            f"{student.num_labels} classes and the teacher {teacher.num_labels}; take a teacher of the same classes"
        )


def check_rank(name: str, rank: int, *networks: Sequence[MapShape]) -> None:
    """
    Checks that each map of each network, a matrix of positions times channels, has `rank` singular vectors.

    Raises:
        ValueError: The smallest has fewer.
    """
    shape = min((shape for shapes in networks for shape in shapes), key=_most_vectors)
    if rank > _most_vectors(shape):
        raise ValueError(
            f"{name}: `rank` is {rank}, but a map of shape {shape} has {_most_vectors(shape)} singular vectors; take a "
            "smaller `rank`, or larger images"
        )


def _most_vectors(shape: MapShape) -> int:
    return min(shape[0], shape[1] * shape[2])


def check_count(name: str, **values: int) -> None:
    """
    Raises:
        ValueError: An option is no whole number, or below 1; names it.
    """
    for option, value in values.items():
        if type(value) is not int or value < 1:
            raise ValueError(f"{name}: `{option}` is {value!r}; it must be a whole number from 1 on")


def check_positive(name: str, **values: float) -> None:
    """
    Raises:
        ValueError: An option is no finite number above 0; names it.
    """
    for option, value in values.items():
        if not _is_number(value) or not 0 < value < math.inf:
            raise ValueError(f"{name}: `{option}` is {value!r}; it must be positive and finite")


def check_not_negative(name: str, **values: float) -> None:
    """
    Raises:
        ValueError: An option is no finite number, or below 0; names it.
    """
    for option, value in values.items():
        if not _is_number(value) or not 0 <= value < math.inf:
            raise ValueError(f"{name}: `{option}` is {value!r}; it must be finite and not negative")


def check_weights(name: str, **values: float) -> None:
    """
    Checks the weights of all parts of a loss.

    Raises:
        ValueError: As [`check_not_negative`], or all are 0, so that the loss would be 0 too.
    """
    check_not_negative(name, **values)
    if not any(values.values()):
        options = " and ".join(f"`{option}`" for option in values)
        raise ValueError(
            f"{name}: {options} are 0, so that nothing would be compared; set one of them, or leave them out"
        )


def _is_number(value: object) -> bool:
    # YAML takes 1e-3, without a point, for text.
    return isinstance(value, int | float) and not isinstance(value, bool)


def map_connector(student: MapShape, teacher: MapShape, relu: bool) -> nn.Sequential:
    """
    A convolution from the student's maps to the shape of the teacher's, batch normalisation, and a ReLU on request.

    Same size: 1×1. Half or double of it: 3×3 with stride 2, or a transposed 4×4 with stride 2. Any other size that is
    larger than the teacher's: a kernel as large as what has to go, without padding.

    Args:
        student (`tuple[int, int, int]`): Channels, height and width of what comes in.
        teacher (`tuple[int, int, int]`): Of what comes out.
        relu (`bool`): Whether the teacher's maps come out of a ReLU.

    Raises:
        ValueError: The student's map is smaller than the teacher's and not half of it.
    """
    layers: list[nn.Module] = [_convolution(student, teacher), nn.BatchNorm2d(teacher[0])]
    return nn.Sequential(*layers, *([nn.ReLU()] if relu else []))


def _convolution(student: MapShape, teacher: MapShape) -> nn.Module:
    channels, sizes = (student[0], teacher[0]), list(zip(student[1:], teacher[1:], strict=True))
    if all(own == 2 * other for own, other in sizes):
        return nn.Conv2d(*channels, kernel_size=3, stride=2, padding=1)
    if all(2 * own == other for own, other in sizes):
        return nn.ConvTranspose2d(*channels, kernel_size=4, stride=2, padding=1)
    if all(own >= other for own, other in sizes):
        height, width = (1 + own - other for own, other in sizes)
        return nn.Conv2d(*channels, kernel_size=(height, width))
    raise ValueError(
        f"no layer leads from the student's maps of {student[1]}×{student[2]} to the teacher's of "
        f"{teacher[1]}×{teacher[2]}: they must be at least as large, or half of it; feed the student larger images, or "
        "take a loss that pools (attention, nst, vid)"
    )
