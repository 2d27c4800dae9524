"""Weights in the reference's layout become ours, every tensor accounted for."""

import pytest
import torch
from golden_data import load_golden

from headshare_hf import HeadShareConfig, HeadShareForImageClassification
from headshare_hf.hub import convert_state_dict


NETS = {"resnet8": "fc", "resnet20": "fc", "resnet8x4": "fc", "wrn_16_1": "fc", "MobileNetV2": "classifier.0"}


def _stored(name):
    golden = load_golden(f"model_{name}")
    weights = {k.removeprefix("state_dict."): v for k, v in golden.items() if k.startswith("state_dict.")}
    return golden, weights, HeadShareConfig(backbone=name, num_labels=20)


@pytest.mark.parametrize("name", NETS)
def test_converted_weights_give_the_logits_of_the_reference(name):
    golden, weights, config = _stored(name)
    model = HeadShareForImageClassification(config).eval()
    model.load_state_dict(convert_state_dict(weights, config))
    with torch.no_grad():
        output = model(golden["input"])
    torch.testing.assert_close(output.logits, golden["logits"], rtol=1e-4, atol=1e-5)


def test_what_does_not_fit_is_named():
    _, weights, config = _stored("resnet8")
    without = {name: value for name, value in weights.items() if name != "layer1.0.bn1.bias"}
    with pytest.raises(ValueError, match="missing: headshare.backbone.layer1.0.bn1.bias"):
        convert_state_dict(without, config)
    assert len(convert_state_dict(without, config, partial=True)) == len(weights) - 1
    with pytest.raises(ValueError, match="unknown: stranger"):
        convert_state_dict({**weights, "stranger": torch.zeros(1)}, config)
    with pytest.raises(ValueError, match=r"classifier.weight is \(20, 32\) instead of \(20, 64\)"):
        convert_state_dict({**weights, "fc.weight": torch.zeros(20, 32)}, config)


def test_weights_of_another_network_are_recognized():
    _, weights, _ = _stored("resnet20")
    with pytest.raises(ValueError, match="not those of resnet8 with 20 classes.*They look like resnet20"):
        convert_state_dict(weights, HeadShareConfig(backbone="resnet8", num_labels=20))
