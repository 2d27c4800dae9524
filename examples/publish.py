"""
Publish the model of a finished run on the Hub: weights, configuration, image processor, code, model card, settings.

    python examples/publish.py outputs/omniglot/th_kd --repo-id someone/omniglot-th-kd
    python examples/publish.py FOLDER --repo-id ID --private --revision candidate --message "Second seed"
    python examples/publish.py FOLDER --repo-id ID --results results/results.json

Everything arrives in one commit. The same command finishes an upload that was cut, and makes no commit where the
repository holds the same content already. Log in first with `hf auth login`.
"""

import argparse
import sys

from headshare_hf.hub.failures import told_in_one_line
from headshare_hf.trainer import publish_run


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="FOLDER", help="output folder of the run")
    parser.add_argument("--repo-id", required=True, metavar="ID", help="namespace/name on the Hub")
    parser.add_argument("--private", action="store_true", default=None, help="make the repository private")
    parser.add_argument("--revision", metavar="BRANCH", help="branch to commit to (default: main)")
    parser.add_argument("--message", default="Upload model", help="message of the commit")
    parser.add_argument(
        "--results", metavar="FILE", help="results.json of run_verification.py of this model, to be added to the card"
    )
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> None:
    options = parse(arguments)
    with told_in_one_line():
        done = publish_run(
            options.folder,
            options.repo_id,
            options.results,
            private=options.private,
            revision=options.revision,
            message=options.message,
        )
    if done.changed:
        print(f"published {len(done.files)} files: {done.url}")
    else:
        print(f"{done.repo_id} holds this content already, no commit was made: {done.url}")


if __name__ == "__main__":
    main(sys.argv[1:])
