"""Publishing a run: from the trainer, or later from its folder."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

from huggingface_hub.utils import validate_repo_id

from ..hub import CARD_FILE, TRAINING_FILE, CardFields, Publication, add_results, publish_folder, render_card
from ..hub.card_measured import add_kept_results
from . import run_folder
from .checkpointing import RunFolderTrainer
from .training_record import training_record


class PublishingTrainer(RunFolderTrainer):
    """
    The part of [`DistillationTrainer`] that deals with the Hub.

    Of `TrainingArguments`, `hub_model_id` (default: the name of `output_dir`), `hub_private_repo`, `hub_token` and
    `hub_revision` are used. A run is published whole, at its end: see [`DistillationConfig`] for what is refused.
    """

    card: CardFields | None = None
    # What `training_config.json` says of the data beside the card.
    data_settings: dict[str, Any] | None = None

    def init_hf_repo(self, *args: Any, **kwargs: Any) -> None:
        """As `transformers.Trainer.init_hf_repo`; a wrong `hub_model_id` is refused before anything is sent."""
        validate_repo_id(self._own_repo_id())
        super().init_hf_repo(*args, **kwargs)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """
        Writes the card of this run, [`CardFields`] in `card`, and `training_config.json` to the output folder.

        Raises:
            ValueError: `card` is not set: data, license and results cannot be guessed.
        """
        if not self.is_world_process_zero():
            return
        if self.card is None:
            raise ValueError(
                "set `trainer.card` before the model is published, e.g. to `describe_run(trainer, dataset, results)` "
                f"of headshare_hf.trainer, or write a {CARD_FILE} into {self.folder}"
            )
        self._write_card(self.card, self.folder)

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """
        Publishes the student as it is now: see [`publish_folder`] for what is sent and how.

        The card is `trainer.card` or, where that is not set, the `README.md` of the output folder.

        Args:
            commit_message (`str`, *optional*): Of the commit.
            blocking (`bool`, *optional*, defaults to `True`): Only `True` is supported.
            token (`str`, *optional*): In place of `hub_token`.
            revision (`str`, *optional*): Branch, in place of `hub_revision`.
            private (`bool`, *optional*): In place of `hub_private_repo`.
            kwargs: None; those of `transformers.Trainer` fill in a card that is not ours.

        Returns:
            [`Publication`], or `None` in every process but the main one.

        Raises:
            ValueError: There is no card, or as [`publish_folder`].
        """
        if not blocking or kwargs:
            raise ValueError(
                f"`push_to_hub` does not take {', '.join(kwargs) or '`blocking=False`'}; what the card says is set in "
                "`trainer.card`, and the upload is waited for"
            )
        student = self.whole_student()
        if not self.is_world_process_zero():
            return None
        with tempfile.TemporaryDirectory() as staging:
            self._stage(Path(staging), student)
            return publish_folder(
                staging,
                self.hub_model_id or self._own_repo_id(),
                private=self.args.hub_private_repo if private is None else private,
                revision=revision or self.args.hub_revision,
                message=commit_message or "End of training",
                token=token or self.args.hub_token,
                source=self.folder,
            )

    def _stage(self, staging: Path, student: Any) -> None:
        """Writes what is published into an empty folder, and leaves that of the run as it is."""
        # Before the card, which tells results of these very weights.
        self._write_student(student, str(staging))
        own = self.folder / CARD_FILE
        if self.card is not None:
            self._write_card(self.card, staging)
        elif own.is_file():
            for path in (own, self.folder / TRAINING_FILE):
                if path.is_file():
                    shutil.copyfile(path, staging / path.name)
        else:
            # Raises what is to be done.
            self.create_model_card()

    def _write_card(self, card: CardFields, folder: Path) -> None:
        render_card(card).save(folder / CARD_FILE)
        add_kept_results(self.folder, folder / CARD_FILE)
        run_folder.write_json(folder / TRAINING_FILE, training_record(self, card, self.data_settings))

    def _own_repo_id(self) -> str:
        return self.args.hub_model_id or self.folder.absolute().name


def publish_run(folder: str | Path, repo_id: str, results: str | Path | None = None, **options: Any) -> Publication:
    """
    Publishes the folder of a finished run.

    Args:
        folder (`str` or `Path`): The run's `output_dir`; of SH-KD, that of one of its runs.
        repo_id, options: As [`publish_folder`] takes them.
        results (`str` or `Path`, *optional*): The `results.json` of [`run_verification`] of this model, which
            [`add_results`] first adds to the card in the folder.

    Returns:
        [`Publication`]

    Raises:
        FileNotFoundError: There are no such results.
        ValueError: The folder is not that of a finished run or has no training configuration, or as [`publish_folder`]
            and [`add_results`].
    """
    folder = Path(folder)
    if run_folder.read_run(folder) is None:
        inner = sorted(path.parent.name for path in folder.glob(f"*/{run_folder.RUN_FILE}"))
        hint = f"; runs in it: {', '.join(inner)}" if inner else ""
        raise ValueError(f"{folder} is not the folder of a run, it has no {run_folder.RUN_FILE}{hint}")
    if not run_folder.is_finished(folder):
        raise ValueError(
            f"the run in {folder} is not finished; the command that started it goes on with it, in Python `run_or_reuse`"
        )
    if not (folder / TRAINING_FILE).is_file():
        raise ValueError(
            f"{folder} has no {TRAINING_FILE}; the command that trained it writes it, without training again; in Python set "
            "`trainer.card = describe_run(trainer, dataset, results)` and call `trainer.create_model_card()`"
        )
    if results is not None:
        add_results(folder, results)
    return publish_folder(folder, repo_id, **options)
