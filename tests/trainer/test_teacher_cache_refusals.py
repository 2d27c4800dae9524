"""What a teacher cache cannot serve is refused before the first step."""

import pytest
from cached_runs import MOMENTS, PROCESSOR, cached_trainer, drawings, images, train
from torch.utils.data import Subset, default_collate
from toys import ToyImages, arguments, resnet

from headshare_hf import DistillationTrainer
from headshare_hf.trainer import TeacherCacheError


@pytest.mark.parametrize("fields", [{"chunked_losses": False}, {"chunked_losses": None}])
def test_moments_without_chunks_are_refused(fields, tmp_path):
    with pytest.raises(
        ValueError, match="`teacher_cache_moments` is for losses over chunks of classes in one process"
    ):
        cached_trainer(tmp_path, tmp_path / "cache", teacher_cache_moments=True, **{**MOMENTS, **fields})


def test_a_batch_from_elsewhere_has_no_teacher(tmp_path):
    trainer = cached_trainer(tmp_path / "run", tmp_path / "cache")
    with pytest.raises(TeacherCacheError, match="the batch has no `teacher_rows`"):
        trainer.compute_loss(trainer.model, images().__getitems__([0, 1]))


@pytest.mark.parametrize(
    "data, message",
    [
        (
            lambda: images(augmentation="crop"),
            "needs a known number of views .*: augmentation 'crop' makes another image",
        ),
        (lambda: images(augmentation="random_resized_crop"), "set `augmentation_views`"),
        (ToyImages, "a ToyImages, does not say which views"),
        (lambda: Subset(images(), range(20)), "a Subset, does not say which views"),
    ],
)
def test_views_that_are_not_known_are_refused_at_once(data, message, tmp_path):
    with pytest.raises(TeacherCacheError, match=message):
        cached_trainer(tmp_path / "run", tmp_path / "cache", data())


def test_a_collator_of_ones_own_is_refused(tmp_path):
    with pytest.raises(TeacherCacheError, match="`data_collator` may change images"):
        DistillationTrainer(
            resnet(seed=1),
            arguments(tmp_path, method="th_kd", teacher_cache=str(tmp_path / "cache")),
            teacher=resnet("resnet14", seed=2),
            train_dataset=images(),
            processing_class=PROCESSOR,
            data_collator=default_collate,
        )


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"teacher_cache": "x"}, "`teacher_cache` has no effect: method 'plain'"),
        ({"teacher_cache": "x", "method": "inherited"}, "`teacher_cache` has no effect: method 'inherited'"),
        ({"teacher_cache_dtype": "float16", "method": "kd"}, "`teacher_cache_dtype` has no effect without"),
        ({"teacher_cache_moments": True, "method": "kd"}, "`teacher_cache_moments` has no effect without"),
        ({"teacher_cache": "x", "method": "th_kd", "teacher_cache_moments": True}, "other parts ask the teacher"),
        (
            {
                "teacher_cache": "x",
                "method": "th_kd",
                "kd_weight": 0.0,
                "teacher_cache_moments": True,
                "teacher_cache_dtype": "float16",
            },
            "rounding to float16 would show in the loss",
        ),
        ({"teacher_cache": "x", "method": "kd", "teacher_cache_dtype": "int8"}, "allowed: float32, float16"),
    ],
)
def test_options_without_effect_are_refused(fields, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        arguments(tmp_path, **fields)


def test_images_that_are_not_in_the_cache_are_refused(tmp_path):
    trainer = cached_trainer(tmp_path / "run", tmp_path / "cache", max_steps=1)
    train(trainer)
    trainer.train_dataset = images(drawings(50))
    with pytest.raises(TeacherCacheError, match="the training set gave image 4., but .* has images 0 to 39"):
        list(trainer.get_train_dataloader())
