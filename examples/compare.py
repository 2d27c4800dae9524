"""
Does sharing the classifier help here, over what else could be done? One table with error bars from one command.

    python examples/compare.py --config examples/configs/compare/omniglot.yaml --output outputs/compare/omniglot

Trains the teacher and every method with every seed, each cell in a process of its own; run it again and it goes on where
it was. The best epoch is chosen by images held out from training, and the last one is reported beside it; the test
images choose nothing. Results are added to a JSON file, so that methods and seeds can be added later, and from it come a
table and plots; `--report` makes these of what there is, or of some `--rows` and `--seeds` of it. Any field of a section
can be replaced, e.g. `--data.name FOLDER --training.num_train_epochs 5`.
"""

import argparse
from pathlib import Path
from typing import Any

from headshare_hf.trainer.comparison import Cell, Comparison, check_recipes, read_comparison
from headshare_hf.trainer.comparison_building import check_buildable
from headshare_hf.trainer.comparison_cells import Judging, begun_by, code_version, finished_results, kept_results
from headshare_hf.trainer.comparison_checks import is_teacher
from headshare_hf.trainer.comparison_judging import check_judging
from headshare_hf.trainer.comparison_report import render_comparison, write_report
from headshare_hf.trainer.comparison_results import ComparisonResults
from headshare_hf.trainer.comparison_run import CellError, check_alone, default_jobs, run_cells
from headshare_hf.trainer.comparison_teachers import render_teachers
from headshare_hf.trainer.comparison_values import restrict_results
from headshare_hf.trainer.recipe_arguments import split_overrides


def parse_options(arguments: list[str] | None = None) -> tuple[argparse.Namespace, list[str]]:
    """The command line: options of this script, and what replaces fields of sections."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="comparison in YAML or JSON")
    parser.add_argument("--output", type=Path, required=True, help="folder of all cells, the table and the plots")
    parser.add_argument("--results", type=Path, help="JSON file that results are added to; default: in --output")
    parser.add_argument("--rows", nargs="+", help="these rows, and what they need; with --report, and the baseline")
    parser.add_argument("--seeds", nargs="+", type=int, help="these seeds, in place of those of the file")
    parser.add_argument("--jobs", type=int, help="cells at once; default: the number of accelerators, or 1")
    parser.add_argument("--accept-code", nargs="+", default=[], help="versions of the code whose results may be kept")
    parser.add_argument(
        "--baseline", help="row that others are compared with in this report; default: that of the file"
    )
    parser.add_argument("--report", action="store_true", help="table and plots of what there is, without any training")
    return parser.parse_known_args(arguments)


def check_options(options: argparse.Namespace) -> None:
    """
    Raises:
        SystemExit: An option has an impossible value, or says how to train where nothing is trained.
    """
    if options.jobs is not None and options.jobs < 1:
        raise SystemExit(f"--jobs is {options.jobs}; it must be at least 1")
    training = {"--jobs": options.jobs, "--accept-code": options.accept_code}
    for name in [name for name, value in training.items() if value and options.report]:
        raise SystemExit(f"{name} says how to train, and --report trains nothing; leave one of them out")


def run(options: argparse.Namespace, comparison: Comparison, results: ComparisonResults) -> None:
    """Trains what is missing; every finished cell is in the file before the next one ends."""
    cells = comparison.cells(options.output, options.rows, options.seeds)
    check_recipes(cells)
    teacher, accepted = comparison.teacher_section(options.output), frozenset(options.accept_code)
    judging = Judging(comparison.test_split, teacher, code_version(), accepted)
    results.check_kept(finished_results(cells, options.output, judging), judging.code)
    results.check_begun(begun_by(cells, options.output), judging.code)
    kept = kept_results(cells, options.output, judging)
    missing = [cell for cell in cells if cell.name not in kept and not is_teacher(cell.row)]
    if missing:
        given = None if comparison.teacher_name else judging.teacher
        results.check_images("the images", check_judging(missing[0], judging.test_split, given))
    check_buildable(
        [cell for cell in cells if cell.name not in kept], {cell.name: cell for cell in cells}, options.output
    )
    finished = 0

    def report(cell: Cell, result: dict[str, Any]) -> None:
        nonlocal finished
        finished += 1
        results.add(cell, result)
        seconds = result["cost"]["train_seconds"]
        print(f"[{finished}/{len(cells)}] {cell.name}: {result['last']['accuracy']:.2%}, {seconds:.0f} s", flush=True)

    jobs = options.jobs or default_jobs(on_cpu=bool(comparison.training.get("use_cpu")))
    run_cells(cells, options.output, judging, jobs, report)


def show(options: argparse.Namespace, content: dict[str, Any]) -> None:
    """Prints the tables, and writes them with the plots."""
    content = {**content, "baseline": options.baseline or content["baseline"]}
    if options.report:
        content = restrict_results(content, options.rows, options.seeds)
    print(f"\n{render_comparison(content)}\n\n{render_teachers(content)}\n")
    print(*write_report(content, options.output / "report"), sep="\n")


def main(arguments: list[str] | None = None) -> None:
    options, rest = parse_options(arguments)
    check_alone()
    check_options(options)
    comparison = read_comparison(options.config, split_overrides(rest))
    comparison.check_rows(filter(None, [options.baseline]))
    path = options.results or options.output / "results.json"
    if options.report and not path.is_file():
        raise SystemExit(
            f"there are no results in {path}; leave out --report to train, or name the file with --results"
        )
    results = ComparisonResults(path, comparison, options.accept_code)
    failure = None
    if not options.report:
        try:
            run(options, comparison, results)
        except CellError as error:
            failure = str(error)
    try:
        if options.report or not all(is_teacher(row) for row in results.content["cells"]):
            show(options, results.content)
    except Exception as error:
        if failure is None:
            raise
        failure = f"{failure}\nThe report could not be made either: {error}"
    if failure is not None:
        raise SystemExit(failure)


if __name__ == "__main__":
    main()
