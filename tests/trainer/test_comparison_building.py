"""Rows are built before the first training: all that could not begin are named, and nothing is left of those that could."""

import pytest
from toy_comparisons import comparison, image_folder

from headshare_hf.trainer.comparison_building import check_buildable
from headshare_hf.trainer.comparison_cells import Judging, run_cell


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return image_folder(tmp_path_factory.mktemp("data") / "images")


def _check(found, output, rows=None):
    cells = found.cells(output, rows)
    check_buildable(cells, {cell.name: cell for cell in cells}, output)


def test_rows_that_can_begin_leave_nothing(images, tmp_path):
    training = {**comparison(images).training, "teacher_cache": str(tmp_path / "cache"), "bf16": True}
    methods = {
        "alone": {"method": "plain"},
        "kd": {"method": "kd", "teacher_cache_dtype": "float16"},
        "crd": {"method": "crd", "num_negatives": 6},
        # For other machines than this one.
        "liger": {"method": "plain", "chunked_losses": True, "large_head_kernel": "liger", "torch_compile": True},
        "sh": {"method": "sh_kd", "temporary_student": "kd", "student_head": "teacher_frozen"},
        "long": {"method": "plain", "student": {"backbone": "resnet14"}},
        "taught": {"method": "th_kd", "taught_by": "long"},
        "simkd": {"method": "simkd", "teacher_cache": None, "student": {"map_projector": {"out_channels": 64}}},
    }
    data = {**comparison(images).data, "augmentation": "flip"}
    _check(comparison(images, training=training, methods=methods, data=data, seeds=[0, 1]), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_every_row_that_cannot_begin_is_named(images, tmp_path):
    methods = {
        "kd": {"method": "kd"},
        "many": {"method": "crd", "num_negatives": 5000},
        "wide": {"method": "th_kd", "student": {"embedding_size": 32, "projector": "linear"}},
        "maps": {"method": "simkd"},
        "long": {"method": "plain", "student": {"backbone": "resnet8x4"}},
        "taught": {"method": "th_kd", "taught_by": "long"},
        # The teacher has another width than the head that it would be trained around.
        "around": {"method": "sh_kd", "temporary_student": "alone"},
        "alone": {"method": "plain", "student": {"embedding_size": 32, "projector": "linear"}},
    }
    with pytest.raises(ValueError) as caught:
        _check(comparison(images, methods=methods), tmp_path / "out")
    lines = [line for line in str(caught.value).splitlines() if line.startswith("row ")]
    named = {line.partition(": ")[0] for line in lines}
    assert named >= {"row 'many'", "row 'wide'", "row 'maps'", "row 'taught'", "row 'teacher_around_alone'"}
    assert not named & {"row 'kd'", "row 'long'", "row 'alone'", "row 'teacher'"}
    assert "`num_negatives` is 5000" in lines[0]


def test_a_given_teacher_is_the_one_that_is_there(images, tmp_path):
    alone = comparison(images)
    (cell,) = [each for each in alone.cells(tmp_path, ["kd"]) if each.row == "teacher"]
    run_cell(cell, tmp_path, Judging(alone.test_split, None, "1"))
    given = comparison(images, teacher={"name_or_path": str(tmp_path / "teacher" / "seed_0")})
    _check(given, tmp_path / "out", ["kd"])
    wide = {
        "wide": {"method": "th_kd", "student": {"embedding_size": 32, "projector": "linear"}},
        "kd": {"method": "kd"},
    }
    given = comparison(images, teacher=given.teacher, methods=wide)
    with pytest.raises(ValueError, match="^row 'wide': "):
        _check(given, tmp_path / "out")
