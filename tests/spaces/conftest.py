"""The demo's modules, and a Hub on loopback with a student, its teacher and a verification model."""

import sys
from pathlib import Path

import huggingface_hub
import huggingface_hub.constants
import numpy as np
import PIL.Image
import pytest
from toys import ToyImages, arguments, resnet


ROOT = Path(__file__).parents[2]
# A Space runs its app in the folder of its modules.
sys.path.insert(0, str(ROOT / "spaces"))

import demo_models  # noqa: E402

from headshare_hf import DistillationTrainer, HeadShareImageProcessor  # noqa: E402
from headshare_hf.hub import CardDataset, publish_folder  # noqa: E402
from headshare_hf.trainer import load_teacher, run_or_reuse  # noqa: E402
from headshare_hf.trainer.card import describe_run  # noqa: E402


NAMES = {0: "red", 1: "green", 2: "<b>blue</b>", 3: "cyan", 4: "plum", 5: "gray"}
THRESHOLDS = [
    {"far": far, "rule": "at_most", "similarity": similarity, "set": "toys", "num_impostor": 3000, "flip": True}
    for far, similarity in ((1e-2, 0.5), (1e-3, 0.999999))
]
STUDENT, TEACHER, FACES, PLAIN = "alice/student", "alice/teacher", "alice/faces", "alice/faces-plain"


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """Folders with a teacher and two verification models, with and without thresholds; ready to be published."""
    root = tmp_path_factory.mktemp("models")
    processor = HeadShareImageProcessor(size={"height": 16, "width": 16})
    models = {
        "teacher": resnet("resnet14", seed=2, num_labels=6, id2label=NAMES),
        "faces": resnet(seed=3, head_type="arcface", verification_thresholds=THRESHOLDS),
        "faces-plain": resnet(seed=4, head_type="arcface"),
    }
    for name, model in models.items():
        model.save_pretrained(root / name)
        processor.save_pretrained(root / name)
        (root / name / "README.md").write_text("---\nlicense: mit\n---\n\n# Made for a test\n")
    return root


@pytest.fixture(scope="session")
def hub(loopback_hub, folders, tmp_path_factory):
    """The Hub with all models of alice, a private and a gated one too. Tests are online and anonymous."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        patch.delenv("HF_TOKEN", raising=False)
        for name in ("teacher", "faces", "faces-plain"):
            publish_folder(folders / name, f"alice/{name}", token=loopback_hub.alice)
        publish_folder(folders / "teacher", "alice/private", private=True, token=loopback_hub.alice)
        publish_folder(folders / "teacher", "alice/gated", token=loopback_hub.alice)
        huggingface_hub.HfApi(token=loopback_hub.alice).update_repo_settings("alice/gated", gated="manual")
        _train_student(tmp_path_factory.mktemp("student")).push_to_hub(token=loopback_hub.alice)
        yield loopback_hub
    loopback_hub.clear()


def _train_student(folder):
    """A run of two steps, whose record names the teacher on the Hub."""
    trainer = DistillationTrainer(
        resnet(seed=1, num_labels=6, id2label=NAMES),
        arguments(folder, method="th_kd", max_steps=2, hub_model_id=STUDENT),
        teacher=load_teacher(TEACHER)[0],
        train_dataset=ToyImages(num_labels=6),
        eval_dataset=ToyImages(12, num_labels=6, seed=1),
        processing_class=HeadShareImageProcessor(size={"height": 16, "width": 16}),
    )
    results = run_or_reuse(trainer)
    dataset = CardDataset("Colors", "local/colors", "made for a test", {"train": 48, "test": 12})
    trainer.card = describe_run(trainer, dataset, results)
    return trainer


@pytest.fixture(autouse=True)
def forget(loopback_hub):
    """Every test loads its models itself, and failures that did not happen go with it."""
    demo_models.kept_classifier.cache_clear()
    demo_models.kept_verifier.cache_clear()
    yield
    loopback_hub.faults.clear()


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """Files: two images of different size and mode, and one that is none."""
    folder, generator = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    PIL.Image.fromarray(generator.integers(0, 256, (40, 56, 3), dtype=np.uint8)).save(folder / "noise.png")
    PIL.Image.fromarray(generator.integers(0, 256, (24, 20), dtype=np.uint8)).save(folder / "gray.png")
    (folder / "notes.png").write_bytes(b"no image at all")
    return folder
