"""The pass that fills a teacher cache: cut, crowded, out of room, or of a teacher that cannot be stored."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from cached_runs import cached_trainer, folders, forbid_running, second_run, train
from toys import resnet, vit

from headshare_hf.evaluation.part_folder import PartFolder
from headshare_hf.trainer import TeacherCacheError, teacher_pass, teacher_rows


TESTS = Path(__file__).parents[1]


_KILLED_WHILE_WRITING = """
import os, signal, sys
from pathlib import Path
from cached_runs import cached_trainer, folders, forbid_running, second_run, train
from headshare_hf.trainer import teacher_rows

teacher_rows._PART_IMAGES = 8
sync, calls = os.fsync, []

def killed(handle):
    calls.append(handle)
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    sync(handle)

teacher_rows.os.fsync = killed
cached_trainer(Path(sys.argv[1]) / "run", Path(sys.argv[1]) / "cache", max_steps=2).train()
"""


def test_a_pass_that_was_killed_goes_on(tmp_path, monkeypatch):
    environment = {
        **os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent / "src")]), "OMP_NUM_THREADS": "1"
    }  # fmt: skip
    done = subprocess.run([sys.executable, "-c", _KILLED_WHILE_WRITING, str(tmp_path)], env=environment)
    assert done.returncode == -signal.SIGKILL
    (folder,) = folders(tmp_path / "cache")
    assert (folder / "rows-0000000016.partial").is_file()
    kept = {path: path.stat().st_mtime_ns for path in folder.glob("rows-*.safetensors")}
    assert [path.name for path in sorted(kept)] == ["rows-0000000000.safetensors", "rows-0000000008.safetensors"]

    monkeypatch.setattr(teacher_rows, "_PART_IMAGES", 8)
    seen = []
    trainer = cached_trainer(tmp_path / "run", tmp_path / "cache", max_steps=2)
    trainer.teacher.model.base_model.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    resumed = train(trainer)
    # 24 of 40 images were left, two views each; the first batch is run twice.
    assert sum(seen) >= 48 and {path: path.stat().st_mtime_ns for path in kept} == kept
    assert len(list(folder.glob("rows-*.safetensors"))) == 5 and not list(folder.glob("*.partial"))
    assert resumed == pytest.approx(train(cached_trainer(tmp_path / "plain", None, max_steps=2)), rel=1e-6)


def test_two_runs_at_once_fill_a_cache_once(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(teacher_pass, "_WAIT_SECONDS", 0.05)
    trainer = cached_trainer(tmp_path / "run", tmp_path / "cache", max_steps=1)
    train(trainer)
    (folder,) = folders(tmp_path / "cache")
    (rows,) = folder.glob("rows-*.safetensors")
    hidden = rows.rename(tmp_path / "hidden")

    with (folder / "lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)

        def finish():
            deadline = time.monotonic() + 60
            while "another run is filling" not in caplog.text and time.monotonic() < deadline:
                time.sleep(0.05)
            hidden.rename(rows)
            fcntl.flock(other, fcntl.LOCK_UN)

        thread = threading.Thread(target=finish)
        thread.start()
        train(forbid_running(second_run(tmp_path)))
        thread.join()
    assert f"another run is filling {folder}; waiting for it" in caplog.text


def test_no_room_is_said_before_the_pass(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(teacher_pass.shutil, "disk_usage", lambda path: usage(10**9, 10**9, 100))
    with pytest.raises(TeacherCacheError, match=r"needs 0.0 MB for 2 views of 40 images of 20 bytes.* make room"):
        cached_trainer(tmp_path / "run", tmp_path / "cache").train()


def test_a_disk_that_fills_up_keeps_what_is_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(teacher_rows, "_PART_IMAGES", 8)
    save, calls = teacher_rows.save_file, []

    def full(tensors, path):
        calls.append(path)
        if len(calls) == 4:
            raise OSError(28, "No space left on device")
        save(tensors, path)

    with monkeypatch.context() as disk:
        disk.setattr(teacher_rows, "save_file", full)
        with pytest.raises(TeacherCacheError, match="No space left on device.* 3 of 5 files are whole and stay"):
            cached_trainer(tmp_path / "run", tmp_path / "cache").train()
    (folder,) = folders(tmp_path / "cache")
    assert len(list(folder.glob("rows-*"))) == 3
    plain = train(cached_trainer(tmp_path / "plain", None))
    assert train(cached_trainer(tmp_path / "again", tmp_path / "cache")) == pytest.approx(plain, rel=1e-6)


def _teacher_saying(change) -> torch.nn.Module:
    teacher = resnet("resnet14", seed=2)
    teacher.base_model.register_forward_hook(lambda module, args, output: change(output))
    return teacher


def test_outputs_that_are_not_finite_are_refused_by_image(tmp_path):
    def broken(output):
        if len(output.embeddings) == 80:
            output.embeddings[2 * 17 + 1] = float("nan")

    trainer = cached_trainer(
        tmp_path / "run", tmp_path / "cache", teacher=_teacher_saying(broken), method="th_kde", fold_teacher=False
    )
    with pytest.raises(TeacherCacheError, match=r"of image 17 of the training set \(view 1\) is not finite.* look at"):
        trainer.train()


def test_what_does_not_fit_into_float16_is_refused(tmp_path):
    def large(output):
        output.embeddings[0] = 1e5

    trainer = cached_trainer(
        tmp_path / "run",
        tmp_path / "cache",
        teacher=_teacher_saying(large),
        method="th_kde",
        teacher_cache_dtype="float16",
        fold_teacher=False,
    )
    with pytest.raises(
        TeacherCacheError, match="image 0 .*not finite as float16: .* set teacher_cache_dtype='float32'"
    ):
        trainer.train()


def test_a_teacher_that_changes_its_mind_is_refused(tmp_path):
    def noisy(output):
        output.embeddings.add_(torch.randn_like(output.embeddings))

    trainer = cached_trainer(
        tmp_path / "run", tmp_path / "cache", teacher=_teacher_saying(noisy), method="th_kde", fold_teacher=False
    )
    with pytest.raises(TeacherCacheError, match="says something else when it sees the same images again"):
        trainer.train()


def test_a_teacher_of_another_width_than_it_says_is_refused(tmp_path):
    teacher = vit(seed=2)
    trainer = cached_trainer(tmp_path / "run", tmp_path / "cache", teacher=teacher, method="kd")
    trainer.teacher.width = 7
    with pytest.raises(TeacherCacheError, match=r"outputs of shape \(80, 5\), but 7 numbers are expected"):
        trainer.train()


def test_runs_that_start_together_claim_one_folder(tmp_path):
    """Of one teacher and one set of images, as the cells of a comparison are when the teacher is there."""
    gate, errors = threading.Barrier(4), []

    def claim(folder):
        gate.wait()
        try:
            PartFolder(folder, {"teacher": "a"}, 8, 4, "outputs")
        except Exception as error:
            errors.append(error)

    for trial in range(30):
        threads = [threading.Thread(target=claim, args=[tmp_path / str(trial)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(path.name for path in (tmp_path / str(trial)).iterdir()) == ["key.json"]
    assert errors == []


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
    def unsupported(handle, how):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with pytest.raises(TeacherCacheError, match="lock cannot be locked .*; give a `teacher_cache` on another one"):
        cached_trainer(tmp_path / "run", tmp_path / "cache", max_steps=1).train()
