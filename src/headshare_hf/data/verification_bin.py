"""The `.bin` verification sets of InsightFace: a pickle of encoded images, two a pair, and whether each pair is one person."""

import io
import os
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import PIL.Image

from .decoding import decode_in_set
from .pair_lists import contiguous_folds


if TYPE_CHECKING:
    from .verification_set import VerificationSet


_SCALAR_TYPES = frozenset("?bBhHiIlLqQ")


def read_verification_bin(path: str | os.PathLike) -> tuple[list[bytes], np.ndarray]:
    """
    Encoded images and labels of `lfw.bin`, `cfp_fp.bin`, `agedb_30.bin` and the like, written by Python 2 or 3.

    A pickle may run whatever program its author likes. This reader builds numbers, text, bytes, lists and arrays, and
    refuses a file that asks for anything else.

    Args:
        path (`str` or `os.PathLike`): The file.

    Returns:
        `tuple[list[bytes], np.ndarray]`: Images, those of pair i at 2 i and 2 i + 1, and whether both show the same
        person, `bool` of shape `(num_pairs,)`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no such pickle, asks for something else, or does not have two images a pair; names the entry.
    """
    path = Path(path)
    content = _unpickle(path)
    if not isinstance(content, tuple | list) or len(content) != 2:
        raise ValueError(f"{path} holds {_kind(content)}; expected images and labels, as in InsightFace's lfw.bin")
    entries, labels = content
    if isinstance(labels, _Array):
        labels = _resolve(labels, f"the array of labels of {path}").tolist()
    for part, name in ((entries, "images"), (labels, "labels")):
        if not isinstance(part, list | tuple):
            raise ValueError(f"the {name} of {path} are {_kind(part)}; expected a list")
    if not labels or len(entries) != 2 * len(labels):
        raise ValueError(f"{path} has {len(entries)} images for {len(labels)} pairs; expected two images a pair")
    is_same = np.array([_label(label, number, path) for number, label in enumerate(labels)])
    # One object for equal images: sets repeat a third of theirs.
    seen: dict[bytes, bytes] = {}
    return [_image(entry, number, path, seen) for number, entry in enumerate(entries)], is_same


def write_verification_bin(path: str | os.PathLike, pairs: "VerificationSet") -> Path:
    """
    Writes pairs in the order that they have, their images as they are in their files. InsightFace's own evaluation reads
    the result. Folds are not stored: readers divide the pairs into ten neighboring parts of equal size, which are the
    folds of LFW's View 2.

    Args:
        path (`str` or `os.PathLike`): The file to write.
        pairs ([`VerificationSet`]): The pairs.

    Returns:
        `Path`: That file.

    Raises:
        ValueError: The folds of the pairs are not those that readers will use.
        CorruptImageError: An image cannot be decoded.

    Example: the images and `pairs.txt` of Labeled Faces in the Wild in one file.

    ```python
    >>> write_verification_bin("lfw.bin", load_verification_set("lfw"))
    ```
    """
    path = Path(path)
    check_bin_folds(pairs, path)
    images = [_encoded(entry, pairs.name, number) for number, entry in enumerate(pairs.images)]
    order = np.stack([pairs.index_a, pairs.index_b], axis=1).ravel().tolist()
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        pickle.dump(([images[index] for index in order], pairs.is_same.tolist()), file, protocol=4)
    return path


def check_bin_folds(pairs: "VerificationSet", path: str | os.PathLike = "a .bin") -> None:
    """
    Args:
        pairs ([`VerificationSet`]): The pairs.
        path (`str` or `os.PathLike`, *optional*): What the message calls the file.

    Raises:
        ValueError: The folds of the pairs are not those that readers of [`write_verification_bin`] will use.
    """
    if pairs.folds is not None and not np.array_equal(pairs.folds, contiguous_folds(len(pairs))):
        raise ValueError(
            f"{pairs.name} has folds that {path} cannot keep: readers take ten neighboring parts of equal size"
        )


class _Refused(ValueError):
    """A pickle that asks for something that is not data."""


class _Dtype:
    """Stands for `numpy.dtype`, so that no code of NumPy sees what an unknown file says about memory."""

    def __init__(self, code: Any = None, *flags: Any) -> None:
        self.code = code.decode("ascii") if isinstance(code, bytes) else code
        self.order = "<"

    def __setstate__(self, state: tuple) -> None:
        order = state[1]
        self.order = order.decode("ascii") if isinstance(order, bytes) else order

    def resolve(self) -> np.dtype:
        dtype = np.dtype(str(self.code))
        if dtype.char not in _SCALAR_TYPES:
            raise _Refused(f"an array of {self.code!r}, which is neither whole numbers nor bool")
        return dtype.newbyteorder(">" if self.order == ">" else "<")


class _Array:
    """Stands for `numpy.ndarray` and what rebuilds one; its content is what the file really holds."""

    def __init__(self, *arguments: Any) -> None:
        self.data: Any = b""
        self.dtype = _Dtype("u1")
        self.shape: tuple = ()

    def __setstate__(self, state: tuple) -> None:
        _, self.shape, self.dtype, _, self.data = state

    def values(self) -> np.ndarray:
        values = np.frombuffer(self.data, dtype=self.dtype.resolve())
        if tuple(self.shape) != values.shape:
            raise _Refused(f"an array of shape {tuple(self.shape)}; those of a verification set have one dimension")
        return values


class _BufferArray(_Array):
    """Stands for `numpy.core.numeric._frombuffer`, with which arrays are rebuilt since pickle protocol 5."""

    def __init__(self, data: Any, dtype: _Dtype, shape: tuple, order: str) -> None:
        self.data, self.dtype, self.shape = data, dtype, shape


class _Scalar(_Array):
    """Stands for a NumPy number."""

    def __init__(self, dtype: _Dtype, data: bytes) -> None:
        self.data, self.dtype, self.shape = data, dtype, (1,)


class _Encode:
    """Stands for `_codecs.encode`, with which Python 3 writes bytes for Python 2."""

    def __new__(cls, text: str = "", encoding: str = "latin1") -> bytes:  # type: ignore[misc]
        if encoding != "latin1":
            raise _Refused(f"bytes from text in {encoding!r}")
        return text.encode("latin1")

    def __setstate__(self, state: Any) -> None:
        # Where there is none, pickle sets attributes; on this very class if a file says so.
        raise _Refused("a state for bytes")


class _DataUnpickler(pickle._Unpickler):
    """
    Builds data and nothing else.

    It derives from the unpickler in Python, which takes no more memory than the file is long. The one in C makes room
    at once for as many objects as a file of ten bytes says it will number.
    """

    # What it does for a bytearray, that is to fill one with zeros first, would do as the file says.
    dispatch: ClassVar[dict] = {
        **pickle._Unpickler.dispatch,
        pickle.BYTEARRAY8[0]: pickle._Unpickler.load_binbytes8,  # type: ignore[attr-defined]
    }
    stands_for: ClassVar[dict[str, type]] = {
        "numpy.dtype": _Dtype,
        "numpy.ndarray": _Array,
        "_codecs.encode": _Encode,
        "__builtin__.bytes": _Encode,
        "builtins.bytes": _Encode,
        **{
            f"numpy.{core}.{name}": stand_in
            for core in ("core", "_core")
            for name, stand_in in (
                ("multiarray._reconstruct", _Array),
                ("multiarray.scalar", _Scalar),
                ("numeric._frombuffer", _BufferArray),
            )
        },
    }

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a name; whatever has none is refused."""
        if f"{module}.{name}" not in self.stands_for:
            raise _Refused(f"to run {module}.{name}")
        return self.stands_for[f"{module}.{name}"]


def _unpickle(path: Path) -> Any:
    data = path.read_bytes()
    try:
        # Python 2 has no text but bytes; where Python 3 wrote the file the encoding has no effect.
        return _DataUnpickler(io.BytesIO(data), encoding="bytes").load()
    except _Refused as error:
        raise ValueError(f"{path} wants {error}; refused, a verification set is made of bytes and bools") from error
    except Exception as error:
        # Damaged pickles raise errors of a dozen types.
        raise ValueError(f"{path} is no pickle of a verification set, or damaged: {error!r}") from error


def _label(label: Any, number: int, path: Path) -> bool:
    value = _resolve(label, f"label {number} of {path}")
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.item()
    if not isinstance(value, int) or value not in (0, 1):
        raise ValueError(f"label {number} of {path} is {_kind(value)}; expected True or False, 1 or 0")
    return bool(value)


def _image(entry: Any, number: int, path: Path, seen: dict[bytes, bytes]) -> bytes:
    value = _resolve(entry, f"image {number} of {path}")
    if isinstance(value, np.ndarray) and value.dtype == np.uint8:
        value = value.tobytes()
    if not isinstance(value, bytes):
        raise ValueError(f"image {number} of {path} is {_kind(value)}; expected the bytes of an image file")
    if value not in seen:
        try:
            PIL.Image.open(io.BytesIO(value)).close()
        except Exception as error:
            raise ValueError(f"image {number} of {path} ({len(value)} bytes) is no image: {error}") from error
        seen[value] = value
    return seen[value]


def _resolve(value: Any, where: str) -> Any:
    if not isinstance(value, _Array):
        return value
    try:
        return value.values()
    except Exception as error:
        raise ValueError(f"{where} is {error}") from error


def _kind(value: Any) -> str:
    if isinstance(value, bool | int | float):
        return repr(value)
    size = f" of {len(value)}" if hasattr(value, "__len__") else ""
    return f"a {type(value).__name__.lstrip('_').lower()}{size}"


def _encoded(entry: dict[str, Any], name: str, number: int) -> bytes:
    decode_in_set(entry, name, number)
    return entry["bytes"] if entry["bytes"] is not None else Path(entry["path"]).read_bytes()
