"""
Which code computes the cross-entropy of a linear classifier with many classes fastest, in float32 and in bfloat16.

Logits that are held, the chunks of this package and, on CUDA where it is installed, Liger-Kernel: what is to decide on the
default of `large_head_kernel`. `large_head.py --kernels` prints it.
"""

import argparse
import contextlib
from collections.abc import Callable

import torch
from harness import Case, agree, compare, report
from large_head_cases import CHUNKS, DENSE, SIZE, Setting, Values, step

from headshare_hf.losses import chunked_cross_entropy, cross_entropy, liger_loss
from headshare_hf.losses.liger import liger_cross_entropy


LIGER = "Liger-Kernel"
# Relative to the loss: dense logits are rounded themselves in bfloat16.
TOLERANCES = {"float32": 1e-5, "bfloat16": 1e-2}


def has_liger(device: str) -> bool:
    """Whether Liger-Kernel can be measured."""
    if torch.device(device).type != "cuda":
        return False
    try:
        liger_loss()
    except ImportError as error:
        print(error)
        return False
    return True


def cases_of(setting: Setting, precision: str, device: str) -> dict[str, Callable[[], Values]]:
    """A forward and backward pass of each."""
    head, labels = setting.head("linear"), setting.labels
    losses = {
        DENSE: lambda z: cross_entropy(head(z), labels),
        CHUNKS: lambda z: chunked_cross_entropy(z, labels, head),
    }
    if has_liger(device):
        losses[LIGER] = lambda z: liger_cross_entropy(z, labels, head)

    def autocast() -> contextlib.AbstractContextManager:
        if precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(torch.device(device).type, dtype=torch.bfloat16)

    def run(loss: Callable) -> Values:
        with autocast():
            return step(setting, loss, head.weight)

    return {name: lambda loss=loss: run(loss) for name, loss in losses.items()}


def table(precision: str, arguments: argparse.Namespace) -> None:
    """Time of all of them."""
    setting = Setting(arguments.classes, arguments.batch, arguments.device)
    cases = cases_of(setting, precision, arguments.device)
    expected = cases[DENSE]()["loss"]
    agreement = {
        name: agree(f"loss of {name} in {precision}", run()["loss"], expected, TOLERANCES[precision])
        for name, run in cases.items()
    }
    rows = compare([Case(name, run) for name, run in cases.items()], arguments.rounds)
    title = f"Cross-entropy of a linear head that learns, {precision}"
    size = f"{arguments.batch} images, {arguments.classes} classes, {SIZE} dimensions"
    report(f"large_head_kernels_{precision}", f"{title}: {size}", rows, agreement, {}, arguments)


def kernel_tables(arguments: argparse.Namespace) -> None:
    """In both precisions."""
    for precision in TOLERANCES:
        table(precision, arguments)
