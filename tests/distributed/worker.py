"""What every process of a distributed test runs: a short distillation, and a record of what it saw."""

import json
import sys
from pathlib import Path

from safetensors.torch import save_file
from toys import ToyImages, arguments, losses, vit

from headshare_hf import DistillationTrainer


class RecordingImages(ToyImages):
    """Remembers which images were asked for."""

    def __init__(self, length: int) -> None:
        super().__init__(length)
        self.seen: list[int] = []

    def __getitem__(self, index: int) -> dict:
        self.seen.append(index)
        return super().__getitem__(index)


def main(folder: Path, batch: int, resume: bool) -> None:
    data = RecordingImages(128)
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


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "resume")
