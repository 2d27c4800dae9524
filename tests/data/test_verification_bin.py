"""Verification sets of InsightFace: both dialects of pickle, by hand and by Python, and files that mean harm."""

import pickle
import struct

import numpy as np
import pytest

from headshare_hf.data import (
    CorruptImageError,
    VerificationSet,
    load_verification_set,
    read_verification_bin,
    write_verification_bin,
)


@pytest.fixture
def images(png, pixels):
    return [png(pixels(number, 8, 8)) for number in range(6)]


@pytest.fixture
def write(tmp_path):
    def write_bytes(content):
        path = tmp_path / "lfw.bin"
        path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content))
        return path

    return write_bytes


def python2(images, labels) -> bytes:
    """What `pickle.dumps((images, labels), protocol=2)` of Python 2 gives for lists of `str` and of `bool`."""
    parts = [b"\x80\x02", b"]q\x00("]
    for number, image in enumerate(images):
        short = len(image) < 256
        parts.append(b"U" + bytes([len(image)]) if short else b"T" + struct.pack("<i", len(image)))
        parts.append(image + b"q" + bytes([number + 1]))
    parts += [b"e]q\x40(", *(b"\x88" if label else b"\x89" for label in labels), b"e\x86q\x41."]
    return b"".join(parts)


def check(path, images, labels):
    entries, is_same = read_verification_bin(path)
    assert entries == images and all(type(entry) is bytes for entry in entries)
    assert is_same.dtype == bool and is_same.tolist() == labels


def test_python_2(write, images):
    check(write(python2(images, [True, False, True])), images, [True, False, True])


def test_python_2_text_protocol(write, images):
    lines = "".join(f"S{image!r}\na".replace("Sb'", "S'").replace('Sb"', 'S"') for image in images[:2])
    check(write(f"((l{lines}(lI01\nat.".encode("latin1")), images[:2], [True])


@pytest.mark.parametrize("protocol", range(6))
def test_python_3_writes_every_protocol(protocol, write, images):
    """Up to protocol 2 bytes are `_codecs.encode(text, "latin1")`."""
    content = pickle.dumps((images, [True, False, False]), protocol=protocol)
    assert (b"_codecs" in content) == (protocol < 3)
    check(write(content), images, [True, False, False])


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("kind", [bool, np.int64, ">i4"])
def test_arrays(protocol, kind, write, images):
    arrays = [np.frombuffer(image, dtype=np.uint8) for image in images]
    labels = np.array([1, 0, 1]).astype(kind)
    check(write(pickle.dumps((arrays, labels), protocol=protocol)), images, [True, False, True])
    check(write(pickle.dumps((arrays, list(labels)), protocol=protocol)), images, [True, False, True])
    check(write(pickle.dumps([arrays, labels.tolist()], protocol=protocol)), images, [True, False, True])


def test_array_of_python_2(write, images):
    """NumPy under Python 2: its old module name, and `str` for the type and the data."""
    image = images[0]
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR(K\x01"
        + (b"M" + struct.pack("<H", len(image)) + b"\x85")
        + b"cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        + (b"\x89T" + struct.pack("<i", len(image)) + image + b"tb")
    )
    check(write(b"\x80\x02](" + array + array + b"e](\x88e\x86."), [image, image], [True])


class Evil:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(6))
def test_functions_are_refused_and_not_run(protocol, write, tmp_path, images):
    import os

    target = tmp_path / "ran"
    content = pickle.dumps((images[:2], [Evil(os.mkdir, str(target))]), protocol=protocol)
    with pytest.raises(ValueError, match=r"lfw.bin wants to run (posix|nt)\.mkdir; refused, a verification set is"):
        read_verification_bin(write(content))
    assert not target.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"cbuiltins\neval\n(S'1'\ntR.", "wants to run builtins.eval; refused"),
        (b"\x80\x04\x8c\x08builtins\x8c\x07getattr\x93.", "wants to run builtins.getattr; refused"),
        (b"\x80\x02]r\xff\xff\xff\x7f.", "holds a list of 0; expected images and labels"),
        (b"\x80\x05\x96\x00\x00\x00\x00\x00\x01\x00\x00.", "is no pickle of a verification set, or damaged"),
        (
            b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x05\x00\x00\x00utf-7tR.",
            "wants bytes from text in 'utf-7'; refused",
        ),
        # A state for the stand-in itself, which pickle would store in the class.
        (b"c_codecs\nencode\n(dX\x01\x00\x00\x00ac_codecs\nencode\ns\x86b.", "is no pickle of a verification set"),
        (b"cnumpy\ndtype\n}b.", "is no pickle of a verification set"),
        (b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x0f.", "is no pickle of a verification set, or damaged"),
        (b"", "is no pickle of a verification set, or damaged: "),
        (b"\x89PNG and so on", "is no pickle of a verification set, or damaged: "),
    ],
    ids=["eval", "stack-global", "memo", "bytearray", "codec", "state", "dtype-state", "huge", "empty", "no-pickle"],
)
def test_what_is_no_data_is_refused(content, message, write):
    with pytest.raises(ValueError, match=message):
        read_verification_bin(write(content))


def test_memory_is_not_taken_on_the_word_of_a_file(write):
    """A number for the first object, and a length of bytes, that would take 64 GiB."""
    import tracemalloc

    tracemalloc.start()
    for content in (b"\x80\x02]r\xff\xff\xff\xff.", b"\x80\x05\x96\x00\x00\x00\x00\x10\x00\x00\x00."):
        with pytest.raises(ValueError, match="lfw.bin"):
            read_verification_bin(write(content))
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()


def test_stand_in_for_bytes_takes_no_state():
    from headshare_hf.data.verification_bin import _Encode, _Refused

    with pytest.raises(_Refused, match="a state for bytes"):
        _Encode.__setstate__(None, {})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda images: {"a": 1}, r"lfw.bin holds a dict of 1; expected images and labels"),
        (lambda images: (images, [True], 3), r"lfw.bin holds a tuple of 3; expected"),
        (lambda images: (images[0], [True]), r"the images of .*lfw.bin are a bytes of \d+; expected a list"),
        (lambda images: (images, True), r"the labels of .*lfw.bin are True; expected a list"),
        (lambda images: (images[:5], [True] * 3), "has 5 images for 3 pairs; expected two images a pair"),
        (lambda images: ([], []), "has 0 images for 0 pairs"),
        (lambda images: (images, [True, 2, False]), "label 1 of .*lfw.bin is 2; expected True or False"),
        (lambda images: (images, [True, False, 0.5]), "label 2 of .*lfw.bin is 0.5; expected"),
        (lambda images: (images, [True, False, "x"]), "label 2 of .*lfw.bin is a str of 1; expected"),
        (
            lambda images: ([*images[:5], "x.png"], [True] * 3),
            "image 5 of .*lfw.bin is a str of 5; expected the bytes",
        ),
        (lambda images: ([*images[:5], None], [True] * 3), "image 5 of .*lfw.bin is a nonetype; expected the bytes"),
        (lambda images: ([*images[:5], b"text"], [True] * 3), r"image 5 of .*lfw.bin \(4 bytes\) is no image: "),
        (
            lambda images: ([*images[:5], np.zeros((4, 4, 3), np.uint8)], [True] * 3),
            r"image 5 of .*lfw.bin is an array of shape \(4, 4, 3\)",
        ),
        (
            lambda images: ([*images[:5], np.zeros(9)], [True] * 3),
            "image 5 of .*lfw.bin is an array of 'f8', which is",
        ),
        (lambda images: ([*images[:5], np.arange(3)], [True] * 3), "image 5 of .*lfw.bin is a ndarray of 3; expected"),
        (lambda images: (images, np.array([0.1, 1, 0])), "the array of labels of .*lfw.bin is an array of 'f8'"),
    ],
)
def test_contents_that_are_no_set(change, message, write, images):
    with pytest.raises(ValueError, match=message):
        read_verification_bin(write(change(images)))


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_verification_bin(tmp_path / "no.bin")


def test_round_trip_stores_each_image_once(tmp_path, images):
    path = tmp_path / "0.png"
    path.write_bytes(images[0])
    entries = [{"bytes": None, "path": str(path)}, *({"bytes": image, "path": None} for image in images[1:3])]
    pairs = VerificationSet("own", entries, [0, 0, 2], [1, 2, 1], [True, False, False])
    written = write_verification_bin(tmp_path / "deep" / "own.bin", pairs)
    with open(written, "rb") as file:
        assert pickle.load(file) == (
            [images[index] for index in (0, 1, 0, 2, 2, 1)],
            [True, False, False],
        )
    loaded = load_verification_set(written)
    assert loaded.name == "own" and [entry["bytes"] for entry in loaded.images] == images[:3]
    assert loaded.index_a.tolist() == [0, 0, 2] and loaded.index_b.tolist() == [1, 2, 1]
    assert loaded.is_same.tolist() == [True, False, False] and loaded.folds is None and loaded.names is None


def test_folds_that_cannot_be_kept_are_refused(tmp_path, images):
    entries = [{"bytes": image, "path": None} for image in images[:2]]
    usual = VerificationSet("own", entries, [0] * 20, [1] * 20, [True] * 20, np.arange(20) // 2)
    assert load_verification_set(write_verification_bin(tmp_path / "a.bin", usual)).is_same.all()
    other = VerificationSet("own", entries, [0] * 20, [1] * 20, [True] * 20, np.arange(20) % 10)
    with pytest.raises(ValueError, match="own has folds that .*b.bin cannot keep"):
        write_verification_bin(tmp_path / "b.bin", other)
    assert not (tmp_path / "b.bin").exists()


def test_broken_images_are_not_written(tmp_path, images):
    pairs = VerificationSet(
        "own", [{"bytes": images[0], "path": None}, {"bytes": b"x", "path": None}], [0], [1], [True]
    )
    with pytest.raises(CorruptImageError, match=r"image 1 of own \(file without a name\) cannot be decoded"):
        write_verification_bin(tmp_path / "b.bin", pairs)
