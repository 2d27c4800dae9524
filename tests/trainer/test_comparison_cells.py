"""Cells of a comparison: what is kept of them, under which options, and what they are judged by."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from toy_comparisons import comparison, image_folder, judging, run_all
from toys import resnet

from headshare_hf import DistillationTrainer, HeadShareImageProcessor
from headshare_hf.trainer.comparison_cells import begun_by, finished_result, finished_results, kept_results, run_cell
from headshare_hf.trainer.comparison_judging import check_judging, judge_best, judge_last, read_test_images
from headshare_hf.trainer.comparison_results import ComparisonResults
from headshare_hf.trainer.loading import load_teacher
from headshare_hf.trainer.recipe import run_recipe
from headshare_hf.trainer.recipe_arguments import build_recipe


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return image_folder(tmp_path_factory.mktemp("data") / "images")


@pytest.fixture(scope="module")
def output(images, tmp_path_factory):
    """A finished comparison."""
    folder = tmp_path_factory.mktemp("comparison")
    run_all(comparison(images), folder)
    return folder


def _cell(found, output, name="kd/seed_0"):
    return {cell.name: cell for cell in found.cells(output)}[name]


def _kept(found, output, name="kd/seed_0"):
    return finished_result(_cell(found, output, name), output, judging(found, output))


def test_a_finished_cell_is_kept(images, output):
    found = comparison(images)
    assert set(kept_results(found.cells(output), output, judging(found, output))) == {
        "teacher/seed_0",
        "kd/seed_0",
        "alone/seed_0",
        "teacher_around_kd/seed_0",
        "sh/seed_0",
    }
    result = _kept(found, output)
    assert result["code"] == result["trained_code"] == "1" and len(result["curve"]) == len(result["loss_curve"]) == 2
    assert str(output) not in json.dumps(result)


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"methods": {"kd": {"method": "kd", "kd_weight": 2.0}}}, "`training.kd_weight` is None there and 2.0 here"),
        (
            {"training": {**comparison("x").training, "num_train_epochs": 3}},
            "`training.num_train_epochs` is 2 there and 3",
        ),
        ({"student": {"backbone": "resnet8", "embedding_size": 32}}, "`student.embedding_size` is None there and 32"),
        ({"test_split": "other"}, "`test_split` is 'test' there and 'other' here"),
        ({"teacher_seed": 4}, "`compared_with.name_or_path` is 'teacher/seed_0' there and 'teacher/seed_4' here"),
    ],
)
def test_a_cell_of_other_options_is_refused(changes, difference, images, output):
    with pytest.raises(ValueError, match=f"kd.seed_0 was finished with other options: {difference}.*--output"):
        _kept(comparison(images, **changes), output)


def test_other_places_and_speeds_are_no_other_options(images, output):
    found = comparison(images)
    quick = {**found.training, "use_cpu": False, "dataloader_num_workers": 2, "logging_strategy": "no"}
    quick |= {"per_device_eval_batch_size": 3, "dataloader_prefetch_factor": 4, "report_to": "tensorboard"}
    moved = comparison(images, training=quick, data={**found.data, "name": "elsewhere", "cache_images": False})
    assert _kept(moved, output) is not None
    # Also where the whole comparison was moved.
    renamed = output.rename(output.with_name(f"{output.name}_moved"))
    try:
        assert _kept(found, renamed, "sh/seed_0") is not None
    finally:
        renamed.rename(output)


def test_a_cell_from_before_options_were_stored_is_judged_again_without_training(images, output, monkeypatch):
    found, path = comparison(images), output / "kd" / "seed_0" / "cell.json"
    before = json.loads(path.read_text())
    older = {name: value for name, value in before.items() if name not in ("options", "trained_code", "loss_curve")}
    older["cost"] = {**older["cost"], "peak_memory_mib": 321.5, "threads": 77}
    path.write_text(json.dumps({**older, "code": "0.0"}))
    assert _kept(found, output) is None
    later = replace(judging(found, output, "2"), accepted_code=frozenset({"1"}))
    weights = (output / "kd" / "seed_0" / "model.safetensors").read_bytes()
    monkeypatch.setattr("headshare_hf.trainer.trainer.DistillationTrainer.train", None)
    result = run_cell(_cell(found, output), output, later)
    assert result["code"] == "2" and result["trained_code"] == "0.0"
    # What only the training could measure stays.
    assert result["cost"]["peak_memory_mib"] == 321.5 and result["cost"]["threads"] == 77
    assert result["cost"]["train_seconds"] == before["cost"]["train_seconds"] and result["last"] == before["last"]
    assert (output / "kd" / "seed_0" / "model.safetensors").read_bytes() == weights
    path.unlink()
    again = run_cell(_cell(found, output), output, later)
    assert again["cost"]["peak_memory_mib"] is None and again["trained_code"] == "1"
    path.unlink()
    # From before that was noted.
    begun = path.with_name("begun.json")
    begun.rename(begun.with_suffix(".away"))
    assert run_cell(_cell(found, output), output, judging(found, output))["trained_code"] is None
    begun.with_suffix(".away").rename(begun)
    path.write_text(json.dumps(before))


def test_a_student_does_not_outlive_its_teacher(images, output, tmp_path):
    folder = shutil.copytree(output, tmp_path / "copy")
    found, path = comparison(images), folder / "teacher" / "seed_0" / "model.safetensors"
    tensors = load_file(path)
    save_file({name: value + 1 for name, value in tensors.items()}, path)
    message = (
        "kd.seed_0 was finished beside other weights than teacher/seed_0 has now: that was trained anew .* delete its"
    )
    for ask in (_kept, lambda *known: run_cell(_cell(*known), folder, judging(found, folder))):
        with pytest.raises(ValueError, match=message):
            ask(found, folder)
    # Not yet known: it is kept as soon as the teacher is there again, and the same.
    path.unlink()
    (path.parent / "cell.json").unlink()
    cells, kept = found.cells(folder), kept_results(found.cells(folder), folder, judging(found, folder))
    assert kept == {} and len(cells) == 5
    save_file(tensors, path)
    run_cell(_cell(found, folder, "teacher/seed_0"), folder, judging(found, folder))
    assert set(kept_results(cells, folder, judging(found, folder))) == {cell.name for cell in cells}


def test_weights_that_are_being_written_stop_no_other_command(images, output, tmp_path):
    """A teacher that is trained anew has half a file for a while, or for ever, if its process is killed then."""
    folder = shutil.copytree(output, tmp_path / "copy")
    found, teacher = comparison(images), folder / "teacher" / "seed_0"
    (teacher / "cell.json").unlink()
    run = json.loads((teacher / "run.json").read_text())
    (teacher / "run.json").write_text(json.dumps({**run, "finished": False}))
    (teacher / "model.safetensors").write_bytes((teacher / "model.safetensors").read_bytes()[:1000])
    assert kept_results(found.cells(folder), folder, judging(found, folder)) == {}
    assert set(finished_results(found.cells(folder), folder, judging(found, folder))) > {"kd/seed_0", "sh/seed_0"}


def test_a_given_teacher_that_was_trained_anew_is_noticed(images, tmp_path):
    teacher = {"name_or_path": _save_teacher(tmp_path / "teacher")}
    found, output = comparison(images, teacher=teacher), tmp_path / "out"
    result = run_all(found, output, ["kd"])["kd/seed_0"]
    assert set(result["networks"]) == {"teacher"} and _kept(found, output) is not None
    path = tmp_path / "teacher" / "model.safetensors"
    save_file({name: value + 1 for name, value in load_file(path).items()}, path, {"format": "pt"})
    with pytest.raises(ValueError, match="kd.seed_0 was finished beside other weights than teacher has now"):
        _kept(found, output)


def test_the_best_epoch_is_judged_by_its_own_weights(images, output, tmp_path):
    folder = shutil.copytree(output / "kd" / "seed_0", tmp_path / "kd")
    first, last = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    recipe = build_recipe(dict(_cell(comparison(images), output).sections))
    trainer, (test, _) = SimpleNamespace(folder=folder, args=recipe.training), read_test_images(recipe, "test")
    state, marked = (
        json.loads((last / "trainer_state.json").read_text()),
        {"accuracy": -1, "mean_per_class_accuracy": -1},
    )
    for checkpoint, epoch in ((first, 1.0), (last, 2.0)):
        changed = {**state, "best_model_checkpoint": f"elsewhere/{checkpoint.name}"}
        (last / "trainer_state.json").write_text(json.dumps(changed))
        best = judge_best(trainer, test, marked)
        assert best["epoch"] == epoch and (best["accuracy"] == -1) == (checkpoint == last)
    expected = load_teacher(str(first))[0].eval()(
        torch.stack([test[index]["pixel_values"] for index in range(len(test))])
    )
    state["best_model_checkpoint"] = first.name
    (last / "trainer_state.json").write_text(json.dumps(state))
    labels = torch.tensor([test[index]["labels"] for index in range(len(test))])
    assert (
        judge_best(trainer, test, marked)["accuracy"] == (expected.logits.argmax(1) == labels).double().mean().item()
    )


def test_the_best_epoch_outlives_another_spelling_of_the_folder_and_a_move(images, output, tmp_path, monkeypatch):
    """transformers compares paths as texts when it deletes old checkpoints."""
    training = {**comparison(images).training, "num_train_epochs": 4}
    for number, spelled in enumerate((Path("again"), tmp_path / "moved")):
        found = comparison(images, training=training, methods={"kd": {"method": "kd"}})
        place = tmp_path / f"start_{number}"
        shutil.copytree(output / "teacher", place / "teacher")
        monkeypatch.chdir(place)
        cell = _cell(found, place)
        with monkeypatch.context() as patched:
            patched.setattr(DistillationTrainer, "training_step", _cut_in_epoch(3))
            with pytest.raises(KeyboardInterrupt):
                run_recipe(build_recipe(dict(cell.sections)))
        # The first epoch was the best one, whatever came out of it.
        for path in (place / "kd" / "seed_0").glob("checkpoint-*/trainer_state.json"):
            state = json.loads(path.read_text())
            best = place / "kd" / "seed_0" / "checkpoint-3"
            changed = {"best_model_checkpoint": str(best), "best_global_step": 3, "best_metric": 2.0}
            path.write_text(json.dumps({**state, **changed}))
        if spelled.is_absolute():
            place.rename(spelled)
        else:
            spelled = Path("../start_0")
        (cell,) = [each for each in found.cells(spelled) if each.row == "kd"]
        result = run_cell(cell, spelled, judging(found, spelled))
        assert result["best"]["epoch"] == 1.0 and (spelled / "kd" / "seed_0" / "checkpoint-3").is_dir()


def _cut_in_epoch(epoch):
    step = DistillationTrainer.training_step

    def cut(trainer, *args, **kwargs):
        if trainer.state.epoch is not None and trainer.state.epoch >= epoch - 1:
            raise KeyboardInterrupt
        return step(trainer, *args, **kwargs)

    return cut


def test_judging_takes_the_batches_of_the_evaluation(images, output, monkeypatch):
    cell, seen = _cell(comparison(images), output), []
    recipe = build_recipe(
        {**cell.sections, "training": {**cell.sections["training"], "per_device_eval_batch_size": 5}}
    )
    monkeypatch.setattr(
        "headshare_hf.trainer.comparison_judging.analyze_student", lambda *_, **options: seen.append(options) or {}
    )
    judge_last(recipe, read_test_images(recipe, "test")[0], None)
    assert [options["batch_size"] for options in seen] == [5, 5]


def test_what_a_stage_before_the_training_was_begun_by_counts(tmp_path):
    found = comparison(tmp_path / "images", methods={"kd": {"method": "kd"}, "fsp": {"method": "fsp"}})
    cell = found.cells(tmp_path, ["fsp"])[-1]
    folder = tmp_path / cell.name
    (folder / "pretraining").mkdir(parents=True)
    (folder / "begun.json").write_text('{"code": "1"}')
    assert begun_by([cell], tmp_path) == {}
    (folder / "pretraining" / "run.json").write_text('{"finished": true}')
    assert begun_by([cell], tmp_path) == {cell.name: "1"}
    with pytest.raises(ValueError, match="training of cell fsp/seed_0 was begun by version 1 .*, and this is 2"):
        run_cell(cell, tmp_path, judging(found, tmp_path, "2"))


def test_a_row_that_another_one_teaches(images, output, tmp_path):
    folder = shutil.copytree(output, tmp_path / "copy")
    others = {
        "long": {"method": "plain", "num_train_epochs": 3},
        "assisted": {"method": "kd", "taught_by": "long"},
    }
    methods = {**comparison(images).methods, **others}
    result = run_all(comparison(images, methods=methods), folder, ["assisted"])["assisted/seed_0"]
    assert result["last"]["own_teacher"]["cka"] != result["last"]["cka"]
    assert set(result["networks"]) == {"teacher/seed_0", "long/seed_0"}


def test_what_another_version_has_begun_is_not_taken_for_this_ones(images, tmp_path, monkeypatch):
    found = comparison(images)
    cell = found.cells(tmp_path, ["alone"])[0]
    with monkeypatch.context() as patch:
        # Its process dies after the training, before anything is judged.
        patch.setattr("headshare_hf.trainer.comparison_cells.read_test_images", None)
        with pytest.raises(TypeError):
            run_cell(cell, tmp_path, judging(found, tmp_path, "1"))
    assert kept_results([cell], tmp_path, judging(found, tmp_path, "2")) == {}
    begun, results = begun_by([cell], tmp_path), ComparisonResults(tmp_path / "results.json", found)
    assert begun == {cell.name: "1"}
    results.check_begun(begun, "1")
    with pytest.raises(ValueError, match="training of cell teacher/seed_0 was begun by version 1.*--accept-code 1"):
        results.check_begun(begun, "2")
    # Another command may have begun it since that was asked.
    with pytest.raises(ValueError, match="training of cell teacher/seed_0 was begun by version 1"):
        run_cell(cell, tmp_path, judging(found, tmp_path, "2"))
    result = run_cell(cell, tmp_path, replace(judging(found, tmp_path, "2"), accepted_code=frozenset({"1"})))
    assert (result["code"], result["trained_code"]) == ("2", "1")
    with pytest.raises(ValueError, match="training of cell teacher/seed_0 was begun by version 1 of the code"):
        results.add(cell, result)
    ComparisonResults(tmp_path / "results.json", found, ["1"]).add(cell, result)


def test_a_cell_that_was_cut_before_its_first_checkpoint_is_begun_anew(images, tmp_path):
    found = comparison(images)
    cell = found.cells(tmp_path, ["alone"])[0]
    (tmp_path / cell.name).mkdir(parents=True)
    (tmp_path / cell.name / "begun.json").write_text('{"code": "1"}')
    assert begun_by([cell], tmp_path) == {}
    assert run_cell(cell, tmp_path, judging(found, tmp_path, "2"))["trained_code"] == "2"


def test_a_damaged_cell_is_named(images, output):
    path = output / "kd" / "seed_0" / "cell.json"
    text = path.read_text()
    path.write_text("{")
    with pytest.raises(ValueError, match="cell.json is damaged .*delete it, and the cell is judged again"):
        _kept(comparison(images), output)
    path.write_text(text)


def test_kept_cells_of_other_code_are_refused_before_any_training(images, output, tmp_path):
    found = comparison(images)
    kept = kept_results(found.cells(output), output, judging(found, output))
    results = ComparisonResults(tmp_path / "results.json", found)
    with pytest.raises(
        ValueError, match="cell .* was judged by version 1 of the code, and this is 2.*--accept-code 1"
    ):
        results.check_kept(kept, "2")
    ComparisonResults(tmp_path / "results.json", found, ["1"]).check_kept(kept, "2")
    results.check_kept(kept, "1")
    kept["kd/seed_0"]["data"]["pixels"]["test"] = "other"
    with pytest.raises(ValueError, match="other images .`pixels.test` is .* there and 'other' here"):
        results.check_kept(kept, "1")


def test_other_images_of_the_same_classes_are_other_data(images, output, tmp_path):
    """As many images, with the same labels and names, of the same size."""
    other = image_folder(tmp_path / "images", seed=1)
    mine = _kept(comparison(images), output, "teacher/seed_0")["data"]
    theirs = run_all(comparison(other), tmp_path / "out", ["alone"])["alone/seed_0"]["data"]
    assert mine.keys() == theirs.keys() and {name for name in mine if mine[name] != theirs[name]} == {"pixels"}
    assert all(mine["pixels"][split] != theirs["pixels"][split] for split in ("train", "validation", "test"))
    # Neither the seed of the augmentation nor the augmentation changes what the images are.
    again = comparison(images, data={**comparison(images).data, "augmentation": "none"})
    assert run_all(again, tmp_path / "again", ["alone"], [5])["alone/seed_5"]["data"] == mine


def test_other_images_are_refused_before_any_training(images, output, tmp_path):
    found = comparison(images)
    cell = found.cells(output, ["alone"], [3])[-1]
    mine, kept = check_judging(cell, "test", None), kept_results(found.cells(output), output, judging(found, output))
    # As the training itself describes them, so that nothing is refused afterwards.
    assert mine == kept["kd/seed_0"]["data"]
    other = comparison(image_folder(tmp_path / "images", seed=1))
    theirs = check_judging(other.cells(output, ["alone"], [3])[-1], "test", None)
    results = ComparisonResults(tmp_path / "results.json", found)
    results.check_kept(kept, "1")
    results.check_images("the images", mine)
    with pytest.raises(
        ValueError, match="the images: the results that there are belong to other images .`pixels.test`"
    ):
        results.check_images("the images", theirs)


def test_classes_of_other_names_are_other_data(images, output, tmp_path):
    for split in ("train", "test"):
        for name in "abc":
            shutil.copytree(images / split / name, tmp_path / "images" / split / f"{name}{name}")
    mine = _kept(comparison(images), output, "teacher/seed_0")["data"]
    theirs = run_all(comparison(tmp_path / "images"), tmp_path / "out", ["alone"])["alone/seed_0"]["data"]
    assert {name for name in mine if mine[name] != theirs[name]} == {"label_names"}


def test_the_mixture_has_the_share_of_the_row(images, tmp_path):
    methods = {
        "coupled": {"method": "th_kd_coupled", "alpha_th": 0.25},
        "default": {"method": "th_kd_coupled"},
        "kd": {"method": "kd"},
        "wide": {"method": "plain", "student": {"embedding_size": 32, "projector": "linear"}},
    }
    found = run_all(comparison(images, methods=methods), tmp_path)
    last = {name.split("/")[0]: result["last"] for name, result in found.items()}
    shares = {row: numbers["mixed_alpha_th"] for row, numbers in last.items() if row != "teacher"}
    assert shares == {"coupled": 0.25, "default": 0.5, "kd": 0.5, "wide": 0.5}
    assert 0 <= last["coupled"]["mixed_accuracy"] <= 1 and last["wide"]["mixed_accuracy"] is None


def _save_teacher(folder, names="abc", **processor):
    model = resnet("resnet14", num_labels=len(names), seed=4, image_size=16)
    model.config.id2label = dict(enumerate(names))
    model.config.label2id = {name: index for index, name in enumerate(names)}
    model.save_pretrained(folder)
    options = {"size": {"height": 16, "width": 16}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, **processor}
    HeadShareImageProcessor(**options).save_pretrained(folder)
    return str(folder)


def test_a_given_teacher_that_wants_other_pixel_values_is_compared(images, tmp_path):
    teacher = {"name_or_path": _save_teacher(tmp_path / "teacher", image_std=[0.2, 0.3, 0.4])}
    found = comparison(images, teacher=teacher)
    cell = found.cells(tmp_path / "out", ["kd"])[0]
    check_judging(cell, "test", teacher)
    result = run_cell(cell, tmp_path / "out", judging(found, tmp_path / "out"))
    assert 0 <= result["last"]["agreement"] <= 1 and "own_teacher" not in result["last"]


def test_the_whole_section_of_a_given_teacher_counts(images, tmp_path):
    teacher = {"name_or_path": _save_teacher(tmp_path / "teacher", ["red", "green", "blue"])}
    vouched = {**teacher, "same_label_order": True}
    found = comparison(images, teacher=vouched)
    cells = found.cells(tmp_path / "out", ["kd", "sh"])
    with pytest.raises(ValueError, match="students cannot be compared with .*class 0 is 'red'"):
        check_judging(cells[0], "test", teacher)
    check_judging(cells[0], "test", vouched)
    results = {cell.name: run_cell(cell, tmp_path / "out", judging(found, tmp_path / "out")) for cell in cells}
    # Also where it is trained around the head of a student.
    assert list(results) == ["kd/seed_0", "teacher_around_kd/seed_0", "sh/seed_0"]
    assert "own_teacher" in results["sh/seed_0"]["last"]
    fewer = {"name_or_path": _save_teacher(tmp_path / "fewer", "ab"), "same_label_order": True}
    with pytest.raises(ValueError, match="`same_label_order` is set, but the model has 2 classes and the data 3"):
        check_judging(cells[0], "test", fewer)


def test_what_cannot_be_judged_is_refused_before_the_training(images, tmp_path):
    teacher = {"name_or_path": _save_teacher(tmp_path / "gray", image_mean=[0.5], image_std=[0.5])}
    cell = comparison(images, teacher=teacher).cells(tmp_path / "out", ["alone"])[0]
    with pytest.raises(ValueError, match="students cannot be compared with .*gray: the student reads 3 channels"):
        check_judging(cell, "test", teacher)
    other = image_folder(tmp_path / "images")
    for index in range(2):
        (other / "test" / "d").mkdir(exist_ok=True)
        Image.new("RGB", (16, 16)).save(other / "test" / "d" / f"{index}.png")
    found = comparison(other)
    with pytest.raises(ValueError, match="class 3 is missing in split 'train'"):
        check_judging(found.cells(tmp_path / "out", ["alone"])[-1], found.test_split, None)
    assert not (tmp_path / "out").exists() and not torch.is_inference_mode_enabled()
