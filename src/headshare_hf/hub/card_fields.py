"""What a model card has to say."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..losses import LossWeights
from .card_verification_fields import OPTIONAL, CardVerification


# Stands before the names of data that are not on the Hub, which then have the form of an id there.
LOCAL_DATA = "local/"

# Stands behind them in the metadata of results, which must name a data set: without a blank and parentheses the Hub may
# take `cifar100` for a set of somebody.
_NOT_ON_HUB = "{} (not on the Hub)"


def data_type(dataset_id: str) -> str:
    """
    What the metadata of results call a data set: its Hub id, or what cannot be one.

    Args:
        dataset_id (`str`): As `CardDataset.id`.
    """
    name = dataset_id.removeprefix(LOCAL_DATA)
    return dataset_id if name == dataset_id else _NOT_ON_HUB.format(name)


@dataclass(frozen=True)
class CardHead:
    """
    A classifier of class centers, which compares directions.

    Attributes:
        type (`str`): As `HeadShareConfig.head_type`, e.g. `"arcface"`.
        scale (`float`): The factor s of the cosine.
        margin (`tuple[float, ...]`): As `HeadShareConfig.head_margin`, a tuple in any case; empty where it has none.
    """

    type: str
    scale: float
    margin: tuple[float, ...] = field(default=(), metadata=OPTIONAL)


@dataclass(frozen=True)
class CardModel:
    """
    The network that is published.

    Attributes:
        name (`str`): Title of the card, and the name beside the results on the Hub.
        repo_id (`str`): Where `from_pretrained` finds it, `namespace/name`; used in the code of the card.
        backbone (`str`): E.g. `"resnet8x4"`.
        embedding_size (`int`): Width of the embedding that the classifier reads.
        num_parameters (`int`): Of backbone and classifier together.
        num_labels (`int`): Number of classes.
        image_size (`tuple[int, int]`): Height and width in pixels of the images that it was trained with.
        channel_order (`str`): `"rgb"` or `"bgr"`, as the image processor has it.
        image_mean (`tuple[float, ...]`): Per channel, subtracted from pixels in [0, 1].
        image_std (`tuple[float, ...]`): Per channel; what remains is divided by it.
        head ([`CardHead`], *optional*): The classifier; `None` for a linear one.
    """

    name: str
    repo_id: str
    backbone: str
    embedding_size: int
    num_parameters: int
    num_labels: int
    image_size: tuple[int, int]
    channel_order: str
    image_mean: tuple[float, ...]
    image_std: tuple[float, ...]
    head: CardHead | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True)
class CardMethod:
    """
    How it was trained, in the terms of the objective.

    Attributes:
        name (`str`): Row of the method table, e.g. `"th_kd"`.
        summary (`str`): What that row does, in one line without a final stop.
        weights ([`LossWeights`]): Weight of every loss part.
        temperature (`float`, *optional*): T of the softened KL; required where such a part has a weight, unless
            `options` has `kd_scale`, which takes its place.
        options (`Mapping[str, Any]`): Further options by name, e.g. `{"student_head": "teacher_frozen"}`; may be empty.
    """

    name: str
    summary: str
    weights: LossWeights
    temperature: float | None = field(default=None, metadata=OPTIONAL)
    options: Mapping[str, Any] = field(default_factory=dict, metadata=OPTIONAL)


@dataclass(frozen=True)
class CardTeacher:
    """
    The network that was learned from.

    Attributes:
        name (`str`): Hub id, or what else identifies it.
        backbone (`str`): E.g. `"resnet32x4"`.
        num_parameters (`int`): Of backbone and classifier together.
        around_student_head (`bool`): Whether it was trained around the frozen classifier of a student (SH-KD).
        metrics (`Mapping[str, float]`): Its own metrics on the test images, by a name of [`METRICS`], as fractions;
            empty if they are not known, which the card then says.
    """

    name: str
    backbone: str
    num_parameters: int
    around_student_head: bool
    metrics: Mapping[str, float] = field(metadata=OPTIONAL)


@dataclass(frozen=True)
class CardDataset:
    """
    The images that it was trained with.

    Attributes:
        name (`str`): For people, e.g. `"CIFAR-100"`.
        id (`str`): Hub id, or `local/<name>` where it is not on the Hub. Such data are named in the card and not linked.
        license (`str`): License of the images, in words.
        splits (`Mapping[str, int]`): Number of images of every split that was used.
    """

    name: str
    id: str
    license: str
    splits: Mapping[str, int]

    @property
    def is_on_hub(self) -> bool:
        """Whether the Hub may link to it."""
        return not self.id.startswith(LOCAL_DATA)


@dataclass(frozen=True)
class CardResult:
    """
    One number.

    Attributes:
        metric (`str`): A name of [`METRICS`].
        value (`float`): A fraction in [0, 1]; the mean over the seeds if there are several.
        dataset_name (`str`): For people.
        dataset_id (`str`): As `CardDataset.id`.
        split (`str`): E.g. `"test"`.
        num_images (`int`): Number of images of that split.
        num_seeds (`int`): Number of training runs.
        standard_error (`float`, *optional*):
            Of the mean over the seeds, as a fraction; required with several seeds, meaningless with one.
        task (`str`, *optional*, defaults to `"image-classification"`): A task of the Hub.
    """

    metric: str
    value: float
    dataset_name: str
    dataset_id: str
    split: str
    num_images: int
    num_seeds: int
    standard_error: float | None = field(default=None, metadata=OPTIONAL)
    task: str = "image-classification"


@dataclass(frozen=True)
class CardTraining:
    """
    The run that made the published weights.

    Attributes:
        epochs (`float`): Passes over the training images.
        batch_size (`int`): Images per optimizer step, over all processes.
        learning_rate (`float`): The highest of the schedule.
        optimizer (`str`): With its other settings, e.g. `"SGD, momentum 0.9, weight decay 5e-4"`.
        schedule (`str`): E.g. `"divided by 10 after epochs 150, 180 and 210"`.
        augmentation (`str`): E.g. `"crop with 4 pixels of padding, horizontal flip"`; `"none"` if there was none.
        seed (`int`): Of the published weights.
        precision (`str`): E.g. `"float32"`, `"bfloat16 autocast"`.
        hardware (`str`): E.g. `"2 CPU cores"`.
        wall_seconds (`float`): Duration of the run.
        versions (`Mapping[str, str]`): Of the libraries, by name.
    """

    epochs: float
    batch_size: int
    learning_rate: float
    optimizer: str
    schedule: str
    augmentation: str
    seed: int
    precision: str
    hardware: str
    wall_seconds: float
    versions: Mapping[str, str]


@dataclass(frozen=True)
class CardFields:
    """
    All that the card of a model says. See [`render_card`].

    Attributes:
        model ([`CardModel`]): The network.
        method ([`CardMethod`]): The objective.
        teacher ([`CardTeacher`], *optional*): `None` for a network that learned from labels alone.
        dataset ([`CardDataset`]): The training images.
        results (`tuple[CardResult, ...]`): At least one, unless there is `verification`.
        training ([`CardTraining`]): The run.
        license (`str`): License of the weights, as the Hub spells it, e.g. `"apache-2.0"`, or `"other"`.
        license_name (`str`, *optional*): Name of an `"other"` license, which the Hub then asks for.
        license_link (`str`, *optional*): Address of its text, likewise.
        tags (`tuple[str, ...]`, *optional*): Beside those that every card gets.
        base_model (`str`, *optional*): Hub id of the weights that training started from; not the teacher.
        verification ([`CardVerification`], *optional*): For a network whose embeddings are compared.
    """

    model: CardModel
    method: CardMethod
    teacher: CardTeacher | None = field(metadata=OPTIONAL)
    dataset: CardDataset
    results: tuple[CardResult, ...] = field(metadata=OPTIONAL)
    training: CardTraining
    license: str
    license_name: str | None = field(default=None, metadata=OPTIONAL)
    license_link: str | None = field(default=None, metadata=OPTIONAL)
    tags: tuple[str, ...] = field(default=(), metadata=OPTIONAL)
    base_model: str | None = field(default=None, metadata=OPTIONAL)
    verification: CardVerification | None = field(default=None, metadata=OPTIONAL)
