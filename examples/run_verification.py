"""
Evaluate a face model: accuracy and TAR of pairs, IJB-B and IJB-C.

    python examples/run_verification.py --model MODEL --pairs lfw.bin cfp_fp.bin agedb_30.bin --output results
    accelerate launch examples/run_verification.py --model MODEL --ijbc IJBC --identification --output results
    python examples/run_verification.py --features features.npy --flip --ijbc IJBC --output features
    python examples/run_verification.py --model FOLDER --pairs lfw.bin --store-thresholds --output results

MODEL is a Hub id or a folder. The same command goes on with a run that was cut: embeddings are kept in the output folder.
Further sets of the same model may be evaluated into the same folder. Stored features need --flip (the right half of a row
belongs to the mirrored image) or --no-flip (a row is one embedding).
"""

import argparse
import sys

from headshare_hf.evaluation import VerificationOptions, render_report, run_verification
from headshare_hf.evaluation.run_options import BOOTSTRAP_UNITS


def parse(arguments: list[str]) -> VerificationOptions:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="Hub id or folder")
    parser.add_argument("--revision", help="branch, tag or commit on the Hub")
    parser.add_argument("--features", metavar="FILE", help="stored features of IJB images (.npy, .safetensors)")
    parser.add_argument("--pairs", nargs="+", default=[], metavar="PATH", help=".bin files, or folders with pairs")
    parser.add_argument("--ijbb", metavar="FOLDER", help="IJB-B, with meta/ and loose_crop/")
    parser.add_argument("--ijbc", metavar="FOLDER", help="IJB-C, likewise")
    parser.add_argument("--identification", action="store_true", help="also the 1:N protocol of IJB")
    parser.add_argument(
        "--flip",
        action=argparse.BooleanOptionalAction,
        help="add the embedding of the mirrored image (a model: default; stored features: right half of their rows)",
    )
    for name, text in (
        ("norm", "IJB: scale features to unit length before they are added up"),
        ("detector-score", "IJB: do not weight images by the score of the detector"),
    ):
        parser.add_argument(f"--no-{name}", dest=name.replace("-", "_"), action="store_false", help=text)
    parser.add_argument("--batch-size", type=int, default=256, help="images at a time in every process")
    parser.add_argument("--workers", type=int, default=0, help="processes that decode images")
    parser.add_argument("--bootstrap", type=int, default=0, metavar="N", help="replicates for confidence intervals")
    parser.add_argument("--bootstrap-over", choices=BOOTSTRAP_UNITS, default="pairs", help="what is drawn of pairs")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    parser.add_argument("--output", required=True, metavar="FOLDER", help="folder of the results")
    parser.add_argument("--cache", metavar="FOLDER", help="folder of the embeddings (default: in the output folder)")
    parser.add_argument(
        "--store-thresholds", action="store_true", help="write thresholds into the config.json of the model"
    )
    return VerificationOptions(**vars(parser.parse_args(arguments)))


def main(arguments: list[str]) -> None:
    record = run_verification(parse(arguments))
    if record is not None:
        print(render_report(record))


if __name__ == "__main__":
    main(sys.argv[1:])
