"""Products of matrices under autocast: the factors are rounded, the sums and the results are not."""

import torch


def has_bfloat16(device: torch.device) -> bool:
    """
    Whether PyTorch has instructions for bfloat16 on a device, or imitates it, as on an x86 processor without AVX-512, where
    it takes many times what float32 takes.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return False


def rounded_factors(device: torch.device) -> torch.dtype | None:
    """
    What the factors of large products are rounded to at present; `None`: they stay as they are.

    Under autocast that is bfloat16, for float16 too: a share of the softmax over a million classes may be no number of
    float16. A device that has no arithmetic for bfloat16 goes on with float32.
    """
    return torch.bfloat16 if torch.is_autocast_enabled(device.type) and has_bfloat16(device) else None


def product(left: torch.Tensor, right: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """
    `left @ right` in `out`. Factors in half precision have sums in float32, and on a GPU also results that were never
    rounded; a CPU rounds them once.

    Args:
        left (`torch.Tensor` of shape `(m, k)`): Of the type of `right`, or to be rounded to it.
        right (`torch.Tensor` of shape `(k, n)`): Of the type of `out`, or of half precision.
        out (`torch.Tensor` of shape `(m, n)`): Overwritten.
    """
    left = left.to(right.dtype)
    if right.dtype == out.dtype:
        return torch.mm(left, right, out=out)
    if out.device.type == "cuda" and torch.version.hip is None:
        return torch.mm(left, right, out_dtype=out.dtype, out=out)
    return out.copy_(torch.mm(left, right))


def add_product(left: torch.Tensor, right: torch.Tensor, sums: torch.Tensor) -> None:
    """Adds `left @ right`, see [`product`], to `sums`."""
    if right.dtype == sums.dtype:
        sums.addmm_(left, right)
    else:
        sums.add_(product(left, right, torch.empty_like(sums)))
