"""
Does sharing the classifier help here, over what else could be done? One table with error bars from one command.

    python examples/compare.py --config examples/configs/compare/omniglot.yaml --output outputs/compare/omniglot

Trains the teacher and every method with every seed, each cell in a process of its own; run it again and it goes on where
it was. The best epoch is chosen by images held out from training, and the last one is reported beside it; the test
images choose nothing. Results are added to a JSON file, so that methods and seeds can be added later, and from it come a
table and plots. Any field of a section can be replaced, e.g. `--data.name FOLDER --training.num_train_epochs 5`.
"""

import argparse
from pathlib import Path
from typing import Any

from headshare_hf.trainer.comparison import Cell, Comparison, check_recipes, is_teacher, read_comparison
from headshare_hf.trainer.comparison_cells import code_version
from headshare_hf.trainer.comparison_report import render_comparison, write_report
from headshare_hf.trainer.comparison_results import ComparisonResults
from headshare_hf.trainer.comparison_run import CellError, default_jobs, run_cells
from headshare_hf.trainer.recipe_arguments import split_overrides


def parse_options(arguments: list[str] | None = None) -> tuple[argparse.Namespace, list[str]]:
    """The command line: options of this script, and what replaces fields of sections."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="comparison in YAML or JSON")
    parser.add_argument("--output", type=Path, required=True, help="folder of all cells, the table and the plots")
    parser.add_argument("--results", type=Path, help="JSON file that results are added to; default: in --output")
    parser.add_argument("--rows", nargs="+", help="these rows, and what they need")
    parser.add_argument("--seeds", nargs="+", type=int, help="these seeds, in place of those of the file")
    parser.add_argument("--jobs", type=int, help="cells at once; default: the number of accelerators, or 1")
    parser.add_argument("--accept-code", nargs="+", default=[], help="versions of the code whose results may be kept")
    parser.add_argument("--report", action="store_true", help="table and plots of what there is, without any training")
    return parser.parse_known_args(arguments)


def run(options: argparse.Namespace, comparison: Comparison, results: ComparisonResults) -> None:
    """Trains what is missing; every finished cell is in the file before the next one ends."""
    cells = comparison.cells(options.output, options.rows, options.seeds)
    check_recipes(cells)
    results.check_code(code_version())
    results.check_rows()
    finished = 0

    def report(cell: Cell, result: dict[str, Any]) -> None:
        nonlocal finished
        finished += 1
        results.add(cell, result)
        seconds = result["cost"]["train_seconds"]
        print(f"[{finished}/{len(cells)}] {cell.name}: {result['last']['accuracy']:.2%}, {seconds:.0f} s", flush=True)

    teacher, jobs = comparison.teacher_path(options.output), options.jobs or default_jobs()
    run_cells(cells, options.output, comparison.test_split, teacher, jobs, report)


def main(arguments: list[str] | None = None) -> None:
    options, rest = parse_options(arguments)
    if options.jobs is not None and options.jobs < 1:
        raise SystemExit(f"--jobs is {options.jobs}; it must be at least 1")
    comparison = read_comparison(options.config, split_overrides(rest))
    path = options.results or options.output / "results.json"
    results = ComparisonResults(path, comparison, options.accept_code)
    failure = None
    if not options.report:
        try:
            run(options, comparison, results)
        except CellError as error:
            failure = str(error)
    if not all(is_teacher(row) for row in results.content["cells"]):
        print(f"\n{render_comparison(results.content)}\n")
        print(*write_report(results.content, options.output / "report"), sep="\n")
    if failure is not None:
        raise SystemExit(failure)


if __name__ == "__main__":
    main()
