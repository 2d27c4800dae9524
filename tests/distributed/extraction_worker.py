"""What every process of a distributed evaluation runs: the evaluation of sets of pairs, in parts of ten images."""

import sys

import headshare_hf.evaluation.extraction as extraction
from headshare_hf.evaluation import VerificationOptions, run_verification


def main(model: str, output: str, pairs: list[str]) -> None:
    # So that a set of some images has several parts.
    extraction.extract_embeddings.__kwdefaults__["part_rows"] = 10
    record = run_verification(VerificationOptions(output=output, model=model, pairs=pairs, batch_size=4))
    sys.stdout.write(f"record: {record is not None}\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
