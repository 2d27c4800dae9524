"""Every recipe runs: on a handful of images, with untrained teachers, without a network."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from toys import resnet

from headshare_hf import HeadShareImageProcessor
from headshare_hf.data import draw_pairs, load_splits, write_verification_bin
from headshare_hf.trainer import METHODS, load_classifier
from headshare_hf.trainer.card import write_card
from headshare_hf.trainer.checks import check_teacher
from headshare_hf.trainer.companions import create_companion
from headshare_hf.trainer.comparison import check_recipes, read_comparison
from headshare_hf.trainer.recipe import build_data, run_recipe
from headshare_hf.trainer.recipe_arguments import build_recipe, parse_recipe
from headshare_hf.trainer.recipe_sections import DataArguments


CONFIGS = Path(__file__).parents[2] / "examples" / "configs"
# These are for scripts of their own, or the common part of others.
OTHERS = ("base.yaml", "quickstart.yaml", "quickstart_verification.yaml", "lfwcrop_table.yaml", "orl_table.yaml")
COMPARISONS = CONFIGS / "compare"
RECIPES = sorted(
    path for path in CONFIGS.rglob("*.yaml") if path.name not in OTHERS and COMPARISONS not in path.parents
)
# Common parts of comparisons.
PARTS = ("weights.yaml", "methods.yaml", "methods_other_width.yaml")
CIFAR_PAIRS = sorted(path for path in (COMPARISONS / "cifar100").glob("*.yaml") if path.name not in PARTS)
# They compare maps of the same channels.
SAME_CHANNELS = {"fsp", "th_fsp", "kdsvd", "th_kdsvd"}
TEACHERS = {
    "resnet34.tv_in1k": "timm/resnet34",
    # Deeper ones overflow while their batch statistics are untrained.
    "iresnet100": "iresnet18",
    **{
        path.stem.removeprefix("train_"): path.stem.removeprefix("train_")
        for path in RECIPES
        if "cifar100" in str(path)
    },
}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for split, count in (("train", 3), ("test", 2), ("validation", 2)):
        for number, color in enumerate(("red", "green", "blue")):
            (folder / split / color).mkdir(parents=True)
            for index in range(count):
                picture = Image.new("RGB", (40, 36), (60 * number, 20 * index, 255 - 60 * number))
                picture.save(folder / split / color / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    """Makes an untrained teacher of the asked kind, once."""
    folder = tmp_path_factory.mktemp("teachers")

    def make(name: str) -> str:
        target = folder / name
        if not target.exists():
            face = {"head_type": "arcface", "image_size": 32} if name.startswith("iresnet") else {}
            model = resnet(TEACHERS.get(name, name), num_labels=3, **face)
            model.config.id2label = dict(enumerate(("blue", "green", "red")))
            model.save_pretrained(target)
            HeadShareImageProcessor().save_pretrained(target)
        return str(target)

    return make


@pytest.fixture(scope="module")
def pairs(images):
    """A verification set of the same images."""
    splits = load_splits(images, ["train", "test"])
    return str(write_verification_bin(images.parent / "pairs.bin", draw_pairs(splits, "pairs", 20)))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_runs_on_toy_data(path, images, pairs, teachers, tmp_path):
    small = {
        "data.name": str(images),
        "data.label_column": "null",
        "data.config_name": "null",
        "training.output_dir": str(tmp_path),
        "training.max_steps": 1,
        "training.lr_decay_epochs": "null",
        "training.per_device_train_batch_size": 4,
        "training.per_device_eval_batch_size": 6,
        "training.eval_strategy": "no",
        "training.use_cpu": "true",
        "training.bf16": "false",
        "training.dataloader_num_workers": 0,
    }
    stated = parse_recipe(["--config", str(path), "--training.use_cpu", "true"])
    if stated.verification is not None:
        # A large face network takes long at its own size.
        small |= {"verification.sets": f"[{pairs}]", "data.image_size": 32, "data.held_out_classes": "null"}
    if stated.teacher is not None:
        small["teacher.name_or_path"] = teachers(Path(stated.teacher.name_or_path).name)
    options = [part for key, value in small.items() for part in (f"--{key}", str(value))]
    recipe = parse_recipe(["--config", str(path), *options])
    trainer, results = run_recipe(recipe)
    write_card(trainer, recipe, results)
    assert 0 <= results["eval_accuracy" if recipe.data.eval_split else "eval_pairs_accuracy"] <= 1
    assert trainer.student.config.backbone == stated.student.backbone
    assert "model-index" in (trainer.folder / "README.md").read_text()
    assert (trainer.folder / "model.safetensors").is_file()


def test_the_cifar_recipes_have_the_schedule_of_the_reference():
    pairs = [path for path in RECIPES if path.parent.name == "cifar100" and not path.stem.startswith("train_")]
    assert len(pairs) == 13 + 1
    for path in pairs:
        recipe = parse_recipe(["--config", str(path)])
        training, narrow = recipe.training, recipe.student.backbone in ("MobileNetV2", "ShuffleV1", "ShuffleV2")
        assert (training.num_train_epochs, training.per_device_train_batch_size) == (240, 64)
        assert (training.learning_rate, training.lr_decay_epochs) == (0.01 if narrow else 0.05, [150, 180, 210])
        assert (training.weight_decay, training.optim_args, training.max_grad_norm) == (5e-4, "momentum=0.9", 0.0)
        if recipe.teacher is not None:
            trained = CONFIGS / "cifar100" / f"train_{Path(recipe.teacher.name_or_path).name}.yaml"
            assert yaml.safe_load(trained.read_text())["training"]["output_dir"] == recipe.teacher.name_or_path


def test_the_middle_run_of_sh_kd_alone_keeps_the_shared_head(images, teachers, tmp_path):
    student = teachers("resnet8")
    options = {
        "student.backbone": "resnet14",
        "student.shared_head_from": student,
        "data.name": str(images),
        "training.output_dir": str(tmp_path),
        "training.max_steps": 2,
        "training.use_cpu": "true",
    }
    trainer, _ = run_recipe(
        parse_recipe([part for key, value in options.items() for part in (f"--{key}", str(value))])
    )
    shared = load_classifier(student).classifier
    assert torch.equal(trainer.student.classifier.weight, shared.weight)
    assert torch.equal(trainer.student.classifier.bias, shared.bias)


def test_a_shared_teacher_without_the_chain_is_refused(images, tmp_path):
    options = ["--student.backbone", "resnet8", "--shared_teacher.backbone", "resnet14", "--data.name", str(images)]
    recipe = parse_recipe([*options, "--training.output_dir", str(tmp_path), "--training.use_cpu", "true"])
    with pytest.raises(ValueError, match="section `shared_teacher` has no effect without section `sh_kd`"):
        run_recipe(recipe)


def _validation_images(folder, seed, split_seed=0):
    data = DataArguments(name=str(folder), validation_fraction=0.34, image_size=16, split_seed=split_seed)
    validation = build_data(data, seed).evaluation
    return torch.stack([validation[row]["pixel_values"] for row in range(len(validation))])


def test_the_validation_split_does_not_follow_the_training_seed(images):
    first = _validation_images(images, seed=1)
    assert all(torch.equal(_validation_images(images, seed), first) for seed in range(2, 6))
    assert not all(torch.equal(_validation_images(images, 1, split_seed), first) for split_seed in range(1, 6))


@pytest.mark.parametrize(
    "path",
    sorted(path for path in COMPARISONS.rglob("*.yaml") if path.name not in PARTS),
    ids=lambda path: str(path.relative_to(COMPARISONS)),
)
def test_every_comparison_can_start(path):
    comparison = read_comparison(path, {("training", "use_cpu"): True})
    cells = comparison.cells(Path("outputs"), seeds=[0])
    check_recipes(cells)
    teachers = {"teacher"} if "backbone" in comparison.teacher else set()
    assert {cell.row for cell in cells} >= {*teachers, *comparison.methods} and len(comparison.methods) >= 10


def test_the_comparison_on_imagenet_has_the_schedule_of_its_recipe():
    path = COMPARISONS / "imagenet_resnet34_resnet18.yaml"
    recipe = parse_recipe(["--config", str(CONFIGS / path.name), "--training.use_cpu", "true"])
    comparison = read_comparison(path, {("training", "use_cpu"): True})
    cells = {cell.row: cell for cell in comparison.cells(Path("outputs"), seeds=[0])}
    own = build_recipe(dict(cells["th_kd"].sections))
    assert own.teacher == recipe.teacher and own.teacher.same_label_order and own.student == recipe.student
    schedule = ("num_train_epochs", "learning_rate", "lr_decay_epochs", "weight_decay", "per_device_train_batch_size")
    assert all(getattr(own.training, name) == getattr(recipe.training, name) for name in schedule)
    assert (
        replace(own.data, validation_fraction=0.0) == recipe.data and comparison.test_split == recipe.data.eval_split
    )


def test_the_networks_of_the_comparison_on_imagenet_fit_every_row():
    comparison = read_comparison(COMPARISONS / "imagenet_resnet34_resnet18.yaml", {("training", "use_cpu"): True})
    teacher = resnet("timm/resnet34", num_labels=10, image_size=64)
    images = [{"pixel_values": torch.zeros(3, 64, 64)}]
    for cell in comparison.cells(Path("outputs"), seeds=[0]):
        args = build_recipe(dict(cell.sections)).training
        if "teacher" in cell.sections:
            fields = {name: value for name, value in cell.sections["student"].items() if name != "init_seed"}
            student = resnet(num_labels=10, image_size=64, **fields)
            check_teacher(student, teacher, args)
            if args.companion_name is not None:
                assert create_companion(student, teacher, args, images, lambda batch: batch) is not None


@pytest.mark.parametrize("path", CIFAR_PAIRS, ids=lambda path: path.stem)
def test_a_cifar_pair_has_every_method_that_it_can_have(path):
    equal = yaml.safe_load(path.read_text())["extends"] == "methods.yaml"
    found = {content["method"] for content in read_comparison(path).methods.values()}
    assert set(METHODS) - found == {"adadistill"} | (set() if equal else SAME_CHANNELS)


def _network(section, made):
    """As `build_model` makes it, without weights; equal ones are made once."""
    fields = {name: section.get(name) for name in ("backbone", "embedding_size", "projector", "map_projector")}
    if str(fields) not in made:
        with torch.device("meta"):
            made[str(fields)] = resnet(num_labels=100, **fields)
    return made[str(fields)]


@pytest.mark.parametrize("path", CIFAR_PAIRS, ids=lambda path: path.stem)
def test_the_networks_of_a_cifar_pair_fit_every_row(path):
    cells, made = read_comparison(path, {("training", "use_cpu"): True}).cells(Path("outputs"), seeds=[0]), {}
    networks = {str(Path("outputs", cell.name)): _network(cell.sections["student"], made) for cell in cells}
    images, built = [{"pixel_values": torch.zeros(3, 32, 32)}], {None}
    for cell in cells:
        student, args = networks[str(Path("outputs", cell.name))], build_recipe(dict(cell.sections)).training
        if "teacher" in cell.sections:
            teacher = networks[cell.sections["teacher"]["name_or_path"]]
            check_teacher(student, teacher, args)
            if args.companion_name not in built:
                create_companion(student, teacher, args, images, lambda batch: batch)
            # With the teacher's head beside it the same loss needs nothing else of both.
            built.add(args.companion_name)
        elif "shared_head_from" in cell.sections["student"]:
            other = networks[cell.sections["student"]["shared_head_from"]]
            assert other.classifier.weight.shape == student.classifier.weight.shape


@pytest.mark.parametrize("path", CIFAR_PAIRS, ids=lambda path: path.stem)
def test_a_cifar_pair_has_the_published_options_of_its_networks(path):
    comparison = read_comparison(path)
    student, teacher = comparison.student["backbone"], comparison.teacher["backbone"]
    # megvii-research/mdistiller, configs/cifar100/dkd.
    beta = 2.0 if teacher in ("resnet56", "resnet110") else 8.0
    if teacher in ("wrn_40_2", "vgg13") and student != "ShuffleV1":
        beta = 6.0
    # helper/pretrain.py of RepDistiller; 0.01 is also what its narrow students are trained with.
    rate = 0.05 if student == "vgg8" else 0.01
    for prefix in ("", "th_"):
        assert comparison.methods[f"{prefix}dkd"]["companion_options"] == {"others_weight": beta}
        given = {**comparison.training, **comparison.methods[f"{prefix}factor"]}
        assert given.get("pretraining_learning_rate", given["learning_rate"]) == rate


def test_dkd_has_the_published_options_on_imagenet_too():
    row = read_comparison(COMPARISONS / "imagenet_resnet34_resnet18.yaml").methods["dkd"]
    assert row["companion_options"] == {"others_weight": 0.5, "temperature": 1.0}
    assert row["companion_warmup_epochs"] == 1


@pytest.mark.slow
def test_students_as_wide_as_their_teacher_share_its_classifier(images, tmp_path):
    """The rows of `methods_other_width.yaml` with a layer inside of the student, each for a step."""
    section = {"name": str(images), "label_column": None, "validation_fraction": 0.34}
    small = {("data", name): value for name, value in section.items()}
    small |= {("student", "backbone"): "wrn_16_1", ("teacher", "backbone"): "wrn_16_2"}
    options = {"use_cpu": True, "max_steps": 1, "lr_decay_epochs": None, "per_device_train_batch_size": 4}
    small |= {("training", name): value for name, value in options.items()}
    comparison = read_comparison(COMPARISONS / "cifar100" / "wrn_40_2_wrn_40_1.yaml", small)
    comparison.methods["sh_crd"]["num_negatives"] = 3
    rows = ["th_kd_1.0", "embedding_only", "sh_kd", "sh_kd_frozen", "sh_crd", "sh_kde"]
    trained = {}
    for cell in comparison.cells(tmp_path, rows, seeds=[0]):
        trainer, _ = run_recipe(build_recipe(dict(cell.sections)))
        trained[cell.row] = trainer.student.classifier.weight
        assert trainer.student.config.backbone == ("wrn_16_2" if cell.row.startswith("teacher") else "wrn_16_1")
    assert {*rows, "kd_wide", "teacher", "teacher_around_kd_wide"} == set(trained)
    assert torch.equal(trained["th_kd_1.0"], trained["teacher"])
    shared = trained["kd_wide"]
    assert torch.equal(trained["teacher_around_kd_wide"], shared) and torch.equal(trained["sh_kd_frozen"], shared)
    assert shared.shape == (3, 128) and not torch.equal(trained["sh_kd"], shared)
