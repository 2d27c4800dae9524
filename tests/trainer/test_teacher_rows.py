"""Files of a teacher cache: written whole, mapped instead of loaded, and refused by name when damaged."""

import errno
import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from headshare_hf.trainer import TeacherCacheError, teacher_rows
from headshare_hf.trainer.teacher_cache_key import cache_folder
from headshare_hf.trainer.teacher_rows import RowShape, TeacherRows, TeacherRowsFolder


KEY = {"teacher": "a"}


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Parts of eight images, so that there are several."""
    monkeypatch.setattr(teacher_rows, "_PART_IMAGES", 8)


def _values(shape: RowShape) -> np.ndarray:
    numbers = np.arange(shape.images * shape.views * shape.width).reshape(shape.images, shape.views, shape.width)
    return numbers.astype(shape.dtype) / 4


def _write(folder: Path, shape: RowShape) -> TeacherRowsFolder:
    parts = TeacherRowsFolder(folder, KEY, shape)
    for part in parts.missing():
        parts.write(part, _values(shape)[part.start : part.stop])
    return parts


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("images, views", [(1, 1), (8, 2), (21, 3)])
def test_rows_come_back_in_any_order(images, views, dtype, tmp_path):
    shape = RowShape(images, views, 5, dtype)
    assert _write(tmp_path, shape).missing() == []
    index = torch.randint(0, images, (50,))
    view = torch.randint(0, views, (50,))
    found = TeacherRows(tmp_path, shape).read(index, view)
    assert found.dtype == getattr(torch, dtype)
    assert torch.equal(found, torch.from_numpy(_values(shape))[index, view])


def test_files_have_at_most_32_megabytes(monkeypatch):
    monkeypatch.undo()
    faces = RowShape(5_179_510, 2, 512, "float16")
    assert faces.row_bytes == 1024 and faces.part_images == 4096
    assert RowShape(10, 20, 2048, "float32").part_images * 20 * 2048 * 4 <= 2**25
    assert RowShape(10, 1000, 2**20, "float32").part_images == 1


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
def test_files_are_mapped_and_shared(tmp_path):
    shape = RowShape(20, 2, 5, "float32")
    _write(tmp_path, shape)
    rows = TeacherRows(tmp_path, shape)
    mapped = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if str(tmp_path) in line}
    assert mapped == {str(path) for path in tmp_path.glob("rows-*")} and len(mapped) == 3
    del rows


def test_a_worker_that_is_sent_the_rows_maps_the_files_itself(tmp_path):
    shape = RowShape(20, 2, 500, "float32")
    _write(tmp_path, shape)
    rows = TeacherRows(tmp_path, shape)
    sent = pickle.dumps(rows)
    assert len(sent) < 1000
    index, view = torch.tensor([3, 19]), torch.tensor([1, 0])
    assert torch.equal(pickle.loads(sent).read(index, view), rows.read(index, view))


def test_what_is_read_is_a_copy(tmp_path):
    shape = RowShape(4, 1, 5, "float32")
    _write(tmp_path, shape)
    rows, index, view = TeacherRows(tmp_path, shape), torch.tensor([2]), torch.tensor([0])
    rows.read(index, view).zero_()
    assert rows.read(index, view).any()


@pytest.mark.parametrize(
    "index, view, message",
    [
        ([0, 20], [0, 0], "gave image 20, but .* has images 0 to 19"),
        ([-1], [0], "gave image -1"),
        ([0], [2], "gave view 2, but .* has views 0 to 1"),
    ],
)
def test_images_and_views_outside_of_the_cache_are_refused(index, view, message, tmp_path):
    shape = RowShape(20, 2, 5, "float32")
    _write(tmp_path, shape)
    with pytest.raises(TeacherCacheError, match=message):
        TeacherRows(tmp_path, shape).read(torch.tensor(index), torch.tensor(view))


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def _other_shape(path: Path) -> None:
    save_file({"teacher": np.zeros((2, 7, 5), dtype=np.float32)}, path)


def _other_type(path: Path) -> None:
    save_file({"teacher": np.zeros((2, 8, 5), dtype=np.float16)}, path)


def _other_name(path: Path) -> None:
    save_file({"embeddings": np.zeros((2, 8, 5), dtype=np.float32)}, path)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(
    "damage, message",
    [
        (_truncate, "cannot be read"),
        (_empty, "cannot be read"),
        (_other_name, "cannot be read"),
        (_other_shape, r"has torch.float32 of shape \(2, 7, 5\) instead of float32 of shape \(2, 8, 5\)"),
        (_other_type, "has torch.float16 of shape"),
    ],
)
def test_a_damaged_file_is_named_with_the_remedy(damage, message, tmp_path):
    shape = RowShape(20, 2, 5, "float32")
    parts = _write(tmp_path, shape)
    path = tmp_path / "rows-0000000008.safetensors"
    damage(path)
    with pytest.raises(TeacherCacheError, match=f"{path} {message}.*; delete this file, and its rows are made anew"):
        TeacherRows(tmp_path, shape)
    path.unlink()
    assert parts.missing() == [range(8, 16)]
    _write(tmp_path, shape)
    TeacherRows(tmp_path, shape)


def test_a_file_that_this_process_does_not_see_is_named(tmp_path):
    shape = RowShape(20, 2, 5, "float32")
    _write(tmp_path, shape)
    (tmp_path / "rows-0000000016.safetensors").unlink()
    with pytest.raises(TeacherCacheError, match="rows-0000000016.safetensors does not exist.* all machines share"):
        TeacherRows(tmp_path, shape)


def test_another_key_and_a_damaged_one_are_refused(tmp_path):
    shape = RowShape(20, 2, 5, "float32")
    _write(tmp_path, shape)
    with pytest.raises(ValueError, match="holds teacher outputs of something else: teacher is 'a' there and 'b' now"):
        TeacherRowsFolder(tmp_path, {"teacher": "b"}, shape)
    with pytest.raises(ValueError, match="rows_per_file is 8 there and 1 now"):
        TeacherRowsFolder(tmp_path, KEY, shape._replace(width=2**24))
    (tmp_path / "key.json").write_text('{"teacher":')
    with pytest.raises(ValueError, match="key.json is damaged .*; delete its folder"):
        TeacherRowsFolder(tmp_path, KEY, shape)
    (tmp_path / "key.json").unlink()
    with pytest.raises(ValueError, match="has teacher outputs but no key.json"):
        TeacherRowsFolder(tmp_path, KEY, shape)


def test_a_full_disk_loses_nothing(tmp_path, monkeypatch):
    shape = RowShape(20, 2, 5, "float32")
    parts = TeacherRowsFolder(tmp_path, KEY, shape)
    first, second, _ = parts.missing()
    parts.write(first, _values(shape)[:8])

    def full(tensors, path):
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(teacher_rows, "save_file", full)
        with pytest.raises(TeacherCacheError, match="No space left on device.* 1 of 3 files are whole and stay"):
            parts.write(second, _values(shape)[8:16])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["key.json", "rows-0000000000.safetensors"]
    _write(tmp_path, shape)
    assert TeacherRows(tmp_path, shape).read(torch.tensor([15]), torch.tensor([1]))[0, 0] == _values(shape)[15, 1, 0]


_LIMITED = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from headshare_hf.trainer.teacher_rows import RowShape, TeacherCacheError, TeacherRowsFolder
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
shape = RowShape(100, 1, 1000, "float32")
parts = TeacherRowsFolder(Path(sys.argv[1]), {}, shape)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    parts.write(range(100), np.zeros((100, 1, 1000)))
except TeacherCacheError as error:
    sys.stdout.write(str(error))
"""


def test_a_write_that_the_system_refuses_is_reported(tmp_path):
    environment = {"PYTHONPATH": str(Path(__file__).parents[2] / "src"), "OMP_NUM_THREADS": "1", "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", _LIMITED, str(tmp_path)], env=environment, capture_output=True, text=True, check=True
    )
    assert "cannot be written" in done.stdout and "0 of 1 files are whole" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["key.json"]


def test_folders_are_named_by_their_key(tmp_path, caplog):
    shape = RowShape(20, 2, 5, "float32")
    one, other = (cache_folder(tmp_path, {"teacher": name, "images": 20}) for name in ("a", "b"))
    assert one.parent == other.parent == tmp_path and one != other
    assert one == cache_folder(tmp_path, {"images": 20, "teacher": "a"})
    TeacherRowsFolder(one, {"teacher": "a", "images": 20}, shape)
    with caplog.at_level("INFO"):
        assert cache_folder(tmp_path, {"teacher": "b", "images": 20}) == other
    assert f"{one} is of another teacher or data set: teacher is 'a' there and 'b' now" in caplog.text
    assert cache_folder(one, {"teacher": "b"}) == one
    assert json.loads((one / "key.json").read_text())["rows_per_file"] == 8


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "cache").write_text("")
    with pytest.raises(TeacherCacheError, match="`teacher_cache` is the file .*cache; give a folder"):
        cache_folder(tmp_path / "cache", KEY)
