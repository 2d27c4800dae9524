"""What is published of how a model was trained: nothing that decides about numbers is left out."""

from dataclasses import fields

import pytest
from toys import ToyImages, arguments, resnet
from transformers import TrainingArguments

from headshare_hf import DistillationConfig, DistillationTrainer, HeadShareImageProcessor
from headshare_hf.hub import CardDataset
from headshare_hf.trainer import run_or_reuse
from headshare_hf.trainer.card import describe_options, describe_run
from headshare_hf.trainer.training_record import training_record


DATASET = CardDataset("Colors", "local/colors", "MIT", {"train": 48})
AMOUNT_TO_WEIGHTS = {
    *("ce_weight", "kd_weight", "teacher_head_weight", "teacher_head_ce_weight", "embedding_weight"),
    *("contrastive_weight", "companion_weight", "alpha_th"),
}
# A place, and three ways of computing the same sums.
CHANGE_NO_NUMBER = {"teacher_cache", "chunked_losses", "shard_heads", "fused_optimizer"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Trainer and card of a run."""
    trainer = DistillationTrainer(
        resnet(seed=1),
        arguments(tmp_path_factory.mktemp("run"), max_steps=1),
        train_dataset=ToyImages(),
        processing_class=HeadShareImageProcessor(size={"height": 16, "width": 16}),
    )
    return trainer, describe_run(trainer, DATASET, run_or_reuse(trainer), eval_split=None)


def test_every_own_field_of_the_configuration_is_recorded_or_changes_no_number(finished):
    own = {field.name for field in fields(DistillationConfig)} - {field.name for field in fields(TrainingArguments)}
    assert own - set(training_record(*finished, None)) - AMOUNT_TO_WEIGHTS == CHANGE_NO_NUMBER


@pytest.mark.parametrize(
    "name, value",
    [
        ("num_negatives", 8),
        ("negatives", "shared"),
        ("contrastive_size", 16),
        ("class_sample_rate", 0.5),
        ("teacher_cache_dtype", "float16"),
        ("teacher_cache_moments", True),
    ],
)
def test_what_was_set_is_recorded(name, value, finished, monkeypatch):
    trainer, card = finished
    monkeypatch.setattr(trainer.args, name, value)
    assert training_record(trainer, card, None)[name] == value


@pytest.mark.parametrize(
    "name, value, others",
    [
        ("class_sample_rate", 0.5, {"chunked_losses": True}),
        ("num_negatives", 8, {"method": "crd"}),
        ("negatives", "shared", {"method": "crd"}),
        ("contrastive_size", 16, {"method": "crd"}),
    ],
)
def test_the_card_names_options_that_are_not_at_their_defaults(name, value, others, tmp_path):
    assert name not in describe_options(arguments(tmp_path, **others))
    assert describe_options(arguments(tmp_path, **others, **{name: value}))[name] == value
