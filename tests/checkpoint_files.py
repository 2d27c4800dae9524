"""Checkpoints as other repositories write them, for the tests of the converters."""

import io
import pickle
import struct
import tarfile

import torch
from golden_data import load_golden


class Payload:
    """What a hostile file would hold: unpickled as usual, it makes a file."""

    def __init__(self, target):
        self.target = str(target)

    def __reduce__(self):
        return (open, (self.target, "w"))


class Settings:
    """An object of a class that whoever reads the file need not have."""

    def __init__(self, **values):
        self.__dict__.update(values)


def reference(name):
    """The stored numbers of a network, and its weights by the reference's names."""
    golden = load_golden(f"model_{name}")
    return golden, {k.removeprefix("state_dict."): v for k, v in golden.items() if k.startswith("state_dict.")}


def save_legacy(content, path):
    """As torch before 1.6 wrote it."""
    torch.save(content, path, _use_new_zipfile_serialization=False)


class _TarPickler(pickle.Pickler):
    def __init__(self, file, numbers):
        super().__init__(file, protocol=2)
        self.numbers, self.modules = numbers, []

    def persistent_id(self, value):
        if isinstance(value, type) and issubclass(value, torch.nn.Module) and value not in self.modules:
            self.modules.append(value)
            return value, "modules.py", "the source"
        return str(self.numbers[id(value)]) if isinstance(value, torch.Tensor) else None


def save_tar(content_by_name, path):
    """
    As torch 0.1 wrote it: a tar of storages, tensors and the pickle that numbers them; float32 only.

    Beside tensors there may be modules without any.
    """
    tensors = [value for value in content_by_name.values() if isinstance(value, torch.Tensor)]
    numbers = {id(tensor): 100 + index for index, tensor in enumerate(tensors)}
    storages, views, content = io.BytesIO(), io.BytesIO(), io.BytesIO()
    pickle.dump(len(tensors), storages, protocol=2)
    pickle.dump(len(tensors), views, protocol=2)
    for index, tensor in enumerate(tensors):
        pickle.dump((index, "cpu", torch.FloatStorage), storages, protocol=2)
        storages.write(struct.pack("<q", tensor.numel()) + tensor.contiguous().numpy().tobytes())
        pickle.dump((100 + index, index, torch.FloatTensor), views, protocol=2)
        views.write(struct.pack("<ii", tensor.ndim, 0))
        views.write(struct.pack(f"<{2 * tensor.ndim + 1}q", *tensor.shape, *tensor.contiguous().stride(), 0))
    pickle.dump([], storages, protocol=2)
    _TarPickler(content, numbers).dump(dict(content_by_name))
    with tarfile.open(path, "w") as archive:
        for name, part in (("storages", storages), ("tensors", views), ("pickle", content)):
            member = tarfile.TarInfo(name)
            member.size = len(part.getvalue())
            archive.addfile(member, io.BytesIO(part.getvalue()))
