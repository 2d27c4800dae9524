"""
Export a student for deployment: ONNX in float32 and 8 bits, `torch.export`, and how long each takes.

    python examples/export.py MODEL --output export
    python examples/export.py MODEL --output export --quantize static --data DATA --teacher TEACHER
    python examples/export.py MODEL --output export --embeddings-only --quantize dynamic --pairs lfw.bin

MODEL is a Hub id or a folder of this package, with its image processor. Every file is checked against the model. Needs
`pip install onnx onnxruntime onnxscript`.
"""

import argparse
import sys

from headshare_hf.hub.export import DEFAULT_OPSET
from headshare_hf.hub.export_run import ExportOptions, render_export, run_export
from headshare_hf.hub.failures import told_in_one_line
from headshare_hf.hub.quantization import MODES


def parse(arguments: list[str]) -> ExportOptions:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="MODEL", help="Hub id or folder")
    parser.add_argument("--revision", help="branch, tag or commit on the Hub")
    parser.add_argument("--output", required=True, metavar="FOLDER", help="folder of the results")
    parser.add_argument("--embeddings-only", action="store_true", help="leave out the classifier")
    parser.add_argument("--opset", type=int, default=DEFAULT_OPSET, help="version of ONNX's operators")
    parser.add_argument("--torch-export", action="store_true", help="also write model.pt2")
    parser.add_argument("--quantize", choices=MODES, help="also write model.int8.onnx")
    parser.add_argument("--data", metavar="NAME", help="images with labels to measure the cost of 8 bits on")
    parser.add_argument("--image-column", help="of --data, where it is not found by itself")
    parser.add_argument("--label-column", help="likewise")
    parser.add_argument("--config-name", help="configuration of --data on the Hub")
    parser.add_argument("--split", default="test", help="of --data")
    parser.add_argument("--calibration-split", default="train", help="of --data, for --quantize static")
    parser.add_argument("--pairs", metavar="PATH", help="a set of pairs to measure the cost of 8 bits on")
    parser.add_argument("--no-flip", dest="flip", action="store_false", help="verify without mirror images")
    parser.add_argument("--teacher", metavar="MODEL", help="image classifier to compare the latency with")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 32], help="of the latency table")
    parser.add_argument("--repeats", type=int, default=20, help="of the latency table")
    return ExportOptions(**vars(parser.parse_args(arguments)))


def main(arguments: list[str]) -> None:
    with told_in_one_line():
        options = parse(arguments)
        record = run_export(options)
    print(render_export(record, (options.output / "latency.md").read_text(encoding="utf-8")))


if __name__ == "__main__":
    main(sys.argv[1:])
