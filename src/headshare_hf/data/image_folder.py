"""Folders of image files, one subfolder per class."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import datasets


IMAGE_SUFFIXES = frozenset(
    {".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)


class ImageFolder:
    """
    `class/file` or `split/class/file`; the depth of the files says which. Without splits, all is `train`.

    The names of folders and files are not searched for words like "train" or "test", which may well be a class.

    Args:
        root (`Path`): The folder.

    Raises:
        ValueError: There is no image in it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._files = sorted(path for path in files_below(root) if _is_image(path, root))
        if not self._files:
            raise ValueError(f"{root} holds neither parquet files nor images ({', '.join(sorted(IMAGE_SUFFIXES))})")
        nested = any(self._depth(path) == 3 for path in self._files)
        self._folders = {path.name: path for path in _subfolders(root)} if nested else {"train": root}

    @property
    def splits(self) -> list[str]:
        """Names of the splits."""
        return list(self._folders)

    def read(self, split: str) -> datasets.Dataset:
        """
        The files of one split, as columns `image` (undecoded) and `label`, with the class folders in sorted order.

        An empty class folder is a class without images.

        Raises:
            ValueError: An image does not lie in a class folder.
        """
        folder = self._folders[split]
        depth = self._depth(folder) + 2
        files = [path for path in self._files if path.is_relative_to(folder)]
        for path in files:
            if self._depth(path) != depth:
                raise ValueError(f"{path} does not lie in a class folder directly below {folder}")
        names = [path.name for path in _subfolders(folder)]
        columns = {"image": [str(path) for path in files], "label": [path.parent.name for path in files]}
        features = datasets.Features(image=datasets.Image(decode=False), label=datasets.ClassLabel(names=names))
        return datasets.Dataset.from_dict(columns, features=features, split=datasets.NamedSplit(split))

    def _depth(self, path: Path) -> int:
        return len(path.relative_to(self.root).parts)


def files_below(root: Path, above: frozenset[str] = frozenset()) -> Iterator[Path]:
    """
    All files below a folder, also in folders that are links: sets of some classes of ImageNet are often made of them.

    Args:
        root (`Path`): The folder.
        above (`frozenset[str]`, *optional*): Where the folders that it lies in really are; links back to them are not followed.
    """
    real = os.path.realpath(root)
    if real in above:
        return
    with contextlib.suppress(PermissionError):
        # Such as `lost+found`, at the root of a volume.
        for entry in os.scandir(root):
            path = Path(entry.path)
            if not path.is_dir():
                # Also a link that leads nowhere, which is an image that is missing.
                yield path
            elif not entry.name.startswith("."):
                yield from files_below(path, above | {real})


def _is_image(path: Path, root: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
    return path.suffix.lower() in IMAGE_SUFFIXES and not hidden


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
