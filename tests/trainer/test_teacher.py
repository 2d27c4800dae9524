"""The teacher sees what it was trained on, and is loaded whole or not at all."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from toys import ToyImages, arguments, resnet, vit

from headshare_hf import DistillationTrainer, HeadShareImageProcessor
from headshare_hf.trainer import load_teacher
from headshare_hf.trainer.teacher import InputAdapter, InputStatistics, input_statistics, teacher_autocast


RGB = InputStatistics((0.5, 0.4, 0.3), (0.2, 0.25, 0.3), (16, 16))


def _normalised(images, statistics):
    images = images if statistics.channel_order == "rgb" else images.flip(1)
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (statistics.mean, statistics.std))
    return (images - mean) / std


@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_input_is_normalised_as_if_for_the_teacher(order):
    images = torch.rand(2, 3, 16, 16)
    other = InputStatistics((0.1, 0.6, 0.9), (0.5, 0.1, 0.7), (16, 16), order)
    adapted = InputAdapter(RGB, other)(_normalised(images, RGB))
    torch.testing.assert_close(adapted, _normalised(images, other), rtol=1e-5, atol=1e-5)


def test_the_same_statistics_leave_the_batch_untouched():
    batch = torch.randn(2, 3, 16, 16)
    assert InputAdapter(RGB, RGB)(batch) is batch
    assert InputAdapter(None, None)(batch) is batch


def test_a_processor_that_does_not_normalise_or_rescale_otherwise_is_understood():
    plain = HeadShareImageProcessor(do_normalize=False)
    assert input_statistics(plain)[:2] == ((0.0,) * 3, (1.0,) * 3)
    raw = HeadShareImageProcessor(do_rescale=False, image_mean=[127.5] * 3, image_std=[51.0] * 3)
    assert input_statistics(raw)[:2] == ((0.5,) * 3, (0.2,) * 3)


def test_statistics_of_the_teacher_alone_are_of_no_use():
    with pytest.raises(ValueError, match="pass the student's image processor as `processing_class`"):
        InputAdapter(None, RGB)


def test_a_teacher_of_another_size_gets_its_size():
    adapter = InputAdapter(RGB, RGB._replace(size=(24, 20)))
    assert adapter(torch.randn(2, 3, 16, 16)).shape == (2, 3, 24, 20)


def test_other_channels_are_refused():
    with pytest.raises(ValueError, match="student reads 3 channels and the teacher 1"):
        InputAdapter(RGB, InputStatistics((0.5,), (0.5,)))


def test_statistics_are_read_from_processors_and_timm_configurations():
    processor = HeadShareImageProcessor(
        size={"height": 20, "width": 24}, image_mean=[0.1, 0.2, 0.3], channel_order="bgr"
    )
    found = input_statistics(processor)
    assert found.mean == (0.1, 0.2, 0.3) and found.size == (20, 24) and found.channel_order == "bgr"
    assert input_statistics(None, resnet()) is None
    timm_like = resnet()
    timm_like.config.pretrained_cfg = {"mean": [0.5] * 3, "std": [0.25] * 3, "input_size": [3, 64, 48]}
    assert input_statistics(None, timm_like) == InputStatistics((0.5,) * 3, (0.25,) * 3, (64, 48))


def test_the_trainer_feeds_the_teacher_its_own_statistics(tmp_path):
    seen = []
    teacher = vit(hidden_size=64, image_size=24, seed=3)
    teacher.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["pixel_values"]), with_kwargs=True
    )
    mine = HeadShareImageProcessor(size={"height": 16, "width": 16}, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    its = HeadShareImageProcessor(size={"height": 24, "width": 24}, image_mean=[0.0] * 3, image_std=[1.0] * 3)
    trainer = DistillationTrainer(
        resnet(),
        arguments(tmp_path, method="th_kd", max_steps=1),
        teacher=teacher,
        train_dataset=ToyImages(16),
        processing_class=mine,
        teacher_processing_class=its,
    )
    trainer.train()
    assert seen[0].shape == (16, 3, 24, 24)
    assert seen[0].mean().item() == pytest.approx(ToyImages(16).images.mean().item() * 0.5 + 0.5, abs=0.02)


def test_a_teacher_is_loaded_by_name_with_its_processor(tmp_path):
    teacher = resnet("resnet14", seed=2)
    teacher.save_pretrained(tmp_path / "teacher")
    HeadShareImageProcessor().save_pretrained(tmp_path / "teacher")
    model, processor = load_teacher(str(tmp_path / "teacher"))
    assert torch.equal(model.classifier.weight, teacher.classifier.weight)
    assert processor.image_mean == HeadShareImageProcessor().image_mean
    trainer = DistillationTrainer(
        resnet(), arguments(tmp_path / "run", method="kd", max_steps=1), teacher=str(tmp_path / "teacher"),
        train_dataset=ToyImages(16), processing_class=HeadShareImageProcessor(),
    )  # fmt: skip
    trainer.train()


def test_a_teacher_without_its_head_is_refused(tmp_path):
    vit().save_pretrained(tmp_path)
    HeadShareImageProcessor().save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = {k: v for k, v in load_file(path).items() if not k.startswith("classifier")}
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks trained values for \['classifier.bias', 'classifier.weight'\]"):
        load_teacher(str(tmp_path))


@pytest.mark.parametrize("precision, dtype", [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_the_teacher_computes_in_the_precision_asked_for(precision, dtype):
    with teacher_autocast(precision, torch.device("cpu"), None)():
        assert torch.nn.Linear(4, 2)(torch.randn(1, 4)).dtype == dtype
