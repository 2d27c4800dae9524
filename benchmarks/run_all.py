"""
Every benchmark, one after the other, into one file that the site shows, and the same as a page beside it.

    python benchmarks/run_all.py [--reference CHECKOUT] [--insightface CHECKOUT]

Under 20 minutes on two cores that do nothing else; `--only NAME ...` runs some and leaves the tables of the others in
the file as they are, with the command and the version of the code that they were measured with. `--reference` is a
checkout of the authors' code and `--insightface` one of insightface: what is compared with them otherwise meets a plain
loop.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from harness import RIVALS


HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "docs" / "tools"))
from benchmark_tables import page  # noqa: E402


RESULTS = HERE.parent / "docs" / "results" / "benchmarks.json"
# Options that keep the whole within its time.
SCRIPTS: dict[str, list[str]] = {
    "training_step.py": ["--rounds", "3", "--compile"],
    "trainer_overhead.py": ["--rounds", "3"],
    "augmentation.py": [],
    "contrastive.py": ["--rounds", "5"],
    "large_head.py": ["--rounds", "3"],
    "class_counts.py": ["--rounds", "3"],
    "teacher_cache.py": ["--rounds", "3"],
    "ijb.py": ["--rounds", "3"],
    "pairs.py": [],
    "inference.py": ["--rounds", "2"],
    "growth.py": ["--rounds", "2"],
}
# Scripts that read a checkout where it is given, by the option that names it.
RIVALS_OF: dict[str, str] = {
    "training_step.py": "reference",
    "contrastive.py": "reference",
    "ijb.py": "insightface",
    "pairs.py": "insightface",
}


def options_of(script: str, arguments: argparse.Namespace) -> list[str]:
    """What changes the numbers of a script."""
    found, rival = list(SCRIPTS[script]), RIVALS_OF.get(script)
    if rival is not None and getattr(arguments, rival) is not None:
        found += [f"--{rival}", str(getattr(arguments, rival))]
    if arguments.device is not None:
        found += ["--device", arguments.device]
    return [*found, *["--quick"] * arguments.quick]


def command(script: str, tables: Path, arguments: argparse.Namespace) -> list[str]:
    """What is started for one script, which writes its tables into a file of its own."""
    found = [sys.executable, str(HERE / script), *options_of(script, arguments), "--output", str(tables)]
    if script == "growth.py":
        found += ["--plot", str(arguments.output.with_name("growth.png"))]
    return found


def shown(options: list[str]) -> str:
    """Options as somebody else would give them: of paths their last part, for where they are is nobody's matter."""
    return " ".join(Path(option).name if Path(option).is_absolute() else option for option in options)


def asked(arguments: argparse.Namespace) -> str:
    """The command that this is."""
    options = ["--only", *arguments.only] if arguments.only else []
    options += [
        word for rival in RIVALS if (path := getattr(arguments, rival)) for word in (f"--{rival}", str(path.resolve()))
    ]
    options += ["--device", arguments.device] if arguments.device is not None else []
    options += ["--quick"] * arguments.quick
    return f'make bench BENCH_OPTIONS="{shown(options)}"' if options else "make bench"


def keep(tables: Path, script: str, seconds: float, arguments: argparse.Namespace) -> None:
    """Adds new tables to the file of all of them, at once, so that an interruption loses nothing."""
    if not tables.exists():
        return
    output: Path = arguments.output
    known = json.loads(output.read_text(encoding="utf-8")) if output.exists() else {}
    new = json.loads(tables.read_text(encoding="utf-8"))
    # Older files have one command, which was that of all.
    scripts = {name: {"command": known["command"], **about} for name, about in known.get("scripts", {}).items()}
    # A table that this script no longer makes would stay for ever.
    gone = set(scripts.pop(script, {}).get("tables", [])) - set(new)
    kept = {name: table for name, table in known.get("tables", {}).items() if name not in gone}
    about = {"options": shown(options_of(script, arguments)), "seconds": round(seconds, 1), "tables": list(new)}
    scripts[script] = {"command": asked(arguments), **about}
    content = {
        "command": commands(scripts),
        "data": "noise of the sizes that the tables name",
        "hardware": "beside each table",
        "scripts": scripts,
        "tables": {**kept, **new},
    }
    write(content, output)


def commands(scripts: dict[str, Any]) -> str:
    """What made all that is stored, in the order in which it was run."""
    return "; ".join(dict.fromkeys(about["command"] for about in scripts.values()))


def write(content: dict[str, Any], output: Path) -> None:
    """The file, and the page with the same tables beside it; each is whole or as before."""
    output.parent.mkdir(parents=True, exist_ok=True)
    texts = {output: json.dumps(content, indent=1) + "\n", output.with_suffix(".md"): page(content)}
    for path, text in texts.items():
        partial = path.with_suffix(".partial")
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)


def forget_others(output: Path) -> None:
    """Leaves out what no script has made: tables of scripts and names that are no more."""
    content = json.loads(output.read_text(encoding="utf-8"))
    content["scripts"] = {name: about for name, about in content["scripts"].items() if name in SCRIPTS}
    content["command"] = commands(content["scripts"])
    made = {name for about in content["scripts"].values() for name in about["tables"]}
    content["tables"] = {name: table for name, table in content["tables"].items() if name in made}
    write(content, output)


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """
    The options.

    Raises:
        SystemExit: They do not go together.
    """
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--output", type=Path, help="file of all tables; docs/results/benchmarks.json if not given")
    for rival, whose in RIVALS.items():
        options.add_argument(f"--{rival}", type=Path, help=f"checkout of {whose} to compare with")
    options.add_argument("--device", help="cpu, cuda, ...; an accelerator where there is one, if not given")
    options.add_argument("--only", nargs="+", choices=sorted(SCRIPTS), help="these scripts alone")
    options.add_argument("--page", action="store_true", help="measure nothing; write the page of what is stored anew")
    options.add_argument("--quick", action="store_true", help="tiny sizes: whether they run, not how fast")
    arguments = options.parse_args(words)
    if arguments.quick and (arguments.output is None or arguments.output.resolve().parent == RESULTS.parent):
        options.error("--quick measures nothing and would overwrite what was measured; give another --output FILE")
    arguments.output = arguments.output or RESULTS
    for rival in RIVALS:
        if (path := getattr(arguments, rival)) is not None:
            setattr(arguments, rival, path.resolve())
    return arguments


def main() -> None:
    """Runs what is asked for; the exit status is 1 where a script failed, after the others have run."""
    arguments = parse()
    if arguments.page:
        write(json.loads(arguments.output.read_text(encoding="utf-8")), arguments.output)
        return
    failed, started = [], time.monotonic()
    for script in arguments.only or SCRIPTS:
        begun = time.monotonic()
        print(f"== {script}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            tables = Path(folder) / "tables.json"
            if subprocess.run(command(script, tables, arguments)).returncode:
                failed.append(script)
            else:
                keep(tables, script, time.monotonic() - begun, arguments)
        print(f"== {script}: {time.monotonic() - begun:.0f} s", flush=True)
    print(f"{time.monotonic() - started:.0f} s in all")
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")
    if not arguments.only:
        forget_others(arguments.output)


if __name__ == "__main__":
    main()
