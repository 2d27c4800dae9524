"""Companion losses, and options of them, that do not fit: what is refused, and what to do is said."""

import pytest
import torch
from companion_runs import make, networks
from toys import ToyImages, arguments, resnet, vit

from headshare_hf import DistillationTrainer
from headshare_hf.trainer.companions import feature_shapes


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"method": "th_dkdd"}, "unknown method 'th_dkdd'; did you mean th_dkd"),
        ({"method": "kd", "companion": "rdk"}, "unknown companion 'rdk'; did you mean .*rkd"),
        ({"method": "kd", "companion_weight": 2.0}, "`companion_weight` has no effect without a companion loss"),
        ({"method": "kd", "companion_options": {"stage": 1}}, "`companion_options` has no effect without a companion"),
        ({"method": "kd", "companion_warmup_epochs": 2}, "`companion_warmup_epochs` has no effect without"),
        ({"method": "kd", "pretraining_epochs": 2}, "`pretraining_epochs` has no effect without a companion"),
        ({"method": "dkd", "pretraining_epochs": 2}, "without a stage before the training, which dkd has not"),
        ({"method": "dkd", "companion_weight": 0.0}, "`companion_weight` is 0, so that dkd would have no effect"),
        ({"method": "dkd", "companion_weight": -1.0}, "the weight of `companion` is -1"),
        ({"method": "dkd", "companion_warmup_epochs": -1}, "`companion_warmup_epochs` is -1"),
        (
            {"method": "abound", "companion_warmup_epochs": 2},
            "`companion_warmup_epochs` has no effect on a weight of 0",
        ),
        ({"method": "factor", "pretraining_epochs": 0}, "`pretraining_epochs` is 0; it must be positive"),
        (
            {"method": "dkd", "companion_options": {"temprature": 2.0}},
            "unknown option of dkd 'temprature'; did you mean temperature",
        ),
        ({"method": "pkt", "companion_options": {"size": 2}}, "unknown option of pkt 'size'; known: none"),
        ({"method": "dkd", "temperature": 2.0}, r"dkd has its own; set companion_options=\{'temperature': 2\}"),
        ({"method": "vid", "teacher_cache": "cache"}, "`teacher_cache` keeps embeddings or logits, and vid compares"),
        ({"method": "rkd", "ce_weight": 0.0}, "no loss part reaches the student's own head"),
        ({"method": "adadistill", "student_head": "teacher_init"}, "no loss part reaches the student's own head"),
        ({"method": "th_rkd", "teacher_cache": "cache", "teacher_cache_moments": True}, "other parts ask the teacher"),
    ],
)
def test_wrong_options_name_the_field(fields, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        arguments(tmp_path, **fields)


@pytest.mark.parametrize(
    "method, models, fields, message",
    [
        (
            "simkd",
            networks("kd"),
            {},
            r"64 channels .* has none; build it with .*map_projector=\{'out_channels': 64\}",
        ),
        ("simkd", networks("simkd", "resnet8x4"), {}, "256 channels .* this one has one to 64 channels"),
        ("adadistill", networks("kd"), {}, "take a student with a face head, `head_type='arcface'`"),
        ("vid", (resnet(), vit(hidden_size=64)), {}, r"VIDLoss needs feature maps of the teacher.*of shape \(5, 64\)"),
        ("abound", (resnet("timm/test_resnet"), resnet()), {}, "maps before their activation of the student, .* none"),
        ("attention", (resnet(), resnet("vgg8")), {}, "the student has 3 and the teacher 4; take networks"),
        ("kdsvd", networks("kd"), {"companion_options": {"rank": 20}}, "`rank` is 20, but a map of .* 16 singular"),
        (
            "dkd",
            (resnet(), resnet()),
            {"chunked_losses": True},
            "`chunked_losses` is set, but the companion dkd reads",
        ),
    ],
)
def test_networks_and_options_that_do_not_fit_are_refused(method, models, fields, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        make(tmp_path, method, models, **fields)


@pytest.mark.parametrize("backend", ["fsdp", "deepspeed"])
def test_weights_that_are_split_are_refused(backend, tmp_path, monkeypatch):
    monkeypatch.setattr(f"headshare_hf.trainer.checks.wants_{backend}", lambda args: True)
    with pytest.raises(ValueError, match=f"`{backend}` was not tried with a companion loss, here rkd"):
        make(tmp_path, "rkd")


def test_a_head_that_the_centers_would_replace_is_refused(tmp_path):
    student, teacher = networks("adadistill")
    with pytest.raises(ValueError, match="`shared_head_from` would have no effect: the class centers of adadistill"):
        DistillationTrainer(
            student,
            arguments(tmp_path, method="adadistill"),
            teacher=teacher,
            train_dataset=ToyImages(),
            shared_head_from=teacher,
        )


def test_data_without_a_first_image_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"give a `train_dataset` whose first image can be read.*of NoneType"):
        DistillationTrainer(resnet(), arguments(tmp_path, method="rkd"), teacher=resnet())
    with pytest.raises(ValueError, match="method 'abound' with these weights and options needs a `teacher`"):
        DistillationTrainer(resnet(), arguments(tmp_path, method="abound"), train_dataset=ToyImages())


def test_networks_that_know_of_no_maps_are_named():
    class Plain(torch.nn.Linear):
        def forward(self, pixel_values):
            return super().forward(pixel_values.flatten(1))

    with pytest.raises(
        ValueError, match=r"Plain gives no feature maps \(.*output_hidden_states.*take a backbone with"
    ):
        feature_shapes(Plain(12, 2), torch.zeros(1, 3, 2, 2), frozenset({"hidden_states"}))


def test_what_fails_without_maps_too_is_said_by_the_network_itself():
    network = resnet("mobilefacenet", image_size=32)
    with pytest.raises(ValueError, match="16x16 .*for 32x32; resize the images") as found:
        feature_shapes(network, torch.zeros(1, 3, 16, 16), frozenset({"hidden_states"}))
    assert "feature maps" not in str(found.value)
