"""Functions of a checkout of insightface, taken out of scripts that cannot be imported whole."""

import ast
import contextlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


def take(checkout: Path, script: str, names: Sequence[str], environment: dict[str, Any]) -> list[Callable[..., Any]]:
    """
    Functions and classes of a script below `recognition/arcface_torch`. The script itself parses arguments and imports
    packages of training when it is imported, so that only these definitions are run, and what they print is dropped.

    Args:
        checkout (`Path`): Of insightface.
        script (`str`): E.g. `eval_ijbc.py`.
        names (`Sequence[str]`): What to take.
        environment (`dict[str, Any]`): The modules that the definitions name.

    Raises:
        SystemExit: There is no such script, or it has no such function.
    """
    path = checkout / "recognition" / "arcface_torch" / script
    if not path.is_file():
        raise SystemExit(f"{checkout} is no checkout of insightface (it has no recognition/arcface_torch/{script})")
    body = [node for node in ast.parse(path.read_text(encoding="utf-8")).body if getattr(node, "name", None) in names]
    scope = dict(environment)
    exec(compile(ast.Module(body=body, type_ignores=[]), str(path), "exec"), scope)
    missing = [name for name in names if name not in scope]
    if missing:
        raise SystemExit(f"{path} has no {missing[0]}; compare with another commit")
    return [_silent(scope[name]) for name in names]


def _silent(function: Callable[..., Any]) -> Callable[..., Any]:
    def run(*arguments: Any, **options: Any) -> Any:
        with contextlib.redirect_stdout(io.StringIO()):
            return function(*arguments, **options)

    return run
