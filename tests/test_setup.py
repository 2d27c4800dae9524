"""What `setup.py` asks for."""

from pathlib import Path

import pytest
import setuptools
from packaging.requirements import Requirement


@pytest.fixture
def extras(monkeypatch):
    given = {}
    monkeypatch.setattr(setuptools, "setup", lambda **fields: given.update(fields))
    path = Path(__file__).parents[1] / "setup.py"
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), {"__file__": str(path)})
    return {name: [Requirement(line) for line in lines] for name, lines in given["extras_require"].items()}


def test_tools_that_fail_the_build_are_bounded_above(extras):
    """A new release of a linter must not turn a build red in which nothing has changed."""
    bounded = {tool.name for tool in extras["quality"] if any(bound.operator == "<" for bound in tool.specifier)}
    assert {"ruff", "mypy"} <= bounded


def test_dev_has_all_of_the_other_extras(extras):
    names = {tool.name for name, tools in extras.items() if name != "dev" for tool in tools}
    assert {tool.name for tool in extras["dev"]} == names > {"ruff", "gradio", "onnxruntime", "mkdocs"}
