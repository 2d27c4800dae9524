"""The three formats of `torch.save`: a zip file, the stream before torch 1.6, and the tar file of torch 0.1."""

import struct
import tarfile
import warnings
from io import BufferedReader
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch.serialization import MAGIC_NUMBER, PROTOCOL_VERSION

from .convert_pickle import ENCODING, RefusedError, TensorUnpickler, build_tensor, unpickle


# How a zip file begins for torch, and what only a TorchScript archive has.
_ZIP = b"PK\x03\x04"
_CONSTANTS, _CODE = "constants.pkl", "code/"
# The parts of a tar file that are read.
_PARTS = ("storages", "tensors", "pickle")


def load_tensors(path: Path) -> Any:
    """
    Content of a file that `torch.save` wrote, in whatever format, tensors on the CPU.

    Dictionaries, lists, numbers, text and tensors are built, see [`TensorUnpickler`]. Of torch's readers, that of zip
    files is used. Those of the two older formats trust the file: one unpacks into the file system whatever a tar file
    says, both make tensors of memory that the file has no data for, and both look for the source of pickled modules.

    Args:
        path (`Path`): The file.

    Raises:
        ValueError: The file is a program, has members that are no plain files or tensors without data, or asks for a
            call that makes neither a tensor nor a plain value; names it.
        Exception: The file is damaged; torch raises errors of a dozen types.
    """
    # The open file that was checked is the one that is read, whatever becomes of its name in between.
    with path.open("rb") as file, warnings.catch_warnings():
        # Storages with a type are deprecated, but what files have.
        warnings.simplefilter("ignore")
        refuse_programs(file)
        if not is_zip(file):
            return _read_older(file)
        reader = SimpleNamespace(__name__="tensors", Unpickler=TensorUnpickler)
        return torch.load(file, map_location="cpu", pickle_module=reader, weights_only=False, encoding=ENCODING)


def is_zip(file: BufferedReader) -> bool:
    """
    Whether torch takes this for a zip file.

    Args:
        file (`io.BufferedReader`): At its beginning, and left there.
    """
    start = file.read(len(_ZIP))
    file.seek(0)
    return start == _ZIP


def refuse_programs(file: BufferedReader) -> None:
    """
    Refuses a TorchScript archive, which `torch.load(weights_only=False)` would hand to `torch.jit.load`, and that runs.

    torch's own reader is asked: others find another directory in a zip file that was made for it.

    Args:
        file (`io.BufferedReader`): At its beginning, and left there.

    Raises:
        ValueError: It is one.
    """
    if is_zip(file):
        records = torch._C.PyTorchFileReader(file).get_all_records()
        if any(name == _CONSTANTS or name.startswith(_CODE) for name in records):
            raise RefusedError("the program of a TorchScript archive")
        file.seek(0)


def _read_older(file: BufferedReader) -> Any:
    try:
        archive = tarfile.open(fileobj=file, mode="r:")
    except tarfile.TarError:
        file.seek(0)
        return _read_stream(file)
    with archive:
        return _read_tar(archive)


def _read_stream(file: BufferedReader) -> Any:
    if [unpickle(file), unpickle(file)] != [MAGIC_NUMBER, PROTOCOL_VERSION]:
        raise ValueError("it does not begin as torch.save begins a file")
    unpickle(file)  # The machine that wrote it.
    storages: dict[str, torch.TypedStorage] = {}

    def refer(reference: tuple) -> Any:
        kind, *further = reference
        # A module is pickled with its source, which is left alone.
        return further[0] if kind == "module" else _stream_storage(storages, *further)

    content = unpickle(file, refer)
    keys = unpickle(file)
    for key in keys:
        _fill(storages[key], _length(file), file)
    # Their memory holds what was left in it.
    if storages.keys() - set(keys):
        raise RefusedError("tensors that it has no data for")
    return content


def _stream_storage(
    storages: dict[str, torch.TypedStorage], kind: Any, key: str, _: str, length: int, view: tuple | None
) -> torch.TypedStorage:
    if key not in storages:
        storages[key] = _storage(length, kind.dtype)
    return storages[key] if view is None else _part(storages[key], *view[1:])


def _read_tar(archive: tarfile.TarFile) -> Any:
    members = _members(archive)
    storages, tensors, content = (cast(BufferedReader, archive.extractfile(members[name])) for name in _PARTS)
    known = _tar_storages(storages)
    known = {**known, **_tar_tensors(tensors, known)}
    # A number, or a class with its source.
    return unpickle(content, lambda key: key[0] if isinstance(key, tuple) else known[int(key)])


def _members(archive: tarfile.TarFile) -> dict[str, tarfile.TarInfo]:
    members: dict[str, tarfile.TarInfo] = {}
    # One after the other: where a size is negative, the list of all has no end.
    for member in archive:
        if not member.isreg() or member.issparse() or member.size < 0:
            raise RefusedError(f"a member of a tar file that is no plain file, {member.name!r}")
        if member.name in members:
            raise RefusedError(f"two members of a tar file with one name, {member.name!r}")
        members[member.name] = member
    missing = [name for name in _PARTS if name not in members]
    if missing:
        raise ValueError(f"the tar file has no {', '.join(missing)}")
    return members


def _tar_storages(file: BufferedReader) -> dict[int, Any]:
    storages: dict[int, torch.TypedStorage] = {}
    for _ in range(unpickle(file)):
        key, _, kind = unpickle(file)
        length = _length(file)
        storages[key] = _storage(length, kind.dtype)
        _fill(storages[key], length, file)
    for key, root, offset, length in unpickle(file):
        storages[key] = _part(storages[root], offset, length)
    return storages


def _tar_tensors(file: BufferedReader, storages: dict[int, Any]) -> dict[int, torch.Tensor]:
    tensors = {}
    for _ in range(unpickle(file)):
        key, storage, _ = unpickle(file)
        dimensions, _ = struct.unpack("<ii", file.read(8))
        *shape, offset = struct.unpack(f"<{2 * dimensions + 1}q", file.read(8 * (2 * dimensions + 1)))
        tensors[key] = build_tensor(storages[storage], offset, shape[:dimensions], shape[dimensions:])
    return tensors


def _length(file: BufferedReader) -> int:
    return struct.unpack("<q", file.read(8))[0]


def _storage(length: int, dtype: torch.dtype) -> torch.TypedStorage:
    return torch.TypedStorage(wrap_storage=torch.UntypedStorage(length * dtype.itemsize), dtype=dtype)


def _part(storage: torch.TypedStorage, offset: int, length: int) -> torch.TypedStorage:
    size = storage.dtype.itemsize
    part = storage._untyped_storage[offset * size : (offset + length) * size]
    return torch.TypedStorage(wrap_storage=part, dtype=storage.dtype)


def _fill(storage: torch.TypedStorage, length: int, file: BufferedReader) -> None:
    memory = torch.empty(0, dtype=torch.uint8).set_(storage._untyped_storage).numpy().data
    if length * storage.dtype.itemsize != len(memory) or file.readinto(memory) != len(memory):
        raise ValueError("a tensor has other data than the file says")
