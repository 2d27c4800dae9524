"""Training with a teacher whose outputs are stored."""

from functools import partial
from pathlib import Path
from typing import Any

from ..evaluation.processes import on_main_process
from .evaluating import EvaluatingTrainer
from .teacher_cache import CachedTeacher, RowsCollator
from .teacher_cache_key import cache_folder, cache_key
from .teacher_pass import TeacherPass
from .teacher_rows import RowShape, TeacherRows, TeacherRowsFolder


_PRECISIONS = {"no": "float32", "bf16": "bfloat16", "fp16": "float16"}


class CachingTrainer(EvaluatingTrainer):
    """The part of [`DistillationTrainer`] that fills the teacher's cache before the training, and reads it from then on."""

    _rows: TeacherRows | None = None

    def get_train_dataloader(self) -> Any:
        """See `transformers.Trainer.get_train_dataloader`; with `teacher_cache`, batches have the teacher's outputs."""
        if not isinstance(self.teacher, CachedTeacher):
            return super().get_train_dataloader()
        if self._rows is None:
            self._rows = self._open_rows(self.teacher)
        dataset: Any = self.train_dataset
        dataset.with_index = dataset.with_view = True
        plain, self.data_collator = self.data_collator, RowsCollator(self._rows)
        try:
            return super().get_train_dataloader()
        finally:
            # Evaluation has other images.
            self.data_collator = plain

    def _open_rows(self, teacher: CachedTeacher) -> TeacherRows:
        dataset: Any = self.train_dataset
        home = next(teacher.model.parameters()).device
        shape = RowShape(len(dataset), dataset.num_views, teacher.width, self.args.teacher_cache_dtype)
        rows = TeacherPass(
            shape,
            partial(teacher.prepare, self._in_layout),
            dataset.every_view(),
            self.accelerator,
            self.args.eval_batch_size,
            self.args.dataloader_num_workers,
            not self.args.disable_tqdm,
        ).fill_and_open(on_main_process(self.accelerator, lambda: self._claim_folder(teacher, shape)))
        # The device has room for more than a teacher that is not needed there again.
        teacher.model.to(home)
        return rows

    def _claim_folder(self, teacher: CachedTeacher, shape: RowShape) -> TeacherRowsFolder:
        precision = self.args.teacher_precision
        if precision == "auto":
            precision = _PRECISIONS[self.accelerator.mixed_precision]
        key = cache_key(teacher.model, teacher.statistics, self.train_dataset, teacher.content, precision, shape)
        return TeacherRowsFolder(cache_folder(Path(str(self.args.teacher_cache)), key), key, shape)
