"""Short finished runs and models that tests publish."""

from huggingface_hub import HfApi
from toys import ToyImages, arguments, resnet

from headshare_hf import DistillationTrainer, HeadShareImageProcessor
from headshare_hf.hub import CardDataset
from headshare_hf.trainer import run_or_reuse
from headshare_hf.trainer.card import describe_run


FACE = {"head_type": "arcface", "head_scale": 16.0, "head_margin": 0.3}
CARD = "---\nlicense: mit\n---\n\nA test.\n"
DATASET = CardDataset("Colors", "local/colors", "made for a test", {"train": 48, "test": 20})


def trainer(folder, student=None, **fields) -> DistillationTrainer:
    """A trainer of a student, with a teacher that must not be published."""
    return DistillationTrainer(
        student or resnet(seed=1),
        arguments(folder, method="th_kd", max_steps=2, seed=7, **fields),
        teacher=resnet(seed=2),
        train_dataset=ToyImages(),
        eval_dataset=ToyImages(20, seed=1),
        processing_class=HeadShareImageProcessor(size={"height": 16, "width": 16}),
    )


def finish(made: DistillationTrainer) -> DistillationTrainer:
    """The run, trained and with its card."""
    results = run_or_reuse(made)
    made.card = describe_run(made, DATASET, results)
    made.create_model_card()
    return made


def push(model, repo_id: str, **options):
    """A model, published with an image processor and the smallest card."""
    processor = HeadShareImageProcessor(size={"height": 16, "width": 16})
    return model.push_to_hub(repo_id, **{"image_processor": processor, "card": CARD, **options})


def num_commits(repo_id: str, revision: str | None = None) -> int:
    return len(HfApi().list_repo_commits(repo_id, revision=revision))
