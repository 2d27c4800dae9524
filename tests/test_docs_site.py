"""The site: strictly built, complete, without a network, and equal to the code and the stored results it shows."""

import ast
import importlib
import json
import os
import re
import shlex
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path
from statistics import mean, stdev

import pytest
import yaml

from headshare_hf.hub import convert
from headshare_hf.losses import COMPANIONS, LossWeights
from headshare_hf.trainer import METHODS
from headshare_hf.trainer.recipe_arguments import parse_recipe


ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
sys.path.append(str(DOCS / "tools"))
site_docstrings, site_pages, site_tables = map(
    importlib.import_module, ("site_docstrings", "site_pages", "site_tables")
)
PACKAGES = ("models", "trainer", "losses", "data", "evaluation", "hub")
CLOSED = "http://127.0.0.1:9"


class Links(HTMLParser):
    """What a page refers to, what it loads, its anchors and its text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.ids |= {found["id"]} if found.get("id") else set()
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        if tag in ("script", "img", "iframe") and found.get("src"):
            self.loaded.append(found["src"])
        if tag == "link" and found.get("rel") != "canonical" and found.get("href"):
            self.loaded.append(found["href"])

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Every page of a site that was built strictly, with every proxy closed, by its path in the site."""
    site = tmp_path_factory.mktemp("site")
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), CLOSED)
    environment = {**os.environ, **proxies, "PYTHONPATH": str(ROOT / "src"), "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return {path: Links(path) for path in sorted(site.rglob("*.html")) if path.name != "404.html"}


def _page(pages, name):
    (found,) = [links for path, links in pages.items() if path.as_posix().endswith(f"/{name}")]
    return found


def _targets(nav) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    values = nav.values() if isinstance(nav, dict) else nav
    return [target for value in values for target in _targets(value)]


def test_every_guide_is_in_the_navigation():
    nav = _targets(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])
    assert sorted(nav) == sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))


@pytest.mark.slow
def test_every_page_is_built(pages):
    site = min(pages, key=lambda path: len(path.parts)).parent
    expected = {path.relative_to(DOCS).with_suffix(".html") for path in DOCS.rglob("*.md")}
    assert {path.relative_to(site) for path in pages} == expected and len(expected) > 10


@pytest.mark.slow
@pytest.mark.parametrize("package", PACKAGES)
def test_the_reference_has_every_public_name(pages, package):
    module = importlib.import_module(f"headshare_hf.{package}")
    page = _page(pages, f"api/{package}.html")
    assert [name for name in module.__all__ if f"headshare_hf.{package}.{name}" not in page.ids] == []


@pytest.mark.slow
def test_docstrings_are_rendered_and_not_shown_raw(pages):
    page = _page(pages, "api/trainer.html")
    text = re.sub(r"\s+", " ", page.text)
    assert "shared_head_from ((Module, str or Path), default: None ) – A model whose" in text
    text = re.sub(r"\s+", " ", _page(pages, "api/models.html").text)
    assert "image_size (int or list[int], optional, defaults to 32) – Height and width" in text
    for package in PACKAGES:
        text = _page(pages, f"api/{package}.html").text
        assert [raw for raw in ("*optional*", "[`", "defaults to `", "\nArgs:") if raw in text] == []


@pytest.mark.slow
def test_nothing_is_loaded_from_elsewhere(pages):
    loaded = [source for page in pages.values() for source in page.loaded]
    assert len(loaded) > 50 and [source for source in loaded if re.match(r"(\w+:)?//", source)] == []


@pytest.mark.slow
def test_every_link_of_the_site_leads_somewhere(pages):
    checked, wrong = 0, []
    for path, page in pages.items():
        for link in (link for link in page.links if not re.match(r"\w+:", link)):
            name, _, anchor = link.partition("#")
            target = (path.parent / name).resolve() if name else path
            known = pages[target].ids if target in pages else set()
            checked += 1
            if not target.exists() or (anchor and anchor not in known | {"__top"}):
                wrong.append((path.name, link))
    assert checked > 500 and wrong == []


@pytest.mark.slow
def test_files_outside_of_the_guides_are_copied_and_folders_are_not_linked(pages):
    page = _page(pages, "methods.html")
    site = min(pages, key=lambda path: len(path.parts)).parent
    (link,) = [link for link in page.links if link.endswith("methods.py.txt")]
    source = ROOT / "src" / "headshare_hf" / "trainer" / "methods.py"
    assert (site / link).read_text(encoding="utf-8") == source.read_text(encoding="utf-8")
    started = _page(pages, "getting-started.html")
    assert "examples/configs has recipes" in started.text
    assert [link for link in started.links if link.rstrip("/").endswith("examples/configs")] == []


@pytest.mark.slow
def test_sections_of_the_readme_are_whole(pages):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    text = "".join(_page(pages, name).text for name in ("getting-started.html", "mechanisms.html"))
    blocks = re.findall(r"^```python\n(.*?)^```$", readme, flags=re.DOTALL | re.MULTILINE)
    assert blocks and [block for block in blocks if block.strip() not in text] == []


@pytest.mark.slow
@pytest.mark.parametrize("picture", ["classify", "verify"])
def test_the_demo_is_shown_with_its_pictures(pages, picture):
    site = min(pages, key=lambda path: len(path.parts)).parent
    page = pages[site / "hub.html"]
    (source,) = [source for source in page.loaded if source.endswith(f"{picture}.png")]
    stored = DOCS / "screenshots" / f"{picture}.png"
    assert (site / source).read_bytes() == stored.read_bytes()
    assert "demo" in page.ids and "DEMO_VERIFICATION_MODELS" in page.text


def test_a_section_is_read_up_to_the_next_heading_and_its_links_are_moved(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "a.md").write_text(
        "# A\n\n## One two\n\nSee [b](docs/b.md), [x](https://x.org).\n\n### Inner\n\n## Last\n\nEnd\n"
    )
    found = site_pages.included(tmp_path / "a.md", "one-two", tmp_path / "docs")
    assert found == "See [b](b.md), [x](https://x.org).\n\n### Inner"
    assert site_pages.included(tmp_path / "a.md", "last", tmp_path) == "End"


def test_a_section_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="README.md has no heading for #nowhere; correct the link"):
        site_pages.included(ROOT / "README.md", "nowhere", DOCS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "Args:\n    x (`str` or `Path`, *optional*, defaults to `1`): Text `y`.",
            "Args:\n    x (str or Path): Text `y`.",
        ),
        ("Args:\n    a, b (`float`): Both.", "Args:\n    a, b (float): Both."),
        ("Attributes:\n    x ([`Roc`], *optional*): Text.", "Attributes:\n    x (Roc, optional): Text."),
        ("Returns:\n    `dict[str, int]`: By name: `{1: 2}`.", "Returns:\n    dict[str, int]: By name: `{1: 2}`."),
        ("Returns:\n    Its result; `None` elsewhere.", "Returns:\n    Its result; `None` elsewhere."),
        ("See [`Roc.tar`] and [`inner`].", "See [`Roc.tar`][p.Roc.tar] and `inner`."),
    ],
)
def test_docstrings_are_turned_into_the_form_of_google(text, expected):
    assert site_docstrings.to_google(text, {"Roc": "p.Roc"}) == expected


def test_defaults_stay_where_no_signature_tells_them():
    text = "Args:\n    x (`int`, *optional*, defaults to `32`): Text."
    assert site_docstrings.to_google(text, {}, False) == "Args:\n    x (int, optional, defaults to 32): Text."


def test_every_method_has_its_source():
    rows = [line.split(" | ") for line in site_tables.sources().splitlines()[2:]]
    own = {name: row for name, row in METHODS.items() if row.companion is None}
    assert [row[0] for row in rows] == [f"| `{name}`" for name in own]
    assert [row[2].removesuffix(" |") for row in rows] == [row.source for row in own.values()]


def test_every_companion_is_in_the_table_with_its_weights():
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in site_tables.companions().splitlines()[2:]
    ]
    assert [row[0] for row in rows] == [f"`{name}`" for name in COMPANIONS]
    assert [[float(cell) for cell in (row[3], row[5], row[6])] for row in rows] == [
        pytest.approx([row.weight, row.ce, row.kd], rel=1e-4) for row in COMPANIONS.values()
    ]
    assert all(row[2] for row in rows) and {row[7] for row in rows} == {"yes", "–"}


def test_memory_of_class_centers():
    (row,) = [line for line in site_tables.centers().splitlines() if "93,431" in line]
    assert row.endswith("| 512 | 191.3 MB | 574.0 MB |")


def test_accuracies_are_those_of_the_stored_file():
    stored = json.loads((DOCS / "results" / "omniglot.json").read_text())
    table = site_tables.omniglot().replace("\u00a0", " ")
    for name, values in stored["accuracy"].items():
        (row,) = [line for line in table.splitlines() if line.startswith(f"| {name} |")]
        error = stdev(values) / len(values) ** 0.5
        assert f"| {100 * mean(values):.2f} ± {100 * error:.2f} |" in row
        assert row.endswith(f"| {' | '.join(f'{100 * value:.2f}' for value in values)} |")


def test_what_the_page_says_of_the_accuracies_holds():
    stored = json.loads((DOCS / "results" / "omniglot.json").read_text())
    gains = [th - kd for th, kd in zip(stored["accuracy"]["TH-KD"], stored["accuracy"]["KD"], strict=True)]
    assert 0 < mean(gains) < 2 * stdev(gains) / len(gains) ** 0.5
    (shared,) = [values for name, values in stored["other"].items() if name.startswith("SH-KD teacher")]
    assert mean(shared) > mean(stored["accuracy"]["teacher"])


def test_the_figure_has_the_weights_of_the_methods():
    row, coupled = METHODS["th_kd"], METHODS["th_kd_coupled"]
    expected = {"th_kd": LossWeights(row.ce, row.kd, row.teacher_head)}
    expected |= {name: LossWeights.coupled(coupled.ce, coupled.kd, float(name)) for name in ("0", "0.25", "0.5", "1")}
    drawn: dict[str, dict[tuple[str, str], float]] = {name: {} for name in expected}
    tree = ElementTree.parse(DOCS / "figures" / "alpha_th.svg")
    for bar in (element for element in tree.iter() if element.get("data-part")):
        drawn[bar.get("data-method")][bar.get("data-head"), bar.get("data-part")] = float(bar.get("width")) / 212
    for name, weights in expected.items():
        parts = {("own", "CE"): weights.ce, ("own", "KL"): weights.kd}
        parts |= {("TH", "CE"): weights.teacher_head_ce, ("TH", "KL"): weights.teacher_head}
        assert drawn[name] == pytest.approx({part: weight for part, weight in parts.items() if weight})


@pytest.mark.parametrize("figure", ["th_kd", "sh_kd", "alpha_th"])
def test_figures_are_well_formed_and_described(figure):
    root = ElementTree.parse(DOCS / "figures" / f"{figure}.svg").getroot()
    assert root.tag.endswith("svg") and len(root.find("{*}desc").text) > 100


def _blocks(page: str, language: str) -> list[str]:
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)


def test_commands_of_the_guides_are_understood(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    parsers = {
        "examples/publish.py": importlib.import_module("publish").parse,
        "examples/export.py": importlib.import_module("export").parse,
        "examples/run_distill.py": lambda arguments: parse_recipe([*arguments, "--training.use_cpu", "true"]),
        "headshare_hf.hub.convert": convert._parser().parse_args,
    }
    lines = [
        line for page in ("hub.md", "scaling.md") for block in _blocks(page, "bash") for line in block.splitlines()
    ]
    understood = []
    for command in map(shlex.split, lines):
        (place,) = [number for number, word in enumerate(command) if word in parsers]
        parsers[command[place]](command[place + 1 :])
        understood.append(command[place])
    assert set(understood) == set(parsers)


def test_python_of_the_hub_guide_names_what_is_there():
    imports = [node for code in _blocks("hub.md", "python") for node in ast.parse(code).body]
    named = [(node.module, alias.name) for node in imports if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert len(named) >= 3
    assert [(module, name) for module, name in named if not hasattr(importlib.import_module(module), name)] == []


def test_what_the_page_says_of_the_images_holds():
    page = (DOCS / "results" / "comparisons.md").read_text(encoding="utf-8")
    said = {
        "tiny_imagenet_100": (8000, "8,000 images at 32 pixels"),
        "cifar10": (5000, "5,000 of its images"),
        "grocery_store": (2640, "2,640 images at 64 pixels"),
    }
    for name, (count, sentence) in said.items():
        stored = json.loads((DOCS / "results" / f"compare_{name}.json").read_text(encoding="utf-8"))
        assert stored["data"]["images"]["train"] == count and sentence in page, name
