"""Every knob of a training run."""

from dataclasses import dataclass, field

import torch
from transformers import TrainingArguments
from transformers.trainer_utils import HubStrategy

from ..losses import COMPANIONS, CompanionLoss, LossWeights
from .config_checks import check_config, check_names
from .methods import get_method
from .optimizer_options import optimizer_name


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
        companion (`str`, *optional*):
            Row of `COMPANIONS`, the loss beside those above. Default: that of the method. Any method can have one.
        companion_weight (`float`, *optional*): Its weight. Default: that of its row, the published one.
        companion_options (`dict`, *optional*):
            Arguments of its class beside both shapes, e.g. `{"temperature": 2.0}` for [`DKDLoss`]. `temperature` above is
            not read by companions: those on logits have one of their own.
        companion_warmup_epochs (`float`, *optional*, defaults to 0.0):
            Epochs in which its weight grows: in the n-th of them it is n / `companion_warmup_epochs` of the whole. 20 was
            published for `"dkd"`.
        pretraining_epochs (`float`, *optional*):
            For companions with a stage before the training proper (`"factor"`, `"abound"`, `"fsp"`): its epochs. Default:
            30, as in RepDistiller.
        pretraining_learning_rate (`float`, *optional*):
            Learning rate of that stage, which stays as it is. Default: `learning_rate`.
        student_head (`str`, *optional*):
            Default: that of the method, which is `"own"` unless the method shares nothing but the head.
            `"own"`: the student's classifier starts at random, or is what [`AdaDistillLoss`] makes. `"teacher_init"`: it
            starts as a copy of the teacher's. `"teacher_frozen"`: it is a frozen copy of the teacher's.
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
        large_head_kernel (`str`, *optional*, defaults to `"auto"`):
            What computes the cross-entropy of a linear classifier over chunks: `"chunked"`, the code of this package, or
            `"liger"`, the Triton kernels of liger-kernel, which is to be installed by hand and needs a GPU. `"auto"` is
            `"chunked"`.
        shard_heads (`bool`, *optional*, defaults to `False`):
            With several processes, split the classes of student and teacher over them: each holds, and trains, the
            centers of its own classes only. Losses are those of one process with the whole batch.
        class_sample_rate (`float`, *optional*, defaults to `1.0`):
            Share of the classes, in (0, 1], that a cross-entropy over chunks sees at a step beside those of the batch
            (Partial FC, arXiv 2203.15565). Unlike there, gradient and step visit the centers of all classes, so that
            momentum and weight decay move those that were not drawn, too.
        fused_optimizer (`bool`, *optional*):
            Whether the optimizer steps as one kernel for all parameters. Default: for SGD and AdamW of PyTorch on a CPU and
            on CUDA, which is faster, but with `fp16`, FSDP and DeepSpeed. Losses agree to about 1e-5, and a run may go on
            either way.
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
    companion: str | None = field(default=None, metadata={"help": "A further distillation loss, e.g. dkd."})
    companion_weight: float | None = field(default=None, metadata={"help": "Weight of the companion."})
    companion_options: dict | None = field(default=None, metadata={"help": "Arguments of the companion."})
    companion_warmup_epochs: float = field(default=0.0, metadata={"help": "Epochs in which its weight grows."})
    pretraining_epochs: float | None = field(default=None, metadata={"help": "Epochs of a companion's own stage; 30."})
    pretraining_learning_rate: float | None = field(default=None, metadata={"help": "Learning rate of that stage."})
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
    large_head_kernel: str = field(default="auto", metadata={"help": "auto, chunked or liger."})
    shard_heads: bool = field(default=False, metadata={"help": "Split the classes over the processes."})
    class_sample_rate: float = field(default=1.0, metadata={"help": "Share of the classes that a step sees."})
    fused_optimizer: bool | None = field(default=None, metadata={"help": "Optimizer as one kernel."})
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
    # A run is published once, whole and with its card.
    hub_strategy: HubStrategy | str = field(default="end", metadata={"help": "Only end is supported."})

    def __post_init__(self) -> None:
        if self.accelerator_config is None and torch.accelerator.is_available() and not self.use_cpu:
            # Batches come from pinned memory, so their copy to the device need not be waited for.
            self.accelerator_config = {"non_blocking": True}
        if self.greater_is_better is None and str(self.metric_for_best_model).endswith("_eer"):
            # transformers takes what is no loss for something to be high.
            self.greater_is_better = False
        super().__post_init__()
        if self.optim_args is None and optimizer_name(self) == "sgd":
            self.optim_args = "momentum=0.9"
        # Pinned memory serves the copy to an accelerator; without one torch warns at every epoch.
        self.dataloader_pin_memory &= torch.accelerator.is_available() and not self.use_cpu
        if self.channels_last is None:
            self.channels_last = self.device.type == "cpu"
        self.student_head = self.student_head or get_method(self.method or "plain").student_head
        check_names(self)
        check_config(self)

    @property
    def loss_weights(self) -> LossWeights:
        """The weights that the method, the single weights and `alpha_th` amount to."""
        row = get_method(self.method or "plain")
        alpha_th = self.alpha_th if self.alpha_th is not None else row.alpha_th
        if self.has_teacher_head_weights:
            alpha_th = None
        ce, kd = _first(self.ce_weight, row.ce), _first(self.kd_weight, row.kd)
        embedding = _first(self.embedding_weight, row.embedding)
        contrastive = _first(self.contrastive_weight, row.contrastive)
        name = self.companion_name
        companion = 0.0 if name is None else _first(self.companion_weight, COMPANIONS[name].weight)
        if alpha_th is not None:
            return LossWeights.coupled(ce, kd, alpha_th, embedding, contrastive, companion)
        heads = _first(self.teacher_head_weight, row.teacher_head), _first(self.teacher_head_ce_weight, 0.0)
        return LossWeights(ce, kd, *heads, embedding, contrastive, companion)

    @property
    def companion_name(self) -> str | None:
        """`companion`, or that of the method."""
        return self.companion or get_method(self.method or "plain").companion

    @property
    def companion_loss(self) -> type[CompanionLoss] | None:
        """The class of the companion."""
        return None if self.companion_name is None else COMPANIONS[self.companion_name].loss

    @property
    def predicts_with_centers(self) -> bool:
        """Whether the student predicts with the class centers that the companion makes: nothing else gives it a head."""
        makes = self.companion_loss is not None and self.companion_loss.makes_centers
        return makes and self.student_head == "own" and not self.loss_weights.trains_own_head

    @property
    def student_reads(self) -> frozenset[str]:
        """The fields of the student's [`Features`] that the companion reads."""
        return frozenset() if self.companion_loss is None else frozenset(self.companion_loss.student_needs)

    @property
    def teacher_reads(self) -> frozenset[str]:
        """Those of the teacher's."""
        return frozenset() if self.companion_loss is None else frozenset(self.companion_loss.teacher_needs)

    @property
    def needs_teacher(self) -> bool:
        """Whether a loss part, or the stage before the training proper, needs a teacher."""
        return self.loss_weights.needs_teacher or self.companion_name is not None

    @property
    def reads_teacher_classes(self) -> bool:
        """Whether anything but the embedding and the feature maps of the teacher is read, so that its classes matter."""
        weights = self.loss_weights
        reads = weights.kd > 0 or weights.needs_teacher_head or bool(self.teacher_reads & {"logits", "head"})
        return reads or self.student_head != "own" or self.eval_teacher_head_weight > 0

    @property
    def meets_at_embedding(self) -> bool:
        """Whether student and teacher meet at their embeddings, or only at their outputs."""
        weights = self.loss_weights
        compares = weights.needs_teacher_head or weights.needs_teacher_embedding
        reads = (self.student_reads | self.teacher_reads) & {"embeddings", "head"}
        return compares or bool(reads) or self.eval_teacher_head_weight > 0

    @property
    def has_teacher_head_weights(self) -> bool:
        """Whether a weight of the teacher's head is given itself, which takes the place of `alpha_th` of the method."""
        return self.teacher_head_weight is not None or self.teacher_head_ce_weight is not None


def _first(value: float | None, fallback: float) -> float:
    return fallback if value is None else value
