"""
Imports run in one direction: data, models, losses, evaluation, hub, trainer.

The trainer stands last because it is the part that uses all others: it counts accuracies with `evaluation` and writes
the card of `hub`, and both of these know nothing of a training run.
"""

import ast
from pathlib import Path


SOURCE = Path(__file__).parents[1] / "src" / "headshare_hf"
CHAIN = ("data", "models", "losses", "evaluation", "hub", "trainer")


def _imported_layers(path: Path) -> set[str]:
    """Names of the layers that a module imports from."""
    package = path.relative_to(SOURCE).parts[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            parts = [*base, *(node.module or "").split(".")] if node.level else (node.module or "").split(".")[1:]
            own = node.level or (node.module or "").split(".")[0] == "headshare_hf"
            names = [parts[0]] if parts and parts[0] else [alias.name for alias in node.names]
            found |= set(names) if own else set()
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("headshare_hf.")}
    return found & set(CHAIN)


def test_imports_only_go_to_the_left():
    checked = 0
    for number, layer in enumerate(CHAIN):
        for path in (SOURCE / layer).rglob("*.py"):
            wrong = _imported_layers(path) - set(CHAIN[: number + 1])
            assert not wrong, f"{path.relative_to(SOURCE)} imports {sorted(wrong)}"
            checked += 1
    assert checked > len(CHAIN)


def test_model_files_import_only_siblings():
    """Code that is published with weights has to work without this package: transformers follows `.name` only."""
    for path in (SOURCE / "models").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.level or "headshare_hf" in (node.module or "")):
                assert node.level == 1 and "." not in (node.module or ""), f"{path.name}: {ast.unparse(node)}"


def test_every_layer_is_found():
    assert _imported_layers(SOURCE / "trainer" / "trainer.py") >= {"data", "models", "losses", "evaluation"}
