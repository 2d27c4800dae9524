"""What a comparison file means: its cells, their recipes, and what is refused."""

from pathlib import Path

import pytest
import yaml

from headshare_hf.trainer.comparison import check_recipes, read_comparison
from headshare_hf.trainer.comparison_checks import AROUND
from headshare_hf.trainer.recipe_arguments import build_recipe


CONTENT = {
    "data": {"name": "images", "validation_fraction": 0.25},
    "student": {"backbone": "resnet8"},
    "teacher": {"backbone": "resnet14"},
    "training": {"num_train_epochs": 2, "temperature": 3.0, "learning_rate": 0.1},
    "teacher_training": {"num_train_epochs": 4},
    "baseline": "kd",
    "seeds": [0, 1],
    "methods": {
        "alone": {"method": "plain"},
        "kd": {"method": "kd"},
        "coupled": {"method": "th_kd_coupled", "alpha_th": 0.25, "student": {"embedding_size": 32}},
        "sh": {"method": "sh_kd", "temporary_student": "kd", "student_head": "teacher_frozen"},
    },
}
LONG = {
    "long": {"method": "plain", "num_train_epochs": 9, "student": {"backbone": "resnet14"}},
    "kd_of_long": {"method": "kd", "taught_by": "long"},
}


def _read(tmp_path, overrides=None, **changes):
    content = {name: value for name, value in {**CONTENT, **changes}.items() if value is not None}
    (tmp_path / "comparison.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return read_comparison(tmp_path / "comparison.yaml", overrides)


def _recipes(comparison, **options):
    cells = comparison.cells(Path("out"), **options)
    return {cell.name: build_recipe(dict(cell.sections)) for cell in cells}


def test_a_cell_comes_after_those_that_it_needs(tmp_path):
    cells = _read(tmp_path).cells(Path("out"))
    names = [cell.name for cell in cells]
    # The teacher once; the students and the teacher around a student's head with every seed.
    assert len(set(names)) == len(names) == 1 + 2 * 5 and names[0] == "teacher/seed_0"
    for number, cell in enumerate(cells):
        assert set(cell.needs) <= set(names[:number])
    needs = {cell.name: cell.needs for cell in cells}
    assert needs["sh/seed_1"] == ("teacher/seed_0", f"{AROUND}kd/seed_1") and needs["teacher/seed_0"] == ()
    assert needs[f"{AROUND}kd/seed_1"] == ("kd/seed_1",)


def test_rows_and_seeds_are_chosen_with_what_they_need(tmp_path):
    comparison = _read(tmp_path)
    names = [cell.name for cell in comparison.cells(Path("out"), ["sh"], [7])]
    assert names == ["teacher/seed_0", "kd/seed_7", f"{AROUND}kd/seed_7", "sh/seed_7"]


@pytest.mark.parametrize("there_is_one", [False, True])
def test_bf16_takes_a_cpu_where_there_is_no_accelerator(tmp_path, monkeypatch, there_is_one):
    monkeypatch.setattr("torch.accelerator.is_available", lambda: there_is_one)
    comparison = _read(tmp_path, training={**CONTENT["training"], "bf16": True})
    assert comparison.training.get("use_cpu", False) is not there_is_one
    monkeypatch.undo()
    if not there_is_one:
        assert all(recipe.training.use_cpu for recipe in _recipes(comparison).values())


def test_recipes_of_students(tmp_path):
    recipes = _recipes(_read(tmp_path))
    coupled = recipes["coupled/seed_1"]
    assert coupled.teacher.name_or_path == str(Path("out/teacher/seed_0"))
    assert (coupled.student.backbone, coupled.student.embedding_size) == ("resnet8", 32)
    training = coupled.training
    assert (training.seed, training.alpha_th, training.temperature, training.num_train_epochs) == (1, 0.25, 3.0, 2)
    assert training.metric_for_best_model == "accuracy" and training.save_total_limit == 2
    alone = recipes["alone/seed_0"]
    assert alone.teacher is None and alone.training.temperature is None


def test_common_options_are_those_of_the_rows_that_read_them(tmp_path):
    training = {**CONTENT["training"], "embedding_distance": "l2"}
    methods = {name: {"method": name} for name in ("plain", "kd", "rkd", "embedding", "th_kde")}
    recipes = _recipes(_read(tmp_path, training=training, methods=methods, baseline="plain"))
    found = {row: recipes[f"{row}/seed_0"].training for row in ("teacher", *methods)}
    assert {row: (each.temperature, each.embedding_distance) for row, each in found.items()} == {
        "teacher": (None, "cosine"),
        "plain": (None, "cosine"),
        "kd": (3.0, "cosine"),
        "rkd": (None, "cosine"),
        "embedding": (None, "l2"),
        "th_kde": (3.0, "l2"),
    }
    methods["rkd"]["temperature"] = 2.0
    with pytest.raises(ValueError, match="row 'rkd': `temperature` has no effect: method 'rkd' with these weights"):
        check_recipes(_read(tmp_path, methods=methods, baseline="plain").cells(Path("out")))


def test_recipes_of_teachers(tmp_path):
    recipes = _recipes(_read(tmp_path))
    teacher, around = recipes["teacher/seed_0"], recipes[f"{AROUND}kd/seed_1"]
    assert (teacher.student.backbone, teacher.student.shared_head_from) == ("resnet14", None)
    assert around.student.shared_head_from == str(Path("out/kd/seed_1")) and around.training.seed == 1
    assert teacher.training.num_train_epochs == around.training.num_train_epochs == 4
    last = recipes["sh/seed_1"]
    assert last.teacher.name_or_path == str(Path(f"out/{AROUND}kd/seed_1"))
    # A new student, in the same order of images.
    assert last.training.seed == 1 and last.student.init_seed not in (None, 0, 1)


def test_a_row_may_be_taught_by_another_one(tmp_path):
    comparison = _read(tmp_path, methods={**CONTENT["methods"], **LONG})
    cells = {cell.name: cell for cell in comparison.cells(Path("out"), ["kd_of_long"])}
    # The common teacher is trained too: every student is compared with it.
    assert list(cells) == ["teacher/seed_0", "long/seed_0", "kd_of_long/seed_0", "long/seed_1", "kd_of_long/seed_1"]
    assert cells["kd_of_long/seed_1"].needs == ("teacher/seed_0", "long/seed_1")
    recipes = _recipes(comparison, rows=["kd_of_long", "kd"])
    taught, kd = recipes["kd_of_long/seed_1"], recipes["kd/seed_1"]
    assert taught.teacher.name_or_path == str(Path("out/long/seed_1")) and taught.training.num_train_epochs == 2
    # The same new student as that of KD, in the same order of images: only the teacher is another one.
    assert taught.student == kd.student and taught.training.seed == kd.training.seed
    assert recipes["long/seed_1"].training.num_train_epochs == 9


def test_a_row_that_asks_no_teacher_is_taught_by_none(tmp_path):
    methods = {**LONG, "kd": {"method": "kd"}, "alone": {"method": "plain", "taught_by": "long"}}
    with pytest.raises(
        ValueError, match="row 'alone': it asks no teacher about anything; leave out `taught_by: long`"
    ):
        _read(tmp_path, methods=methods).cells(Path("out"))


def test_a_row_that_asks_no_teacher_has_none_around_a_head(tmp_path):
    methods = {"kd": {"method": "kd"}, "alone": {"method": "plain", "temporary_student": "kd"}}
    with pytest.raises(ValueError, match="row 'alone': it asks no teacher .*; leave out `temporary_student: kd`"):
        _read(tmp_path, methods=methods).cells(Path("out"))


def test_what_is_for_students_of_another_width_is_not_for_teachers(tmp_path):
    training = {**CONTENT["training"], "projector": "linear", "eval_teacher_head_weight": 0.5}
    methods = {"alone": {"method": "plain"}, "kd": {"method": "kd"}, "th": {"method": "th_kd"}}
    recipes = _recipes(_read(tmp_path, training=training, methods=methods))
    assert recipes["th/seed_0"].training.projector == "linear"
    assert [recipes[f"{row}/seed_0"].training.projector for row in ("teacher", "alone")] == [None, None]


def test_an_inherited_teacher_is_taken_away_by_null(tmp_path):
    comparison = _read(tmp_path, teacher={"backbone": "resnet14", "name_or_path": None})
    assert comparison.teacher_name == "teacher/seed_0"


def test_somebody_may_watch(tmp_path):
    training = {**CONTENT["training"], "report_to": "tensorboard"}
    assert _recipes(_read(tmp_path, training=training))["kd/seed_0"].training.report_to == ["tensorboard"]
    assert _recipes(_read(tmp_path))["kd/seed_0"].training.report_to == []


def test_a_teacher_may_be_given(tmp_path):
    section = {"name_or_path": "someone/teacher", "revision": "v2", "same_label_order": True}
    comparison = _read(tmp_path, teacher=section)
    assert comparison.teacher_name is None and comparison.teacher_section(Path("out")) == section
    recipes = _recipes(comparison)
    assert (recipes["kd/seed_0"].teacher.revision, recipes["kd/seed_0"].teacher.same_label_order) == ("v2", True)
    assert recipes[f"{AROUND}kd/seed_0"].student.same_label_order
    assert "teacher/seed_0" not in recipes and recipes["kd/seed_0"].teacher.name_or_path == "someone/teacher"
    assert recipes[f"{AROUND}kd/seed_0"].student.name_or_path == "someone/teacher"


def test_overrides_replace_single_fields(tmp_path):
    comparison = _read(tmp_path, {("data", "name"): "elsewhere", ("training", "num_train_epochs"): 1})
    assert comparison.data == {"name": "elsewhere", "validation_fraction": 0.25}
    assert comparison.training["num_train_epochs"] == 1 and comparison.training["temperature"] == 3.0
    with pytest.raises(ValueError, match="`baseline` is 'kd', which has no field 'row' to replace"):
        _read(tmp_path, {("baseline", "row"): "alone"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"baselines": "kd"}, "no field 'baselines'; did you mean 'baseline'"),
        ({"data": None}, "has no `data`"),
        (
            {"data": {"name": "images", "image_sise": 32}},
            "`data` has no field 'image_sise'; did you mean 'image_size'",
        ),
        ({"training": {"tempature": 4}}, "`training` has no field 'tempature'; did you mean 'temperature'"),
        ({"training": {"seed": 4}}, "`training.seed` is set by the comparison itself"),
        ({"baseline": "kdd"}, "did you mean 'kd'"),
        ({"baseline": {}}, "`baseline` is {}; it must be text"),
        ({"test_split": 3}, "`test_split` is 3; it must be text"),
        ({"title": ["a"]}, "`title` is .*; it must be text"),
        ({"seeds": [1, 1]}, "must be a list of different whole numbers"),
        ({"seeds": []}, "must be a list of different whole numbers"),
        ({"seeds": 3}, "`seeds` is 3; it must be a list of different whole numbers, e.g."),
        ({"seeds": "0,1"}, "`seeds` is '0,1'; it must be a list"),
        ({"seeds": [0, "a"]}, "different whole numbers"),
        ({"seeds": [True, 2]}, "different whole numbers"),
        ({"seeds": [-1]}, "different whole numbers"),
        ({"teacher_seed": "a"}, "`teacher_seed` is 'a'; it must be a whole number"),
        ({"teacher": {}}, "`teacher` needs `backbone`, a new network, or `name_or_path`"),
        ({"student": {"embedding_size": 3}}, "`student` needs `backbone`"),
        ({"training": {"method": "kd"}}, "`training.method` has no place: every row of `methods` has its own"),
        ({"teacher_training": {"method": "kd"}}, "`teacher_training.method` has no place"),
        ({"methods": ["kd"]}, "`methods` is .'kd'.; it must consist of rows"),
        ({"methods": {}}, "`methods` is {}; it must consist of rows"),
        ({"methods": {"kd": {"method": "kd"}, 3: {"method": "kd"}}}, "a row cannot be called 3"),
        ({"methods": {"kd": {"method": "kd"}, "a|b": {"method": "kd"}}}, "a row cannot be called 'a.b'"),
        (
            {"methods": {"kd": {"method": "kd", "temporary_student": ["kd"]}}},
            "temporary_student` is .'kd'., which is no",
        ),
        (
            {"published": {"kd": "abc"}, "published_source": "x"},
            "`published.kd` is 'abc'; it must be an accuracy in per",
        ),
        ({"published": {"kd": {"value": 101, "source": "x"}}}, "`published.kd` is 101; it must be an accuracy"),
        ({"published": {"kd": {"value": 71}}}, "`published.kd` needs `source`"),
        ({"published": {"kd": {"valeu": 71}}}, "`published.kd` has no field 'valeu'; did you mean 'value'"),
        ({"published": {"kdd": 71}, "published_source": "x"}, "`published` has no field 'kdd'; did you mean 'kd'"),
        ({"published": {"kd": 71}}, "`published` and `published_source` go together"),
        ({"published": {"kd": {"value": 71, "source": "x"}}, "published_source": "y"}, "go together"),
        ({"data": {"name": "images"}}, "set `data.validation_fraction`"),
        ({"test_split": "train"}, "`test_split` is 'train', the images that are trained on"),
        ({"data": {"name": "images", "eval_split": "train"}}, "`data.eval_split` is 'train', the images that are"),
        ({"training": {"save_total_limit": 5}}, "`training.save_total_limit` is set by the comparison itself"),
        (
            {"methods": {"kd": {"method": "kd", "alfa_th": 1}}},
            "`methods.kd` has no field 'alfa_th'; did you mean 'alpha_th'",
        ),
        ({"methods": {"kd": "kd"}}, "must consist of fields"),
        ({"methods": {"teacher": {"method": "kd"}}}, "cannot be called 'teacher'"),
        (
            {"methods": {"kd": {"method": "kd", "taught_by": "kdd"}}},
            "`methods.kd.taught_by` is 'kdd', which is no row; did you mean 'kd'",
        ),
        (
            {
                "methods": {
                    "kd": {"method": "kd"},
                    "sh": {"method": "kd", "temporary_student": "kd", "taught_by": "kd"},
                }
            },
            "`methods.sh` has `temporary_student`, .* and `taught_by`, another teacher; leave one of them out",
        ),
        (
            {"methods": {"kd": {"method": "kd"}, "sh": {"method": "sh_kd", "temporary_student": "kde"}}},
            "`methods.sh.temporary_student` is 'kde', which is no row; did you mean 'kd'",
        ),
    ],
)
def test_wrong_files_say_what_is_meant(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        _read(tmp_path, **changes)


def test_rows_cannot_need_each_other(tmp_path):
    for field in ("temporary_student", "taught_by"):
        methods = {name: {"method": "kd", field: other} for name, other in (("kd", "b"), ("b", "kd"))}
        with pytest.raises(ValueError, match="need each other"):
            _read(tmp_path, methods=methods).cells(Path("out"))


def test_unknown_rows_are_named(tmp_path):
    with pytest.raises(ValueError, match="no row 'cupled'; did you mean 'coupled'"):
        _read(tmp_path).cells(Path("out"), ["cupled"])


def test_published_numbers_have_a_source_each(tmp_path):
    published = {"kd": 71.5, "sh": {"value": 73, "source": "a paper"}, "teacher": 80.0}
    comparison = _read(tmp_path, published=published, published_source="a table")
    assert comparison.published_numbers() == {
        "source": "a table",
        "values": {"kd": 71.5, "sh": 73, "teacher": 80.0},
        "sources": {"sh": "a paper"},
    }


def test_a_wrong_value_in_the_last_row_shows_before_the_first_training(tmp_path):
    methods = {**CONTENT["methods"], "late": {"method": "th_kd_coupled", "alpha_th": 2}}
    with pytest.raises(ValueError, match="row 'late': .*alpha_th"):
        _read(tmp_path, methods=methods).cells(Path("out"))
    methods["late"] = {"method": "kd", "student": {"backbone": "resnet8", "name_or_path": "someone/student"}}
    cells = _read(tmp_path, methods=methods).cells(Path("out"))
    with pytest.raises(ValueError, match="row 'late': give `name_or_path` .* or `backbone`"):
        check_recipes(cells)


def test_a_row_whose_loss_counts_before_the_training_only_has_a_teacher(tmp_path):
    recipes = _recipes(
        _read(tmp_path, methods={**CONTENT["methods"], "fsp": {"method": "fsp"}}), rows=["fsp"], seeds=[0]
    )
    assert recipes["fsp/seed_0"].teacher is not None
