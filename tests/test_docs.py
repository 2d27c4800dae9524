"""The guides agree with the code: paths, commands, methods and names."""

import importlib
import json
import re
import shlex
import sys
from pathlib import Path
from statistics import mean, stdev

import pytest

from headshare_hf.data.convert import convert
from headshare_hf.evaluation import metric_names
from headshare_hf.models import backbone_names
from headshare_hf.models.heads import HEAD_TYPES
from headshare_hf.trainer import METHODS
from headshare_hf.trainer.recipe_arguments import parse_recipe


ROOT = Path(__file__).parents[1]
GUIDES = sorted((ROOT / "docs").glob("*.md"))
FACES = (ROOT / "docs" / "faces.md").read_text(encoding="utf-8")


def _commands(text: str) -> list[list[str]]:
    blocks = re.findall(r"^```bash\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    return [shlex.split(line) for block in blocks for line in block.splitlines()]


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.stem)
def test_every_link_leads_somewhere(guide):
    links = [link for link in re.findall(r"\]\(([^)]+)\)", guide.read_text(encoding="utf-8")) if "://" not in link]
    headings = {
        heading.lower().replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", guide.read_text(), flags=re.MULTILINE)
    }
    wrong = [
        link
        for link in links
        if not (link[1:] in headings if link.startswith("#") else (guide.parent / link.partition("#")[0]).exists())
    ]
    assert links and wrong == []


@pytest.mark.parametrize("text", [FACES, (ROOT / "README.md").read_text(encoding="utf-8")], ids=["faces", "readme"])
def test_verification_commands_are_understood(text, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    parse = importlib.import_module("run_verification").parse
    monkeypatch.setattr("headshare_hf.evaluation.run_options.check_can_store", lambda model: None)
    found = [command for command in _commands(text) if "examples/run_verification.py" in command]
    assert found
    for command in found:
        parse(command[command.index("examples/run_verification.py") + 1 :])


def test_recipe_and_conversion_commands_are_understood(monkeypatch):
    recipes = [command for command in _commands(FACES) if "examples/run_distill.py" in command]
    assert recipes
    for command in recipes:
        parse_recipe([*command[command.index("examples/run_distill.py") + 1 :], "--training.use_cpu", "true"])
    scales = [command for command in _commands(FACES) if "examples/kd_scale.py" in command]
    assert scales
    for command in scales:
        options = command[command.index("examples/kd_scale.py") + 1 : command.index("--scales")]
        assert parse_recipe([*options, "--training.use_cpu", "true"]).teacher is not None
    conversions = [command for command in _commands(FACES) if "headshare_hf.data.convert" in command]
    module = sys.modules[convert.__module__]
    called: list[tuple] = []
    monkeypatch.setattr(module, "convert", lambda *args, **kwargs: called.append(args) or 0)
    for command in conversions:
        module.main(command[command.index("headshare_hf.data.convert") + 1 :])
    assert len(called) == len(conversions) == 3


def test_the_names_are_those_of_the_code():
    words = set(re.findall(r"`([\w]+)`", FACES))
    assert {name for name in backbone_names() if name.startswith(("mobilefacenet", "iresnet"))} <= words
    assert set(HEAD_TYPES) - {"linear"} <= words
    table = set(re.findall(r"^\| `(\w+)` \| (?:the teacher|that distance|the distance)", FACES, flags=re.MULTILINE))
    assert table and table <= METHODS.keys()
    assert set(re.findall(r'"(\w*verification|\w*identification)"\)?', FACES)) & set(metric_names())


@pytest.mark.parametrize("key, number", [("verification", 0), ("verification_orl", 1)])
def test_the_tables_of_real_faces_are_those_of_the_stored_values(key, number):
    stored = json.loads((ROOT / "docs" / "results" / "lfwcrop.json").read_text())[key]
    columns = ("accuracy", "auc", "eer", "tar@far=1e-2/at_most")
    for method, values in stored.items():
        found = re.findall(rf"^\| {method} \| (.+) \|$", FACES, flags=re.MULTILINE)
        assert len(found) == 2, method
        for column, cell in zip(columns, found[number].split(" | ")[:4], strict=True):
            error = stdev(values[column]) / len(values[column]) ** 0.5
            assert cell == f"{100 * mean(values[column]):.2f} ± {100 * error:.2f}"


@pytest.mark.parametrize("method, stated", [("TH-KD", "0.19 ± 0.11"), ("SH-KD", "0.85 ± 0.12")])
def test_the_claims_about_real_faces_are_paired_differences(method, stated):
    stored = json.loads((ROOT / "docs" / "results" / "lfwcrop.json").read_text())["verification"]
    gains = [100 * (a - b) for a, b in zip(stored[method]["auc"], stored["KD"]["auc"], strict=True)]
    assert f"{mean(gains):.2f} ± {stdev(gains) / len(gains) ** 0.5:.2f}" == stated
    assert stated in FACES
