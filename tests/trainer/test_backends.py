"""What is refused of the ways to share the work between processes, and split tensors in one process."""

import shutil

import pytest
import torch
from accelerate.utils import FullyShardedDataParallelPlugin
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from toys import ToyImages, arguments, resnet

from headshare_hf import DistillationTrainer
from headshare_hf.trainer.backends import check_deepspeed, check_fsdp, wants_deepspeed, wants_fsdp
from headshare_hf.trainer.sharding import load_whole_optimizer_state, load_whole_state, local, whole_state


@pytest.mark.parametrize(
    "options, message",
    [
        ({"fsdp_version": 1}, "version 1 of FSDP is not supported; set `fsdp_version: 2`"),
        ({"cpu_ram_efficient_loading": True}, "`cpu_ram_efficient_loading` .* the teacher of the others"),
        ({"auto_wrap_policy": "SIZE_BASED_WRAP"}, "SIZE_BASED_WRAP .* set `fsdp_auto_wrap_policy: TRANSFORMER_BASED"),
        ({"cpu_offload": True}, "`offload_params` of FSDP is not supported; set it to false"),
        ({"activation_checkpointing": True}, "`activation_checkpointing` of FSDP is not supported"),
    ],
)
def test_options_of_fsdp_that_are_refused(options, message, monkeypatch):
    # The plugin writes it.
    monkeypatch.setenv("FSDP_CPU_RAM_EFFICIENT_LOADING", "false")
    with pytest.raises(ValueError, match=message):
        check_fsdp(FullyShardedDataParallelPlugin(**{"fsdp_version": 2, **options}))


@pytest.mark.parametrize("policy", ["TRANSFORMER_BASED_WRAP", "NO_WRAP"])
def test_options_of_fsdp_that_are_not(policy):
    check_fsdp(FullyShardedDataParallelPlugin(fsdp_version=2, auto_wrap_policy=policy, reshard_after_forward=False))


@pytest.mark.parametrize(
    "config, message",
    [
        ({"zero_optimization": {"stage": 3}}, "ZeRO stage 3 is not supported; use stage 1 or 2.* or FSDP2"),
        ({"zero_optimization": {"stage": 0}}, "ZeRO stage 0 is not supported"),
        ({"bf16": {"enabled": True}}, "convert the student's weights for `bf16`.* set `torch_autocast`"),
        ({"fp16": {"enabled": True}}, "convert the student's weights for `fp16`"),
        ({"optimizer": {"type": "AdamW"}}, "a section `optimizer`, which would replace that of the run"),
        ({"scheduler": {"type": "WarmupLR"}}, "a section `scheduler`, .* set `optim`, `lr_scheduler_type`"),
    ],
)
def test_options_of_deepspeed_that_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        check_deepspeed({"zero_optimization": {"stage": 2}, **config})


@pytest.mark.parametrize("stage", [1, 2])
def test_options_of_deepspeed_that_are_not(stage):
    check_deepspeed({"zero_optimization": {"stage": stage}, "bf16": {"enabled": False}, "torch_autocast": {}})


@pytest.mark.parametrize("name", ["wants_fsdp", "wants_deepspeed"])
def test_what_accelerate_would_leave_out_is_refused(name, tmp_path, monkeypatch):
    """It splits nothing on a CPU, and says nothing of it."""
    monkeypatch.setattr(f"headshare_hf.trainer.backends.{name}", lambda args: True)
    with pytest.raises(ValueError, match="FSDP or DeepSpeed is asked for, but accelerate leaves it out here"):
        DistillationTrainer(resnet(), arguments(tmp_path), train_dataset=ToyImages())


def test_who_asks_for_fsdp_and_deepspeed(tmp_path, monkeypatch):
    args = arguments(tmp_path)
    for variable, wants in (("ACCELERATE_USE_FSDP", wants_fsdp), ("ACCELERATE_USE_DEEPSPEED", wants_deepspeed)):
        assert not wants(args)
        monkeypatch.setenv(variable, "true")
        assert wants(args)
        monkeypatch.setenv(variable, "false")
    assert wants_fsdp(arguments(tmp_path, fsdp=True))


def test_a_checkpoint_without_optimizer_is_not_gone_on_from(tmp_path):
    """transformers would start the schedule and the momentum again, without a word."""
    fields = {"save_strategy": "epoch", "num_train_epochs": 2}
    trainer = DistillationTrainer(resnet(), arguments(tmp_path, **fields), train_dataset=ToyImages())
    trainer.train()
    shutil.rmtree(tmp_path / "checkpoint-6")
    (tmp_path / "checkpoint-3" / "optimizer.pt").unlink()
    again = DistillationTrainer(resnet(), arguments(tmp_path, **fields), train_dataset=ToyImages())
    with pytest.raises(ValueError, match="checkpoint-3 has no optimizer.pt, .* `save_only_model`, or by DeepSpeed"):
        again.train(resume_from_checkpoint=True)


@pytest.fixture
def mesh():
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    torch.distributed.destroy_process_group()


def _split_layer(mesh) -> torch.nn.Linear:
    layer = torch.nn.Linear(3, 4)
    for name, parameter in list(layer.named_parameters()):
        layer.register_parameter(name, torch.nn.Parameter(distribute_tensor(parameter.detach(), mesh, [Shard(0)])))
    return layer


def test_whole_tensors_go_into_split_ones_and_back(mesh):
    layer, state = _split_layer(mesh), torch.nn.Linear(3, 4).state_dict()
    load_whole_state(layer, state)
    assert all(isinstance(parameter, DTensor) for parameter in layer.parameters())
    for name, value in whole_state(layer).items():
        assert not isinstance(value, DTensor) and torch.equal(value, state[name])
        assert torch.equal(local(layer.get_parameter(name)), value)


def test_an_optimizer_whose_state_has_another_shape_is_refused(mesh):
    layer = _split_layer(mesh)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
    state = optimizer.state_dict()
    load_whole_optimizer_state(optimizer, {**state, "state": {0: {"momentum_buffer": torch.ones(4, 3)}}})
    assert isinstance(optimizer.state[layer.weight]["momentum_buffer"], DTensor)
    with pytest.raises(ValueError, match=r"keeps `row` of shape \(4,\) for a parameter of shape \(4, 3\)"):
        load_whole_optimizer_state(optimizer, {**state, "state": {0: {"row": torch.ones(4)}}})
