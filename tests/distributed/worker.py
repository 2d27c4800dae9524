"""What every process of a distributed test runs: a short distillation, and a record of what it saw."""

import json
import sys
from pathlib import Path

from counted_images import CountingImages
from safetensors.torch import save_file
from toys import ToyImages, arguments, losses, noise_pairs, resnet, vit

from headshare_hf import DistillationTrainer, HeadShareImageProcessor
from headshare_hf.evaluation import Verifier
from headshare_hf.trainer import run_or_reuse


def main(folder: Path, batch: int, resume: bool) -> None:
    data = CountingImages(128)
    args = arguments(
        folder / "run",
        method="th_kd",
        projector="linear",
        per_device_train_batch_size=batch,
        num_train_epochs=2,
        save_strategy="epoch",
        eval_strategy="epoch",
        metric_for_best_model="loss",
        load_best_model_at_end=True,
    )
    trainer = DistillationTrainer(
        vit(seed=1), args, teacher=vit(seed=2, hidden_size=48), train_dataset=data, eval_dataset=ToyImages(50, seed=1)
    )
    trainer.train(resume_from_checkpoint=resume or None)
    metrics = trainer.evaluate()
    rank = trainer.args.process_index
    report = {
        "world_size": trainer.accelerator.num_processes,
        "backend": str(trainer.accelerator.state.backend),
        "seen": data.seen,
        "losses": losses(trainer),
        "parts": [row["loss_teacher_head"] for row in trainer.state.log_history if "loss_teacher_head" in row],
        "accuracy": metrics["eval_accuracy"],
    }
    (folder / f"report_{rank}.json").write_text(json.dumps(report))
    save_file(
        {**trainer.student.state_dict(), **{f"projector.{k}": v for k, v in trainer.projector.state_dict().items()}},
        folder / f"weights_{rank}.safetensors",
    )
    trainer.accelerator.end_training()


class IndexedImages(ToyImages):
    """With the position of every image."""

    def __getitem__(self, index: int) -> dict:
        return {**super().__getitem__(index), "index": index}


def contrastive(folder: Path, batch: int, resume: bool) -> None:
    """A loss with layers and with memories of all images, which every process sees its part of."""
    args = arguments(
        folder / "run",
        method="th_crd",
        projector="linear",
        num_negatives=64,
        per_device_train_batch_size=batch,
        save_strategy="steps",
        save_steps=4,
    )
    teacher = vit(seed=2, hidden_size=48)
    trainer = DistillationTrainer(vit(seed=1), args, teacher=teacher, train_dataset=IndexedImages(128))
    trainer.train(resume_from_checkpoint=resume or None)
    rank = trainer.args.process_index
    (folder / f"report_{rank}.json").write_text(json.dumps({"losses": losses(trainer)}))
    loss = trainer.auxiliaries["contrastive"]
    state = {**trainer.student.state_dict(), **loss.state_dict()}
    save_file({name: value.contiguous() for name, value in state.items()}, folder / f"weights_{rank}.safetensors")
    trainer.accelerator.end_training()


def faces(folder: Path, batch: int) -> None:
    """TH-KD with class centers and a margin; layer norms, so that half a batch is computed as in the whole one."""
    shape = {"head_type": "arcface", "head_scale": 16.0, "backbone_kwargs": {"img_size": 16}, "image_size": 16}
    student, teacher = (resnet("timm/test_vit", seed=seed, **shape) for seed in (1, 2))
    processor = HeadShareImageProcessor(size={"height": 16, "width": 16})
    trainer = DistillationTrainer(
        student,
        arguments(folder / "run", method="th_kd_coupled", per_device_train_batch_size=batch),
        teacher=teacher,
        train_dataset=ToyImages(64),
        verifier=Verifier([noise_pairs()], processor, batch_size=batch),
    )
    results = run_or_reuse(trainer)
    rank = trainer.args.process_index
    verified = {name: value for name, value in results.items() if name.startswith("eval_noise")}
    report = {"losses": losses(trainer), "verified": verified}
    (folder / f"report_{rank}.json").write_text(json.dumps(report))
    save_file(trainer.student.state_dict(), folder / f"weights_{rank}.safetensors")
    trainer.accelerator.end_training()


def statistics(folder: Path, batch: int) -> None:
    """A network with batch statistics, which every process measures on its own half of the images."""
    args = arguments(folder / "run", per_device_train_batch_size=batch)
    verifier = Verifier([noise_pairs()], HeadShareImageProcessor(size={"height": 16, "width": 16}), batch_size=batch)
    trainer = DistillationTrainer(
        resnet(seed=1), args, train_dataset=ToyImages(64), eval_dataset=ToyImages(40, seed=1), verifier=verifier
    )
    results = run_or_reuse(trainer)
    report = {name: value for name, value in results.items() if "accuracy" in name or "auc" in name or "loss" in name}
    (folder / f"report_{trainer.args.process_index}.json").write_text(json.dumps(report))
    save_file(trainer.student.state_dict(), folder / f"weights_{trainer.args.process_index}.safetensors")
    trainer.accelerator.end_training()


if __name__ == "__main__":
    if sys.argv[3] in ("faces", "statistics"):
        {"faces": faces, "statistics": statistics}[sys.argv[3]](Path(sys.argv[1]), int(sys.argv[2]))
    elif sys.argv[3].startswith("contrastive"):
        contrastive(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "contrastive_resume")
    else:
        main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "resume")
