"""Cells in processes of their own: killed ones, those of another command, and what each has of the machine."""

import logging
import multiprocessing
import os
import threading
import time
from concurrent.futures import Future
from types import SimpleNamespace

import pytest
import torch
from filelock import FileLock
from toy_comparisons import comparison, image_folder, judging
from toys import resnet

from headshare_hf import HeadShareImageProcessor
from headshare_hf.trainer.comparison_checks import AROUND
from headshare_hf.trainer.comparison_run import (
    _VISIBLE,
    CellError,
    Share,
    _alone,
    _devices,
    _take_share,
    check_alone,
    default_jobs,
    run_cells,
)


@pytest.fixture
def found(tmp_path):
    """A row of three seeds, none of which waits for another."""
    teacher = resnet(num_labels=3)
    teacher.config.id2label = dict(enumerate("abc"))
    teacher.save_pretrained(tmp_path / "teacher")
    HeadShareImageProcessor(size={"height": 16, "width": 16}).save_pretrained(tmp_path / "teacher")
    images = image_folder(tmp_path / "images")
    return comparison(images, teacher={"name_or_path": str(tmp_path / "teacher")}, seeds=[0, 1, 2])


def _kill_the_first():
    while not multiprocessing.active_children():
        time.sleep(0.05)
    multiprocessing.active_children()[0].kill()


@pytest.mark.slow
def test_a_killed_cell_takes_no_other_with_it(found, tmp_path):
    output, reported = tmp_path / "out", []
    cells = found.cells(output, ["alone"])
    killer = threading.Thread(target=_kill_the_first, daemon=True)
    killer.start()
    with pytest.raises(CellError, match="alone/seed_.: RuntimeError: its process was ended from outside") as caught:
        run_cells(cells, output, judging(found, output), 2, lambda cell, result: reported.append(cell.name))
    assert not killer.is_alive() and len(reported) == 2 and "not started" not in str(caught.value)
    # The one that ran beside it, the one that came after it, and then the missing one.
    assert all((output / name / "cell.json").is_file() for name in reported)
    run_cells(cells, output, judging(found, output), 2, lambda cell, result: reported.append(cell.name))
    assert sorted(reported[2:]) == ["alone/seed_0", "alone/seed_1", "alone/seed_2"]


def test_a_cell_of_another_command_is_waited_for(tmp_path, caplog):
    entered = threading.Event()

    def enter():
        with _alone(tmp_path / "kd" / "seed_0", "kd/seed_0"):
            entered.set()

    (tmp_path / "kd" / "seed_0").mkdir(parents=True)
    with caplog.at_level(logging.WARNING, "headshare_hf"), FileLock(tmp_path / "kd" / "seed_0" / "cell.lock"):
        second = threading.Thread(target=enter)
        second.start()
        assert not entered.wait(0.5)
        assert "another command is training kd/seed_0; waiting for it" in caplog.text
    assert entered.wait(20)
    second.join()


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def accelerators(monkeypatch):
    """Gives this machine accelerators, and takes away what says which of them are seen."""
    for name in ("HIP_VISIBLE_DEVICES", *_VISIBLE.values()):
        # Set before, so that what a test sets is gone after it.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)

    def give(kind, count):
        found = SimpleNamespace(type=kind) if count else None
        monkeypatch.setattr(torch.accelerator, "device_count", lambda: count)
        monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: found)

    return give


def test_every_process_takes_one_accelerator_and_its_share_of_the_cores(monkeypatch, threads, accelerators):
    accelerators("cuda", 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    devices, taken = _devices(), []
    for slot in range(3):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
        _take_share(Share(slot, 3, devices))
        taken.append(os.environ["CUDA_VISIBLE_DEVICES"])
    assert taken == ["0", "1", "0"]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert torch.get_num_threads() == max(1, cores // 3)


def test_accelerators_are_counted_where_none_are_named(monkeypatch, accelerators):
    accelerators("cuda", 2)
    devices = _devices()
    assert devices == ({"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "1"}) and default_jobs() == 2
    # A process that counted them itself would see both, whatever it is told afterwards.
    monkeypatch.setattr(torch.accelerator, "device_count", None)
    _take_share(Share(1, 1, devices))
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "1"
    accelerators("cuda", 0)
    assert _devices() == () and default_jobs() == 1


@pytest.mark.parametrize(
    "kind, name", [("xpu", "ZE_AFFINITY_MASK"), ("npu", "ASCEND_RT_VISIBLE_DEVICES"), ("mlu", "MLU_VISIBLE_DEVICES")]
)
def test_every_kind_of_accelerator_is_named_by_its_own_variable(kind, name, monkeypatch, accelerators):
    accelerators(kind, 2)
    # Of the four of this machine, two are for this command.
    monkeypatch.setenv(name, "1,3")
    devices = _devices()
    assert devices == ({name: "1"}, {name: "3"}) and default_jobs() == 2 and default_jobs(on_cpu=True) == 1
    _take_share(Share(1, 1, devices))
    assert os.environ[name] == "3" and "CUDA_VISIBLE_DEVICES" not in os.environ


def test_the_variable_of_rocm_is_the_one_that_was_used(monkeypatch, accelerators):
    accelerators("cuda", 2)
    monkeypatch.setattr(torch.version, "hip", "7.0")
    assert _devices()[0] == {"CUDA_VISIBLE_DEVICES": "0"}
    # It is the stronger one there.
    monkeypatch.setenv("HIP_VISIBLE_DEVICES", "2,3")
    assert _devices() == ({"HIP_VISIBLE_DEVICES": "2"}, {"HIP_VISIBLE_DEVICES": "3"})


@pytest.mark.parametrize("kind", ["mps", "unheard of"])
def test_accelerators_that_processes_cannot_be_shown_one_of_have_one_cell_at_once(kind, accelerators):
    accelerators(kind, 2)
    assert default_jobs() == 1 and _devices() == ()
    before = dict(os.environ)
    _take_share(Share(1, 1, _devices()))
    assert dict(os.environ) == before


def test_more_accelerators_are_named_than_there_are(monkeypatch, accelerators):
    accelerators("cuda", 1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,-1")
    assert _devices() == ({"CUDA_VISIBLE_DEVICES": "0"},)


def test_copies_of_a_launcher_are_refused(monkeypatch):
    check_alone()
    monkeypatch.setenv("WORLD_SIZE", "1")
    check_alone()
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="a launcher started 2 copies of this comparison.*--jobs"):
        check_alone()


def _done(result=None, error=None):
    future = Future()
    future.set_exception(error) if error else future.set_result(result)
    return future


def test_of_what_a_cell_waits_for_only_what_is_missing_is_named(tmp_path, monkeypatch):
    def start(cell, output, judging, share):
        return _done(error=ValueError("diverged")) if cell.row == "kd" else _done({})

    monkeypatch.setattr("headshare_hf.trainer.comparison_run._start", start)
    found = comparison(tmp_path / "images")
    with pytest.raises(CellError) as caught:
        run_cells(found.cells(tmp_path), tmp_path, judging(found, tmp_path))
    assert str(caught.value).splitlines()[2:] == [
        f"{AROUND}kd/seed_0: not started, because kd/seed_0 is not finished",
        f"sh/seed_0: not started, because {AROUND}kd/seed_0 is not finished",
    ]


def test_the_teacher_that_all_wait_for_has_the_whole_machine(tmp_path, monkeypatch):
    shares = {}

    def start(cell, output, judging, share):
        shares[cell.row] = share.jobs
        return _done({})

    monkeypatch.setattr("headshare_hf.trainer.comparison_run._start", start)
    found = comparison(tmp_path / "images")
    run_cells(found.cells(tmp_path), tmp_path, judging(found, tmp_path), 2)
    assert shares == {"teacher": 1, "alone": 2, "kd": 2, f"{AROUND}kd": 2, "sh": 2}
