"""Every knob of a training run."""

from dataclasses import dataclass, field

import torch
from huggingface_hub.utils import validate_repo_id
from transformers import TrainingArguments
from transformers.trainer_utils import HubStrategy

from ..losses import DISTANCES, NEGATIVES, LossWeights
from .methods import get_method


STUDENT_HEADS = ("own", "teacher_init", "teacher_frozen")
PROJECTORS = ("linear", "linear_bn_relu")
TEACHER_PRECISIONS = ("auto", "float32", "bfloat16", "float16")
CACHE_DTYPES = ("float32", "float16")


@dataclass
class DistillationConfig(TrainingArguments):
    r"""
    Configuration of [`DistillationTrainer`]: transformers' `TrainingArguments` with the fields below, and with the
    defaults of the recipe of the authors of arXiv 2201.06945 for the optimizer (SGD with momentum, no gradient
    clipping, weight decay on every tensor).

    Args:
        method (`str`, *optional*):
            A row of the method table, e.g. `"th_kd"`. `None`: `"plain"`, unless weights are given below.
        ce_weight, kd_weight, teacher_head_weight, teacher_head_ce_weight, embedding_weight, contrastive_weight (`float`, *optional*):
            Weights of single parts, which replace those of the row.
        alpha_th (`float`, *optional*):
            Share, in [0, 1], of the cross-entropy and of the KL that goes through the teacher's head (equations (1)
            and (2) of the paper). Replaces that of the row; excludes the two teacher-head weights.
        temperature (`float`, *optional*):
            T of the softened KL, unitless. Default: 4, where `kd_scale` does not take its place.
        kd_scale (`float`, *optional*):
            For cosine heads, in place of `temperature`: the KL compares softmax(kd_scale · cos) of both. Default where
            both heads are cosine heads: √2 · ln(C − 1), see [`default_kd_scale`].
        embedding_distance (`str`, *optional*, defaults to `"cosine"`):
            `"cosine"`: squared distance of the unit embeddings. `"l2"`: of the embeddings as they are.
        num_negatives (`int`, *optional*): Of the contrastive loss, for each image. Default: 16384.
        negatives (`str`, *optional*):
            `"exact"`, `"relaxed"` or `"shared"`, see [`NegativeSampler`]. Default: `"exact"`.
        contrastive_size (`int`, *optional*): Dimensions in which the contrastive loss compares. Default: 128.
        student_head (`str`, *optional*):
            Default: that of the method, which is `"own"` unless the method shares nothing but the head.
            `"own"`: the student's classifier starts at random. `"teacher_init"`: it starts as a copy of the teacher's.
            `"teacher_frozen"`: it is a frozen copy of the teacher's.
        projector (`str`, *optional*):
            `"linear"` or `"linear_bn_relu"`: trained between the student's embedding and the teacher's when their
            widths differ; kept in checkpoints, never published.
        eval_teacher_head_weight (`float`, *optional*, defaults to `0.0`):
            Weight, in [0, 1], of the teacher's head in the mixed prediction that evaluation reports beside the
            student's own as `mixed_accuracy`. 0 reports the student alone.
        teacher_precision (`str`, *optional*, defaults to `"auto"`):
            Precision in which the teacher computes: `"auto"` (that of the training), `"float32"`, `"bfloat16"` or
            `"float16"`. Its weights are never converted.
        teacher_cache (`str`, *optional*):
            Folder where the teacher's outputs are kept, each teacher and data set below its own name. The first training
            fills it in one pass, and this and every later one then runs the teacher's classifier only. Needs a training
            set that says its views: see `augmentation_views` of [`ImageClassificationDataset`].
        teacher_cache_dtype (`str`, *optional*, defaults to `"float32"`):
            `"float32"`, with which losses are those without a cache to about 1e-6, or `"float16"`, which halves the
            files; losses then differ by about 1e-5.
        teacher_cache_moments (`bool`, *optional*, defaults to `False`):
            Store [`TeacherMoments`] in place of embeddings, with which the KL through the teacher's head over chunks of
            classes takes half as long. For methods without any other part that asks the teacher about images; the cache
            then belongs to one temperature.
        channels_last (`bool`, *optional*):
            Compute the convolutions of student and teacher in the memory layout NHWC. Default: on a CPU, which is faster
            in it. Sums are then rounded otherwise: losses agree to about 1e-3 after some steps.
        fold_teacher (`bool`, *optional*):
            Whether the teacher computes with its batch normalizations multiplied into the layers before them; its own
            weights stay as they are. Default: where its outputs on the first batch show that it computes the same, to
            1e-4. Losses agree to about 1e-6 at first, and to 1e-3 after some steps.
        chunked_losses (`bool`, *optional*):
            Whether the losses go over the classes in chunks, so that no matrix of logits exists. Default: where there
            are so many classes that it pays, see [`uses_chunks`]. Losses agree to about 1e-6.
        shard_heads (`bool`, *optional*, defaults to `False`):
            With several processes, split the classes of student and teacher over them: each holds, and trains, the
            centers of its own classes only. Losses are those of one process with the whole batch.
        class_sample_rate (`float`, *optional*, defaults to `1.0`):
            Share of the classes, in (0, 1], that a cross-entropy over chunks sees at a step beside those of the batch
            (Partial FC, arXiv 2203.15565).
        lr_decay_epochs (`list[int]`, *optional*):
            Epochs after which the learning rate is multiplied by `lr_decay_rate`; replaces `lr_scheduler_type`.
        lr_decay_rate (`float`, *optional*, defaults to `0.1`): Factor of those steps.
        decay_norm_and_bias (`bool`, *optional*, defaults to `True`):
            Whether weight decay acts on biases and normalisation layers too, as in the authors' code. `False` is what
            transformers does.

    Raises:
        ValueError: A field is out of its range, or would have no effect; the message names it.
    """

    method: str | None = field(default=None, metadata={"help": "A row of the method table, e.g. th_kd."})
    ce_weight: float | None = field(default=None, metadata={"help": "Weight of the cross-entropy, own head."})
    kd_weight: float | None = field(default=None, metadata={"help": "Weight of the softened KL, own head."})
    teacher_head_weight: float | None = field(default=None, metadata={"help": "Weight of the KL, teacher's head."})
    teacher_head_ce_weight: float | None = field(
        default=None, metadata={"help": "Weight of the cross-entropy through the teacher's head."}
    )
    embedding_weight: float | None = field(default=None, metadata={"help": "Weight of the embedding distance."})
    contrastive_weight: float | None = field(default=None, metadata={"help": "Weight of the contrastive loss (CRD)."})
    alpha_th: float | None = field(default=None, metadata={"help": "Share of CE and KL through the teacher's head."})
    temperature: float | None = field(default=None, metadata={"help": "Temperature of the softened KL."})
    kd_scale: float | None = field(default=None, metadata={"help": "Scale of cosine heads in the KL."})
    embedding_distance: str = field(default="cosine", metadata={"help": "cosine or l2."})
    num_negatives: int | None = field(default=None, metadata={"help": "Negatives of the contrastive loss; 16384."})
    negatives: str | None = field(default=None, metadata={"help": "exact, relaxed or shared."})
    contrastive_size: int | None = field(default=None, metadata={"help": "Dimensions of the contrastive loss; 128."})
    student_head: str | None = field(default=None, metadata={"help": "own, teacher_init or teacher_frozen."})
    projector: str | None = field(default=None, metadata={"help": "Training-only projector, if widths differ."})
    eval_teacher_head_weight: float = field(default=0.0, metadata={"help": "Teacher's head in mixed_accuracy."})
    teacher_precision: str = field(default="auto", metadata={"help": "auto, float32, bfloat16 or float16."})
    teacher_cache: str | None = field(default=None, metadata={"help": "Folder to keep the teacher's outputs in."})
    teacher_cache_dtype: str = field(default="float32", metadata={"help": "float32 or float16."})
    teacher_cache_moments: bool = field(default=False, metadata={"help": "Store moments in place of embeddings."})
    channels_last: bool | None = field(default=None, metadata={"help": "Memory layout NHWC for convolutions."})
    fold_teacher: bool | None = field(default=None, metadata={"help": "Teacher without batch normalization."})
    chunked_losses: bool | None = field(default=None, metadata={"help": "Losses over classes in chunks."})
    shard_heads: bool = field(default=False, metadata={"help": "Split the classes over the processes."})
    class_sample_rate: float = field(default=1.0, metadata={"help": "Share of the classes that a step sees."})
    lr_decay_epochs: list[int] | None = field(default=None, metadata={"help": "Epochs of the learning rate steps."})
    lr_decay_rate: float = field(default=0.1, metadata={"help": "Factor of each learning rate step."})
    decay_norm_and_bias: bool = field(default=True, metadata={"help": "Weight decay on every tensor."})

    optim: str = field(default="sgd", metadata={"help": "Optimizer."})
    optim_args: str | None = field(default=None, metadata={"help": "Its arguments; SGD: momentum=0.9 unless given."})
    learning_rate: float = field(default=0.05, metadata={"help": "Initial learning rate."})
    weight_decay: float = field(default=5e-4, metadata={"help": "Weight decay."})
    per_device_train_batch_size: int = field(default=64, metadata={"help": "Images a step and process."})
    per_device_eval_batch_size: int = field(default=256, metadata={"help": "Images an evaluation step and process."})
    max_grad_norm: float = field(default=0.0, metadata={"help": "Gradient clipping; 0: none."})
    # The default filter reads the loss on the host at every step; non-finite losses are found without that here.
    logging_nan_inf_filter: bool = field(default=False, metadata={"help": "Not used; non-finite losses stop the run."})
    remove_unused_columns: bool = field(default=False, metadata={"help": "Batches are made by the data set itself."})
    # Running counts instead of all logits of the evaluation set.
    batch_eval_metrics: bool = field(default=True, metadata={"help": "Compute metrics batch by batch."})
    # Every trainable parameter has a gradient here, so DDP need not search the graph at each step.
    ddp_find_unused_parameters: bool | None = field(default=False, metadata={"help": "DDP option."})
    # A run is published once, whole and with its card.
    hub_strategy: HubStrategy | str = field(default="end", metadata={"help": "Only end is supported."})

    def __post_init__(self) -> None:
        if self.accelerator_config is None and torch.accelerator.is_available() and not self.use_cpu:
            # Batches come from pinned memory, so their copy to the device need not be waited for.
            self.accelerator_config = {"non_blocking": True}
        super().__post_init__()
        if self.optim_args is None and str(getattr(self.optim, "value", self.optim)) == "sgd":
            self.optim_args = "momentum=0.9"
        # Pinned memory serves the copy to an accelerator; without one torch warns at every epoch.
        self.dataloader_pin_memory &= torch.accelerator.is_available() and not self.use_cpu
        if self.channels_last is None:
            self.channels_last = self.device.type == "cpu"
        self.student_head = self.student_head or get_method(self.method or "plain").student_head
        self._check_choices()
        self._check_ranges()
        self._check_contrastive()
        self._check_head_options()
        self._check_cache()
        self._check_hub()

    @property
    def loss_weights(self) -> LossWeights:
        """The weights that the method, the single weights and `alpha_th` amount to."""
        row = get_method(self.method or "plain")
        alpha_th = self.alpha_th if self.alpha_th is not None else row.alpha_th
        if self._own_teacher_head_weights():
            alpha_th = None
        ce, kd = _first(self.ce_weight, row.ce), _first(self.kd_weight, row.kd)
        embedding = _first(self.embedding_weight, row.embedding)
        contrastive = _first(self.contrastive_weight, row.contrastive)
        if alpha_th is not None:
            return LossWeights.coupled(ce, kd, alpha_th, embedding, contrastive)
        teacher_head = _first(self.teacher_head_weight, row.teacher_head)
        return LossWeights(ce, kd, teacher_head, _first(self.teacher_head_ce_weight, 0.0), embedding, contrastive)

    @property
    def meets_at_embedding(self) -> bool:
        """Whether student and teacher meet at their embeddings, or only at their outputs."""
        weights = self.loss_weights
        compares = weights.needs_teacher_head or weights.needs_teacher_embedding
        return compares or self.eval_teacher_head_weight > 0

    def _own_teacher_head_weights(self) -> bool:
        return self.teacher_head_weight is not None or self.teacher_head_ce_weight is not None

    def _check_choices(self) -> None:
        for name, value, allowed in (
            ("student_head", self.student_head, STUDENT_HEADS),
            ("embedding_distance", self.embedding_distance, DISTANCES),
            ("negatives", self.negatives, (None, *NEGATIVES)),
            ("projector", self.projector, (None, *PROJECTORS)),
            ("teacher_precision", self.teacher_precision, TEACHER_PRECISIONS),
            ("teacher_cache_dtype", self.teacher_cache_dtype, CACHE_DTYPES),
        ):
            if value not in allowed:
                raise ValueError(f"`{name}` is {value!r}; allowed: {', '.join(map(str, allowed))}")

    def _check_ranges(self) -> None:
        for name in ("temperature", "kd_scale"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"`{name}` is {value}; it must be positive")
        if self.temperature is not None and self.kd_scale is not None:
            raise ValueError("`temperature` and `kd_scale` say the same of cosine heads; give one of them")
        if not 0 <= self.eval_teacher_head_weight <= 1:
            raise ValueError(f"`eval_teacher_head_weight` is {self.eval_teacher_head_weight}; it must be in [0, 1]")
        if self.label_smoothing_factor:
            raise ValueError("`label_smoothing_factor` has no effect on these losses; leave it out")
        if self.lr_decay_epochs is not None and self.warmup_steps:
            raise ValueError("`lr_decay_epochs` has no warm-up; leave out `warmup_steps`")
        if self.lr_decay_epochs is not None and self.max_steps > 0:
            raise ValueError("`lr_decay_epochs` counts epochs, so it cannot be combined with `max_steps`")
        if not 0 < self.lr_decay_rate <= 1:
            raise ValueError(f"`lr_decay_rate` is {self.lr_decay_rate}; it must be in (0, 1]")

    def _check_contrastive(self) -> None:
        for name in ("num_negatives", "negatives", "contrastive_size"):
            value = getattr(self, name)
            if value is not None and not self.loss_weights.contrastive:
                raise ValueError(
                    f"`{name}` has no effect without a contrastive loss; leave it out or choose method 'crd'"
                )
            if isinstance(value, int) and value < 1:
                raise ValueError(f"`{name}` is {value}; it must be at least 1")

    def _check_cache(self) -> None:
        weights = self.loss_weights
        for name, unset in (("teacher_cache_dtype", "float32"), ("teacher_cache_moments", False)):
            if self.teacher_cache is None and getattr(self, name) != unset:
                raise ValueError(f"`{name}` has no effect without `teacher_cache`, the folder; leave it out")
        if self.teacher_cache is not None and not weights.needs_teacher_forward:
            raise ValueError(
                f"`teacher_cache` has no effect: method {self.method or 'plain'!r} with these weights asks no teacher about "
                "images; leave it out"
            )
        if self.teacher_cache_moments and (weights.kd or weights.needs_teacher_embedding or not weights.teacher_head):
            raise ValueError(
                "`teacher_cache_moments` keeps nothing but what the KL through the teacher's head needs, and other parts ask "
                "the teacher about images too; leave it out"
            )
        if self.teacher_cache_moments and self.teacher_cache_dtype != "float32":
            raise ValueError(
                "`teacher_cache_moments` leave small differences of large numbers, so that rounding to float16 would show in "
                "the loss; leave out `teacher_cache_dtype`"
            )

    def _check_hub(self) -> None:
        if HubStrategy(self.hub_strategy) is not HubStrategy.END or self.hub_always_push:
            name = "hub_always_push" if self.hub_always_push else "hub_strategy"
            raise ValueError(
                f"`{name}` is {getattr(self, name)!r}, but a run is published at its end, whole and with its card; leave it out"
            )
        if self.hub_model_id is not None:
            validate_repo_id(self.hub_model_id)

    def _check_head_options(self) -> None:
        if self.alpha_th is not None and self._own_teacher_head_weights():
            raise ValueError(
                "`alpha_th` sets the weights of both teacher-head terms; leave out `teacher_head_weight` and "
                "`teacher_head_ce_weight`"
            )
        weights = self.loss_weights
        if not weights.trains_own_head and self.student_head != "teacher_frozen":
            raise ValueError(
                "no loss part reaches the student's own head, which would stay random; set "
                "`student_head='teacher_frozen'`, so that the student is published with the teacher's classifier"
            )


def _first(value: float | None, fallback: float) -> float:
    return fallback if value is None else value
