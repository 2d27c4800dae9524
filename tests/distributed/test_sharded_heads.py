"""Class matrices split over two processes, against one process that has them whole."""

import json
import shutil
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from processes import FOUR, ONE, TWO, launch, reports
from safetensors.torch import load_file
from toys import ToyImages, arguments, resnet, vit

from headshare_hf import DistillationTrainer, HeadShareForImageClassification
from headshare_hf.data.input_adapter import InputAdapter
from headshare_hf.trainer.split_heads import part_of_head
from headshare_hf.trainer.teacher import FrozenTeacher


WORKER = Path(__file__).with_name("sharded_heads_worker.py")
NUM_LABELS = 7


def _weights(folder: Path, rank: int = 0) -> dict[str, torch.Tensor]:
    return load_file(folder / f"weights_{rank}.safetensors")


def _assert_close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys() and found["classifier.weight"].shape[0] == NUM_LABELS
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5, msg=name)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sharded")
    launch(WORKER, ONE, folder / "one", 16, "arcface", "start", "whole", 1)
    launch(WORKER, TWO, folder / "two", 8, "arcface", "start", "sharded", 1)
    return folder


@pytest.mark.distributed
def test_each_process_holds_its_own_classes_only(runs):
    left, right = reports(runs / "two")
    assert set(left["rows"]) == {4} and set(right["rows"]) == {3}
    assert set(reports(runs / "one")[0]["rows"]) == {NUM_LABELS}


@pytest.mark.distributed
def test_only_the_main_process_gathers_a_checkpoint(runs):
    left, right = reports(runs / "two")
    assert set(left["saved_rows"]) == {NUM_LABELS} and set(right["saved_rows"]) == {3}


@pytest.mark.distributed
def test_split_classes_train_as_whole_ones(runs):
    (one,), (left, _) = reports(runs / "one"), reports(runs / "two")
    for name in ("losses", "parts", "accuracies"):
        assert left[name] == pytest.approx(one[name], rel=1e-5), name
    _assert_close(_weights(runs / "two"), _weights(runs / "one"))
    _assert_close(_weights(runs / "two", 1), _weights(runs / "one"))


@pytest.mark.distributed
def test_four_processes_equal_one(runs, tmp_path):
    """Some of which hold neither the first classes nor the last."""
    found = launch(WORKER, FOUR, tmp_path, 4, "arcface", "start", "sharded", 1)
    assert [set(report["rows"]) for report in found] == [{2}, {2}, {2}, {1}]
    (one,) = reports(runs / "one")
    for name in ("losses", "parts", "accuracies"):
        assert found[0][name] == pytest.approx(one[name], rel=1e-5), name
    for rank in (0, 3):
        _assert_close(_weights(tmp_path, rank), _weights(runs / "one"))


@pytest.mark.distributed
@pytest.mark.parametrize("head, rate", [("adaface", 1), ("linear", 1), ("arcface", 0.3)])
def test_other_heads_and_sampled_classes_too(head, rate, tmp_path):
    launch(WORKER, ONE, tmp_path / "one", 16, head, "start", "whole", rate)
    launch(WORKER, TWO, tmp_path / "two", 8, head, "start", "sharded", rate)
    (one,), (left, _) = reports(tmp_path / "one"), reports(tmp_path / "two")
    assert left["losses"] == pytest.approx(one["losses"], rel=1e-5)
    _assert_close(_weights(tmp_path / "two"), _weights(tmp_path / "one"))


@pytest.mark.distributed
def test_a_checkpoint_holds_the_whole_matrix_and_resumes_on_any_number_of_processes(runs, tmp_path):
    """Momentum included: a run that goes on without that of some classes ends elsewhere."""
    again, alone, more = ("two", TWO, 8, "sharded"), ("two", ONE, 16, "whole"), ("one", TWO, 8, "sharded")
    for number, (source, launcher, batch, sharded) in enumerate((again, alone, more, ("two", FOUR, 4, "sharded"))):
        folder = tmp_path / str(number)
        folder.mkdir()
        shutil.copytree(runs / source / "run", folder / "run")
        shutil.rmtree(folder / "run" / "checkpoint-8")
        record = json.loads((folder / "run" / "run.json").read_text())
        (folder / "run" / "run.json").write_text(json.dumps({**record, "finished": False}))
        launch(WORKER, launcher, folder, batch, "arcface", "resume", sharded, 1)
        _assert_close(_weights(folder), _weights(runs / "two"))


@pytest.mark.distributed
def test_the_saved_model_has_all_classes(runs):
    student = HeadShareForImageClassification.from_pretrained(runs / "two" / "run")
    assert torch.equal(student.classifier.weight, _weights(runs / "two")["classifier.weight"])


def test_a_part_of_the_teacher_s_classes_takes_no_memory_on_a_cpu():
    head = vit().classifier
    part = part_of_head(head, 2, 4, torch.device("cpu"))
    assert torch.equal(part.weight, head.weight[2:4]) and part.weight.data_ptr() == head.weight[2:].data_ptr()
    assert not part.weight.requires_grad and head.weight.requires_grad and len(head.weight) == 5


def test_the_whole_classifier_of_a_teacher_leaves_the_device(monkeypatch):
    """A foreign one after its first images, which show that it is the only one."""
    left = []
    monkeypatch.setattr(torch.nn.Linear, "cpu", lambda layer: left.append(layer))
    for teacher, foreign in ((vit(), True), (resnet(), False)):
        frozen = FrozenTeacher(teacher, torch.device("cpu"), InputAdapter(None, None), nullcontext, needs_logits=False)
        frozen.leave_classifier()
        assert len(left) == (0 if foreign else 2)
        for _ in range(2):
            assert frozen(torch.randn(4, 3, 16, 16)).logits is None
        assert left[-1] is teacher.classifier and len(left) == (1 if foreign else 2)


def test_options_that_need_other_ones_are_refused(tmp_path):
    data = ToyImages()
    with pytest.raises(ValueError, match="`shard_heads` needs several processes"):
        DistillationTrainer(resnet(), arguments(tmp_path, shard_heads=True), train_dataset=data)
    with pytest.raises(ValueError, match=r"`class_sample_rate` is 0.0; it must be in \(0, 1\]"):
        DistillationTrainer(resnet(), arguments(tmp_path, class_sample_rate=0.0), train_dataset=data)
    with pytest.raises(ValueError, match="`class_sample_rate` needs losses over chunks"):
        fields = {"class_sample_rate": 0.5, "chunked_losses": False}
        DistillationTrainer(resnet(), arguments(tmp_path, **fields), train_dataset=data)
    with pytest.raises(ValueError, match="`class_sample_rate` is set, but the student is a ViT"):
        DistillationTrainer(vit(), arguments(tmp_path, class_sample_rate=0.5), train_dataset=data)


@pytest.mark.parametrize(
    "name, fields",
    [
        ("max_grad_norm", {"max_grad_norm": 1.0}),
        ("fp16", {"fp16": True, "use_cpu": False}),
        ("companion: adadistill", {"method": "adadistill"}),
    ],
)
def test_what_does_not_go_together_is_refused_by_name(name, fields, tmp_path, monkeypatch):
    from transformers.training_args import ParallelMode

    from headshare_hf import DistillationConfig
    from headshare_hf.trainer.large_heads import check_sharded_heads

    monkeypatch.setattr(DistillationConfig, "parallel_mode", ParallelMode.DISTRIBUTED)
    monkeypatch.setattr(DistillationConfig, "world_size", 2)
    args = arguments(tmp_path, shard_heads=True, **{**fields, "fp16": False})
    args.fp16 = fields.get("fp16", False)
    with pytest.raises(ValueError, match=f"`shard_heads` cannot be combined with `{name}`"):
        check_sharded_heads(args)
