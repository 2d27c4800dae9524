"""Verification sets from every source, their images as a network reads them, and what is wrong with a source."""

import csv

import datasets
import numpy as np
import PIL.Image
import pytest
import torch
from torch.utils.data import DataLoader

from headshare_hf.data import (
    CorruptImageError,
    VerificationSet,
    collate,
    contiguous_folds,
    default_folds,
    load_verification_set,
    shared_identities,
    write_verification_bin,
)
from headshare_hf.models.image_processing_headshare import HeadShareImageProcessor


PROCESSOR = HeadShareImageProcessor(size={"height": 12, "width": 10})
PAIRS = [(0, 3, 1), (1, 4, 1), (0, 1, 0), (2, 3, 0)]


@pytest.fixture
def entries(png, pixels):
    return [{"bytes": png(pixels(number, 8 + number, 9)), "path": f"{number}.png"} for number in range(6)]


@pytest.fixture
def pairs(entries):
    index_a, index_b, same = zip(*PAIRS, strict=True)
    return VerificationSet("own", entries, index_a, index_b, same, names=list("abcabc"))


@pytest.fixture
def folder(tmp_path, make_split):
    """A folder with images of three people, two each, and `pairs.csv`."""

    def write(rows=PAIRS, columns=("index_a", "index_b", "same"), where="", drop=()):
        target = tmp_path / "set" / where
        target.mkdir(parents=True, exist_ok=True)
        make_split(6).remove_columns(list(drop)).to_parquet(target / "test-00000-of-00001.parquet")
        with open(target / "pairs.csv", "w", newline="") as file:
            csv.writer(file).writerows([columns, *rows])
        return tmp_path / "set"

    return write


@pytest.fixture
def lfw(write_images):
    """A folder as Labeled Faces in the Wild has it, with `pairs.txt` of the lines given."""
    root = write_images(*(f"{who}/{who}_{n:04d}.jpg" for who in ("Al_B", "Cy", "Di-E") for n in (1, 2, 10)))

    def write(*lines, name="pairs.txt"):
        (root / name).write_text("\n".join(lines) + "\n")
        return root

    return write


VIEW2 = ("2\t1", "Al_B\t1\t10", "Al_B\t1\tCy\t2", "Cy\t1\t2", "Di-E\t2\tCy\t1")


def test_set_knows_its_pairs(pairs):
    assert len(pairs) == 4 and pairs.is_same.tolist() == [True, True, False, False] and pairs.is_same.dtype == bool
    assert pairs.index_a.dtype == pairs.index_b.dtype == np.int64 and pairs.folds is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"is_same": [True]}, "own needs as many of each.*`index_a` 4, `index_b` 4, `is_same` 1"),
        ({"folds": [0, 1]}, "`folds` 2"),
        ({"index_a": [], "index_b": [], "is_same": []}, "at least one pair"),
        ({"names": ["a"]}, "own has 1 `names` for 6 images"),
        ({"index_b": [3, 6, 1, 3]}, "`index_b` of pair 1 of own is 6; there are 6 images"),
        ({"index_a": [0, 1, -1, 3]}, "`index_a` of pair 2 of own is -1"),
        ({"names": list("abcxbc")}, "pair 0 of own .* marked as the same, but its images 0 and 3 show 'a' and 'x'"),
        ({"names": list("aacaac")}, "pair 2 of own .* marked as two, but its images 0 and 1 show 'a' and 'a'"),
    ],
)
def test_set_refuses(change, message, entries):
    index_a, index_b, same = zip(*PAIRS, strict=True)
    fields = {"index_a": index_a, "index_b": index_b, "is_same": same, **change}
    with pytest.raises(ValueError, match=message):
        VerificationSet("own", entries, **fields)


@pytest.mark.parametrize(
    "processor", [PROCESSOR, HeadShareImageProcessor(image_mean=[0.5], image_std=[0.25])], ids=["color", "gray"]
)
def test_images_are_what_the_processor_gives(processor, pairs):
    import io

    decoded = [PIL.Image.open(io.BytesIO(entry["bytes"])) for entry in pairs.images]
    expected = processor(decoded, return_tensors="pt")["pixel_values"]
    dataset = pairs.dataset(processor)
    loader = DataLoader(dataset, batch_size=4, collate_fn=collate)
    found = torch.cat([batch["pixel_values"] for batch in loader])
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)
    assert len(dataset) == 6 and torch.equal(dataset[5]["pixel_values"], found[5])
    with pytest.raises(IndexError, match="index 6 is outside of 0 to 5"):
        dataset[6]


def test_images_at_their_own_size_are_refused(pairs):
    with pytest.raises(ValueError, match="leaves images at different sizes"):
        pairs.dataset(HeadShareImageProcessor(do_resize=False))


def test_broken_image_is_named(entries):
    broken = VerificationSet("own", [entries[0], {"bytes": b"x", "path": "b.png"}], [0], [1], [True])
    with pytest.raises(CorruptImageError, match=r"image 1 of own \(file b.png\) cannot be decoded: .*; replace it"):
        broken.dataset(PROCESSOR)[1]


@pytest.mark.parametrize("where", ["", "verification"])
def test_table_beside_parquet(where, folder, make_split):
    root = folder(where=where)
    if where:  # training images beside it
        (root / "identities").mkdir()
        make_split(9).to_parquet(root / "identities" / "train-00000-of-00001.parquet")
    for path in {root, root / where}:
        loaded = load_verification_set(path)
        assert loaded.name == "set" and len(loaded.images) == 6 and loaded.folds is None
        assert list(zip(loaded.index_a, loaded.index_b, loaded.is_same, strict=True)) == PAIRS
        assert loaded.names == list("abcabc")
        assert loaded.dataset(PROCESSOR).__getitems__(range(6))["pixel_values"].shape == (6, 3, 12, 10)
    assert load_verification_set(root, name="x").name == "x"


def test_people_from_the_names_of_images(folder):
    columns = ("index_a", "index_b", "same", "name_a", "name_b")
    names = ["a_b_0001", "c_0001", "x", "a_b_0002", "c_0002", "y_1"]
    rows = [(*pair, names[pair[0]], names[pair[1]]) for pair in [*PAIRS, (0, 5, 0)]]
    loaded = load_verification_set(folder(rows, columns, drop=["label"]))
    assert loaded.names == ["a_b", "c", "x", "a_b", "c", "y"]
    assert load_verification_set(folder(rows[:4], columns, drop=["label"])).names is None  # not of every image
    rows[2] = (0, 1, 0, "other", names[1])
    with pytest.raises(ValueError, match="line 4 of .*pairs.csv names image 0 'other', but a line before 'a_b_0001'"):
        load_verification_set(folder(rows, columns))


@pytest.mark.parametrize("values", [["p", "q", "r", "p", "q", "r"], [7, 8, 9, 7, 8, 9]])
def test_people_that_are_text_or_numbers(values, folder, make_split):
    root = folder()
    split = make_split(6).remove_columns("label").add_column("label", values)
    split.to_parquet(root / "test-00000-of-00001.parquet")
    assert load_verification_set(root).names == [str(value) for value in values]


def test_files_of_one_split_are_joined(folder, make_split):
    root = folder()
    split = make_split(6).rename_column("image", "img")
    for number in range(2):
        part = split.select(range(3 * number, 3 * number + 3))
        part.to_parquet(root / f"test-0000{number}-of-00002.parquet")
    (root / "test-00000-of-00001.parquet").unlink()
    loaded = load_verification_set(root)
    assert [entry["path"] for entry in loaded.images] == [f"{number}.png" for number in range(6)]
    (root / "train-00000-of-00001.parquet").write_bytes(b"")
    with pytest.raises(ValueError, match=r"set holds parquet files of several splits \(test, train\)"):
        load_verification_set(root)
    for file in root.glob("*.parquet"):
        file.unlink()
    with pytest.raises(ValueError, match="set holds no parquet file"):
        load_verification_set(root)


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        (PAIRS, ("index_a", "b", "same"), r"pairs.csv has no column index_b; its first line must name index_a"),
        ([], ("index_a", "index_b", "same"), "pairs.csv lists no pairs"),
        ([*PAIRS, (0, "x", 1)], None, r"column 'index_b' in line 6 of .*pairs.csv has 'x'; expected a whole number"),
        ([*PAIRS, (0, 1)], None, r"column 'same' in line 6 of .*pairs.csv has None; expected a whole number"),
        ([(0, 6, 1)], None, r"column 'index_b' in line 2 of .*pairs.csv has 6; there are 6 images"),
        ([(-1, 0, 1)], None, r"column 'index_a' in line 2 of .*pairs.csv has -1; there are"),
        ([(0, 3, 2)], None, r"column 'same' in line 2 of .*pairs.csv has 2; expected 1 or 0"),
    ],
)
def test_tables_that_are_wrong(rows, columns, message, folder):
    with pytest.raises(ValueError, match=message):
        load_verification_set(folder(rows, columns or ("index_a", "index_b", "same")))


def test_view_2_of_lfw(lfw):
    loaded = load_verification_set(lfw(*VIEW2))
    assert [entry["path"].rsplit("/", 1)[1] for entry in loaded.images] == [
        f"{stem}.jpg" for stem in ("Al_B_0001", "Cy_0001", "Di-E_0002", "Al_B_0010", "Cy_0002")
    ]
    assert loaded.names == ["Al_B", "Cy", "Di-E", "Al_B", "Cy"]
    assert loaded.index_a.tolist() == [0, 0, 1, 2] and loaded.index_b.tolist() == [3, 4, 4, 1]
    assert loaded.is_same.tolist() == [True, False, True, False] and loaded.folds.tolist() == [0, 0, 1, 1]
    assert loaded.dataset(PROCESSOR).__getitems__(range(5))["pixel_values"].shape == (5, 3, 12, 10)


def test_view_1_of_lfw_from_another_file(lfw, tmp_path):
    root = lfw("1", "Al_B 1 2", "Al_B 1 Cy 2", name="pairsDevTest.txt")
    loaded = load_verification_set(root, pairs_file=root / "pairsDevTest.txt", name="dev")
    assert loaded.name == "dev" and loaded.folds is None and loaded.is_same.tolist() == [True, False]


def test_lfw_to_bin_in_one_call(lfw, tmp_path):
    lines = [line for fold in range(10) for line in ("Al_B\t1\t2", f"Cy\t{1 + fold % 2}\tDi-E\t10")]
    root = lfw("10\t1", *lines)
    loaded = load_verification_set(write_verification_bin(tmp_path / "lfw.bin", load_verification_set(root)))
    assert len(loaded) == 20 and len(loaded.images) == 5
    first = loaded.images[loaded.index_a[0]]["bytes"]
    assert first == (root / "Al_B" / "Al_B_0001.jpg").read_bytes()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["ten folds"], "line 1 of .*pairs.txt is 'ten folds'; expected the number of folds"),
        (["0"], "line 1 of .*pairs.txt is '0'; expected"),
        (VIEW2[:4], "pairs.txt has 3 pairs, but its first line promises 4; is it cut off"),
        (
            [*VIEW2[:4], "Cy\t1\t2"],
            r"line 5 of .*pairs.txt is 'Cy\\t1\\t2'; by the first line this is a mismatched pair",
        ),
        (["1", "Al_B 1 Cy 2", "Cy 1 2"], r"line 2 of .*; by the first line this is a matched pair, `name n m`"),
        (["1", "Al_B 1 x", "Al_B 1 Cy 2"], "line 2 of .*pairs.txt has 'x' where the number of an image should be"),
    ],
)
def test_lists_of_lfw_that_are_wrong(lines, message, lfw):
    with pytest.raises(ValueError, match=message):
        load_verification_set(lfw(*lines))


def test_images_of_lfw_that_are_missing_or_twice(lfw):
    root = lfw("1", "Al_B 1 3", "Al_B 1 Cy 2")
    with pytest.raises(
        FileNotFoundError, match="pairs.txt lists the image Al_B_0003, of which there is no file below"
    ):
        load_verification_set(root)
    lfw(*VIEW2)
    (root / "Al_B" / "Al_B_0001.png").write_bytes(b"")
    with pytest.raises(
        ValueError, match=r"lists the image Al_B_0001, which may be .*0001.jpg or .*0001.png; keep one"
    ):
        load_verification_set(root)


def test_sources_that_are_none(folder, tmp_path, lfw):
    root = folder()
    with pytest.raises(FileNotFoundError, match="nowhere is neither a folder nor a .bin file"):
        load_verification_set(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="pairs.csv is neither a folder nor"):
        load_verification_set(root / "pairs.csv")
    with pytest.raises(FileNotFoundError, match="the list of pairs .*other.csv does not exist"):
        load_verification_set(root, pairs_file=root / "other.csv")
    with pytest.raises(ValueError, match="test-00000-of-00001.parquet is neither a .csv nor a .txt file"):
        load_verification_set(root, pairs_file=root / "test-00000-of-00001.parquet")
    (root / "pairs.txt").write_text("1")
    with pytest.raises(ValueError, match="pairs.csv and .*pairs.txt are both there; choose with `pairs_file`"):
        load_verification_set(root)
    for name in ("pairs.csv", "pairs.txt"):
        (root / name).unlink()
    with pytest.raises(FileNotFoundError, match=r"none of .*pairs.csv, .*pairs.csv, .*pairs.txt exists"):
        load_verification_set(root)
    (tmp_path / "a.bin").write_bytes(b"")
    with pytest.raises(ValueError, match="a.bin has its own pairs; leave out `pairs_file`"):
        load_verification_set(tmp_path / "a.bin", pairs_file="pairs.csv")


def test_column_that_holds_no_images(folder):
    root = folder()
    datasets.Dataset.from_dict({"number": [1]}).to_parquet(root / "test-00000-of-00001.parquet")
    with pytest.raises(ValueError, match="no image columns among number"):
        load_verification_set(root)


@pytest.mark.parametrize(("num_pairs", "num_folds"), [(20, 10), (27, 10), (5, 2), (7, 7)])
def test_folds_are_those_of_scikit_learn(num_pairs, num_folds):
    from sklearn.model_selection import KFold

    folds = contiguous_folds(num_pairs, num_folds)
    for number, (_, test) in enumerate(KFold(num_folds, shuffle=False).split(np.arange(num_pairs))):
        assert np.flatnonzero(folds == number).tolist() == test.tolist()


@pytest.mark.parametrize(("num_pairs", "num_folds"), [(9, 10), (5, 1)])
def test_too_few_pairs_for_folds(num_pairs, num_folds):
    with pytest.raises(ValueError, match=f"{num_pairs} pairs cannot be divided into {num_folds} folds"):
        contiguous_folds(num_pairs, num_folds)


def test_folds_of_both_kinds():
    mixed = np.arange(47) % 3 == 0
    assert np.array_equal(default_folds(mixed), contiguous_folds(47))
    ordered = np.arange(47) < 24
    folds = default_folds(ordered)
    for kind in (ordered, ~ordered):
        assert set(np.bincount(folds[kind], minlength=10)) == {2, 3} and (np.diff(folds[kind]) >= 0).all()
    assert np.array_equal(default_folds(np.ones(20, dtype=bool)), contiguous_folds(20))
    with pytest.raises(ValueError, match="9 pairs cannot be divided into 10 folds"):
        default_folds(ordered[:9])


def test_shared_identities():
    assert shared_identities(["b", "a", "c", "a"], ["c", "x", "a", "a"]) == ["a", "c"]
    assert shared_identities(["b"], ["a"]) == []


def test_people_of_lfw_may_be_links(lfw, tmp_path_factory):
    root, links = lfw(*VIEW2), tmp_path_factory.mktemp("links")
    for folder in root.iterdir():
        (links / folder.name).symlink_to(folder)
    loaded = load_verification_set(links)
    assert [entry["path"] for entry in loaded.images][:2] == [
        str(links / "Al_B" / "Al_B_0001.jpg"),
        str(links / "Cy" / "Cy_0001.jpg"),
    ]
    assert loaded.dataset(PROCESSOR).__getitems__(range(5))["pixel_values"].shape == (5, 3, 12, 10)


@pytest.mark.parametrize("stem", ["test", "train"])
def test_images_beside_the_pairs_go_before_those_of_the_folder_above(stem, folder, make_split):
    root = folder(where="verification")
    make_split(9).to_parquet(root / f"{stem}-00000-of-00001.parquet")
    loaded = load_verification_set(root)
    assert len(loaded.images) == 6 and loaded.names == list("abcabc")
    (root / "verification" / "test-00000-of-00001.parquet").unlink()
    assert len(load_verification_set(root).images) == 9
