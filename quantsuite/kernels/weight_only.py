"""The product of activations with a weight that is stored in 8 bits or fewer: ``y = x W^T + b``."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from quantsuite.granularity import PerRow, PerTensor
from quantsuite.packing import pack, unpack
from quantsuite.quantize import QuantizedTensor, dequantize
from quantsuite.scheme import Operand

WHOLE_BYTES = 8
"""Codes of any width fill whole bytes eight at a time."""


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
    if not operand.symmetric:
        return f"{operand} has zero points, which the product does not take; run it with --execution simulated"
    dtypes = [operand.format.storage, torch.float8_e8m0fnu if operand.scale == "e8m0" else None]
    missing = (_missing_storage(dtype, str(device)) for dtype in dtypes if dtype is not None)
    return next((reason for reason in missing if reason), None)


def store(weight: QuantizedTensor) -> Tensor:
    """The codes as they are kept: as they are at eight bits, else packed row by row (uint8 ``[N, bytes]``)."""
    fmt = weight.operand.format
    if fmt.storage is not None:
        return weight.codes
    codes = fmt.encode(weight.codes)
    return pack(functional.pad(codes, (0, -codes.shape[-1] % WHOLE_BYTES)), fmt.bits)


def load(stored: Tensor, operand: Operand, columns: int) -> Tensor:
    """The inverse of :func:`store`: codes ``[N, columns]`` as a :class:`QuantizedTensor` holds them."""
    if operand.format.storage is not None:
        return stored
    return operand.format.decode(unpack(stored, operand.format.bits)[:, :columns])


def linear(x: Tensor, weight: QuantizedTensor, bias: Tensor | None = None) -> Tensor:
    """Multiply with a stored weight.

    With one scale a row or a tensor 8-bit codes are multiplied as they are, being exact in every
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
    operand = weight.operand
    scale_outside = isinstance(operand.granularity, PerRow | PerTensor) and operand.format.storage is not None
    if x.dtype == torch.float16 or not scale_outside:
        return functional.linear(x, dequantize(weight, x.dtype), bias)
    product = functional.linear(x, weight.codes.to(x.dtype)) * weight.step.flatten()
    return (product if bias is None else product + bias).to(x.dtype)
