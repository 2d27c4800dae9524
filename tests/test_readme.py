"""The README agrees with the code: methods, networks, paths, commands and Python."""

import ast
import re
import shlex
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import torch
from PIL import Image
from toys import resnet

from headshare_hf import HeadShareConfig, HeadShareForImageClassification, HeadShareImageProcessor
from headshare_hf.data import augmentation_names
from headshare_hf.losses import COMPANIONS
from headshare_hf.models import backbone_names
from headshare_hf.trainer import METHODS
from headshare_hf.trainer.recipe_arguments import parse_recipe


ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
TRACKED_FOLDERS = ("docs/", "examples/", "src/", "tests/")


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, flags=re.DOTALL | re.MULTILINE)


def _table(first_column: str) -> list[list[str]]:
    """The rows of the table whose first heading this is, cell by cell."""
    _, _, after = TEXT.partition(f"\n| {first_column} |")
    lines = after.split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def _commands() -> list[list[str]]:
    return [shlex.split(line) for block in _blocks("bash") for line in block.splitlines()]


def test_every_method_is_in_the_table_with_its_weights():
    rows = {row[0].strip("`"): row[2:] for row in _table("`method`")}
    stated = {name: [None if cell == "–" else float(cell) for cell in cells] for name, cells in rows.items()}
    assert stated == {
        name: [row.ce, row.kd, row.teacher_head, row.embedding, row.contrastive, row.alpha_th]
        for name, row in METHODS.items()
        if row.companion is None
    }


def test_every_companion_is_named():
    assert [name for name in COMPANIONS if f"`{name}`" not in TEXT] == []


def test_every_backbone_is_in_the_table_with_its_width():
    groups = [group for _, cell in _table("family") for group in re.findall(r"([^;(]+) \((\d+)\)", cell)]
    stated = {name: int(width) for names, width in groups for name in re.findall(r"`(\w+)`", names)}
    assert sorted(stated) == sorted(backbone_names())
    assert f"one of {len(stated)} networks" in TEXT
    for name, width in stated.items():
        with torch.device("meta"):
            assert HeadShareForImageClassification(HeadShareConfig(backbone=name)).classifier.in_features == width


def test_every_augmentation_is_named():
    assert [name for name in augmentation_names() if f"`{name}`" not in TEXT] == []


def test_every_path_exists():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", TEXT) if "://" not in link]
    words = [word for word in re.findall(r"[\w./-]+", TEXT) if word.startswith(TRACKED_FOLDERS)]
    assert len(links) >= 6 and len(words) >= 20
    assert [path for path in links + words if not (ROOT / path.partition("#")[0]).exists()] == []


def test_the_figure_is_well_formed():
    assert ElementTree.parse(ROOT / "docs" / "mechanisms.svg").getroot().tag == "{http://www.w3.org/2000/svg}svg"


def test_make_targets_exist():
    targets = set(re.findall(r"`?make ([\w-]+)", TEXT))
    rules = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert {"quickstart", "quickstart-verification", "test"} <= targets <= rules


def test_every_recipe_command_is_understood():
    checked = 0
    for command in _commands():
        scripts = [n for n, word in enumerate(command) if word in ("examples/run_train.py", "examples/run_distill.py")]
        if scripts and "--help" not in command:
            recipe = parse_recipe([*command[scripts[0] + 1 :], "--training.use_cpu", "true"])
            assert (recipe.teacher or recipe.sh_kd) or command[scripts[0]] == "examples/run_train.py"
            checked += 1
    assert checked >= 6


def test_python_blocks_compile():
    assert len(_blocks("python")) == 2
    for block in _blocks("python"):
        ast.parse(block)


@pytest.fixture
def toy_world(tmp_path):
    """Images of three classes and an untrained teacher for them."""
    for split, count in (("train", 4), ("test", 2)):
        for shade, name in enumerate(("dark", "gray", "light")):
            (tmp_path / "images" / split / name).mkdir(parents=True)
            for index in range(count):
                picture = Image.new("RGB", (32, 32), (100 * shade, 20 * index, 50))
                picture.save(tmp_path / "images" / split / name / f"{index}.png")
    teacher = resnet("resnet14", id2label={0: "dark", 1: "gray", 2: "light"}, num_labels=3)
    teacher.save_pretrained(tmp_path / "teacher")
    HeadShareImageProcessor().save_pretrained(tmp_path / "teacher")
    return tmp_path


def test_python_blocks_run(toy_world):
    code = "\n".join(_blocks("python"))
    for stated, small in (
        ("examples/data/omniglot-8alphabets", str(toy_world / "images")),
        ("outputs/quickstart/seed_42/teacher", str(toy_world / "teacher")),
        ('"outputs/', f'"{toy_world}/'),
        ("num_train_epochs=12", 'num_train_epochs=1, use_cpu=True, disable_tqdm=True, report_to="none"'),
    ):
        assert stated in code
        code = code.replace(stated, small)
    names: dict = {}
    exec(compile(code, "README.md", "exec"), names)
    assert list(names["results"]) == ["1_temporary_student", "2_teacher", "3_student"]
    student = HeadShareForImageClassification.from_pretrained(toy_world / "my_student")
    assert (student.config.backbone, student.config.id2label[2]) == ("resnet8", "light")


def test_no_number_was_left_to_fill_in():
    # Placeholders of a draft are words in capitals.
    text = "".join(line for line in TEXT.splitlines() if "`" not in line)
    assert set(re.findall(r"\b[A-Z]{7,}\b", text)) <= {"CITATION", "FOLDER", "LICENSE"}
