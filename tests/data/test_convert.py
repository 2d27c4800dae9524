import io
import os
import resource
import signal

import datasets
import pytest
from processes import run_python
from record_bytes import MAGIC
from tqdm.auto import tqdm

from headshare_hf.data import CorruptImageError, conversion, load_images
from headshare_hf.data import convert as convert_module
from headshare_hf.data.conversion import class_folders
from headshare_hf.data.convert import convert, main
from headshare_hf.data.images import DatasetImages, as_images


@pytest.fixture
def photos(tmp_path, png, pixels):
    """Folder of 50 images of three classes: PNG and JPEG, one of them long, one with RecordIO's magic number inside."""
    for number in range(50):
        kind = ("PNG", "JPEG")[number % 2]
        content = png(pixels(number, 90 if number == 7 else 8, 90 if number == 7 else 8), kind=kind)
        # Bytes behind the end of the image do no harm. Header and image start at multiples of four.
        content += bytes(-len(content) % 4) + MAGIC + b"tail" if number == 9 else b""
        path = tmp_path / "photos" / ("ant", "bee", "cat")[number % 3] / f"{number}.{kind.lower()}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "photos"


@pytest.fixture
def small_steps(monkeypatch):
    """Makes 50 images many shards and batches."""
    for name, value in (("_BATCH", 4), ("_ROWS_PER_SHARD", 12), ("_ROWS_PER_SYNC", 8)):
        monkeypatch.setattr(conversion, name, value)


def _content(source, split="train"):
    """Encoded images and classes, in order."""
    images = as_images(load_images(source, split))
    entries = images.entries(range(len(images)))
    encoded = [open(e["path"], "rb").read() if e["bytes"] is None else e["bytes"] for e in entries]
    return list(zip(encoded, images.labels.tolist(), strict=True))


def _files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_round_trip_keeps_every_byte(photos, tmp_path, small_steps):
    expected = _content(photos)
    source = photos
    for step, to in enumerate(("rec", "parquet", "folder", "parquet", "rec", "folder")):
        out = tmp_path / f"{step}-{to}"
        assert convert(source, out, to) == 50
        assert _content(out) == expected
        source = out
    assert len(list((tmp_path / "1-parquet").glob("train-*-of-00005.parquet"))) == 5
    assert (tmp_path / "0-rec" / "property").read_text() == "3,8,8"
    images = [path.suffix for path in (tmp_path / "2-folder").rglob("*") if path.suffix in (".jpg", ".png")]
    assert sorted(images) == [".jpg"] * 25 + [".png"] * 25


def test_class_names_are_kept_where_the_form_has_names(photos, tmp_path):
    convert(photos, tmp_path / "parquet", "parquet")
    convert(tmp_path / "parquet", tmp_path / "folder", "folder")
    for form in ("parquet", "folder"):
        assert load_images(tmp_path / form, "train").features["label"].names == ["ant", "bee", "cat"]
    table = datasets.Dataset.from_parquet(str(tmp_path / "parquet" / "train-00000-of-00001.parquet"))
    assert table.features["image"] == datasets.Image() and table[0]["image"].size == (8, 8)


@pytest.mark.parametrize(
    ("names", "folders"),
    [
        (["ant", "bee"], ["ant", "bee"]),
        (["LABEL_0", "LABEL_1"], ["LABEL_0", "LABEL_1"]),
        ([f"LABEL_{number}" for number in range(11)], [f"{number:02d}" for number in range(11)]),
        (["tench, Tinca", "ant", "n/a"], ["0 tench, Tinca", "1 ant", "2 n-a"]),
        (["a/b", "c"], ["0 a-b", "1 c"]),
        ([".hidden", "c"], ["0 .hidden", "1 c"]),
    ],
)
def test_folders_are_read_back_in_the_order_of_the_classes(names, folders):
    assert class_folders(names) == folders and sorted(folders) == folders


@pytest.mark.parametrize("to", ["rec", "parquet", "folder"])
def test_killed_conversion_goes_on_where_it_stopped(to, photos, tmp_path, small_steps, monkeypatch):
    whole, out = tmp_path / "whole", tmp_path / "out"
    convert(photos, whole, to)
    child = os.fork()
    if child == 0:
        calls, entries = [], DatasetImages.entries

        # The first four calls are for the fingerprint.
        def die_at_the_thirteenth(self, rows):
            calls.append(rows)
            if len(calls) == 13:
                os.kill(os.getpid(), signal.SIGKILL)
            return entries(self, rows)

        DatasetImages.entries = die_at_the_thirteenth
        convert(photos, out, to)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert not (out / "train.rec").exists()
    if to == "folder":
        (out / "train" / "bee" / ".00000020.jpg.1.partial").write_bytes(b"half of it")
    bars: list[tqdm] = []
    visible = {"disable": False, "file": io.StringIO()}
    monkeypatch.setattr(convert_module, "tqdm", lambda **kw: bars.append(tqdm(**{**kw, **visible})) or bars[-1])
    written = convert(photos, out, to)
    assert 18 <= written <= 34 and bars[0].total == bars[0].n == 50
    assert _files(out) == _files(whole)
    assert convert(photos, out, to) == 0


@pytest.mark.parametrize("to", ["rec", "parquet"])
def test_full_disk_loses_nothing_that_is_written(to, photos, tmp_path, small_steps):
    whole, out = tmp_path / "whole", tmp_path / "out"
    convert(photos, whole, to)
    size = max(path.stat().st_size for path in whole.iterdir())
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size - 3000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            convert(photos, out, to)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert 0 < convert(photos, out, to) < 50
    assert _files(out) == _files(whole)


def test_records_that_the_disk_forgot_are_written_again(photos, tmp_path, small_steps):
    whole, out = tmp_path / "whole", tmp_path / "out"
    convert(photos, whole, "rec")
    convert(photos, out, "rec")
    record, index = (out / f"train.{kind}" for kind in ("rec", "idx"))
    lines = index.read_text().splitlines(keepends=True)
    # The index is ahead of its file by two records and a piece, and ends in half a line.
    end = int(lines[20].split("\t")[1]) + 11
    record.rename(out / "train.rec.partial")
    os.truncate(out / "train.rec.partial", end)
    index.unlink()
    (out / "train.idx.partial").write_text("".join(lines[:22]) + lines[22][:2])
    assert convert(photos, out, "rec") == 30
    assert _files(out) == _files(whole)


def test_end_between_the_names_of_both_files(photos, tmp_path):
    out = tmp_path / "out"
    convert(photos, out, "rec")
    files = _files(out)
    (out / "train.idx").rename(out / "train.idx.partial")
    assert convert(photos, out, "rec") == 0
    assert _files(out) == files


def test_file_that_is_missing_at_the_source(photos, tmp_path, small_steps):
    path = sorted((photos / "cat").iterdir())[3]
    content = path.read_bytes()
    path.unlink()
    path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=path.name):
        convert(photos, tmp_path / "out", "rec")
    path.unlink()
    path.write_bytes(content)
    assert 0 < convert(photos, tmp_path / "out", "rec") < 50
    assert _content(tmp_path / "out") == _content(photos)


def test_row_without_an_image(make_split, write_folder, tmp_path_factory):
    images = make_split()["image"][:]
    images[5] = None
    source = write_folder({"train": make_split(image=images)})
    with pytest.raises(CorruptImageError, match="row 5 of split 'train' has no image; remove it from the source"):
        convert(source, tmp_path_factory.mktemp("out"), "parquet")
    images[5] = {"bytes": b"what is this", "path": None}
    write_folder({"train": make_split(image=images)})
    with pytest.raises(
        CorruptImageError, match="row 5 begins with the bytes 7768617420697320, which is no known kind"
    ):
        convert(source, tmp_path_factory.mktemp("out"), "folder")


def test_several_splits_in_one_folder(make_split, write_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    source = write_folder({"train": make_split(), "test": make_split(6)})
    for to in ("rec", "parquet", "folder"):
        for split in ("train", "test"):
            convert(source, out / to, to, split)
        # A folder is read class by class.
        assert sorted(_content(out / to, "test")) == sorted(_content(source, "test"))
    (source / "train-00000-of-00001.parquet").unlink()
    (source / "test-00000-of-00001.parquet").unlink()
    other = write_folder({"validation": make_split(6, names=("a", "b"))})
    with pytest.raises(ValueError, match="property says '3,32,32', but the images are '2,32,32'"):
        convert(other, out / "rec", "rec", "validation")


def test_targets_that_hold_something_else(photos, tmp_path, make_split, write_folder):
    for folder in (photos, photos / "rec"):
        with pytest.raises(ValueError, match="is or lies in the source, .*photos; choose another folder"):
            convert(photos, folder, "rec")
    out = tmp_path / "out"
    convert(photos, out, "rec")
    with pytest.raises(ValueError, match="holds split 'train' of other images or in another form; choose another"):
        convert(photos, out, "parquet")
    (sorted((photos / "cat").iterdir())[0]).unlink()
    with pytest.raises(ValueError, match="holds split 'train' of other images"):
        convert(photos, out, "rec")
    for name in ("train.rec", "train-00000-of-00001.parquet"):
        (tmp_path / f"own-{name}").mkdir()
        (tmp_path / f"own-{name}" / name).write_bytes(b"mine")
        with pytest.raises(ValueError, match=f"{name} exists and was not written by this command"):
            convert(photos, tmp_path / f"own-{name}", "rec")


@pytest.mark.parametrize("to", ["rec", "parquet", "folder"])
def test_other_images_of_the_same_classes_are_not_those_that_were_written(to, photos, tmp_path, png, pixels):
    out = tmp_path / "out"
    convert(photos, out, to)
    before = _files(out)
    for number, path in enumerate(sorted(photos.glob("*/*.png"))):
        path.write_bytes(png(pixels(1000 + number, 8, 8)))
    with pytest.raises(ValueError, match="holds split 'train' of other images or in another form; choose another"):
        convert(photos, out, to)
    assert _files(out) == before


def _run(*arguments):
    return run_python("-m", "headshare_hf.data.convert", *arguments, check=False)


@pytest.mark.slow
def test_command(photos, tmp_path):
    out = tmp_path / "out"
    done = _run(photos, out, "--to", "rec")
    assert done.returncode == 0 and f"wrote 50 images to {out}" in done.stderr
    wrong = _run(photos, out, "--to", "folder")
    assert wrong.returncode == 1 and "choose another folder" in wrong.stderr and "Traceback" not in wrong.stderr
    assert "What is written stays" in wrong.stderr


def test_index_command(photos, tmp_path):
    out = tmp_path / "out"
    assert main([str(photos), str(out), "--to", "rec"]) == f"wrote 50 images to {out}"
    assert main([str(photos), str(out), "--to", "rec"]) == f"{out} was finished already; nothing to do"
    index = out / "train.idx"
    right = index.read_text()
    assert main(["index", str(out / "train.rec")]) == f"{index} is right already"
    index.unlink()
    assert main(["index", str(out / "train.rec")]) == f"wrote {index}" and index.read_text() == right


def test_usage(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "index FILE.rec" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["source", "out"])
    assert "--to" in capsys.readouterr().err
