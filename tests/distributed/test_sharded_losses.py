"""Losses over classes that are split over two gloo processes, against one process with all images and classes."""

import subprocess
from pathlib import Path

import pytest
import sharded_cases as cases
import torch
from dense_losses import assert_close
from processes import TESTS, environment
from safetensors.torch import load_file, save_file
from warm_python import warm_python

from headshare_hf.losses import chunked_cross_entropy, chunked_kd


pytestmark = pytest.mark.distributed


@pytest.fixture(scope="module")
def inputs():
    generator = torch.Generator().manual_seed(0)
    # Labels at the edges of the shards, twice, in the shard of the other process, and none.
    labels = torch.tensor([0, 12, -1, 7, 8, 8, 3, -1])
    images, teacher = (3 * torch.randn(8, width, generator=generator) for width in (cases.PIXELS, cases.WIDTH))
    return {"images": images, "teacher": teacher, "labels": labels}


@pytest.fixture(scope="module")
def two(inputs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sharded")
    save_file(inputs, folder / "inputs.safetensors")
    command = [warm_python(), str(Path(__file__).with_name("sharded_worker.py"))]
    running = [
        subprocess.Popen([*command, str(rank), str(folder)], env=environment(TESTS), stderr=subprocess.PIPE, text=True)
        for rank in (0, 1)
    ]
    errors = [process.communicate(timeout=400)[1] for process in running]
    assert [process.returncode for process in running] == [0, 0], "\n".join(errors)[-3000:]
    return [load_file(folder / f"rank_{rank}.safetensors") for rank in (0, 1)]


def _one(name, inputs):
    teacher_head, own_head = cases.heads()
    networks = [cases.backbone(width) for width in (cases.WIDTH, cases.OWN_WIDTH)]
    loss = cases.losses(
        name,
        inputs,
        networks,
        teacher_head,
        own_head,
        lambda z, labels, head, rate: chunked_cross_entropy(z, labels, head, rate, seed=1, step=2),
        lambda *pairs: chunked_kd(*pairs, *cases.TEMPERATURES),
    )
    loss.backward()
    return loss.detach(), networks, own_head


@pytest.mark.parametrize("name", cases.NAMES)
def test_two_processes_equal_one(name, inputs, two):
    loss, networks, own_head = _one(name, inputs)
    for rank in two:
        assert_close(rank[f"{name}.loss"], loss)
        # Averaged over the processes by DistributedDataParallel.
        for part, network in zip(("wide", "narrow"), networks, strict=True):
            for key, parameter in network.named_parameters():
                assert (parameter.grad is None) == (f"{name}.{part}.{key}" not in rank)
                if parameter.grad is not None:
                    assert_close(rank[f"{name}.{part}.{key}"], parameter.grad)
        assert torch.equal(rank[f"{name}.norm_mean"], own_head.margin.norm_mean)
    gradient = own_head.weight.grad
    if gradient is not None:
        assert_close(torch.cat([rank[f"{name}.own_head.weight"] for rank in two]), gradient)
    assert (gradient is None) == (name == "through_the_teacher")


def test_each_process_has_its_shard_alone(two):
    shapes = [rank["ce.own_head.weight"].shape for rank in two]
    assert shapes == [(cases.SPLIT, cases.OWN_WIDTH), (cases.NUM_LABELS - cases.SPLIT, cases.OWN_WIDTH)]
