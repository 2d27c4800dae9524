"""
Every benchmark, one after the other, into one file that the site shows.

    python benchmarks/run_all.py --output docs/results/benchmarks.json [--reference CHECKOUT]

Under 20 minutes on two cores that do nothing else; `--only NAME ...` runs some and leaves the tables of the others in
the file as they are.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path


HERE = Path(__file__).parent
# Options that keep the whole within its time.
SCRIPTS: dict[str, list[str]] = {
    "training_step.py": ["--rounds", "5"],
    "trainer_overhead.py": [],
    "augmentation.py": [],
    "contrastive.py": ["--rounds", "5"],
    "large_head.py": ["--rounds", "3"],
    "teacher_cache.py": ["--rounds", "3"],
    "ijb.py": ["--rounds", "1"],
    "pairs.py": [],
    "inference.py": [],
    "growth.py": ["--rounds", "3"],
}
# They read the authors' code where it is given.
WITH_REFERENCE = {"training_step.py", "contrastive.py"}


def command(script: str, tables: Path, arguments: argparse.Namespace) -> list[str]:
    """What is started for one script, which writes its tables into a file of its own."""
    found = [sys.executable, str(HERE / script), *SCRIPTS[script], "--output", str(tables)]
    if arguments.reference and script in WITH_REFERENCE:
        found += ["--reference", str(arguments.reference)]
    if script == "growth.py":
        found += ["--plot", str(arguments.output.with_name("growth.png"))]
    return [*found, *["--quick"] * arguments.quick]


def keep(tables: Path, output: Path) -> None:
    """Adds new tables to the file of all of them, at once, so that an interruption loses nothing."""
    if not tables.exists():
        return
    known = json.loads(output.read_text(encoding="utf-8"))["tables"] if output.exists() else {}
    about = {
        "command": "make bench",
        "data": "noise of the sizes that the tables name",
        "hardware": "beside each table",
    }
    content = {**about, "tables": {**known, **json.loads(tables.read_text(encoding="utf-8"))}}
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    partial.replace(output)


def main() -> None:
    """Runs what is asked for; the exit status is 1 where a script failed, after the others have run."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument(
        "--output", type=Path, default=Path("docs/results/benchmarks.json"), help="file of all tables"
    )
    options.add_argument("--reference", type=Path, help="checkout of the authors' code to compare with")
    options.add_argument("--only", nargs="+", choices=sorted(SCRIPTS), help="these scripts alone")
    options.add_argument("--quick", action="store_true", help="tiny sizes: whether they run, not how fast")
    arguments = options.parse_args()
    failed, started = [], time.monotonic()
    for script in arguments.only or SCRIPTS:
        begun = time.monotonic()
        print(f"== {script}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            tables = Path(folder) / "tables.json"
            if subprocess.run(command(script, tables, arguments)).returncode:
                failed.append(script)
            keep(tables, arguments.output)
        print(f"== {script}: {time.monotonic() - begun:.0f} s", flush=True)
    print(f"{time.monotonic() - started:.0f} s in all")
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
