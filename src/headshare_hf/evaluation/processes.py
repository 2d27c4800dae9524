"""What one process does for all, and what the others learn of it."""

from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, broadcast_object_list


Result = TypeVar("Result")

# What accelerate calls the precision that networks compute in.
PRECISIONS = {"no": "float32", "bf16": "bfloat16 autocast", "fp16": "float16 autocast", "fp8": "float8 autocast"}
# The other processes wait while the main one computes a curve and its intervals.
_PATIENCE = timedelta(hours=12)


def create_accelerator() -> Accelerator:
    """The processes that `accelerate launch` started, or this one alone."""
    # Without being told, accelerate joins no processes on machines that have nothing but CPUs: each would work alone.
    return Accelerator(
        cpu=not torch.accelerator.is_available(), kwargs_handlers=[InitProcessGroupKwargs(timeout=_PATIENCE)]
    )


def on_main_process(accelerator: Accelerator, function: Callable[[], Result]) -> Result | None:
    """
    Calls a function in the main process alone.

    Args:
        accelerator (`accelerate.Accelerator`): Knows the processes.
        function (`Callable`): What to call.

    Returns:
        Its result; `None` in the other processes.

    Raises:
        Exception: The error of the main process is raised in all of them, which would wait for it otherwise.
    """
    result, error = None, None
    if accelerator.is_main_process:
        try:
            result = function()
        except Exception as caught:
            error = caught
    error = broadcast(accelerator, error)
    if error is not None:
        raise error
    return result


def broadcast(accelerator: Accelerator, value: Result) -> Result:
    """What the main process has, in every process."""
    return broadcast_object_list([value])[0] if accelerator.num_processes > 1 else value
