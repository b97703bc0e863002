"""The product of activations with a weight that is stored in 8 bits: ``y = x W^T + b``."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from quantsuite.granularity import PerRow, PerTensor
from quantsuite.quantize import QuantizedTensor, dequantize
from quantsuite.scheme import Operand


@cache
def _missing_storage(storage: torch.dtype, device: str) -> str | None:
    """Why the device cannot store and widen a dtype: the device is asked, not looked up by name."""
    try:
        torch.ones(8, device=device).to(storage).to(torch.bfloat16)
    except (RuntimeError, NotImplementedError, TypeError) as error:
        return f"{device} cannot convert {storage}: {str(error).splitlines()[0]}"
    return None


def unsupported(operand: Operand, device: torch.device | str) -> str | None:
    """Why a weight cannot be stored so on a device, or ``None`` if it can."""
    if operand.format.storage is None:
        return f"{operand.format.name} has no packed storage; run it with --execution simulated"
    if not operand.symmetric:
        return f"{operand} has zero points, which the 8-bit product does not take; run it with --execution simulated"
    return _missing_storage(operand.format.storage, str(device))


def linear(x: Tensor, weight: QuantizedTensor, bias: Tensor | None = None) -> Tensor:
    """Multiply with a stored weight.

    With one scale a row or a tensor the codes are multiplied as they are, being exact in every
    floating dtype, and the result is scaled.  float16 and finer granularities dequantize first:
    sums of codes can exceed float16's 65,504, and scales inside K cannot move out of the sum.  A result
    scaled after the sum is rounded to the dtype of ``x`` once more than that of dequantized weights.

    Args:
        x: ``[..., K]``, floating.
        weight: ``[N, K]``.
        bias: ``[N]`` or ``None``.

    Returns:
        ``[..., N]`` in the dtype of ``x``.
    """
    scale_outside = isinstance(weight.operand.granularity, PerRow | PerTensor) and weight.zero_point is None
    if x.dtype == torch.float16 or not scale_outside:
        return functional.linear(x, dequantize(weight, x.dtype), bias)
    product = functional.linear(x, weight.codes.to(x.dtype)) * weight.scale.flatten()
    return (product if bias is None else product + bias).to(x.dtype)
