"""Numbers from anywhere as NumPy arrays."""

from typing import Any

import numpy as np
import torch


def to_array(values: Any) -> np.ndarray:
    """A tensor on any device, or anything else that NumPy understands, as an array."""
    if not isinstance(values, torch.Tensor):
        return np.asarray(values)
    values = values.detach().cpu()
    return (values.float() if values.dtype == torch.bfloat16 else values).numpy()
