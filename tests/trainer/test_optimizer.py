"""The optimizer: options that would be lost are refused, and its fused form changes neither losses nor checkpoints."""

import shutil
from types import SimpleNamespace

import pytest
import torch
from toys import ToyImages, arguments, losses, resnet

from headshare_hf import DistillationTrainer
from headshare_hf.trainer.optimizer_options import check_optimizer, keep_form
from headshare_hf.trainer.split_heads import _move_counts


def _trainer(folder, **fields):
    fields = {"num_train_epochs": 2, "save_strategy": "steps", "save_steps": 2, **fields}
    data = ToyImages()
    return DistillationTrainer(
        resnet(seed=1), arguments(folder, method="th_kd", **fields), teacher=resnet(seed=2), train_dataset=data
    )


def _fused(trainer):
    return [bool(group["fused"]) for group in trainer.optimizer.param_groups]


@pytest.mark.parametrize(
    "fields, message",
    [
        (
            {"optim_args": "momentum=0.9,foo=3"},
            "unknown option of sgd in `optim_args` 'foo'; known: momentum, dampening",
        ),
        ({"optim_args": "momentun=0.9"}, "'momentun'; did you mean momentum"),
        ({"optim_args": "momentum=0.9,fused=True"}, "`fused` in `optim_args` .*; set the field `fused_optimizer`"),
        ({"optim_args": "weight_decay=0.1"}, "`weight_decay` in `optim_args` has no effect; set the field"),
        ({"optim_args": "momentum"}, "`optim_args` has 'momentum' without a value; write name=value"),
        ({"optim_args": "momentum=high"}, "`momentum` in `optim_args` is 'high'; it must be a number"),
        ({"optim_args": "momentum=0.9,nesterov=on"}, "`nesterov` in `optim_args` is 'on'; it must be true or false"),
        ({"optim": "adamw_torch", "optim_args": "beta1=0.8"}, "`beta1` in .*; set the field `adam_beta1`"),
        ({"optim": "adamw_torch", "optim_args": "momentum=0.8"}, "option of adamw_torch .* known: none"),
        ({"optim": "adagrad", "fused_optimizer": True}, "`fused_optimizer` is True, but `optim` is 'adagrad'"),
        ({"optim": "adamw_torch_fused", "fused_optimizer": False}, "set it to 'adamw_torch'"),
    ],
)
def test_options_without_effect_are_refused(fields, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        arguments(tmp_path, **fields)


@pytest.mark.parametrize(
    "field, message",
    [
        ({"device": torch.device("meta")}, "the device is 'meta', .* on cpu and cuda alone; leave it out"),
        ({"fp16": True}, "with `fp16` the learning rate would go on"),
        ({"fsdp": "full_shard"}, "FSDP and DeepSpeed split what it works on"),
        ({"deepspeed": "zero2.json"}, "FSDP and DeepSpeed split"),
    ],
)
def test_where_it_cannot_work_a_fused_optimizer_is_refused(field, message):
    plain = {
        "optim": "sgd",
        "optim_args": None,
        "device": torch.device("cpu"),
        "fp16": False,
        "fsdp": [],
        "deepspeed": None,
    }
    check_optimizer(SimpleNamespace(fused_optimizer=None, **{**plain, **field}))
    with pytest.raises(ValueError, match=message):
        check_optimizer(SimpleNamespace(fused_optimizer=True, **{**plain, **field}))


@pytest.mark.parametrize("optim", ["sgd", "adamw_torch", "adamw_torch_fused"])
def test_it_is_fused_unless_switched_off(optim, tmp_path):
    trainer = _trainer(tmp_path, optim=optim)
    trainer.create_optimizer()
    assert all(_fused(trainer))
    if optim != "adamw_torch_fused":
        trainer = _trainer(tmp_path, optim=optim, fused_optimizer=False)
        trainer.create_optimizer()
        assert not any(_fused(trainer))


def test_optimizers_of_other_kinds_are_made_as_before(tmp_path):
    for optim, options in (
        ("adagrad", "lr_decay=0.1"),
        ("rmsprop", "momentum=0.9,centered=true"),
        ("adafactor", None),
    ):
        trainer = _trainer(tmp_path, optim=optim, optim_args=options)
        trainer.create_optimizer()
        assert not trainer.optimizer.defaults.get("fused")
        assert optim == type(trainer.optimizer).__name__.lower()


def test_all_options_reach_sgd(tmp_path):
    trainer = _trainer(tmp_path, optim_args="momentum=0.5, nesterov=yes", weight_decay=0.25)
    trainer.create_optimizer()
    group = trainer.optimizer.param_groups[0]
    assert (group["momentum"], group["nesterov"], group["weight_decay"], group["lr"]) == (0.5, True, 0.25, 0.05)


@pytest.mark.parametrize("optim", ["sgd", "adamw_torch"])
def test_losses_are_the_same_and_a_run_goes_on_either_way(optim, tmp_path):
    fields = {"optim": optim, "learning_rate": 0.05 if optim == "sgd" else 0.001}
    runs = {}
    for fused in (True, False):
        runs[fused] = _trainer(tmp_path / str(fused), fused_optimizer=fused, **fields)
        runs[fused].train()
    assert losses(runs[True]) == pytest.approx(losses(runs[False]), rel=1e-5)
    for before in (True, False):
        folder = tmp_path / str(before)
        for step in (4, 6):
            shutil.rmtree(folder / f"checkpoint-{step}")
        # As it is left out by default, and in runs from before there was the switch.
        resumed = _trainer(folder, fused_optimizer=False if before else None, **fields)
        resumed.train(resume_from_checkpoint=True)
        assert set(_fused(resumed)) == {not before}
        assert losses(resumed) == pytest.approx(losses(runs[before]), rel=1e-5)


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_a_state_in_another_memory_layout_is_brought_to_that_of_the_weights(kind):
    """As of a run that goes on with `channels_last` on a GPU; the kernel would mix up the numbers without a word."""
    options = {"momentum": 0.9} if kind is torch.optim.SGD else {}
    ends = []
    for fused in (True, False):
        torch.manual_seed(0)
        weight = torch.nn.Parameter(torch.randn(4, 3, 3, 3).contiguous(memory_format=torch.channels_last))
        optimizer = kind([weight], lr=0.1, fused=fused, **options)
        keep_form(optimizer)
        for _ in range(2):
            weight.grad = torch.empty_like(weight).copy_(torch.randn(4, 3, 3, 3))
            optimizer.step()
            saved = optimizer.state_dict()
            own = {name: value.contiguous() for name, value in saved["state"][0].items()}
            optimizer.load_state_dict({**saved, "state": {0: own}})
        ends.append(weight.detach())
    torch.testing.assert_close(*ends)


@pytest.mark.parametrize("nesterov", [False, True])
def test_a_parameter_may_get_its_first_gradient_later_than_others(nesterov):
    found = []
    for fused in (True, False):
        torch.manual_seed(0)
        early, late = (torch.nn.Parameter(torch.randn(5)) for _ in range(2))
        optimizer = torch.optim.SGD(
            [early, late], lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=nesterov, fused=fused
        )
        keep_form(optimizer)
        for step in range(4):
            optimizer.zero_grad()
            ((early**2).sum() + ((late**2).sum() if step > 1 else 0)).backward()
            optimizer.step()
        found.append(torch.stack([early, late]).detach())
    torch.testing.assert_close(*found)


def test_with_dampening_it_is_not_fused(tmp_path):
    trainer = _trainer(tmp_path, optim_args="momentum=0.9,dampening=0.1")
    trainer.create_optimizer()
    assert not any(_fused(trainer))
    with pytest.raises(ValueError, match="`fused_optimizer` is True, but with dampening it starts"):
        arguments(tmp_path, optim_args="momentum=0.9,dampening=0.1", fused_optimizer=True)


@pytest.mark.parametrize("fused, device", [(True, "meta"), (False, "cpu")])
def test_a_fused_step_of_a_divided_head_counts_where_the_head_is(fused, device):
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([weight], fused=fused)
    weight.grad = torch.ones(3)
    optimizer.step()
    # The meta device stands for a GPU.
    _move_counts(optimizer, weight, torch.device("meta"))
    assert optimizer.state[weight]["step"].device.type == device


def test_an_optimizer_of_the_caller_has_to_hold_what_the_trainer_has_made(tmp_path):
    def trainer(method, student, **given):
        args = arguments(tmp_path / method, method=method, max_steps=1, **given)
        optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
        teacher = resnet("resnet8x4", seed=2)
        return DistillationTrainer(
            student, args, teacher=teacher, train_dataset=ToyImages(16), optimizers=(optimizer, None)
        )

    with pytest.raises(ValueError, match="`optimizers` does not hold projector.* pass `optimizer_cls_and_kwargs`"):
        trainer("th_kd", resnet(), projector="linear")
    student = resnet(seed=1)
    before = student.classifier.weight.clone()
    trainer("kd", student).train()
    assert not torch.equal(before, student.classifier.weight)


def test_an_optimizer_of_another_class_trains_the_projector_too(tmp_path):
    args = arguments(tmp_path, method="th_kd", projector="linear", max_steps=1)
    trainer = DistillationTrainer(
        resnet(), args, teacher=resnet("resnet8x4", seed=2), train_dataset=ToyImages(16),
        optimizer_cls_and_kwargs=(torch.optim.RAdam, {"lr": 0.01}),
    )  # fmt: skip
    before = trainer.model.projector.weight.clone()
    trainer.train()
    assert not torch.equal(before, trainer.model.projector.weight)
