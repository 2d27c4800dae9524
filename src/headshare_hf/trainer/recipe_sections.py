"""The sections of a recipe file."""

from dataclasses import dataclass, field
from typing import Any

from ..hub import check_subject
from ..hub.card_checks import check_license, check_text
from .config import DistillationConfig


# What results call the pairs of `data.held_out_classes`.
HELD_OUT = "held_out"


@dataclass
class ModelArguments:
    """
    Section `student`, `teacher` or `shared_teacher`: trained weights, or a network to be trained.

    Attributes:
        name_or_path (`str`, *optional*): Hub id or folder of trained weights. `None`: random weights.
        new_head (`bool`): Trained weights of everything but the classifier, which is new and has the classes of the data: the
            start of a fine-tuning. Of `student` and `shared_teacher` only.
        revision (`str`, *optional*): Branch, tag or commit of that id; `name_or_path: id@revision` says the same.
        embeddings_only (`bool`): Section `teacher` only: nothing but its embedding is read, so that it may have other classes
            than the data, or no trained classifier.
        backbone (`str`, *optional*): Backbone of a new network.
        backbone_kwargs (`dict`, *optional*): Its further arguments.
        embedding_size (`int`, *optional*): See [`HeadShareConfig`], as the following.
        projector (`str`, *optional*): Projector inside of the model.
        map_projector (`dict`, *optional*): Projector of the last feature map, inside of the model; SimKD needs it.
        head_type (`str`): Kind of classifier.
        head_scale (`float`, *optional*): Scale of a cosine or face classifier.
        head_margin (`float` or `list[float]`, *optional*): Margin of a face classifier.
        head_gradient (`str`): Derivative of that margin.
        init_seed (`int`, *optional*): Seed of random weights. Default: that of the training.
        shared_head_from (`str`, *optional*): Section `student` only: Hub id or folder of a model whose classifier is
            copied and frozen before training, as in the middle run of SH-KD.
        shared_head_length (`float`, *optional*): With `shared_head_from`: see [`with_head_length`].
        same_label_order (`bool`): For trained weights that name the classes otherwise than the data ("tench" and
            "tench, Tinca tinca"): the caller vouches that class i is the same, and the names of the data are used.
    """

    name_or_path: str | None = field(default=None, metadata={"help": "Hub id or folder of trained weights."})
    revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of that id on the Hub."})
    new_head: bool = field(default=False, metadata={"help": "Trained weights, but a new classifier."})
    embeddings_only: bool = field(default=False, metadata={"help": "A teacher whose classifier is not read."})
    backbone: str | None = field(default=None, metadata={"help": "Backbone of a new network, e.g. resnet8x4."})
    backbone_kwargs: dict | None = field(default=None, metadata={"help": "Further arguments of the backbone."})
    embedding_size: int | None = field(default=None, metadata={"help": "Width of the embedding."})
    projector: str | None = field(default=None, metadata={"help": "linear or linear_bn_relu, inside of the model."})
    map_projector: dict | None = field(default=None, metadata={"help": "out_channels, reduction, size; for SimKD."})
    head_type: str = field(default="linear", metadata={"help": "linear, cosine, arcface, cosface, combined, adaface."})
    head_scale: float | None = field(default=None, metadata={"help": "Scale of a cosine or face head."})
    head_margin: Any = field(default=None, metadata={"help": "Margin of a face head; three numbers for combined."})
    head_gradient: str = field(default="true", metadata={"help": "true or straight_through."})
    init_seed: int | None = field(default=None, metadata={"help": "Seed of random weights, if not the training's."})
    shared_head_from: str | None = field(
        default=None, metadata={"help": "Student whose frozen head is trained around."}
    )
    shared_head_length: float | None = field(default=None, metadata={"help": "Mean length of its class vectors."})
    same_label_order: bool = field(default=False, metadata={"help": "Trained weights number the classes as the data."})

    def __post_init__(self) -> None:
        if self.name_or_path is not None and self.backbone is not None:
            raise ValueError("give `name_or_path` for trained weights or `backbone` for a new network, not both")
        if self.revision is not None and self.name_or_path is None:
            raise ValueError("`revision` has no effect without `name_or_path`, the Hub id that it belongs to")
        if self.new_head and (self.name_or_path is None or self.same_label_order):
            raise ValueError(
                "`new_head` is for trained weights (`name_or_path`) whose classes are others (without `same_label_order`)"
            )
        if self.shared_head_length is not None and self.shared_head_from is None:
            raise ValueError("`shared_head_length` has no effect without `shared_head_from`; leave it out")
        if self.embeddings_only and self.same_label_order:
            raise ValueError(
                "`same_label_order` has no effect with `embeddings_only`, which reads no class; leave it out"
            )
        shape = ("backbone_kwargs", "embedding_size", "projector", *(() if self.new_head else ("init_seed",)))
        given = [name for name in shape if getattr(self, name) is not None]
        if self.name_or_path is not None and given:
            raise ValueError(f"`{given[0]}` has no effect beside `name_or_path`: trained weights have their shape")


@dataclass
class DataArguments:
    """
    Section `data`.

    Attributes:
        name (`str`): Hub id or folder of the data set.
        config_name (`str`, *optional*): Configuration of a Hub data set.
        train_split (`str`): Split to train on.
        eval_split (`str`, *optional*): Split to evaluate on; `None` where classes are not evaluated.
        validation_fraction (`float`): Share of the training split, in [0, 1), that is evaluated on instead.
        split_seed (`int`): Seed of that split and of the choice of `max_..._samples`; independent of the training's.
        image_column (`str`, *optional*): Column of the images; found by itself where there is one.
        label_column (`str`, *optional*): Column of the labels; likewise.
        held_out_classes (`list[str]`, *optional*): Names of classes, `*` for any text, that are not trained on; pairs of
            their images become a verification set.
        image_size (`int` or `list[int]`): Height and width in pixels, or one number for both.
        resize (`int`, *optional*): Shorter edge, in pixels, to which images are brought before `image_size` is cut out of
            their center, as is usual for ImageNet (256 and 224). Default: the whole image is brought to `image_size`.
        channel_order (`str`): `rgb` or `bgr`, the order in which the network reads the channels.
        mean (`list[float]`): Channel means of images in [0, 1].
        std (`list[float]`): Channel standard deviations.
        augmentation (`str`): Name of the training augmentation.
        augmentation_views (`int`, *optional*): After how many epochs the random crops of an image come again; a teacher
            cache needs that.
        skip_corrupt (`bool`): Leave out images that cannot be decoded, with a count, instead of stopping.
        cache_images (`bool`): Keep decoded images in memory.
        image_cache (`str`, *optional*): Folder to keep them in instead, in files that processes share and later runs find.
        max_train_samples (`int`, *optional*): Use that many training images only.
        max_eval_samples (`int`, *optional*): Likewise for evaluation.
        title (`str`, *optional*): Name of the data set for people, in the model card.
        license (`str`): License of the images, in words, for the model card.
        weights_license (`str`): License of the trained weights, as the Hub spells it.
        weights_license_name, weights_license_link (`str`, *optional*): Of a `weights_license` of `other`.
    """

    name: str = field(default="", metadata={"help": "Hub id or folder of the data set."})
    config_name: str | None = field(default=None, metadata={"help": "Configuration of a Hub data set."})
    train_split: str = field(default="train", metadata={"help": "Split to train on."})
    eval_split: str | None = field(default="test", metadata={"help": "Split to evaluate on; null: none."})
    validation_fraction: float = field(default=0.0, metadata={"help": "Share of the training split to evaluate on."})
    split_seed: int = field(default=0, metadata={"help": "Seed of the validation split."})
    image_column: str | None = field(default=None, metadata={"help": "Column of the images."})
    label_column: str | None = field(default=None, metadata={"help": "Column of the labels."})
    held_out_classes: list[str] | None = field(
        default=None, metadata={"help": "Classes to verify instead of training on them."}
    )
    image_size: Any = field(default=32, metadata={"help": "Height and width in pixels, or one number for both."})
    resize: int | None = field(default=None, metadata={"help": "Shorter edge before that is cut out of the center."})
    channel_order: str = field(default="rgb", metadata={"help": "rgb or bgr."})
    mean: list[float] = field(default_factory=lambda: [0.485, 0.456, 0.406], metadata={"help": "Channel means."})
    std: list[float] = field(default_factory=lambda: [0.229, 0.224, 0.225], metadata={"help": "Channel deviations."})
    augmentation: str = field(default="crop_flip", metadata={"help": "Training augmentation."})
    augmentation_views: int | None = field(default=None, metadata={"help": "Epochs after which it comes again."})
    skip_corrupt: bool = field(default=False, metadata={"help": "Leave out images that cannot be decoded."})
    cache_images: bool = field(default=True, metadata={"help": "Keep decoded images in memory."})
    image_cache: str | None = field(default=None, metadata={"help": "Folder to keep decoded images in instead."})
    max_train_samples: int | None = field(default=None, metadata={"help": "Use that many training images."})
    max_eval_samples: int | None = field(default=None, metadata={"help": "Use that many evaluation images."})
    title: str | None = field(default=None, metadata={"help": "Name of the data set, for the card."})
    license: str = field(default="not stated", metadata={"help": "License of the images, for the card."})
    weights_license: str = field(default="apache-2.0", metadata={"help": "License of the trained weights."})
    weights_license_name: str | None = field(default=None, metadata={"help": "Name of another license."})
    weights_license_link: str | None = field(default=None, metadata={"help": "Link to another license."})

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("section `data` needs `name`, the Hub id or folder of a data set")
        if self.eval_split is None and self.validation_fraction:
            raise ValueError("`data.validation_fraction` has no effect without `eval_split`; leave one of them out")
        edges = self.image_size if isinstance(self.image_size, list) else [self.image_size] * 2
        if len(edges) != 2 or not all(type(edge) is int for edge in edges):
            raise ValueError(f"`data.image_size` is {self.image_size!r}; it must be one int, or [height, width]")
        if self.resize is not None and self.resize < max(edges):
            raise ValueError(
                f"`data.resize` is {self.resize}, out of which `image_size` {self.image_size} cannot be cut; make it larger"
            )
        # The card is written when training is over, which is too late to learn that it cannot be.
        check_license(self.weights_license, self.weights_license_name, self.weights_license_link, "data.weights_")
        check_text(self.license, "data.license")
        if self.title is not None:
            check_text(self.title, "data.title")

    @property
    def height_and_width(self) -> tuple[int, int]:
        """`image_size` as two numbers, in pixels."""
        height, width = self.image_size if isinstance(self.image_size, list) else (self.image_size, self.image_size)
        return height, width


@dataclass
class StudentHeadArguments:
    """
    Section `sh_kd`: the two earlier runs of SH-KD.

    Attributes:
        temporary_student (`str`, *optional*): Folder or Hub id of a student that is trained already.
        temporary_method (`str`): Method of the temporary student; anything but `plain` needs a trained teacher.
        temporary_epochs (`float`, *optional*): Its epochs.
        teacher_epochs (`float`, *optional*): Its epochs.
        head_length (`float`, *optional*): Mean length of the class vectors that the teacher is trained around, in place of
            that which the temporary student gave them; see [`with_head_length`].
    """

    temporary_student: str | None = field(default=None, metadata={"help": "A student that is trained already."})
    temporary_method: str = field(default="plain", metadata={"help": "Method of the temporary student."})
    temporary_epochs: float | None = field(default=None, metadata={"help": "Its epochs."})
    teacher_epochs: float | None = field(default=None, metadata={"help": "Its epochs."})
    head_length: float | None = field(default=None, metadata={"help": "Mean length of the shared class vectors."})


@dataclass
class VerificationArguments:
    """
    Section `verification`: pairs of images that the student is scored on after every epoch.

    Attributes:
        sets (`list[str]`): What [`load_verification_set`] reads, e.g. `lfw.bin`.
        flip (`bool`): Add the embeddings of the mirrored images.
        held_out_pairs (`int`): How many pairs to draw from `data.held_out_classes`.
        every_epochs (`int`): After how many epochs of training to score.
        bootstrap (`int`): Replicates for intervals in log and card; 0 for none.
        subject (`str`): What is on the images, one of [`SUBJECTS`]; the model card speaks of that.
        preparation (`str`): How the images were prepared, e.g. `aligned by five points to 112 x 112 pixels`; the model
            card needs it.
    """

    sets: list[str] = field(default_factory=list, metadata={"help": "Files or folders of image pairs."})
    flip: bool = field(default=True, metadata={"help": "Add the embeddings of the mirrored images."})
    held_out_pairs: int = field(default=6000, metadata={"help": "Pairs of the held-out classes."})
    every_epochs: int = field(default=1, metadata={"help": "After how many epochs to score."})
    bootstrap: int = field(default=0, metadata={"help": "Replicates for confidence intervals; 0 for none."})
    subject: str = field(default="faces", metadata={"help": "faces or characters, for the card."})
    preparation: str = field(default="", metadata={"help": "How the images were prepared, for the card."})

    def __post_init__(self) -> None:
        check_subject(self.subject)
        if self.preparation:
            check_text(self.preparation, "verification.preparation")


@dataclass
class Recipe:
    """
    One recipe: its sections, those that a file may leave out being `None`.

    Attributes:
        student ([`ModelArguments`]): The model that is trained.
        data ([`DataArguments`]): Its images.
        training ([`DistillationConfig`]): Method and training arguments.
        teacher ([`ModelArguments`], *optional*): A trained teacher.
        shared_teacher ([`ModelArguments`], *optional*): The network that SH-KD trains around the student's head.
        sh_kd ([`StudentHeadArguments`], *optional*): The earlier runs of SH-KD.
        verification ([`VerificationArguments`], *optional*): Pairs of images to score embeddings on.
    """

    student: ModelArguments
    data: DataArguments
    training: DistillationConfig
    teacher: ModelArguments | None = None
    shared_teacher: ModelArguments | None = None
    sh_kd: StudentHeadArguments | None = None
    verification: VerificationArguments | None = None

    @property
    def evaluates(self) -> bool:
        """Whether anything is measured that a model card could report."""
        return self.data.eval_split is not None or self.verification is not None


SECTIONS: dict[str, type] = {
    "student": ModelArguments,
    "teacher": ModelArguments,
    "shared_teacher": ModelArguments,
    "data": DataArguments,
    "training": DistillationConfig,
    "sh_kd": StudentHeadArguments,
    "verification": VerificationArguments,
}
