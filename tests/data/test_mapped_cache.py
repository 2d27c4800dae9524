"""Decoded images in files: found by later runs and other processes, and never taken from where they may be wrong."""

import errno
import json
import multiprocessing
import os
import pickle
import shutil
from types import SimpleNamespace

import pytest
import torch

from headshare_hf.data import mapped_cache
from headshare_hf.data.mapped_cache import MappedImageCache


SHAPE = (3, 4, 5)
IMAGES = torch.arange(20 * 60, dtype=torch.int64).remainder(251).to(torch.uint8).view(20, *SHAPE)
ALL = torch.arange(20)
FORK = multiprocessing.get_context("fork")


def _open(folder, **key) -> MappedImageCache:
    return MappedImageCache(folder, {"images": "of a test", **key}, len(IMAGES), SHAPE)


def _load(rows: torch.Tensor) -> torch.Tensor:
    return IMAGES[rows]


def _finish(*children) -> None:
    for child in children:
        child.start()
    for child in children:
        child.join()
        assert child.exitcode == 0


def test_every_image_is_loaded_once_by_all_runs(tmp_path):
    asked = []

    def load(rows):
        asked.extend(rows.tolist())
        return _load(rows)

    for batches in ([[3, 1], [1, 5, 3]], [[5, 9], [3, 19]]):
        cache = _open(tmp_path)
        for batch in batches:
            assert torch.equal(cache.read(torch.tensor(batch), load), IMAGES[batch])
    assert asked == [3, 1, 5, 9, 19]


def test_a_checksum_is_looked_at_once_in_a_run(tmp_path, monkeypatch):
    _open(tmp_path).read(ALL, _load)
    cache = _open(tmp_path)
    cache.read(ALL, None)
    monkeypatch.setattr(mapped_cache, "_checksum", None)
    assert torch.equal(cache.read(ALL, None), IMAGES)


def test_what_is_read_is_a_copy(tmp_path):
    cache = _open(tmp_path)
    cache.read(ALL, _load).zero_()
    assert torch.equal(cache.read(ALL, None), IMAGES)


def test_a_failed_load_leaves_the_image_to_others(tmp_path):
    def fail(rows):
        raise ValueError("broken")

    cache = _open(tmp_path)
    with pytest.raises(ValueError, match="broken"):
        cache.read(ALL, fail)
    assert torch.equal(cache.read(ALL, _load), IMAGES)


def test_an_image_that_changed_on_the_disk_is_loaded_again(tmp_path):
    folder = _open(tmp_path)
    folder.read(ALL, _load)
    with (folder.folder / "images.uint8").open("r+b") as file:
        file.seek(7 * 60 + 13)
        file.write(b"\xff")
    asked = []
    found = _open(tmp_path).read(ALL, lambda rows: asked.append(rows.tolist()) or _load(rows))
    assert asked == [[7]] and torch.equal(found, IMAGES)
    assert torch.equal(_open(tmp_path).read(ALL, None), IMAGES)


@pytest.mark.parametrize("content", [bytes(4), bytes.fromhex("9d0ad96d")], ids=["black", "checksum of 0"])
def test_images_that_look_like_none_are_kept_too(content, tmp_path):
    image = torch.frombuffer(bytearray(content), dtype=torch.uint8).view(1, 1, 2, 2)
    for load in (lambda rows: image, None):
        cache = MappedImageCache(tmp_path, {}, 1, (1, 2, 2))
        assert torch.equal(cache.read(ALL[:1], load), image)


@pytest.mark.parametrize("name", ["images.uint8", "checksums.uint32"])
def test_a_file_that_was_cut_is_refused_by_name(name, tmp_path):
    folder = _open(tmp_path).folder
    size = (folder / name).stat().st_size
    os.truncate(folder / name, size - 1)
    message = rf"{folder / name} has {size - 1} bytes instead of {size}: .* delete {folder}, and its images"
    with pytest.raises(ValueError, match=message):
        _open(tmp_path)
    (folder / name).unlink()
    with pytest.raises(ValueError, match=f"{name} has 0 bytes instead of {size}"):
        _open(tmp_path)
    shutil.rmtree(folder)
    assert torch.equal(_open(tmp_path).read(ALL, _load), IMAGES)


def test_a_full_disk_is_named_and_what_is_there_stays(tmp_path, monkeypatch):
    cache, pwrite = _open(tmp_path), os.pwrite
    cache.read(ALL[:3], _load)

    def full(file, content, place):
        # The last bytes that had room, as the system writes them.
        if place == 5 * 60:
            return pwrite(file, content[:20], place)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    message = r"images.uint8 cannot be written \(No space left on device\). 3 of 20 images are there and stay"
    with pytest.raises(OSError, match=message):
        cache.read(ALL[5:9], _load)
    monkeypatch.undo()
    asked = []
    found = _open(tmp_path).read(ALL, lambda rows: asked.extend(rows.tolist()) or _load(rows))
    assert asked == ALL[3:].tolist() and torch.equal(found, IMAGES)


def test_a_write_in_pieces_is_whole(tmp_path, monkeypatch):
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, content, place: pwrite(file, content[:7], place))
    _open(tmp_path).read(ALL, _load)
    assert torch.equal(_open(tmp_path).read(ALL, None), IMAGES)


def test_no_room_is_said_before_the_first_image(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(OSError, match="for decoded images, and 0.0 MB are free; make room, give another"):
        _open(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_room_is_taken_only_as_images_come(tmp_path):
    folder = MappedImageCache(tmp_path, {}, 10_000, (3, 112, 112)).folder
    assert (folder / "images.uint8").stat().st_size == 10_000 * 3 * 112 * 112
    assert (folder / "images.uint8").stat().st_blocks * 512 < 1e6


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "cache").write_text("")
    with pytest.raises(ValueError, match="`image_cache` is the file .*cache; give a folder"):
        _open(tmp_path / "cache")


def test_other_keys_and_shapes_are_other_folders(tmp_path):
    folders = [_open(tmp_path).folder, _open(tmp_path, more=1).folder]
    folders.append(MappedImageCache(tmp_path, {"images": "of a test"}, 20, (3, 5, 4)).folder)
    folders.append(MappedImageCache(tmp_path, {"images": "of a test"}, 19, SHAPE).folder)
    assert len(set(folders)) == 4 and {folder.parent for folder in folders} == {tmp_path}
    assert json.loads((folders[1] / "key.json").read_text()) == {
        "images": "of a test",
        "more": 1,
        "shape": [20, *SHAPE],
    }


def test_two_processes_fill_one_folder_at_once(tmp_path):
    together = FORK.Barrier(2)

    def fill(rows):
        together.wait()
        cache = _open(tmp_path)
        for batch in rows.split(3):
            together.wait()
            assert torch.equal(cache.read(batch, _load), IMAGES[batch])

    _finish(*(FORK.Process(target=fill, args=(rows,)) for rows in (ALL, ALL.flip(0))))
    assert len(list(tmp_path.iterdir())) == 1
    assert torch.equal(_open(tmp_path).read(ALL, None), IMAGES)


def test_a_process_that_is_beaten_to_it_takes_the_folder_of_the_other(tmp_path, monkeypatch):
    rename = os.rename

    def late(source, target):
        monkeypatch.setattr(os, "rename", rename)
        _open(tmp_path).read(ALL, _load)
        rename(source, target)

    monkeypatch.setattr(os, "rename", late)
    assert torch.equal(_open(tmp_path).read(ALL, None), IMAGES)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_worker_that_is_sent_the_cache_maps_the_files_itself(tmp_path):
    cache = MappedImageCache(tmp_path, {}, 20, (3, 100, 100))
    images = torch.randint(0, 256, (20, 3, 100, 100), dtype=torch.uint8)
    cache.read(ALL, lambda rows: images[rows])
    sent = pickle.dumps(cache)
    assert len(sent) < 2000
    assert torch.equal(pickle.loads(sent).read(ALL, None), images)
