"""Class centers lie in their own file: the embedding network never reads them, the classifier always does."""

import json
import logging

import pytest
import torch
from safetensors.torch import load_file, save_file
from toys import assert_same, resnet, snapshot

from headshare_hf import HeadShareConfig, HeadShareForImageClassification, HeadShareModel
from headshare_hf.models import CENTERS_FILE


HEADS = ["cosine", "arcface", "cosface", "adaface"]


@pytest.mark.parametrize("kind", HEADS)
def test_the_centers_are_in_their_own_file(kind, tmp_path):
    model = resnet(head_type=kind)
    with torch.no_grad():
        for buffer in model.classifier.buffers():
            buffer.add_(1)
    model.save_pretrained(tmp_path)
    assert not any(name.startswith("classifier") for name in load_file(tmp_path / "model.safetensors"))
    assert all(name.startswith("classifier.") for name in load_file(tmp_path / CENTERS_FILE))
    again, info = HeadShareForImageClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert_same(snapshot(again), snapshot(model))
    assert not info["missing_keys"]


def test_the_embedding_network_does_not_need_them(tmp_path):
    model = resnet(head_type="arcface", num_labels=1000).eval()
    model.save_pretrained(tmp_path)
    (tmp_path / CENTERS_FILE).unlink()
    network = HeadShareModel.from_pretrained(tmp_path).eval()
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(network(images).embeddings, model(images).embeddings)
    assert not any("classifier" in name for name in network.state_dict())
    with pytest.raises(ValueError, match=r"missing keys: classifier.weight"):
        HeadShareForImageClassification.from_pretrained(tmp_path)


def test_a_linear_head_stays_with_the_weights(tmp_path):
    resnet().save_pretrained(tmp_path)
    assert not (tmp_path / CENTERS_FILE).exists()


def test_weights_with_the_centers_inside_are_read_too(tmp_path):
    model = resnet(head_type="arcface")
    model.save_pretrained(tmp_path)
    (tmp_path / CENTERS_FILE).unlink()
    save_file(model.state_dict(), tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert_same(snapshot(HeadShareForImageClassification.from_pretrained(tmp_path)), snapshot(model))


@pytest.mark.parametrize(
    "change, message", [("shape", r"has shape \(7, 64\), but the model has \(5, 64\)"), ("name", "no such tensor")]
)
def test_centers_of_another_model_are_refused(change, message, tmp_path):
    resnet(head_type="arcface").save_pretrained(tmp_path)
    name = "classifier.weight" if change == "shape" else "classifier.bias"
    save_file({name: torch.zeros(7, 64)}, tmp_path / CENTERS_FILE)
    with pytest.raises(ValueError, match=message):
        HeadShareForImageClassification.from_pretrained(tmp_path)


def test_many_classes_without_names_do_not_fill_the_configuration(tmp_path):
    model = resnet(head_type="arcface", num_labels=2000)
    model.save_pretrained(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    assert content["num_labels"] == 2000 and "id2label" not in content
    again = HeadShareForImageClassification.from_pretrained(tmp_path)
    assert again.config.id2label == model.config.id2label and again.config.label2id == model.config.label2id


def test_centers_in_their_own_file_are_no_missing_weights_to_warn_of(tmp_path, caplog):
    resnet(head_type="arcface").save_pretrained(tmp_path)
    handlers = logging.getLogger("transformers")
    handlers.addHandler(caplog.handler)
    try:
        HeadShareForImageClassification.from_pretrained(tmp_path)
        HeadShareModel.from_pretrained(tmp_path)
    finally:
        handlers.removeHandler(caplog.handler)
    assert "MISSING" not in caplog.text and "UNEXPECTED" not in caplog.text


@pytest.mark.parametrize("head_type", ["arcface", "cosine", "adaface"])
def test_weights_without_the_centers_say_where_these_go(head_type, tmp_path):
    model = resnet(head_type=head_type)
    model.save_pretrained(tmp_path)
    (tmp_path / CENTERS_FILE).unlink()
    with pytest.raises(
        ValueError, match=f"{tmp_path} does.*classifier.weight. These are .* Put {CENTERS_FILE} beside"
    ):
        HeadShareForImageClassification.from_pretrained(tmp_path)
    state = {name: value for name, value in model.state_dict().items() if not name.startswith("classifier.")}
    with pytest.raises(ValueError, match="given `state_dict` does not .*classifier.weight.*Add .* to it, or load"):
        HeadShareForImageClassification.from_pretrained(None, config=model.config, state_dict=state)
    network = HeadShareModel.from_pretrained(None, config=model.config, state_dict=state)
    assert_same(snapshot(network), snapshot(model.headshare))
    whole = HeadShareForImageClassification.from_pretrained(None, config=model.config, state_dict=model.state_dict())
    assert_same(snapshot(whole), snapshot(model))


def test_given_weights_of_another_network_are_recognized():
    config, state = resnet(head_type="arcface").config, resnet("resnet14").headshare.state_dict()
    with pytest.raises(
        ValueError, match="given `state_dict` does not fit .*its tensors are those of resnet14.*Load it"
    ):
        HeadShareForImageClassification.from_pretrained(None, config=config, state_dict=state)


def test_a_linear_head_leaves_no_centers_of_an_earlier_model(tmp_path):
    resnet(head_type="arcface").save_pretrained(tmp_path)
    model = resnet()
    model.save_pretrained(tmp_path)
    assert not (tmp_path / CENTERS_FILE).exists()
    assert_same(snapshot(HeadShareForImageClassification.from_pretrained(tmp_path)), snapshot(model))


def test_names_are_not_copied_one_by_one(tmp_path):
    """A million of them would take seconds, each time that a configuration is written or compared."""

    class Name(str):
        def __deepcopy__(self, memo):
            raise AssertionError("a name was copied")

    config = HeadShareConfig(num_labels=3)
    for template in ("LABEL_{}", "person {}"):
        config.id2label = {index: Name(template.format(index)) for index in range(3)}
        config.label2id = {name: index for index, name in config.id2label.items()}
        content, before = config.to_dict(), dict(vars(config))
        content.get("id2label", {}).clear()
        assert vars(config) == before and len(config.id2label) == 3
        assert content.get("num_labels") == (3 if template.startswith("LABEL") else None)
        config.save_pretrained(tmp_path)
        again = HeadShareConfig.from_pretrained(tmp_path)
        assert again.id2label == config.id2label and again.label2id == config.label2id
        assert again.to_dict().keys() == config.to_dict().keys()


def test_an_embedding_network_leaves_no_centers_of_an_earlier_model(tmp_path):
    resnet(head_type="arcface").save_pretrained(tmp_path)
    resnet().headshare.save_pretrained(tmp_path, is_main_process=False)
    assert (tmp_path / CENTERS_FILE).exists()
    network = resnet(seed=1).headshare
    network.save_pretrained(tmp_path)
    assert not (tmp_path / CENTERS_FILE).exists()
    assert_same(snapshot(HeadShareModel.from_pretrained(tmp_path)), snapshot(network))
