"""Models of the demo: from the Hub or a folder, kept in memory."""

import json
import os
import re
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from demo_errors import DemoError, in_words
from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
from huggingface_hub.errors import EntryNotFoundError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled
from huggingface_hub.utils import httpx, validate_repo_id
from PIL import Image
from transformers import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING, AutoConfig, pipeline

from headshare_hf.hub import TRAINING_FILE
from headshare_hf.models import HeadShareConfig
from headshare_hf.models.hub_cache import CONFIG_FILE
from headshare_hf.trainer.loading import load_teacher, split_revision


KEPT = 4
_REVISION = re.compile(r"[\w.+-]+(/[\w.+-]+)*")
# Its overloads know the tasks of transformers alone.
_pipeline: Any = pipeline


@dataclass(frozen=True)
class Classifier:
    """
    An image classifier, ready to use.

    Attributes:
        name (`str`): Hub id or folder.
        model (`Any`): In evaluation mode.
        processor (`Any`): Its image processor.
    """

    name: str
    model: Any
    processor: Any

    @property
    def architecture(self) -> str:
        return architecture(self.model)

    @property
    def num_parameters(self) -> int:
        return num_parameters(self.model)

    def logits(self, image: Image.Image) -> tuple[torch.Tensor, float]:
        """
        Scores `(num_labels,)` of an image in the mode RGB, and the milliseconds that the network took for them, without
        decoding and resizing.
        """
        pixels = self.processor(image, return_tensors="pt")["pixel_values"]
        started = time.perf_counter()
        with torch.inference_mode():
            logits = self.model(pixel_values=pixels).logits[0]
        return logits, 1000 * (time.perf_counter() - started)


def architecture(model: Any) -> str:
    """Name of the network, as far as its configuration says one."""
    config = model.config
    return getattr(config, "backbone", None) or getattr(config, "architecture", None) or config.model_type


def num_parameters(model: Any) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def resolve(name: str | None, folders: frozenset[str]) -> str:
    """
    What was typed, if this demo may open it: any Hub id, and the folders that it was started with.

    Raises:
        DemoError: Nothing was typed, what is no Hub id, or another folder. Visitors are not to look around on this
            machine's disk.
    """
    name = (name or "").strip()
    if not name:
        raise DemoError("No model is chosen. Give a Hub id such as `namespace/name`.")
    if name in folders:
        return name
    path, at, revision = name.partition("@")
    # The whole name too: a folder may have "@" in its name, and revisions are parts of paths in the cache.
    if name.startswith(("/", ".", "~")) or ".." in name or os.path.exists(path) or os.path.exists(name):
        raise DemoError(
            f"{name} is a folder, and this demo opens no other folders than those that it was started with."
        )
    _check_hub_id(path)
    if at and not _REVISION.fullmatch(revision):
        raise DemoError(f"{revision!r} is no revision; name a branch, a tag or a commit, as in `namespace/name@main`.")
    return name


def _check_hub_id(name: str) -> None:
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise DemoError(f"{name!r} is no Hub id; one reads `namespace/name`.") from error


def load_classifier(name: str) -> Classifier:
    """
    An image classifier of this package or any other that transformers knows. The last ones stay in memory, until the
    Hub has another commit.

    Args:
        name (`str`): As [`resolve`] returns it; `id@revision` chooses a revision.

    Raises:
        DemoError: Says why it cannot be used.
    """
    return kept_classifier(name, at_commit(name))


@lru_cache(maxsize=KEPT)
def kept_classifier(name: str, place: str) -> Classifier:
    """[`load_classifier`] of the commit in `place`."""
    with in_words(name):
        config = read_config(place)
        if type(config) not in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING:
            raise DemoError(f"{name} is a model of the kind {config.model_type!r}, which does not classify images.")
        model, processor = load_teacher(place, trust_remote_code=False)
        # The images come in float32, in whatever precision the weights are stored.
        classifier = Classifier(name, model.float().eval(), processor)
        # The first pass of a network takes longer than all others, and its time would be shown.
        classifier.logits(Image.new("RGB", (32, 32)))
    return classifier


def load_verifier(name: str) -> Any:
    """The pipeline `face-verification` of a model, kept and refused as by [`load_classifier`]."""
    return kept_verifier(name, at_commit(name))


@lru_cache(maxsize=KEPT)
def kept_verifier(name: str, place: str) -> Any:
    """[`load_verifier`] of the commit in `place`."""
    with in_words(name):
        config = read_config(place)
        if not isinstance(config, HeadShareConfig):
            raise DemoError(
                f"{name} is a model of another package (of the kind {config.model_type!r}); verification needs one "
                "that was trained with headshare_hf."
            )
        path, revision = split_revision(place)
        return _pipeline("face-verification", model=path, revision=revision, device="cpu", trust_remote_code=False)


def at_commit(name: str) -> str:
    """
    `id@commit` as the Hub has it now or, where the Hub cannot be reached, the cache; a folder as it is.

    Raises:
        DemoError: Says why there is none.
    """
    path, revision = split_revision(name)
    if Path(path).is_dir():
        return name
    with in_words(name):
        try:
            # Not by a download, which takes the cache where the Hub refuses.
            commit = get_hf_file_metadata(hf_hub_url(path, CONFIG_FILE, revision=revision)).commit_hash
        except EntryNotFoundError:
            # Who loads it says what is missing.
            return name
        except (OfflineModeIsEnabled, httpx.TransportError):
            file = hf_hub_download(path, CONFIG_FILE, revision=revision, local_files_only=True)
            commit = Path(file).parent.name
    return f"{path}@{commit}"


def read_config(name: str) -> Any:
    """The configuration alone, so that a wrong kind of model is refused before its weights are fetched."""
    path, revision = split_revision(name)
    return AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=False)


def recorded_teacher(name: str) -> str | None:
    """
    The teacher that the training record of a student names, `None` where there is no record or no teacher.

    Args:
        name (`str`): Hub id or folder of the student. Of a folder, a teacher in the folder beside it is found too.

    Raises:
        DemoError: The record cannot be read.
    """
    path, revision = split_revision(name)
    with in_words(f"The training record of {name}"):
        file = _find_record(path, revision)
        teacher = _read_teacher(file) if file else None
    beside = Path(path).parent / (teacher or "")
    return str(beside) if teacher and is_beside(path, str(beside)) else teacher


def is_beside(student: str, teacher: str) -> bool:
    """Whether both are folders, in the same one."""
    first, second = Path(student), Path(teacher)
    return first.is_dir() and second.is_dir() and second.parent == first.parent and second.name != ".."


def _find_record(path: str, revision: str | None) -> Path | None:
    if Path(path).is_dir():
        file = Path(path, TRAINING_FILE)
        return file if file.is_file() else None
    try:
        return Path(hf_hub_download(path, TRAINING_FILE, revision=revision))
    except (EntryNotFoundError, LocalEntryNotFoundError):
        return None


def _read_teacher(file: Path) -> str | None:
    """Anybody may have written this file."""
    record = json.loads(file.read_text(encoding="utf-8"))
    teacher = record.get("teacher", {}) if isinstance(record, dict) else {}
    if teacher is None:
        return None
    if not isinstance(teacher, dict) or not isinstance(teacher.get("name"), str):
        raise ValueError(f"{TRAINING_FILE} does not say under `teacher` which one it was, or that there was none")
    return teacher["name"]
