"""What every process of a distributed test of the teacher cache runs: a short distillation that fills it."""

import json
import sys
from pathlib import Path

from cached_runs import cached_trainer, drawings, images
from toys import losses, vit

from headshare_hf.trainer import teacher_rows


def main(folder: Path, batch: int, broken: bool) -> None:
    # So that the images have several parts, and that no process has a full last batch.
    teacher_rows._PART_IMAGES = 12
    # Without batch statistics, so that half a batch is computed as in the whole one.
    student, teacher = vit(seed=1), vit(seed=2)
    seen: list[int] = []
    teacher.vit.register_forward_hook(lambda module, args, output: seen.append(len(output[0])))
    if broken:
        teacher_rows.save_file = _fail
    trainer = cached_trainer(
        folder / "run",
        folder / "cache",
        images(drawings(40)),
        teacher,
        student,
        per_device_train_batch_size=batch,
        per_device_eval_batch_size=6,
        method="th_kde",
        num_train_epochs=2,
    )
    trainer.train()
    rank = trainer.args.process_index
    report = {"losses": losses(trainer), "views": sum(seen), "processes": trainer.accelerator.num_processes}
    (folder / f"report_{rank}.json").write_text(json.dumps(report))
    trainer.accelerator.end_training()


def _fail(tensors: dict, path: Path) -> None:
    raise OSError(28, "No space left on device")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:] == ["broken"])
