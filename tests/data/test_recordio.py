import os
import pickle
import random
import struct
from pathlib import Path

import numpy as np
import pytest
from record_bytes import MAGIC, part, write_index, write_parts

from headshare_hf.data.record_index import read_index
from headshare_hf.data.recordio import RecordError, RecordFile, encode_record, rebuild_index


def test_records_of_any_length_are_read_in_any_order(tmp_path):
    contents = [bytes([number]) * number for number in range(9)] + [b"x" * 50_001]
    path = tmp_path / "train.rec"
    offsets = write_parts(path, [part(content) for content in contents])
    records = RecordFile(path)
    assert len(records) == 10 and records.offsets.tolist() == offsets
    for row in random.Random(0).sample(range(10), 10):
        assert records.read(row) == contents[row]
    assert records.select([9, 3]).read(1) == contents[3]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"12345", part(b"12345")),
        (b"", part(b"")),
        # Cut where the magic number stands at a multiple of four bytes, and left alone elsewhere.
        (b"abcd" + MAGIC + b"ef", part(b"abcd", 1) + part(b"ef", 3)),
        (b"abc" + MAGIC + b"def", part(b"abc" + MAGIC + b"def")),
        (MAGIC, part(b"", 1) + part(b"", 3)),
        (MAGIC + MAGIC + b"abcd" + MAGIC + b"e", part(b"", 1) + part(b"", 2) + part(b"abcd", 2) + part(b"e", 3)),
        (b"ab" + MAGIC + b"cd" + MAGIC, part(b"ab" + MAGIC + b"cd", 1) + part(b"", 3)),
    ],
)
def test_magic_number_in_the_content(content, expected, tmp_path):
    assert encode_record(content) == expected
    path = tmp_path / "train.rec"
    write_parts(path, [expected, part(b"next")])
    records = RecordFile(path)
    assert records.read(0) == content and records.read(1) == b"next"


def test_random_contents_full_of_magic_numbers(tmp_path):
    draw = random.Random(1)
    contents = [b"".join(draw.choices([MAGIC, b"a", b"bc", b"defg"], k=draw.randrange(30))) for _ in range(200)]
    path = tmp_path / "train.rec"
    write_parts(path, [encode_record(content) for content in contents])
    records = RecordFile(path)
    assert [records.read(row) for row in range(200)] == contents


def test_record_that_is_too_long():
    class Long(bytes):
        def __len__(self):
            return 1 << 29

    with pytest.raises(ValueError, match="a record of 536870912 bytes does not fit into RecordIO"):
        encode_record(Long())


@pytest.fixture
def three(tmp_path):
    """Path of a file with the records b"first", b"second" in two parts and b"third"."""
    path = tmp_path / "train.rec"
    write_parts(path, [part(b"first"), part(b"seco", 1) + part(b"nd", 3), part(b"third")])
    return path


def test_truncated_record_is_named(three):
    whole = three.read_bytes()
    # In the data, in the word of the length, and at the very end of the file.
    for size in (len(whole) - 4, len(whole) - 11):
        three.write_bytes(whole[:size])
        records = RecordFile(three)
        assert records.read(0) == b"first"
        with pytest.raises(RecordError, match=f"record 2 of .*train.rec is truncated: .* the file has {size} bytes"):
            records.read(2)
        with pytest.raises(RecordError, match="record 2 of .*train.rec is truncated"):
            rebuild_index(three)
    three.write_bytes(whole[:-16])
    with pytest.raises(RecordError, match="record 2 of .* should start at byte 40, but the file has 40 bytes"):
        RecordFile(three).read(2)


def test_record_that_loses_its_second_part_is_named(three):
    three.write_bytes(three.read_bytes()[:28])
    with pytest.raises(RecordError, match="record 1 of .* should start at byte 28, but the file has 28 bytes"):
        RecordFile(three).read(1)


def test_flipped_bit_is_named(three):
    content = bytearray(three.read_bytes())
    content[40] ^= 1
    three.write_bytes(content)
    with pytest.raises(
        RecordError, match="record 2 of .*: no record starts at byte 40 .the bytes there are 0b23d7ce05"
    ):
        RecordFile(three).read(2)
    with pytest.raises(RecordError, match="record 2 of .*: no record starts at byte 40"):
        rebuild_index(three)


@pytest.mark.parametrize(
    ("offset", "message"),
    [
        (20, "record 1 of .*: no record starts at byte 20"),
        (28, "record 1 of .*: no record starts at byte 28"),  # the second part of a record
        (-4, "record 1 of .* should start at byte -4, but the file has 56 bytes"),
        (10**13, "record 1 of .* should start at byte 10000000000000, but .* rebuild its index with `python -m"),
    ],
)
def test_wrong_offset_is_named(offset, message, three):
    write_index(three, {0: 0, 1: offset})
    with pytest.raises(RecordError, match=message):
        RecordFile(three).read(1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0\t0\n1\t16\nbroken\n", "line 3 of .*train.idx is b'broken' instead of a number, a tab and an offset"),
        ("0\t0\n1\n2\t40\n", "line 2 of .*train.idx is b'1' instead"),
        ("0\t0\n1\t1.5\n", "line 2 of .*train.idx is b'1\\\\t1.5'"),
        ("0\t0\n1\t\n", "line 2 of"),
        ("0\t0\n\n1\t16\n", "line 2 of .*train.idx is b''"),
        ("0\t0\n1\t16\t3\n", "line 2 of"),
        ("0\t99999999999999999999\n", "train.idx holds a number above"),
        ("0\t0\n7\t16\n7\t40\n", "train.idx has two lines for record 7"),
        ("", "train.idx is empty; build it with `python -m headshare_hf.data.convert index .*train.rec`"),
    ],
)
def test_index_that_cannot_be_parsed(text, message, three):
    three.with_suffix(".idx").write_text(text)
    with pytest.raises(ValueError, match=message):
        RecordFile(three)


def test_index_in_another_order_and_with_other_line_ends(three):
    three.with_suffix(".idx").write_bytes(b"9\t40\r\n4\t16\r\n5\t0\r\n")
    records = RecordFile(three)
    assert records.keys.tolist() == [4, 5, 9]
    assert [records.read(row) for row in range(3)] == [b"seco" + MAGIC + b"nd", b"first", b"third"]


def test_long_index_is_read_into_16_bytes_a_record(tmp_path):
    count = 200_000
    path = tmp_path / "train.idx"
    path.write_text("".join(f"{key}\t{key * 50_000}\n" for key in range(count)))
    keys, offsets = read_index(path)
    assert keys.nbytes + offsets.nbytes == 16 * count
    assert np.array_equal(keys, np.arange(count)) and np.array_equal(offsets, 50_000 * np.arange(count))


def test_missing_files(three):
    three.with_suffix(".idx").unlink()
    with pytest.raises(FileNotFoundError, match="train.idx, the index of train.rec, does not exist; build it with"):
        RecordFile(three)
    with pytest.raises(FileNotFoundError, match="other.rec does not exist"):
        RecordFile(three.with_name("other.rec"))


def test_index_is_rebuilt(three):
    index = three.with_suffix(".idx")
    right = index.read_text()
    index.unlink()
    assert rebuild_index(three) and index.read_text() == right
    assert not rebuild_index(three)
    index.write_text("0\t0\n")
    assert rebuild_index(three) and index.read_text() == right
    assert sorted(path.name for path in three.parent.iterdir()) == ["train.idx", "train.rec"]


def test_copy_by_pickle_opens_the_file_again(three):
    records = pickle.loads(pickle.dumps(RecordFile(three).select([2, 0])))
    assert [records.read(row) for row in range(2)] == [b"third", b"first"]


def test_forked_process_reads_without_moving_the_other(three):
    records = RecordFile(three)
    child = os.fork()
    if child == 0:
        os._exit(0 if all(records.read(2) == b"third" for _ in range(200)) else 1)
    assert all(records.read(0) == b"first" for _ in range(200))
    assert os.waitpid(child, 0)[1] == 0


def _write_sparse(path, places, content):
    """Records at far places; skips where the file system would really store what lies between."""
    with open(path, "wb") as file:
        for number, place in enumerate(places):
            file.seek(place)
            file.write(content(number))
    write_index(path, dict(enumerate(places)))
    if path.stat().st_blocks * 512 > 2**28:
        path.unlink()
        pytest.skip("the file system has no sparse files")


def test_offsets_past_4_gib(tmp_path):
    places = [0, 2**31 - 4, 2**31 + 24, 2**32 + 16, 5 * 2**30]
    path = tmp_path / "train.rec"
    _write_sparse(path, places, lambda number: part(struct.pack("<I", number) * 3))
    records = RecordFile(path)
    assert [struct.unpack("<3I", records.read(row)) for row in range(5)] == [(number,) * 3 for number in range(5)]


def test_memory_does_not_grow_with_what_is_read(tmp_path):
    statm = Path("/proc/self/statm")
    if not statm.exists():
        pytest.skip("the memory of a process is read from /proc")
    path, size = tmp_path / "train.rec", 2**22
    _write_sparse(path, range(0, 3 * 2**30, 2**25), lambda number: MAGIC + struct.pack("<I", size) + bytes(8))
    with open(path, "r+b") as file:
        file.truncate(3 * 2**30 + 2**25)
    records = RecordFile(path)
    assert len(records) == 96 and len(records.read(95)) == size
    before = int(statm.read_text().split()[1])
    for row in range(96):
        records.read(row)
    # 384 MiB were read.
    assert (int(statm.read_text().split()[1]) - before) * os.sysconf("SC_PAGE_SIZE") < 2**26
