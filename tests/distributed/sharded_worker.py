"""What every process of the test of sharded losses runs: each loss on its half of the images and of the classes."""

import sys
from pathlib import Path

import torch.distributed as dist
from safetensors.torch import load_file, save_file
from sharded_cases import NAMES, NUM_LABELS, OWN_WIDTH, SPLIT, TEMPERATURES, WIDTH, backbone, heads, losses, shard
from torch.nn.parallel import DistributedDataParallel

from headshare_hf.losses import class_matrix, sharded_cross_entropy, sharded_kd


def main(rank: int, folder: Path) -> None:
    class_matrix._CHUNK_OF_ONE_THREAD = class_matrix._CHUNK_OF_MORE_THREADS = 3
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    inputs = load_file(folder / "inputs.safetensors")
    mine = {name: value.chunk(2)[rank] for name, value in inputs.items()}
    start, stop = (0, SPLIT) if rank == 0 else (SPLIT, NUM_LABELS)
    results = {}
    for name in NAMES:
        teacher_head, own_head = (shard(head, start, stop) for head in heads())
        networks = [DistributedDataParallel(backbone(width)) for width in (WIDTH, OWN_WIDTH)]
        loss = losses(
            name,
            mine,
            networks,
            teacher_head,
            own_head,
            lambda z, labels, head, rate: sharded_cross_entropy(
                z, labels, head, start, sample_rate=rate, seed=1, step=2
            ),
            lambda *pairs: sharded_kd(*pairs, *TEMPERATURES),
        )
        loss.backward()
        results[f"{name}.loss"] = loss.detach()
        for part, module in (("wide", networks[0]), ("narrow", networks[1]), ("own_head", own_head)):
            gradients = {f"{name}.{part}.{key}": p.grad for key, p in module.named_parameters() if p.grad is not None}
            results.update({key.replace("module.", ""): value for key, value in gradients.items()})
        results[f"{name}.norm_mean"] = own_head.margin.norm_mean
    save_file({key: value.contiguous().clone() for key, value in results.items()}, folder / f"rank_{rank}.safetensors")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
