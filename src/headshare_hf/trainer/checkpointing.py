"""Runs that own their folder, and checkpoints that are whole, hold the student alone, and resume exactly."""

import json
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import Trainer
from transformers.trainer_utils import rotate_checkpoints

from ..models import LOADING_PROBLEMS
from . import run_folder
from .config import DistillationConfig
from .meter import NonFiniteLossError
from .student_module import StudentModule


class RunFolderTrainer(Trainer):
    """
    The part of [`DistillationTrainer`] that deals with its output folder.

    A checkpoint is written to a staging folder and renamed when it is complete, so that a process which is killed
    while it saves leaves the one before as the newest.
    """

    args: DistillationConfig
    identity: dict[str, Any]
    _staging: Path | None = None
    _started = 0.0
    _seconds_before = 0.0

    @property
    def folder(self) -> Path:
        """`output_dir`, which transformers fills in where it is not given."""
        return Path(str(self.args.output_dir))

    @property
    def train_seconds(self) -> float:
        """Wall time of the training in seconds, over all sessions that led to the present state."""
        return self._seconds_before + time.monotonic() - self._started

    @property
    def student(self) -> Any:
        """The model that is published: what was passed as `model`, without projector and wrappers."""
        module = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        return module.student if isinstance(module, StudentModule) else module

    @property
    def projector(self) -> nn.Module | None:
        """The training-only projector, if there is one."""
        module = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        return module.projector if isinstance(module, StudentModule) else None

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """
        As `transformers.Trainer.train`, in a folder that belongs to this run alone.

        Raises:
            RunFolderError: `output_dir` holds another run, or this one and `resume_from_checkpoint` is not set.
            NonFiniteLossError: A loss part is not finite; the last good checkpoint is kept.
        """
        if self.is_world_process_zero():
            run_folder.claim(self.folder, self.identity, bool(resume_from_checkpoint))
        self.accelerator.wait_for_everyone()
        self._started = time.monotonic()
        output = super().train(resume_from_checkpoint, *args, **kwargs)
        self._check_finite()
        return output

    def _check_finite(self) -> None:
        raise NotImplementedError

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self._check_finite()
        self._check_weights()
        staging = self.folder / run_folder.STAGING
        self._staging = staging
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self._staging = None
        self._name_best_checkpoint(staging)
        # Other processes may still be writing their random states.
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            self._publish_checkpoint(staging / f"checkpoint-{self.state.global_step}")
        self.accelerator.wait_for_everyone()

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        # A run is published once, whole and with its card, by `push_to_hub`.
        pass

    def _name_best_checkpoint(self, staging: Path) -> None:
        best = self.state.best_model_checkpoint
        if best is not None and Path(best).parent == staging:
            # transformers found the best one where it is being written, which is about to be renamed.
            self.state.best_model_checkpoint = str(self.folder / Path(best).name)

    def _check_weights(self) -> None:
        tensors = {name: t for name, t in self.student.state_dict().items() if t.is_floating_point()}
        finite = torch.stack([t.isfinite().all() for t in tensors.values()]).tolist()
        broken = [name for name, good in zip(tensors, finite, strict=True) if not good]
        if broken:
            kept = run_folder.last_checkpoint(self.folder)
            raise NonFiniteLossError(
                f"{', '.join(broken[:3])} is not finite at step {self.state.global_step}, so no checkpoint is written. "
                f"Lower the learning rate or use float32; last good checkpoint: {kept or 'none yet'}"
            )

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._staging) if self._staging is not None else super()._get_output_dir(trial)

    def _publish_checkpoint(self, staged: Path) -> None:
        target = self.folder / staged.name
        self.state.save_to_json(str(staged / "trainer_state.json"))
        if self.projector is not None:
            save_file(self.projector.state_dict(), staged / run_folder.AUXILIARY_FILE)
        run_folder.write_json(staged / run_folder.CLOCK_FILE, {"seconds": self.train_seconds})
        run_folder.publish_checkpoint(staged, target)
        rotate_checkpoints(
            output_dir=str(self.folder),
            save_total_limit=self.args.save_total_limit,
            best_model_checkpoint=self.state.best_model_checkpoint,
            use_mtime=True,
        )

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        # Only what is published: no pickled arguments, no projector.
        if not self.args.should_save:
            return
        target = output_dir or str(self.folder)
        self.student.save_pretrained(target)
        processor: Any = self.processing_class
        if processor is not None:
            processor.save_pretrained(target)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        load_weights(self.student, resume_from_checkpoint)
        if self.projector is not None:
            self.projector.load_state_dict(load_file(Path(resume_from_checkpoint) / run_folder.AUXILIARY_FILE))
        clock = Path(resume_from_checkpoint) / run_folder.CLOCK_FILE
        self._seconds_before = json.loads(clock.read_text())["seconds"] if clock.is_file() else 0.0

    def _load_best_model(self) -> None:
        seconds = self._seconds_before
        self._load_from_checkpoint(str(self.state.best_model_checkpoint))
        self._seconds_before = seconds


def load_weights(model: Any, folder: str | Path) -> None:
    """
    Reads the weights that `model.save_pretrained(folder)` wrote back into `model`.

    transformers stores some models under other names than they have in memory and renames them in `from_pretrained`
    only, so that loading the file itself would leave tensors as they are.

    Raises:
        ValueError: A tensor is missing, unexpected or of another shape; all are named.
    """
    loaded, info = type(model).from_pretrained(
        folder, config=model.config, output_loading_info=True, ignore_mismatched_sizes=True
    )
    broken = {kind: sorted(map(str, info[kind])) for kind in LOADING_PROBLEMS if info[kind]}
    if broken:
        raise ValueError(f"the checkpoint {folder} does not fit the student: {broken}")
    model.load_state_dict(loaded.state_dict())
