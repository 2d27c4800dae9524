"""
IJB-C at its full size: pooling, scores and TAR at FAR beside a version with loops, and the whole command.

    python benchmarks/ijb.py [--insightface CHECKOUT]   # 5 minutes on two cores, 3 GB of disk
    python benchmarks/ijb.py --scale 0.02               # half a minute

The protocol is synthetic, of the published size and in the published formats; features are random but overlap as real
ones do. The other version does what evaluation scripts commonly do: a loop over templates and media, scalar products of
the pairs in blocks, `roc_curve` of scikit-learn and its point of the nearest FAR. It is slow and runs once, between runs
of this package; the TARs must be the same to the last bit. Then the command that users call runs in a process of its own.
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

from harness import Row, agree, parser, prepare, report
from ijb_command import COMMANDS, run_command
from ijb_sides import GROUPS, Insightface, Loops, Package, Side, Times


sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from ijb_files import ProtocolSize, write_protocol  # noqa: E402


CHAIN = "pooling to TAR"


def measure(package: Side, other: Side, rounds: int, other_rounds: int) -> dict[str, list[Times]]:
    """Times of both sides and of the control, round by round; the first round of this package does not count."""
    package.run()
    times: dict[str, list[Times]] = {"ours": [], "control": [], "other": []}
    for number in range(rounds):
        for kind in ("ours", "control") if number % 2 else ("control", "ours"):
            times[kind].append(package.run())
        if number < other_rounds:
            times["other"].append(other.run())
    return times


def compared(times: dict[str, list[Times]]) -> tuple[list[Row], dict[str, dict[str, float]]]:
    """A row for each part, with how much longer the other side takes; and what that is in seconds, and the control."""
    rows, seconds, controls = [], {}, {}
    for name, parts in GROUPS.items():
        wall = {kind: [run.wall(parts) for run in runs] for kind, runs in times.items()}
        cpu = {kind: [run.cpu(parts) for run in runs] for kind, runs in times.items()}
        seconds[name], other_cpu = statistics.median(wall["other"]), statistics.median(cpu["other"])
        controls[name] = statistics.median(wall["ours"]) / statistics.median(wall["control"])
        rows.append(_row(name, wall["ours"], cpu["ours"], seconds[name], other_cpu))
    return rows, {"other s": seconds, "control": controls}


def check(package: Side, other: Side) -> dict[str, float]:
    """The differences of both sides by part; the TARs may have none."""
    tars = [agree(f"TAR, {rule}", package.tars[rule], other.tars[rule], 0) for rule in ("nearest", "at most")]
    return {
        "pooling": agree("features of templates", package.templates, other.templates, 1e-5),
        "pair scores": agree("scores", package.scores, other.scores, 1e-5),
        # The other side pools in float32.
        "TAR at FAR": max(*tars, agree("AUC", package.tars["auc"], other.tars["auc"], 1e-8)),
        CHAIN: max(tars),
    }


def parts_table(folder: Path, arguments: argparse.Namespace) -> None:
    """Both sides, part by part."""
    other: Side = Loops(folder) if arguments.insightface is None else Insightface(folder, arguments.insightface)
    package = Package(folder)
    times = measure(package, other, arguments.rounds, arguments.other_rounds)
    agreement = check(package, other)
    rows, columns = compared(times)
    notes = [
        f"other side: {other.name}, in {len(times['other'])} of {arguments.rounds} rounds, for it takes so long; so the "
        "quartiles are those of this package's rounds alone; control: this package against itself",
        f"TAR at FAR 1e-6, ..., 1e-1, nearest point: {', '.join(f'{tar:.4%}' for tar in package.tars['nearest'])}",
    ]
    title = f"IJB-C, {package.size()}: seconds of this package, and how often the other side takes as long"
    report("ijb", title, rows, agreement, {CHAIN: 20}, arguments, notes, columns, against=other.name)


def command_table(folder: Path, arguments: argparse.Namespace) -> None:
    """The command as users call it, from files to tables and curves."""
    # Users have the usual settings, and `run_command` starts it with these.
    arguments = argparse.Namespace(**{**vars(arguments), "allocator": "usual", "rounds": arguments.command_rounds})
    runs = {
        name: [run_command(folder, more) for _ in range(arguments.command_rounds)] for name, more in COMMANDS.items()
    }
    base_name, base = next(iter(runs.items()))
    wall, cpu = (statistics.median(getattr(run, kind) for run in base) for kind in ("wall", "cpu"))
    rows = [
        _row(name, [run.wall for run in found], [run.cpu for run in found], wall, cpu) for name, found in runs.items()
    ]
    columns = {
        "cpu s": {name: statistics.median(run.cpu for run in found) for name, found in runs.items()},
        "peak MB": {name: max(run.peak_mb for run in found) for name, found in runs.items()},
    }
    title = "examples/run_verification.py on the files of IJB-C, with stored features, from start to end"
    notes = ["ratio: to the first row"]
    limits = {"median_s": {base_name: 30.0}, "peak MB": {base_name: 4000.0}}
    report("ijb_command", title, rows, {}, {}, arguments, notes, columns, limits)


def _row(name: str, wall: list[float], cpu: list[float], other_wall: float, other_cpu: float) -> Row:
    ratios = [other_wall / seconds for seconds in wall]
    low, _, high = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    cpu_ratio = statistics.median(other_cpu / max(seconds, 1e-9) for seconds in cpu)
    median, ratio = statistics.median(wall), statistics.median(ratios)
    return Row(name, median, min(wall), max(wall), ratio, low, high, cpu_ratio)


def main() -> None:
    """Writes the protocol where there is none, and compares."""
    options = parser(__doc__, rival="insightface")
    options.set_defaults(rounds=5)
    options.add_argument("--other-rounds", type=int, default=1, help="how often the slow side is measured")
    options.add_argument("--command-rounds", type=int, default=1, help="how often each command is measured")
    options.add_argument("--scale", type=float, default=1.0, help="share of the templates")
    options.add_argument("--folder", type=Path, help="where to write the files and keep them; temporary otherwise")
    arguments = options.parse_args()
    prepare(arguments)
    scale = 0.005 if arguments.quick else arguments.scale
    size = ProtocolSize() if scale == 1 else ProtocolSize().scaled(scale)
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        if not (folder / "features.npy").exists():
            write_protocol(folder, size)
        parts_table(folder, arguments)
        command_table(folder, arguments)


if __name__ == "__main__":
    main()
