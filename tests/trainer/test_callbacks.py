"""Callbacks of the trainer stand beside what transformers does, and change none of it."""

import pytest
from toys import ToyImages, arguments, noise_pairs, resnet

from headshare_hf import DistillationTrainer, HeadShareImageProcessor
from headshare_hf.evaluation import Verifier
from headshare_hf.trainer import HeadSimilarityCallback


@pytest.mark.parametrize("callback", ["similarity", "verification"])
def test_the_loss_of_an_epoch_is_logged_beside_what_callbacks_log(callback, tmp_path):
    processor = HeadShareImageProcessor(size={"height": 16, "width": 16})
    trainer = DistillationTrainer(
        resnet(),
        arguments(tmp_path, method="kd", num_train_epochs=2, logging_strategy="epoch"),
        teacher=resnet(seed=1),
        train_dataset=ToyImages(),
        verifier=Verifier([noise_pairs()], processor) if callback == "verification" else None,
    )
    if callback == "similarity":
        trainer.add_callback(HeadSimilarityCallback(trainer, trainer.teacher.model))
    trainer.train()
    assert [row["epoch"] for row in trainer.state.log_history if "loss" in row] == [1.0, 2.0]
    key = "head_cosine_mean" if callback == "similarity" else "eval_noise_accuracy"
    assert [row["epoch"] for row in trainer.state.log_history if key in row] == [1.0, 2.0]
