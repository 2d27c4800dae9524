"""The card of a run: with and without pairs, with and without a split that is evaluated."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image
from torchvision.transforms.v2.functional import center_crop, pil_to_tensor, resize
from toys import ToyImages, arguments, resnet, vit
from transformers import ViTImageProcessor

from headshare_hf import DistillationTrainer, HeadShareImageProcessor
from headshare_hf.data import VerificationSet
from headshare_hf.evaluation import Verifier
from headshare_hf.hub import CardDataset, render_card
from headshare_hf.trainer import publish_run, run_or_reuse
from headshare_hf.trainer.card import card_dataset, describe_run, describe_schedule, evaluated_split, write_card
from headshare_hf.trainer.recipe import build_data, run_recipe
from headshare_hf.trainer.recipe_arguments import build_recipe
from headshare_hf.trainer.recipe_sections import DataArguments
from headshare_hf.trainer.training_record import training_record


FACE = {"head_type": "arcface", "head_scale": 16.0, "head_margin": 0.3}
PROCESSOR = {"size": {"height": 16, "width": 16}}
DATASET = CardDataset("Colors", "local/colors", "non-commercial research", {"train": 48})
PREPARED = {"preparation": "colors as they are", "weights_license": "cc-by-nc-4.0"}
# Enough for the optimizer to have something to do, and no more.
SHORT = {"max_steps": 1}


def _pairs(name="lfw", folds=None):
    colors = [(40 * i, 250 - 40 * i, 90) for i in range(6)]
    index = np.arange(40)
    return VerificationSet(name, _encoded(colors), index % 6, (index + index % 2) % 6, index % 2 == 0, folds)


def _encoded(colors):
    images = []
    for color in colors:
        buffer = io.BytesIO()
        Image.new("RGB", (16, 16), color).save(buffer, format="PNG")
        images.append({"bytes": buffer.getvalue(), "path": None})
    return images


def _trainer(folder, student=None, teacher=None, sets=None, flip=True, evaluation=None, **fields):
    processor = HeadShareImageProcessor(**PROCESSOR)
    verifier = Verifier([_pairs()] if sets is None else sets, processor, flip=flip, far_targets=(1e-1,))
    return DistillationTrainer(
        student or resnet(seed=1, **FACE),
        arguments(folder, **{**SHORT, **fields}),
        teacher=teacher,
        train_dataset=ToyImages(),
        eval_dataset=evaluation,
        processing_class=processor,
        verifier=verifier,
    )


def _card(trainer, results=None, split=None, dataset=DATASET):
    results = run_or_reuse(trainer) if results is None else results
    return describe_run(trainer, dataset, results, eval_split=split, **PREPARED)


def test_a_run_without_a_split_to_evaluate_is_described_by_its_pairs(tmp_path):
    trainer = _trainer(tmp_path, sets=[_pairs(), _pairs("lfw_hard", np.arange(40) % 4)])
    results = run_or_reuse(trainer)
    card = _card(trainer, results)
    verification, student = card.verification, trainer.student
    assert card.results == () and card.dataset.splits == {"train": 48}
    own = sum(p.numel() for p in student.headshare.parameters())
    assert verification.num_embedding_parameters == own
    assert card.model.num_parameters == own + student.classifier.weight.numel()
    assert verification.total_bytes - verification.embedding_bytes == 4 * student.classifier.weight.numel()
    assert verification.embedding_bytes > 4 * own
    assert (card.model.head.type, card.model.head.scale, card.model.head.margin) == ("arcface", 16.0, (0.3,))
    assert card.model.image_size == (16, 16) and verification.flip
    first, hard = verification.sets
    assert (first.name, first.id, first.num_genuine, first.num_impostor, first.num_folds) == (
        "lfw",
        "local/lfw",
        20,
        20,
        10,
    )
    assert set(first.values) == {"accuracy", "auc", "eer", "tar@far=1e-1/at_most"}
    assert first.values["accuracy"] == results["eval_lfw_accuracy"]
    assert first.accuracy_standard_error == results["eval_lfw_accuracy_standard_error"]
    assert (hard.name, hard.num_folds, hard.values["auc"]) == ("lfw_hard", 4, results["eval_lfw_hard_auc"])
    assert render_card(card).data.pipeline_tag == "image-feature-extraction"


def test_intervals_of_the_run_are_in_its_card(tmp_path):
    trainer = _trainer(tmp_path)
    trainer.verifier = replace(trainer.verifier, bootstrap=20)
    results = run_or_reuse(trainer)
    (pairs,) = _card(trainer, results).verification.sets
    assert (pairs.intervals.num_samples, pairs.intervals.level, pairs.intervals.over) == (20, 0.95, "pairs")
    assert pairs.intervals.ends.keys() == pairs.values.keys() == {"accuracy", "auc", "eer", "tar@far=1e-1/at_most"}
    assert pairs.intervals.ends["eer"] == (results["eval_lfw_eer/low"], results["eval_lfw_eer/high"])
    assert "with 20 replicates over pairs (lfw)" in render_card(_card(trainer, results)).text
    # What a run measured stays what it was.
    trainer.verifier = replace(trainer.verifier, bootstrap=500)
    assert _card(trainer, results).verification.sets[0].intervals.num_samples == 20


def test_a_run_with_both_has_both(tmp_path):
    trainer = _trainer(tmp_path, resnet(seed=1), evaluation=ToyImages(20, seed=3), flip=False)
    dataset = replace(DATASET, splits={"train": 48, "test": 20})
    card = _card(trainer, split="test", dataset=dataset)
    assert {result.metric for result in card.results} >= {"accuracy"} and card.results[0].num_images == 20
    assert card.model.head is None and not card.verification.flip
    types = {result.task_type for result in render_card(card).data.eval_results}
    assert types == {"image-classification", "image-feature-extraction"}


def test_a_run_without_a_verifier_needs_no_preparation(tmp_path):
    trainer = DistillationTrainer(
        resnet(seed=1),
        arguments(tmp_path, **SHORT),
        train_dataset=ToyImages(),
        eval_dataset=ToyImages(20),
        processing_class=HeadShareImageProcessor(**PROCESSOR),
    )
    dataset = replace(DATASET, splits={"train": 48, "test": 20})
    card = describe_run(trainer, dataset, run_or_reuse(trainer))
    assert card.verification is None
    assert render_card(card).data.pipeline_tag == "image-classification"


def test_thresholds_of_the_configuration_are_in_the_card(tmp_path):
    entry = {"far": 0.1, "rule": "at_most", "similarity": 0.25, "set": "lfw", "num_impostor": 20, "flip": True}
    trainer = _trainer(tmp_path, resnet(seed=1, **FACE))
    # As after training, when they have been measured and stored.
    trainer.student.config.verification_thresholds = [entry]
    assert "| 0.1 | at_most | 0.2500 | lfw | 20 | added |" in render_card(_card(trainer)).text


@pytest.mark.parametrize(
    "kind, margin, shown",
    [("cosine", None, ()), ("cosface", 0.2, (0.2,)), ("combined", [1.0, 0.3, 0.2], (1.0, 0.3, 0.2))],
)
def test_margins_of_every_head(kind, margin, shown, tmp_path):
    student = resnet(seed=1, head_type=kind, head_margin=margin)
    assert _card(_trainer(tmp_path, student)).model.head.margin == shown


@pytest.mark.parametrize(
    "method, equation, options",
    [
        ("inherited", "L = 1 CE(p_s, y)\n", {"student_head": "teacher_frozen"}),
        ("embedding", "L = 1 CE(p_s, y) + 32 ||z_s - z_t||²\n", {"embedding_distance": "l2"}),
        ("embedding_only", "L = 1 ||z_s - z_t||²\n", {"student_head": "teacher_frozen"}),
        ("kd", "L = 0.1 CE(p_s, y) + 0.9 T² KL(p_t || p_s),   T = s / 8\n", {"kd_scale": 8.0}),
        ("th_kd_coupled", "0.75 T² KL(p_t || p_th) + 0.5 CE(p_th, y),   T = s / 8\n", {"kd_scale": 8.0}),
    ],
)
def test_methods_of_faces(method, equation, options, tmp_path):
    given = {name: value for name, value in options.items() if name != "student_head"}
    trainer = _trainer(tmp_path, teacher=resnet("resnet14", seed=2, **FACE), method=method, **given)
    card = _card(trainer)
    assert card.method.options == options and card.method.temperature is None
    assert card.teacher.backbone == "resnet14"
    text = render_card(card).text
    assert equation in text
    assert ("with the margin of the head" in text) == (method != "embedding_only")
    assert "logits are divided by the temperature" not in text


def test_a_companion_is_named_with_its_options(tmp_path):
    fields = {"companion": "rkd", "companion_options": {"angle_weight": 10.0}, "companion_warmup_epochs": 3}
    trainer = _trainer(tmp_path, teacher=resnet("resnet14", seed=2, **FACE), method="inherited", **fields)
    card = _card(trainer)
    assert "1 CE(p_s, y) + 1 D(f_s, f_t)" in render_card(card).text
    assert dict(card.method.options) == {
        "companion": "rkd",
        "student_head": "teacher_frozen",
        "companion_options": {"angle_weight": 10.0},
        "companion_warmup_epochs": 3,
    }
    record = training_record(trainer, card, None)
    assert record["companion"] == "rkd" and record["companion_options"] == {"angle_weight": 10.0}
    assert record["weights"]["companion"] == 1.0


def test_results_of_a_run_without_the_set_are_refused(tmp_path):
    trainer = _trainer(tmp_path)
    results = run_or_reuse(trainer)
    trainer.verifier = replace(trainer.verifier, sets=[_pairs("agedb")])
    with pytest.raises(ValueError, match="no number for the verification set 'agedb'.*Choose another output_dir"):
        _card(trainer, results)


def _named(folder, student, teacher):
    """Card and training record of a run whose networks have these names."""
    models = [resnet(seed=1), resnet(seed=2)]
    for model, name in zip(models, (student, teacher), strict=True):
        model.config._name_or_path = str(name)
    trainer = DistillationTrainer(
        models[0],
        arguments(folder, method="th_kd", **SHORT),
        teacher=models[1],
        train_dataset=ToyImages(),
        processing_class=HeadShareImageProcessor(**PROCESSOR),
    )
    card = describe_run(trainer, DATASET, run_or_reuse(trainer), eval_split=None)
    return card, training_record(trainer, card, None)


def test_folders_that_are_gone_are_not_shown(tmp_path):
    card, record = _named(tmp_path / "run", tmp_path / "secret" / "start", tmp_path / "secret" / "teacher")
    assert (card.teacher.name, record["teacher"]["name"], record["student"]["start"]) == (
        "teacher",
        "teacher",
        "start",
    )
    assert card.base_model is None and "secret" not in json.dumps(record)


def test_names_of_the_hub_are_kept_with_their_revision(tmp_path):
    card, record = _named(tmp_path, "alice/start@v2", "alice/teacher@v1")
    assert (card.teacher.name, record["teacher"]["name"]) == ("alice/teacher@v1", "alice/teacher@v1")
    assert (card.base_model, record["student"]["start"]) == ("alice/start", "alice/start@v2")


def test_a_folder_with_the_name_of_an_id_is_a_folder(tmp_path, monkeypatch):
    (tmp_path / "alice" / "start").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    card, record = _named(tmp_path / "run", "alice/start", "alice/teacher")
    assert card.base_model is None and record["student"]["start"] == "start" and card.teacher.name == "alice/teacher"


def test_a_card_of_pairs_needs_the_preparation(tmp_path):
    trainer = _trainer(tmp_path)
    card = describe_run(trainer, DATASET, run_or_reuse(trainer), eval_split=None, weights_license="cc-by-nc-4.0")
    with pytest.raises(ValueError, match="`verification.preparation` is ''; a model card needs it"):
        render_card(card)


def test_a_card_needs_the_image_processor(tmp_path):
    trainer = _trainer(tmp_path)
    trainer.processing_class = None
    with pytest.raises(ValueError, match="a card needs the image processor; pass `processing_class`"):
        _card(trainer, {})


def test_splits_of_the_data():
    data = DataArguments(name="someone/images", eval_split=None)
    assert evaluated_split(data) is None and card_dataset(data, 10, None).splits == {"train": 10}
    data = DataArguments(name="someone/images", validation_fraction=0.1)
    assert evaluated_split(data) == "validation"
    assert card_dataset(data, 10, 2).splits == {"train": 10, "validation": 2}


def test_schedules(tmp_path):
    steps = arguments(tmp_path, lr_decay_epochs=[3, 5], num_train_epochs=6)
    assert describe_schedule(steps) == "times 0.1 after epochs 3, 5"
    curve = arguments(tmp_path, lr_scheduler_type="polynomial", lr_scheduler_kwargs={"power": 2.0})
    assert describe_schedule(curve) == "polynomial, power 2.0"


@pytest.fixture(scope="module")
def drawings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawings")
    for split, count in (("train", 6), ("test", 3)):
        for number, name in enumerate(("red", "green", "blue", "held", "kept")):
            (folder / split / name).mkdir(parents=True)
            for index in range(count):
                Image.new("RGB", (20, 20), (50 * number, 20 * index, 200)).save(folder / split / name / f"{index}.png")
    return folder


@pytest.mark.parametrize("eval_split", ["test", None])
def test_a_recipe_with_classes_held_out_writes_its_card(eval_split, drawings, tmp_path):
    sections = {
        "student": {"backbone": "resnet8", **FACE},
        "data": {
            "name": str(drawings),
            "title": "Colors",
            "eval_split": eval_split,
            "held_out_classes": ["held", "kept"],
            "image_size": 16,
            "license": "MIT",
        },
        "verification": {
            "held_out_pairs": 20,
            "flip": False,
            "subject": "characters",
            "preparation": "plain colors",
            "bootstrap": 10,
        },
        "training": {"output_dir": str(tmp_path), "max_steps": 1, "use_cpu": True, "report_to": "none"},
    }
    recipe = build_recipe(sections)
    trainer, results = run_recipe(recipe)
    write_card(trainer, recipe, results)
    card = ModelCard.load(tmp_path / "README.md")
    pairs = [result for result in card.data.eval_results if result.task_type == "image-feature-extraction"]
    assert {(result.dataset_name, result.dataset_type) for result in pairs} == {
        ("Colors: classes held out", f"{drawings.name} (not on the Hub)")
    }
    assert card.data.datasets is None and f"Colors (`{drawings.name}`, not on the Hub)" in card.text
    assert all("20 pairs, without mirrored images" in result.metric_name for result in pairs)
    assert ("Top-1 accuracy" in card.text) == (eval_split is not None)
    assert "plain colors" in card.text and str(drawings) not in card.content and "people" not in card.text
    assert all(result.metric_args["replicates"] == 10 for result in pairs)
    assert ("test 9" in card.text) == (eval_split is not None)


def test_an_unknown_subject_is_refused_before_training():
    sections = {"student": {"backbone": "resnet8"}, "data": {"name": "a"}, "training": {"use_cpu": True}}
    with pytest.raises(ValueError, match="`verification.subject` is 'cats'; allowed: faces, characters"):
        build_recipe({**sections, "verification": {"subject": "cats"}})


SECTIONS = {"student": {"backbone": "resnet8"}, "data": {"name": "a"}, "training": {"use_cpu": True}}


@pytest.mark.parametrize(
    "section, fields, message",
    [
        ("data", {"weights_license": "Apache-2.0"}, "`data.weights_license` is 'Apache-2.0'; expected an identifier"),
        ("data", {"weights_license": "other"}, "`data.weights_license_name` is missing for license 'other'"),
        ("data", {"weights_license_link": "https://x.org"}, "`data.weights_license_link` has no place beside"),
        ("data", {"title": "Digits | letters"}, r"`data.title` is .*; it must be one line without '\|'"),
        ("data", {"license": ""}, "`data.license` is ''; a model card needs it"),
        ("data", {"image_size": 224, "resize": 200}, "`data.resize` is 200, out of which `image_size` 224 cannot be cut"),
        ("student", {"backbone": "resnet8", "shared_head_length": 2.0}, "`shared_head_length` has no effect without"),
        ("verification", {"preparation": "one\ntwo"}, "`verification.preparation` is .* must be one line"),
    ],
)  # fmt: skip
def test_what_a_card_cannot_say_is_refused_when_the_recipe_is_read(section, fields, message):
    with pytest.raises(ValueError, match=message):
        build_recipe({**SECTIONS, section: {**SECTIONS.get(section, {}), **fields}})


@pytest.mark.parametrize(
    "sections, message",
    [
        (
            {"data": {"name": "a", "license": "non-commercial research"}, "verification": {"preparation": "aligned"}},
            "`data.weights_license` is 'apache-2.0', but the data are for non-commercial use",
        ),
        (
            {"data": {"name": "a", "eval_split": None}, "training": {"use_cpu": True, "push_to_hub": True}},
            "`push_to_hub` needs a model card, and nothing is evaluated",
        ),
        (
            {"training": {"use_cpu": True, "resume_from_checkpoint": "x"}},
            "`training.resume_from_checkpoint` has no effect: the same command goes on",
        ),
        ({"training": {"use_cpu": True, "do_predict": True}}, "`training.do_predict` has no effect"),
    ],
)
def test_what_would_show_only_after_the_training_is_refused_before(sections, message):
    with pytest.raises(ValueError, match=message):
        run_recipe(build_recipe({**SECTIONS, **sections}))


def test_a_run_that_evaluates_nothing_has_no_card(drawings, tmp_path):
    sections = {
        "student": {"backbone": "resnet8"},
        "data": {"name": str(drawings), "eval_split": None, "image_size": 16},
        "training": {"output_dir": str(tmp_path), "max_steps": 1, "use_cpu": True, "report_to": "none"},
    }
    recipe = build_recipe(sections)
    trainer, results = run_recipe(recipe)
    write_card(trainer, recipe, results)
    assert (tmp_path / "model.safetensors").is_file() and not (tmp_path / "README.md").exists()


def test_another_license_has_name_and_link(drawings, tmp_path):
    named = {"weights_license": "other", "weights_license_name": "ours", "weights_license_link": "https://x.org"}
    sections = {
        "student": {"backbone": "resnet8"},
        "data": {"name": str(drawings), "image_size": 12, "resize": 16, **named},
        "training": {"output_dir": str(tmp_path), "max_steps": 1, "use_cpu": True, "report_to": "none"},
    }
    recipe = build_recipe(sections)
    trainer, results = run_recipe(recipe)
    assert trainer.train_dataset.unaugmented([0]).shape == (1, 3, 12, 12)
    write_card(trainer, recipe, results)
    card = ModelCard.load(tmp_path / "README.md")
    assert (card.data.license, card.data.license_name, card.data.license_link) == ("other", "ours", "https://x.org")
    assert "12 × 12" in card.text or "12x12" in card.text


def test_resized_images_are_those_of_torchvision(drawings):
    """The usual preparation for ImageNet: the shorter edge, then the center."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
    data = DataArguments(name=str(drawings), image_size=24, resize=28, mean=[0.0] * 3, std=[1.0] * 3)
    processor = build_data(data, 0).processor
    expected = center_crop(resize(pil_to_tensor(image), [28], antialias=True), [24, 24])
    found = processor(image, return_tensors="pt", do_rescale=False)["pixel_values"][0]
    assert torch.equal(found.to(torch.uint8), expected)


def test_a_transformers_student_with_its_own_processor_has_a_card(tmp_path):
    processor = ViTImageProcessor(size={"height": 16, "width": 16}, image_mean=[0.5] * 3, image_std=[0.25] * 3)
    trainer = DistillationTrainer(
        vit(), arguments(tmp_path, **SHORT), train_dataset=ToyImages(), eval_dataset=ToyImages(16),
        processing_class=processor,
    )  # fmt: skip
    trainer.train()
    dataset = CardDataset("Colors", "local/colors", "MIT", {"train": 48, "test": 16})
    card = describe_run(trainer, dataset, trainer.evaluate())
    assert card.model.image_size == (16, 16) and card.model.channel_order == "rgb"
    assert card.model.image_std == (0.25,) * 3 and card.training.wall_seconds == trainer.train_seconds > 0
    trainer.card = card
    trainer.create_model_card()
    assert "0.25" in (tmp_path / "README.md").read_text()


def test_what_a_folder_lacks_is_said_with_its_remedy_in_python(tmp_path):
    trainer = _trainer(tmp_path / "saved")
    trainer.train()
    trainer.save_model()
    with pytest.raises(ValueError, match="is not finished; .* in Python `run_or_reuse`"):
        publish_run(tmp_path / "saved", "someone/model")
    run_or_reuse(_trainer(tmp_path / "finished"))
    with pytest.raises(ValueError, match=r"set `trainer.card = describe_run\(trainer, dataset, results\)`"):
        publish_run(tmp_path / "finished", "someone/model")
