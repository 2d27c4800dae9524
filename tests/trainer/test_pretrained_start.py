"""Trained weights under a new classifier: the start of a fine-tuning."""

import json
from functools import partial

import pytest
import torch
from toys import assert_same, resnet, snapshot, vit
from transformers import TimmWrapperConfig, TimmWrapperForImageClassification

from headshare_hf import HeadShareModel
from headshare_hf.models import find_classifier
from headshare_hf.trainer.loading import load_classifier, load_with_new_head
from headshare_hf.trainer.recipe import build_model, build_teacher
from headshare_hf.trainer.recipe_sections import DataArguments, ModelArguments


NAMES = ["ant", "bee", "cat"]


def _timm():
    torch.manual_seed(0)
    return TimmWrapperForImageClassification(TimmWrapperConfig(architecture="resnet18", num_labels=6))


def _outside(model):
    """All weights but those of the classifier."""
    head = find_classifier(model)
    own = next(name for name, module in model.named_modules() if module is head)
    return {name: value for name, value in snapshot(model).items() if not name.startswith(own)}


@pytest.mark.parametrize(
    "make",
    [lambda: vit(7), lambda: vit(3), _timm, lambda: resnet(num_labels=9), lambda: resnet(head_type="arcface")],
    ids=["vit", "vit of as many classes", "timm", "linear", "arcface"],
)
def test_all_but_the_classifier_is_trained(make, tmp_path):
    model = make()
    model.save_pretrained(tmp_path)
    loaded = load_with_new_head(str(tmp_path), NAMES)
    assert_same(_outside(loaded), _outside(model))
    head, own = find_classifier(loaded), find_classifier(model)
    assert head.weight.shape == (3, own.in_features) and loaded.config.id2label == dict(enumerate(NAMES))
    assert head.weight.shape != own.weight.shape or not torch.equal(head.weight, own.weight)
    assert head.weight.any()


def test_backbones_without_a_classifier_get_one(tmp_path):
    ours = HeadShareModel(resnet("resnet20").config)
    ours.save_pretrained(tmp_path / "ours")
    vit().base_model.save_pretrained(tmp_path / "theirs")
    for name in ("ours", "theirs"):
        assert find_classifier(load_with_new_head(str(tmp_path / name), NAMES)).out_features == 3


def test_a_section_of_a_recipe_asks_for_it(tmp_path):
    vit(7).save_pretrained(tmp_path)
    section, data = ModelArguments(name_or_path=str(tmp_path), new_head=True), DataArguments(name="x")
    first, again, other = (build_model(section, data, NAMES, seed).classifier.weight for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    with pytest.raises(ValueError, match="section `teacher` has `new_head`, and a new classifier cannot teach"):
        build_teacher(section, NAMES)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"new_head": True, "backbone": "resnet8"}, "`new_head` is for trained weights"),
        ({"new_head": True, "name_or_path": "x", "same_label_order": True}, "`new_head` is for trained weights"),
        ({"embeddings_only": True, "name_or_path": "x", "same_label_order": True}, "no effect with `embeddings_only`"),
    ],
)
def test_contradictions_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        ModelArguments(**fields)


def test_a_student_whose_embedding_alone_is_read_is_refused():
    section = ModelArguments(name_or_path="x", embeddings_only=True)
    with pytest.raises(ValueError, match="`embeddings_only` is for section `teacher`"):
        build_model(section, DataArguments(name="x"), NAMES, 0)


def test_a_damaged_backbone_is_refused(tmp_path):
    model = vit(7)
    state = {name: value for name, value in model.state_dict().items() if "layernorm_before" not in name}
    model.save_pretrained(tmp_path, state_dict=state)
    for load in (partial(load_with_new_head, label_names=NAMES), load_classifier):
        with pytest.raises(
            ValueError, match=r"missing keys: vit[^:]*layernorm_before.weight\. Load it with"
        ) as caught:
            load(str(tmp_path))
        # The classifier is not what is missing, and may be of other classes.
        assert "new_head" not in str(caught.value) and "classifier." not in str(caught.value)


@pytest.mark.parametrize("names", [["ant", "bee"], ["ant", "bee", "cat", "dog", "eel", "fox"]])
def test_a_timm_network_from_a_folder_keeps_its_new_names(names, tmp_path):
    model = _timm()
    model.config.label_names = ["a", "b", "c", "d", "e", "f"]
    model.save_pretrained(tmp_path / "first")
    loaded = load_with_new_head(str(tmp_path / "first"), names)
    loaded.save_pretrained(tmp_path / "second")
    assert json.loads((tmp_path / "second" / "config.json").read_text())["label_names"] == names
