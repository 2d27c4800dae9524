"""Runs with a companion loss: what is trained, saved, resumed and refused."""

import json
import shutil
from pathlib import Path

import cached_runs
import pytest
import torch
from companion_runs import Start, by_hand, make, networks
from safetensors.torch import load_file
from torch.nn import functional as F
from toys import ToyImages, arguments, assert_same, losses, resnet, snapshot, vit
from transformers import ResNetConfig, ResNetForImageClassification

from headshare_hf import (
    HeadShareForImageClassification,
    HeadShareImageProcessor,
    StudentHeadStages,
    run_student_head_kd,
)
from headshare_hf.losses import COMPANIONS
from headshare_hf.trainer import METHODS, RunFolderError, is_finished, run_or_reuse
from headshare_hf.trainer.companions import create_companion
from headshare_hf.trainer.recipe import build_data, run_recipe
from headshare_hf.trainer.recipe_arguments import build_recipe
from headshare_hf.trainer.runs import _stage


WITH_COMPANION = [name for name, row in METHODS.items() if row.companion]


@pytest.mark.parametrize("method", WITH_COMPANION)
def test_the_first_step_is_what_the_loss_classes_say(method, tmp_path):
    trainer, start, row = make(tmp_path, method), Start(), METHODS[method]
    teacher, data = trainer.teacher.model, ToyImages(32)
    before = snapshot(teacher)
    trainer.add_callback(start)
    trainer.train()
    parts = by_hand(start.module, teacher, data.images[:16], data.labels[:16], row)
    logged = next(entry for entry in trainer.state.log_history if "loss" in entry)
    assert {name: logged[f"loss_{name}"] for name in parts} == pytest.approx(parts, rel=1e-5)
    weights = {name: getattr(row, name, None) for name in parts} | {"companion": COMPANIONS[row.companion].weight}
    assert logged["loss"] == pytest.approx(sum(weights[name] * part for name, part in parts.items()), rel=1e-5)
    assert {name for name in logged if name.startswith("loss_")} == {f"loss_{name}" for name in parts}
    assert_same(snapshot(teacher), before)
    old = dict(start.module.named_parameters())
    moved = [not torch.equal(each, old[name]) for name, each in trainer.model.named_parameters() if each.requires_grad]
    assert moved and all(moved)


def test_a_network_is_looked_at_without_leaving_a_trace(tmp_path):
    student, teacher = networks("vid")
    student.headshare.backbone.layer1.eval()
    modes = [module.training for module in student.modules()]
    before, state = (snapshot(student), snapshot(teacher)), torch.get_rng_state()
    args = arguments(tmp_path, method="hint")
    loss = create_companion(student, teacher, args, ToyImages(4, size=24), lambda images: F.avg_pool2d(images, 2))
    # A map of 12 pixels comes to one of 6: the convolution has stride 2.
    assert loss.regressor[0].stride == (2, 2)
    assert [module.training for module in student.modules()] == modes
    for model, kept in zip((student, teacher), before, strict=True):
        assert_same(snapshot(model), kept)
    # Layers are drawn; looking at the networks draws nothing.
    torch.set_rng_state(state)
    create_companion(student, teacher, arguments(tmp_path, method="attention"), ToyImages(4), lambda images: images)
    assert torch.equal(torch.get_rng_state(), state)


def test_layers_of_a_loss_are_those_of_the_seed_of_the_run(tmp_path):
    first = make(tmp_path / "a", "vid").auxiliaries["companion"]
    torch.rand(5)
    again, other = (make(tmp_path / str(seed), "vid", seed=seed).auxiliaries["companion"] for seed in (42, 43))
    assert_same(snapshot(first), snapshot(again))
    assert any(not torch.equal(value, snapshot(other)[name]) for name, value in snapshot(first).items())


@pytest.mark.parametrize(
    "method, fields", [("th_vid", {}), ("adadistill", {}), ("dkd", {"companion_warmup_epochs": 4})]
)
def test_a_resumed_run_equals_the_uninterrupted_one(method, fields, tmp_path):
    fields = {"max_steps": 6, "save_strategy": "steps", "save_steps": 1, "train_sampling_strategy": "random", **fields}
    whole = make(tmp_path / "whole", method, **fields)
    whole.train()
    cut = tmp_path / "cut"
    cut.mkdir()
    shutil.copytree(tmp_path / "whole" / "checkpoint-2", cut / "checkpoint-2")
    shutil.copy(tmp_path / "whole" / "run.json", cut)
    torch.rand(3)
    resumed = make(cut, method, **fields)
    resumed.train(resume_from_checkpoint=True)
    assert losses(resumed) == losses(whole)
    assert_same(snapshot(resumed.model), snapshot(whole.model))


@pytest.mark.parametrize("method", ["vid", "adadistill", "srrl", "factor"])
def test_the_checkpoint_has_what_the_published_weights_have_not(method, tmp_path):
    trainer = make(tmp_path, method, save_strategy="steps", save_steps=2)
    trainer.train()
    trainer.save_model()
    beside = load_file(tmp_path / "checkpoint-2" / "auxiliary.safetensors")
    assert set(beside) == {f"companion.{name}" for name in trainer.auxiliaries["companion"].state_dict()}
    for folder in (tmp_path, tmp_path / "checkpoint-2"):
        files = [path for path in folder.glob("*.safetensors") if path.name != "auxiliary.safetensors"]
        published = {name for path in files for name in load_file(path)}
        assert published == set(trainer.student.state_dict())
        assert_same(snapshot(HeadShareForImageClassification.from_pretrained(folder)), snapshot(trainer.student))
    assert not (tmp_path / "auxiliary.safetensors").exists()


def test_the_weight_grows_over_the_first_epochs_and_a_resumed_run_knows_the_epoch(tmp_path):
    fields = {"max_steps": -1, "num_train_epochs": 4, "companion_warmup_epochs": 3, "companion_weight": 2.0}
    trainer = make(tmp_path, "dkd", save_strategy="epoch", gradient_accumulation_steps=2, **fields)
    trainer.train()
    rows = [row for row in trainer.state.log_history if "loss" in row]
    shares = [(row["loss"] - row["loss_ce"]) / row["loss_companion"] for row in rows]
    assert shares == pytest.approx([2 / 3, 4 / 3, 2, 2], rel=1e-4)
    # The weight right after resuming is that of the epoch which begins.
    shutil.rmtree(tmp_path / "checkpoint-4")
    for step in (2, 3):
        shutil.rmtree(tmp_path / f"checkpoint-{step}")
    resumed = make(tmp_path, "dkd", save_strategy="epoch", gradient_accumulation_steps=2, **fields)
    resumed.train(resume_from_checkpoint=True)
    assert losses(resumed) == losses(trainer)


def test_any_method_can_have_one_with_options_of_its_own(tmp_path):
    options = {"temperature": 2.0, "others_weight": 1.0}
    trainer = make(tmp_path, "th_kd", companion="dkd", companion_weight=0.5, companion_options=options)
    loss = trainer.auxiliaries["companion"]
    assert (loss.temperature, loss.others_weight, loss.target_weight) == (2.0, 1.0, 1.0)
    trainer.train()
    row = trainer.state.log_history[0]
    parts = row["loss_ce"] + 1.5 * row["loss_kd"] + 0.02 * row["loss_teacher_head"] + 0.5 * row["loss_companion"]
    assert row["loss"] == pytest.approx(parts, rel=1e-5)


def test_another_companion_takes_the_place_of_that_of_the_method(tmp_path):
    args = arguments(tmp_path, method="th_dkd", companion="dist")
    assert args.loss_weights.companion == COMPANIONS["dist"].weight and args.loss_weights.teacher_head == 0.02
    coupled = arguments(tmp_path, method="th_kd_coupled", companion="rkd", companion_weight=3.0).loss_weights
    assert (coupled.companion, coupled.ce, coupled.teacher_head_ce) == (3.0, 0.5, 0.5)


def test_every_companion_is_a_method_and_one_with_head_sharing():
    for name, companion in COMPANIONS.items():
        row = METHODS[name]
        assert (row.companion, row.ce, row.kd, row.teacher_head) == (name, companion.ce, companion.kd, 0)
    alone = {name for name in COMPANIONS if f"th_{name}" not in METHODS}
    assert alone == {"simkd", "adadistill"}
    assert (METHODS["simkd"].student_head, METHODS["adadistill"].student_head) == ("teacher_frozen", "own")
    assert {METHODS[f"th_{name}"].teacher_head for name in COMPANIONS if name not in alone} == {0.02}


@pytest.mark.parametrize("method", ["dkd", "rkd", "th_srrl"])
def test_a_stored_teacher_teaches_the_same(method, tmp_path):
    def run(name, cache):
        data = cached_runs.images(cached_runs.drawings(40))
        trainer = cached_runs.cached_trainer(tmp_path / name, cache, data, method=method, num_train_epochs=2)
        trainer.train()
        return losses(trainer)

    assert run("cached", tmp_path / "cache") == pytest.approx(run("plain", None), rel=1e-4)


def test_embeddings_are_compared_without_a_matrix_of_logits_too(tmp_path):
    runs = [make(tmp_path / str(chunked), "th_rkd", chunked_losses=chunked) for chunked in (True, False)]
    for trainer in runs:
        trainer.train()
    assert losses(runs[0]) == pytest.approx(losses(runs[1]), rel=1e-4)


def test_mixed_precision_changes_little(tmp_path):
    runs = [make(tmp_path / str(half), "vid", bf16=half) for half in (False, True)]
    for trainer in runs:
        trainer.train()
    assert losses(runs[1]) == pytest.approx(losses(runs[0]), rel=0.05)


def _transformers_resnet(seed):
    torch.manual_seed(seed)
    shape = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
    return ResNetForImageClassification(ResNetConfig(**shape, num_labels=5))


@pytest.mark.parametrize("method", ["th_vid", "similarity", "rkd", "srrl"])
def test_networks_of_transformers_have_maps_and_embeddings_too(method, tmp_path):
    trainer = make(tmp_path, method, (_transformers_resnet(1), _transformers_resnet(2)))
    trainer.train()
    assert all("loss_companion" in row for row in trainer.state.log_history if "loss" in row)


def test_a_transformer_learns_from_logits_and_a_timm_network_from_maps(tmp_path):
    make(tmp_path / "vit", "th_dist", (vit(hidden_size=64, seed=1), resnet("resnet14", seed=2))).train()
    trainer = make(tmp_path / "timm", "similarity", (resnet(seed=1), resnet("timm/test_resnet", seed=2)))
    trainer.train()
    assert losses(trainer)[0] > 0


def test_logits_are_enough_of_networks_whose_classifier_cannot_be_shared(tmp_path):
    models = vit(seed=1), vit(seed=2)
    for model in models:
        model.classifier = torch.nn.Sequential(torch.nn.Linear(32, 8), torch.nn.ReLU(), torch.nn.Linear(8, 5))
    trainer = make(tmp_path, "dkd", models)
    trainer.train()
    assert trainer.state.log_history[0]["loss_companion"] > 0


@pytest.mark.parametrize("teacher", ["wrn_16_1", "MobileNetV2", "vgg8"])
def test_simkd_takes_every_teacher_that_pools_its_last_map(teacher, tmp_path):
    other = resnet(teacher, seed=2)
    student = resnet("wrn_16_1", seed=1, map_projector={"out_channels": other.classifier.in_features})
    trainer = make(tmp_path, "simkd", (student, other))
    trainer.train()
    assert_same(snapshot(trainer.student.classifier), snapshot(other.classifier))
    trainer.save_model()
    assert_same(snapshot(HeadShareForImageClassification.from_pretrained(tmp_path)), snapshot(student))


def test_a_recipe_trains_simkd_and_uses_it_again(tmp_path):
    folder = Path(__file__).parents[2] / "examples" / "data" / "omniglot-8alphabets"
    training = {"output_dir": str(tmp_path / "run"), "method": "simkd", "max_steps": 1, "report_to": "none"}
    sections = {
        "student": {"backbone": "wrn_16_1", "map_projector": {"out_channels": 64}},
        "teacher": {"name_or_path": str(tmp_path / "teacher")},
        "data": {"name": str(folder), "max_train_samples": 32, "max_eval_samples": 8, "augmentation": "crop_white"},
        "training": {**training, "use_cpu": True, "save_strategy": "no"},
    }
    data = build_data(build_recipe(sections).data, seed=0)
    named = resnet("resnet14", len(data.label_names), seed=2, id2label=dict(enumerate(data.label_names)))
    named.save_pretrained(tmp_path / "teacher")
    HeadShareImageProcessor().save_pretrained(tmp_path / "teacher")
    trainer, results = run_recipe(build_recipe(sections))
    assert trainer.student.config.map_projector == {"out_channels": 64}
    again, reused = run_recipe(build_recipe(sections))
    assert reused == results
    assert_same(snapshot(again.student), snapshot(trainer.student))


def test_runs_from_before_there_were_companions_are_still_theirs(tmp_path):
    trainer = make(tmp_path, "th_kd")
    run_or_reuse(trainer)
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["identity"].pop("companion") is None and "map_projector" not in record["identity"]["configuration"]
    assert "companion" not in record["identity"]["weights"]
    (tmp_path / "run.json").write_text(json.dumps(record))
    run_or_reuse(make(tmp_path, "th_kd"))
    with pytest.raises(RunFolderError, match="`companion` is None there and"):
        run_or_reuse(make(tmp_path, "th_dkd"))


def test_every_run_of_sh_kd_has_its_own_loss(tmp_path):
    stages = StudentHeadStages(
        new_student=lambda seed: resnet(seed=seed), new_teacher=lambda seed: resnet("resnet14", seed=seed)
    )
    fields = {"companion": "dkd", "companion_weight": 2.0, "companion_options": {"others_weight": 1.0}}
    args = arguments(tmp_path, method="sh_kd", companion_warmup_epochs=2, max_steps=1, **fields)
    final, results = run_student_head_kd(stages, args, train_dataset=ToyImages(16))
    assert len(results) == 3 and all(is_finished(tmp_path / name) for name in results)
    assert list(final.auxiliaries) == ["companion"]


@pytest.mark.parametrize(
    "method, read", [("plain", (None, "cosine")), ("kd", (2.0, "cosine")), ("embedding", (None, "l2")), ("kde", (2.0, "l2"))]
)  # fmt: skip
def test_an_earlier_run_of_sh_kd_has_the_options_that_it_reads(method, read, tmp_path):
    args = arguments(tmp_path, method="sh_kde", temperature=2.0, embedding_distance="l2")
    found = _stage(args, tmp_path / "first", method, None)
    assert (found.temperature, found.embedding_distance) == read


def test_logits_alone_may_train_the_head(tmp_path):
    trainer = make(tmp_path, "dkd", ce_weight=0.0)
    trainer.train()
    assert {"loss", "loss_companion"} <= trainer.state.log_history[0].keys()


def test_many_classes_are_not_split_where_logits_are_compared(tmp_path, monkeypatch):
    monkeypatch.setattr("headshare_hf.trainer.large_heads.CHUNKED_FROM", 5)
    assert make(tmp_path / "a", "rkd")._chunked and not make(tmp_path / "b", "dkd")._chunked
