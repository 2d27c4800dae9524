"""What every process of a test of FSDP2 or DeepSpeed runs: a short distillation, and a record of what it saw."""

import json
import os
import sys
from pathlib import Path

import torch
from accelerate.state import PartialState
from accelerate.utils import DistributedType
from safetensors.torch import save_file
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from toys import ToyImages, arguments, losses, noise_pairs, resnet, vit

from headshare_hf import DistillationTrainer, HeadShareImageProcessor, StudentHeadStages, run_student_head_kd
from headshare_hf.evaluation import Verifier
from headshare_hf.trainer import run_or_reuse


VIT = {"backbone": "timm/test_vit", "backbone_kwargs": {"img_size": 16}, "image_size": 16}
# `launched`: the launcher has asked for FSDP or DeepSpeed.
KINDS = {
    "whole": {},
    "launched": {"use_cpu": False},
    "fsdp": {"fsdp": True, "fsdp_config": {"version": 2}},
    "fsdp_blocks": {"fsdp": True, "fsdp_config": {"version": 2, "transformer_layer_cls_to_wrap": ["Block"]}},
}


class IndexedImages(ToyImages):
    """With the position of every image."""

    def __getitem__(self, index: int) -> dict:
        return {**super().__getitem__(index), "index": index}


def pretend_to_own_gpus() -> None:
    """accelerate splits weights only where the processes have a GPU each. What it does then, CPUs and gloo can do."""
    os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
    torch.distributed.init_process_group("gloo")
    PartialState._prepare_backend = lambda *args, **kwargs: ("gloo", DistributedType.MULTI_GPU)


def is_split(value: torch.Tensor) -> bool:
    return isinstance(value, DTensor)


def write(folder: Path, trainer: DistillationTrainer, **more: object) -> None:
    values = trainer.student.state_dict()
    optimizer = getattr(trainer.optimizer, "optimizer", None)
    report = {
        "world_size": trainer.args.world_size,
        "losses": losses(trainer),
        "norms": [row["grad_norm"] for row in trainer.state.log_history if "grad_norm" in row],
        "units": [name for name, module in trainer.model.named_modules() if isinstance(module, FSDPModule)],
        "optimizer": type(optimizer).__name__,
        "parameters": sum(value.numel() for value in values.values()),
        "held": sum((value.to_local() if is_split(value) else value).numel() for value in values.values()),
        "teacher_split": any(map(is_split, trainer.teacher.model.parameters())) if trainer.teacher else False,
        **more,
    }
    rank = trainer.args.process_index
    (folder / f"report_{rank}.json").write_text(json.dumps(report))
    state = trainer.whole_student().state_dict()
    save_file({name: value.contiguous() for name, value in state.items()}, folder / f"weights_{rank}.safetensors")


def distill(folder: Path, batch: int, kind: dict, resume: bool = False) -> None:
    """TH-KD with a projector, clipping, accumulation, evaluations and the best model at the end."""
    args = arguments(
        folder / "run",
        method="th_kd",
        projector="linear",
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=2,
        max_grad_norm=0.5,
        num_train_epochs=2,
        save_strategy="epoch",
        eval_strategy="epoch",
        metric_for_best_model="loss",
        load_best_model_at_end=True,
        **kind,
    )
    # Another start in each process: that of the first one counts.
    student = vit(seed=1 + args.process_index)
    trainer = DistillationTrainer(
        student, args, teacher=vit(seed=2, hidden_size=48), train_dataset=ToyImages(128), eval_dataset=ToyImages(64)
    )
    # DeepSpeed evaluates nothing before the training.
    before = {} if trainer.is_deepspeed_enabled else trainer.evaluate()
    trainer.train(resume_from_checkpoint=resume or None)
    after = trainer.evaluate()
    write(folder, trainer, before=len(before), evaluated=[after["eval_loss"], after["eval_accuracy"]])


def faces(folder: Path, batch: int, kind: dict, **fields: object) -> None:
    """A head whose margin has running means; verified, saved, and used again."""
    student, teacher = (resnet(seed=seed, **VIT, head_type="adaface", head_scale=16.0) for seed in (1, 2))
    processor = HeadShareImageProcessor(size={"height": 16, "width": 16})
    trainer = DistillationTrainer(
        student,
        arguments(folder / "run", method="th_kd", per_device_train_batch_size=batch, **fields, **kind),
        teacher=teacher,
        train_dataset=ToyImages(64),
        processing_class=processor,
        verifier=Verifier([noise_pairs()], processor, batch_size=batch),
    )
    results = run_or_reuse(trainer)
    write(folder, trainer, verified={name: value for name, value in results.items() if name.startswith("eval_noise")})


def train(folder: Path, batch: int, kind: dict, data: type = ToyImages, length: int = 64, **fields: object) -> None:
    """One epoch of some method between two networks without batch statistics."""
    student, teacher = (resnet(seed=seed, **VIT) for seed in (1, 2))
    args = arguments(folder / "run", per_device_train_batch_size=batch, **fields, **kind)
    trainer = DistillationTrainer(student, args, teacher=teacher, train_dataset=data(length))
    trainer.train()
    write(folder, trainer)


def statistics(folder: Path, batch: int, kind: dict) -> None:
    """A network with batch statistics, which every process measures on its own half of the images."""
    args = arguments(folder / "run", per_device_train_batch_size=batch, channels_last=True, **kind)
    trainer = DistillationTrainer(
        resnet(seed=1), args, train_dataset=ToyImages(64), eval_dataset=ToyImages(40, seed=1)
    )
    results = run_or_reuse(trainer)
    write(folder, trainer, evaluated=[results["eval_accuracy"]])


def student_head(folder: Path, batch: int, kind: dict) -> None:
    """SH-KD: what one run has trained is the teacher of the next."""
    stages = StudentHeadStages(lambda seed: resnet(seed=seed, **VIT), lambda seed: resnet(seed=seed, **VIT))
    args = arguments(folder / "run", method="sh_kd", per_device_train_batch_size=batch, **kind)
    trainer, _ = run_student_head_kd(stages, args, train_dataset=ToyImages(32))
    cosines = [row["head_cosine_mean"] for row in trainer.state.log_history if "head_cosine_mean" in row]
    write(folder, trainer, cosines=cosines)


MODES = {
    "distill": distill,
    "resume": lambda *run: distill(*run, resume=True),
    "faces": faces,
    "faces_bf16": lambda *run: faces(*run, bf16=True),
    # FSDP has no fused form, and its rounding would be another one.
    "adam": lambda *run: train(*run, method="th_kd", optim="adamw_torch", fused_optimizer=False),
    "frozen": lambda *run: train(*run, method="inherited"),
    "chunked": lambda *run: train(*run, method="th_kd", chunked_losses=True),
    "contrastive": lambda *run: train(*run, method="crd", num_negatives=8, data=IndexedImages),
    "uneven": lambda *run: train(*run, method="th_kd", length=50),
    "statistics": statistics,
    "student_head": student_head,
}


if __name__ == "__main__":
    root, how, size, *modes = sys.argv[1:]
    if how != "whole":
        pretend_to_own_gpus()
    for mode in modes:
        place = Path(root) / mode
        place.mkdir(exist_ok=True)
        MODES[mode](place, int(size), KINDS[how])
    PartialState().destroy_process_group()
