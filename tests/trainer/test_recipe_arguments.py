"""Recipe files and their overrides."""

import json
from pathlib import Path

import pytest

from headshare_hf.trainer.recipe_arguments import build_recipe, describe_options, parse_recipe


RECIPE = """
student: {backbone: resnet8}
data: {name: somewhere, image_size: 16, mean: [0.5, 0.5, 0.5]}
training: {output_dir: out, method: kd, learning_rate: 1e-2, use_cpu: true, lr_decay_epochs: [1, 2]}
teacher: {name_or_path: teacher}
"""


@pytest.fixture
def recipe_file(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return str(path)


def test_a_file_and_overrides_become_objects(recipe_file):
    recipe = parse_recipe(
        [
            "--config",
            recipe_file,
            "--training.temperature",
            "2",
            "--student.backbone=resnet20",
            "--data.std",
            "[1, 1, 1]",
        ]
    )
    assert recipe.student.backbone == "resnet20" and recipe.teacher.name_or_path == "teacher"
    assert recipe.training.learning_rate == 0.01 and recipe.training.temperature == 2
    assert recipe.training.lr_decay_epochs == [1, 2] and recipe.data.std == [1, 1, 1]
    assert recipe.sh_kd is None and recipe.shared_teacher is None


def test_what_yaml_misreads_is_mended(recipe_file):
    recipe = parse_recipe(
        ["--config", recipe_file, "--training.save_strategy", "no", "--training.weight_decay", "1e-4"]
    )
    assert recipe.training.save_strategy == "no" and recipe.training.weight_decay == 1e-4


def test_json_is_read_too(tmp_path, recipe_file):
    path = Path(tmp_path / "recipe.json")
    path.write_text(
        json.dumps(
            {"student": {"backbone": "vgg8"}, "data": {"name": "x"}, "training": {"output_dir": "o", "use_cpu": True}}
        )
    )
    assert parse_recipe(["--config", str(path)]).student.backbone == "vgg8"


@pytest.mark.parametrize(
    "extra, message",
    [
        (["--training.temprature", "2"], "section `training` has no field `temprature`; did you mean `temperature`"),
        (["--modle.backbone", "x"], "unknown section `modle`"),
        (["--temperature", "2"], "option --temperature has no section; write e.g. --training.temperature"),
        (["temperature"], "unexpected argument 'temperature'"),
        (["--data.name"], "option --data.name needs a value"),
        (["--config", "missing.yaml"], "recipe missing.yaml does not exist"),
        (["--teacher.backbone", "resnet8"], "give `name_or_path` for trained weights or `backbone`"),
        (["--data.name", ""], "section `data` needs `name`"),
        (["--training.method", "kdd"], "unknown method 'kdd'"),
        (["--training.learning_rate", "fast"], "`training.learning_rate` is 'fast'; it must be float"),
        (["--data.image_size", "large"], "`data.image_size` is 'large'; it must be one int"),
        (["--data.skip_corrupt", "maybe"], "`data.skip_corrupt` is 'maybe'; it must be bool"),
        (["--training.lr_decay_epochs", "150,180"], "`training.lr_decay_epochs` is '150,180'"),
        (["--student", "resnet8"], "option --student has no section"),
        (["--teacher.embedding_size", "8"], "`embedding_size` has no effect beside `name_or_path`"),
    ],
)
def test_wrong_options_are_named(recipe_file, extra, message):
    with pytest.raises(ValueError, match=message):
        parse_recipe(["--config", recipe_file, *extra])


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("r.yaml", "a: [", "cannot be read"),
        ("r.json", "{", "cannot be read"),
        ("r.yaml", "text", "must consist of sections"),
    ],
)
def test_broken_files_are_named(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=f"{name}.*{message}"):
        parse_recipe(["--config", str(tmp_path / name)])


def test_a_missing_section_is_named():
    with pytest.raises(ValueError, match="the recipe has no section `data`"):
        build_recipe({"student": {"backbone": "resnet8"}})


def test_a_recipe_that_extends_itself_is_named(tmp_path):
    (tmp_path / "loop.yaml").write_text("extends: loop.yaml\n")
    with pytest.raises(ValueError, match="loop.yaml extends itself"):
        parse_recipe(["--config", str(tmp_path / "loop.yaml")])


def test_a_section_must_have_fields():
    with pytest.raises(ValueError, match="section `student` is 'resnet8'; it must consist of fields"):
        build_recipe({"student": "resnet8", "data": {"name": "x"}, "training": {"output_dir": "o", "use_cpu": True}})


def test_help_lists_every_section():
    text = describe_options()
    assert all(f"--{option}" in text for option in ("student.backbone", "training.alpha_th", "sh_kd.temporary_method"))
