"""The table of what each method needs says what the checks themselves do."""

import importlib
import sys
from pathlib import Path

import pytest
import torch
from companion_runs import is_pretrained
from toys import ToyImages, arguments, resnet

from headshare_hf import DistillationTrainer, share_head
from headshare_hf.losses import COMPANIONS
from headshare_hf.trainer import METHODS
from headshare_hf.trainer.checks import check_teacher
from headshare_hf.trainer.companions import create_companion
from headshare_hf.trainer.large_heads import uses_chunks


sys.path.append(str(Path(__file__).parents[1] / "docs" / "tools"))
site_needs = importlib.import_module("site_needs")
ROWS = {row[0].strip("`"): dict(zip(site_needs.HEADINGS, row, strict=True)) for row in site_needs.needs()}
NARROW, WIDE = 64, 128


def _networks(name):
    """A student and a teacher whose embeddings differ in width."""
    head = {"head_type": "arcface"} if name == "adadistill" else {}
    projector = {"map_projector": {"out_channels": WIDE}} if name == "simkd" else {}
    return resnet("wrn_16_1", seed=1, **head, **projector), resnet("wrn_16_2", seed=2, **head)


def _needs_teacher(name):
    return METHODS[name].needs_teacher


def _refused(call, *args, **fields):
    try:
        call(*args, **fields)
    except ValueError:
        return True
    return False


def _check(name, folder, **fields):
    student, teacher = _networks(name)
    args = arguments(folder, method=name, **fields)
    check_teacher(student, teacher if _needs_teacher(name) else None, args)
    if args.companion_name is not None:
        create_companion(student, teacher, args, ToyImages(2), lambda images: images)


def test_every_method_has_a_row_or_adds_the_teachers_head_to_one_that_has():
    assert set(METHODS) - set(ROWS) == {f"th_{name}" for name in COMPANIONS} & set(METHODS)
    for name in set(METHODS) - set(ROWS):
        own, base = METHODS[name], METHODS[name.removeprefix("th_")]
        assert own.teacher_head > 0 and own.companion == base.companion and own.contrastive == base.contrastive


@pytest.mark.parametrize("name", ROWS)
def test_widths_are_refused_where_the_table_says_so(name, tmp_path):
    cell = ROWS[name]["widths of the embeddings"]
    if name.startswith("sh_"):
        assert cell == "equal, for the teacher around the student's head"
        assert _refused(share_head, *_networks(name))
    else:
        assert _refused(_check, name, tmp_path) == cell.startswith("equal")
    assert ("`projector`" in cell) == (
        cell.startswith("equal") and "around" not in cell and not _refused(_check, name, tmp_path, projector="linear")
    )


@pytest.mark.parametrize("name", ROWS)
def test_ways_of_training_are_refused_where_the_table_says_so(name, tmp_path, monkeypatch):
    row, networks = ROWS[name], (resnet("wrn_16_1"), resnet("wrn_16_1") if _needs_teacher(name) else None)
    assert _refused(arguments, tmp_path, method=name, teacher_cache="cache") == (row["teacher cache"] != "yes")
    chunked = arguments(tmp_path, method=name, chunked_losses=True)
    assert _refused(uses_chunks, chunked, *networks) == (row["chunks of classes"] == "no")
    monkeypatch.setattr("headshare_hf.trainer.checks.wants_fsdp", lambda args: True)
    refused = _refused(check_teacher, *networks, arguments(tmp_path, method=name))
    assert refused == (row["FSDP, DeepSpeed"] == "no")


@pytest.mark.parametrize("name", ROWS)
def test_maps_index_and_stage_are_those_of_the_method(name, tmp_path):
    args = arguments(tmp_path, method=name)
    read = {"hidden_states", "pre_activations", "final_map"} & (args.student_reads | args.teacher_reads)
    assert (ROWS[name]["maps"] != "–") == bool(read)
    assert (ROWS[name]["`index`"] == "yes") == (METHODS[name].contrastive > 0)
    assert (ROWS[name]["stage before"] == "30 epochs") == is_pretrained(name)


class _IndexedImages(ToyImages):
    def __getitem__(self, index):
        return {**super().__getitem__(index), "index": index}


@pytest.mark.parametrize("name", ["hint", "vid", "srrl", "factor", "correlation", "crd", "dkd", "adadistill"])
def test_parameters_are_those_that_a_run_has(name, tmp_path):
    head = {"head_type": "arcface"} if name == "adadistill" else {}
    networks = (resnet(backbone, 100, **head) for backbone in ("resnet8x4", "resnet32x4"))
    fields = {"num_negatives": 16} if name == "crd" else {}
    args, images = arguments(tmp_path, method=name, **fields), _IndexedImages(200, num_labels=100, size=32)
    trainer = DistillationTrainer(next(networks), args, teacher=next(networks), train_dataset=images)
    modules = trainer.auxiliaries.values()
    count = sum(each.numel() for module in modules for each in module.parameters() if each.requires_grad)
    assert ROWS[name]["parameters of its own"] == (f"{count:,}" if count else "–")


def test_parameters_of_simkd_are_part_of_its_student():
    counts = []
    with torch.device("meta"):
        for fields in ({}, {"map_projector": {"out_channels": 256}}):
            counts.append(sum(each.numel() for each in resnet("resnet8x4", 100, **fields).parameters()))
    assert ROWS["simkd"]["parameters of its own"] == f"{counts[1] - counts[0]:,}"
