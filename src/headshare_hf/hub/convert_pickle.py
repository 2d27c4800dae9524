"""The pickle in a checkpoint becomes data and tensors, without running what it asks to run."""

import pickle
from collections.abc import Callable, Sequence
from typing import IO, Any, ClassVar

import torch
from torch.serialization import StorageType


# What is called to make a plain value: settings, accuracies, paths. The value is not needed, so nothing is called.
_VALUES = frozenset(
    {
        "_codecs.encode",
        "collections.Counter",
        "collections.defaultdict",
        "datetime.date",
        "datetime.datetime",
        "datetime.timedelta",
        "numpy.dtype",
        "torch.Size",
        "torch.device",
        *(f"{module}._reconstructor" for module in ("copyreg", "copy_reg")),
        *(f"{builtin}.{name}" for builtin in ("builtins", "__builtin__") for name in ("bytes", "frozenset", "set")),
        *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
        *(f"numpy.{core}.numeric._frombuffer" for core in ("core", "_core")),
        *(f"pathlib.{flavor}Path" for flavor in ("", "Pure", "Posix", "PurePosix", "Windows", "PureWindows")),
    }
)

# Python 2 has no text but bytes; latin1 takes every byte, and changes nothing in files of Python 3.
ENCODING = "latin1"


class StandIn:
    """
    What is left of an object of a class that is not imported: its name.

    Args:
        name (`str`): Module and name of the class, e.g. `argparse.Namespace`.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, item: Any) -> None:
        """Forgets an item, as the assignment above and the two methods below."""

    def extend(self, items: Any) -> None:
        """See `append`."""

    def add(self, item: Any) -> None:
        """See `append`."""


class RefusedError(ValueError):
    """A file that asks for something that is not data."""


def build_tensor(storage: Any, offset: int, size: Sequence[int], stride: Sequence[int], *_: Any) -> torch.Tensor:
    """
    A tensor on a storage, as `torch._utils._rebuild_tensor` makes it, but none that reaches beyond the storage.

    Args:
        storage (`torch.TypedStorage`): The data.
        offset (`int`): The first element.
        size (`Sequence[int]`): Length of each dimension.
        stride (`Sequence[int]`): Step of each dimension, in elements.

    Raises:
        RefusedError: The data are too few.
    """
    # torch would make a storage that is too small larger, and leave what happens to lie in memory there.
    untyped = storage._untyped_storage
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if 0 not in size and (min(offset, last, *stride, 0) < 0 or (last + 1) * storage.dtype.itemsize > untyped.nbytes()):
        raise RefusedError("a tensor that is larger than its data")
    return torch.empty(0, dtype=storage.dtype).set_(untyped, offset, tuple(size), tuple(stride))


def _parameter(tensor: torch.Tensor, *_: Any) -> torch.Tensor:
    return tensor


def _with_attributes(build: Any, _: Any, arguments: tuple, *__: Any) -> torch.Tensor:
    """A tensor that somebody has set attributes of, or of a class of its own: the plain tensor, which is what it holds."""
    if not (isinstance(build, _Name) and build.name in _TENSORS):
        raise RefusedError(f"a tensor made by {getattr(build, 'name', type(build).__name__)}")
    return _TENSORS[build.name](*arguments)


_TENSORS: dict[str, Callable[..., torch.Tensor]] = {
    "torch._utils._rebuild_tensor": build_tensor,
    "torch._utils._rebuild_tensor_v2": build_tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
}
_BUILDERS: dict[str, Callable[..., Any]] = {
    **_TENSORS,
    "torch._tensor._rebuild_from_type_v2": _with_attributes,
    "collections.OrderedDict": dict,
}


class _Name:
    """A name that the file mentions."""

    def __init__(self, name: str) -> None:
        self.name = name

    def call(self, arguments: tuple) -> Any:
        if self.name in _BUILDERS:
            return _BUILDERS[self.name](*arguments)
        if self.name in _VALUES:
            return StandIn(self.name)
        raise RefusedError(f"a call of {self.name}")


class TensorUnpickler(pickle._Unpickler):
    """
    Builds data, tensors and stand-ins.

    Dictionaries, lists, numbers, text and tensors are built; of every other object a [`StandIn`] is left. No name that
    the file mentions is imported, and none of its functions is called.

    It derives from the unpickler in Python because that in C has no `dispatch`, and calls what it is told to call.
    """

    def find_class(self, module: str, name: str) -> Any:
        """The name itself, or for a storage what torch makes of it."""
        if module == "torch" and name.endswith("Storage"):
            return StorageType(name)
        return _Name(f"{module}.{name}")

    def _call(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()  # type: ignore[attr-defined]
        if not isinstance(function, _Name):
            raise RefusedError(f"a call of a {type(function).__name__}")
        self.append(function.call(arguments))  # type: ignore[attr-defined]

    def _make(self) -> None:
        self.stack.pop()  # type: ignore[attr-defined]
        self._stand_in(self.stack.pop())  # type: ignore[attr-defined]

    def _make_with_keywords(self) -> None:
        self.stack.pop()  # type: ignore[attr-defined]
        self._make()

    def _stand_in(self, of: Any) -> None:
        if not isinstance(of, _Name):
            raise RefusedError(f"an object made of a {type(of).__name__}")
        made: Any = {} if of.name == "collections.OrderedDict" else StandIn(of.name)
        self.append(made)  # type: ignore[attr-defined]

    def _set_state(self) -> None:
        self.stack.pop()  # type: ignore[attr-defined]
        target = self.stack[-1]  # type: ignore[attr-defined]
        if not isinstance(target, StandIn | dict):
            raise RefusedError(f"a state for a {type(target).__name__}")

    def _refuse(self) -> None:
        raise RefusedError("an object in a form that torch.save never writes")

    dispatch: ClassVar[dict] = {
        **pickle._Unpickler.dispatch,
        pickle.REDUCE[0]: _call,
        pickle.NEWOBJ[0]: _make,
        pickle.NEWOBJ_EX[0]: _make_with_keywords,
        pickle.BUILD[0]: _set_state,
        **dict.fromkeys((code[0] for code in (pickle.INST, pickle.OBJ)), _refuse),
        **dict.fromkeys((code[0] for code in (pickle.EXT1, pickle.EXT2, pickle.EXT4)), _refuse),
        # What it does for a bytearray, that is to fill one with zeros first, would do as the file says.
        pickle.BYTEARRAY8[0]: pickle._Unpickler.load_binbytes8,  # type: ignore[attr-defined]
    }


def unpickle(file: IO[bytes], persistent_load: Callable[[Any], Any] | None = None) -> Any:
    """
    The next object in a file; what follows it is not read.

    Args:
        file (`IO[bytes]`): Where the object begins, and afterwards where it ends.
        persistent_load (`Callable[[Any], Any]`, *optional*): Gives what the object refers to beside itself.

    Raises:
        RefusedError: It asks for a call that makes neither a tensor nor a plain value; names it.
        Exception: It is damaged; Python raises errors of a dozen types.
    """
    unpickler = TensorUnpickler(file, encoding=ENCODING)
    if persistent_load is not None:
        unpickler.persistent_load = persistent_load  # type: ignore[assignment]
    return unpickler.load()
