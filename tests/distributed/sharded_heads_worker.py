"""What every process of a test of split class matrices runs: TH-KD with margins over some classes, and what it saw."""

import json
import sys
from pathlib import Path

from safetensors.torch import save_file
from toys import ToyImages, arguments, losses, resnet

from headshare_hf import DistillationTrainer


# Seven classes: two processes cannot have equally many.
SHAPE = {"backbone_kwargs": {"img_size": 16}, "image_size": 16, "num_labels": 7}
HEADS = {
    "arcface": {"head_type": "arcface", "head_scale": 16.0, "head_margin": 0.3},
    "adaface": {"head_type": "adaface", "head_scale": 16.0},
    "linear": {},
}


class ReportedTrainer(DistillationTrainer):
    """Notes how many classes this process holds at each step, and while a checkpoint is written."""

    rows: list[int]
    saved_rows: list[int]

    def compute_loss(self, *args, **kwargs):
        self.rows = [*getattr(self, "rows", []), len(self.student.classifier.weight)]
        return super().compute_loss(*args, **kwargs)

    def _save_rng_state(self, output_dir):
        momentum = self.optimizer.state[self.student.classifier.weight]["momentum_buffer"]
        self.saved_rows = [*getattr(self, "saved_rows", []), len(self.student.classifier.weight), len(momentum)]
        super()._save_rng_state(output_dir)


def main(folder: Path, batch: int, head: str, resume: bool, sharded: bool, rate: float) -> None:
    student, teacher = (resnet("timm/test_vit", seed=seed, **SHAPE, **HEADS[head]) for seed in (1, 2))
    if head == "adaface":
        teacher = resnet("timm/test_vit", seed=2, **SHAPE, **HEADS["arcface"])
    coupled = {"alpha_th": 0.5, "ce_weight": 1.0, "kd_weight": 1.0}
    args = arguments(
        folder / "run",
        **coupled,
        per_device_train_batch_size=batch,
        num_train_epochs=2,
        save_strategy="epoch",
        eval_strategy="epoch",
        chunked_losses=True,
        shard_heads=sharded,
        class_sample_rate=rate,
    )
    data, test = (ToyImages(length, num_labels=7, seed=seed) for length, seed in ((64, 0), (20, 1)))
    trainer = ReportedTrainer(student, args, teacher=teacher, train_dataset=data, eval_dataset=test)
    trainer.train(resume_from_checkpoint=resume or None)
    rank = trainer.args.process_index
    trainer.save_model()
    report = {
        "losses": losses(trainer),
        "parts": [row["loss_teacher_head_ce"] for row in trainer.state.log_history if "loss_teacher_head_ce" in row],
        "accuracies": [row["eval_accuracy"] for row in trainer.state.log_history if "eval_accuracy" in row],
        "rows": trainer.rows,
        "saved_rows": trainer.saved_rows,
    }
    (folder / f"report_{rank}.json").write_text(json.dumps(report))
    weights = {name: value.contiguous() for name, value in trainer.student.state_dict().items()}
    save_file(weights, folder / f"weights_{rank}.safetensors")
    trainer.accelerator.end_training()


if __name__ == "__main__":
    _, place, size, kind, how, shards, share = sys.argv
    main(Path(place), int(size), kind, how == "resume", shards == "sharded", float(share))
