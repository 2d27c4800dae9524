"""
From a checkpoint of another repository to a folder that `from_pretrained` loads. Nothing in the checkpoint is run.

    python -m headshare_hf.hub.convert SOURCE OUT_DIR [--backbone NAME] [--centers FILE...]

SOURCE is a file of HeadSharingKD, RepDistiller, insightface (arcface_torch), MobileFaceNet_Pytorch or timm: `.pth`,
`.pt`, `.ckpt`, `.safetensors`. The network is found by the names and shapes of its tensors.
"""

import argparse
import logging
import sys
from dataclasses import fields

from transformers.utils import logging as transformers_logging

from ..models import HeadShareConfig, HeadShareImageProcessor
from .convert_folder import ConversionOptions, convert_checkpoint


logger = logging.getLogger(__name__)


def main(arguments: list[str]) -> str:
    """
    The command line.

    Args:
        arguments (`list[str]`): Without the program.

    Returns:
        `str`: What was made of what.
    """
    given = vars(_parser().parse_args(arguments))
    source, out = given.pop("source"), given.pop("out")
    size = given["image_size"]
    given["image_size"] = size[0] if size is not None and len(size) == 1 else size
    options = ConversionOptions(**{field.name: given[field.name] for field in fields(ConversionOptions)})
    return "\n".join(convert_checkpoint(source, out, options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m headshare_hf.hub.convert", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("source", help="checkpoint to convert")
    parser.add_argument("out", help="folder to write")
    parser.add_argument("--backbone", help="network, where the tensors do not tell it: timm/<name>")
    parser.add_argument("--entry", help="entry of a training checkpoint, where several are state dicts")
    parser.add_argument("--num-labels", type=int, help="number of classes, to be checked")
    parser.add_argument("--image-size", type=int, nargs="+", help="one side, or height and width, in pixels")
    parser.add_argument("--centers", nargs="+", default=(), help="all files with class centers, one for each process")
    parser.add_argument("--labels", help="text file with the name of one class a line")
    parser.add_argument("--channel-order", choices=HeadShareImageProcessor.channel_orders, default="rgb")
    parser.add_argument("--mean", type=float, nargs="+", help="means of images in [0, 1], one a channel")
    parser.add_argument("--std", type=float, nargs="+", help="standard deviations, likewise")
    parser.add_argument(
        "--head-type", choices=HeadShareConfig.head_types, help="default: linear; cosine with --centers"
    )
    parser.add_argument("--head-scale", type=float, help="scale of a cosine head (default: 64)")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier conversion in the folder")
    return parser


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    transformers_logging.disable_progress_bar()
    try:
        logger.info(main(sys.argv[1:]))
    except (OSError, ValueError) as error:
        sys.exit(str(error))
