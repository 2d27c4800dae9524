"""
From one form of labelled images to another, without decoding them.

    python -m headshare_hf.data.convert SOURCE OUT --to rec|parquet|folder [--split train]
    python -m headshare_hf.data.convert index FILE.rec

SOURCE is anything that `load_splits` reads. Repeat a command that was interrupted: it goes on where it stopped. RecordIO
keeps numbers of classes and no names.
"""

import argparse
import hashlib
import json
import logging
import os
import sys
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from .conversion import WRITERS, encoded_images
from .images import LabeledImages, as_images
from .loading import load_images
from .record_index import write_atomically
from .recordio import rebuild_index


logger = logging.getLogger(__name__)

_SAMPLED_IMAGES = 16


def convert(source: str | os.PathLike, out: str | os.PathLike, to: str, split: str = "train") -> int:
    """
    Writes one split in another form. Images keep their encoded bytes.

    Args:
        source (`str` or `os.PathLike`): As in [`load_splits`].
        out (`str` or `os.PathLike`): A folder, which may hold other splits in the same form.
        to (`str`): `"rec"` (RecordIO of InsightFace), `"parquet"` or `"folder"` (`split/class/file`).
        split (`str`, *optional*, defaults to `"train"`): Name of the split.

    Returns:
        `int`: How many images were written: fewer than there are after an interruption, zero when all were there.

    Raises:
        ValueError: `out` holds something else already, or `source` cannot be read.
        OSError: The disk is full, for instance. What is written stays.
        CorruptImageError: A row has no image.
    """
    folder = Path(out).expanduser()
    # Inside of its source, the target would be read as part of it the next time.
    if folder.resolve().is_relative_to(Path(source).expanduser().resolve()):
        raise ValueError(f"{folder} is or lies in the source, {source}; choose another folder")
    images = as_images(load_images(source, split))
    folder.mkdir(parents=True, exist_ok=True)
    _claim(folder, to, split, _fingerprint(images))
    with tqdm(total=len(images), desc=f"{split} to {to}", unit="image", disable=None) as progress:
        return WRITERS[to](images, folder, progress)


def _fingerprint(images: LabeledImages) -> str:
    """SHA-256 of labels, class names and some images, evenly spread: the same people aligned anew differ."""
    digest = hashlib.sha256(images.labels.tobytes() + "\n".join(images.label_names).encode())
    rows = sorted({int(place) for place in np.linspace(0, len(images) - 1, _SAMPLED_IMAGES)})
    for _, image in encoded_images(images, rows):
        digest.update(hashlib.sha256(image).digest())
    return digest.hexdigest()


def _claim(folder: Path, to: str, split: str, fingerprint: str) -> None:
    """Notes what is being written, or checks that an earlier run was writing the same."""
    note, wanted = folder / f".{split}.conversion.json", {"to": to, "images": fingerprint}
    if note.is_file():
        if json.loads(note.read_text(encoding="utf-8")) != wanted:
            raise ValueError(
                f"{folder} holds split {split!r} of other images or in another form; choose another folder, or empty it"
            )
        return
    present = [folder / f"{split}.rec", folder / split, *folder.glob(f"{split}-*.parquet")]
    for path in present:
        if path.exists():
            raise ValueError(f"{path} exists and was not written by this command; choose another folder, or remove it")
    write_atomically(note, json.dumps(wanted).encode())


def main(arguments: list[str]) -> str:
    """
    The command line.

    Args:
        arguments (`list[str]`): Without the program.

    Returns:
        `str`: What was done.
    """
    parser = argparse.ArgumentParser(
        prog="python -m headshare_hf.data.convert", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    if arguments[:1] == ["index"]:
        parser.add_argument("command", choices=["index"])
        parser.add_argument("file", help="a .rec file, whose .idx is written anew")
        file = parser.parse_args(arguments).file
        target = Path(file).with_suffix(".idx")
        return f"wrote {target}" if rebuild_index(file) else f"{target} is right already"
    parser.add_argument("source", help="Hub id, folder or file")
    parser.add_argument("out", help="folder to write to")
    parser.add_argument("--to", required=True, choices=list(WRITERS), help="form to write")
    parser.add_argument("--split", default="train", help="split to convert (default: train)")
    options = parser.parse_args(arguments)
    written = convert(options.source, options.out, options.to, options.split)
    if written == 0:
        return f"{options.out} was finished already; nothing to do"
    return f"wrote {written} images to {options.out}"


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        logger.info(main(sys.argv[1:]))
    except (OSError, ValueError) as error:
        sys.exit(f"{error}\nWhat is written stays; repeat the command to go on from there.")
