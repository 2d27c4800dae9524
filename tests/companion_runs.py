"""Short distillations with a companion loss, which tests of it share."""

import copy

import torch
from torch.nn import functional as F
from toys import ToyImages, arguments, resnet
from transformers import TrainerCallback

from headshare_hf import DistillationTrainer
from headshare_hf.losses import COMPANIONS, Features, PretrainedCompanionLoss, kd_loss
from headshare_hf.trainer import METHODS


def is_pretrained(method):
    """Whether a stage comes before the training."""
    companion = METHODS[method].companion
    return companion is not None and issubclass(COMPANIONS[companion].loss, PretrainedCompanionLoss)


def networks(method, teacher="resnet14"):
    """A student and a teacher that the method takes."""
    head = {"head_type": "arcface"} if method == "adadistill" else {}
    projector = {"map_projector": {"out_channels": 64}} if method == "simkd" else {}
    return resnet(seed=1, **head, **projector), resnet(teacher, seed=2, **head)


def make(folder, method, models=None, data=None, **fields):
    """A trainer whose every step can be computed by hand."""
    if is_pretrained(method):
        fields = {"pretraining_epochs": 1.0, **fields}
    fields = {"max_steps": 2, "channels_last": False, "fold_teacher": False, **fields}
    fields.setdefault("train_sampling_strategy", "sequential")
    student, teacher = models or networks(method)
    data = ToyImages(32) if data is None else data
    return DistillationTrainer(
        student, arguments(folder, method=method, **fields), teacher=teacher, train_dataset=data
    )


class Start(TrainerCallback):
    """Copies what is trained before the first step."""

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self.module = copy.deepcopy(model)


def seen_by(model, images):
    """Everything that a loss may read."""
    output = model(images, output_hidden_states=True)
    return Features(
        output.hidden_states,
        output.pre_activations,
        output.embeddings,
        output.logits,
        model.classifier,
        output.final_map,
    )


def by_hand(module, teacher, images, labels, row):
    """The parts of the first step, without the trainer."""
    with torch.no_grad():
        student, other = seen_by(module.train().student, images), seen_by(teacher.eval(), images)
        softened = row.kd or row.teacher_head
        parts = {"ce": F.cross_entropy(student.logits, labels)} if row.ce else {}
        if COMPANIONS[row.companion].weight:
            parts["companion"] = module.auxiliaries["companion"](student, other, labels)
        if softened:
            parts["kd"] = kd_loss(student.logits, other.logits, 4.0)
            parts["teacher_head"] = kd_loss(teacher.classifier(student.embeddings), other.logits, 4.0)
    return {name: float(part) for name, part in parts.items() if name == "companion" or getattr(row, name)}
