"""The product of activations, quantized or not, with a weight stored in 8 bits or fewer: ``y = x W^T + b``."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from quantsuite.bounds import exact_int32_terms
from quantsuite.formats import IntegerFormat
from quantsuite.granularity import PerRow, PerTensor, PerToken
from quantsuite.packing import pack, unpack
from quantsuite.quantize import QuantizedTensor, dequantize, quantize, storage_dtype
from quantsuite.scheme import Operand

WHOLE_BYTES = 8
"""Codes of any width fill whole bytes eight at a time."""
INT8_ROWS, INT8_MULTIPLE = 17, 8
"""The fewest rows, and what K and N are multiples of, in CUDA's product of int8 matrices."""


@cache
def _missing_storage(storage: torch.dtype, device: str) -> str | None:
    """Why the device cannot store and widen a dtype: the device is asked, not looked up by name."""
    try:
        torch.ones(8, device=device).to(storage).to(torch.bfloat16)
    except (RuntimeError, NotImplementedError, TypeError) as error:
        return f"{device} cannot convert {storage}: {str(error).splitlines()[0]}"
    return None


@cache
def _missing_integer_product(device: str) -> str | None:
    codes = torch.ones(1, 8, dtype=torch.int8, device=device)
    try:
        _integer_sums(codes, codes)
    except (RuntimeError, NotImplementedError) as error:
        return f"{device} cannot multiply int8 codes: {str(error).splitlines()[0]}"
    return None


def unsupported(weight: Operand, activation: Operand | None, device: torch.device | str) -> str | None:
    """Why a product with a weight stored so cannot run on a device, or ``None`` if it can."""
    operands = [operand for operand in (weight, activation) if operand is not None]
    dtypes = [storage_dtype(part) for operand in operands for part in (operand.format, operand.scale)]
    missing = [_missing_storage(dtype, str(device)) for dtype in dtypes if dtype is not None]
    if _is_integer_product(weight, activation):
        missing.append(_missing_integer_product(str(device)))
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


def linear(x: Tensor, weight: QuantizedTensor, bias: Tensor | None = None, activation: Operand | None = None) -> Tensor:
    """Multiply with a stored weight, activations as they are or quantized first.

    Where neither operand's scale changes along K, codes are multiplied as they are and the sums are scaled:
    integer codes of both operands in int32, exactly; 8-bit codes otherwise in the dtype of ``x``, which holds them
    exactly, but for float16, whose 65,504 sums of codes exceed.  Everything else is dequantized first.  A result
    scaled after the sum is rounded to the dtype of ``x`` once more than that of dequantized operands, and infinite
    where ``sum |x| |codes|`` exceeds float32's 3.4e38 though the result would not.

    Args:
        x: ``[..., K]``, floating.
        weight: ``[N, K]``.
        bias: ``[N]`` or ``None``.
        activation: how ``x`` is quantized, with scales of its own values; ``None`` if it is not.

    Returns:
        ``[..., N]`` in the dtype of ``x``.

    Raises:
        ValueError: if ``x`` is to be quantized and is empty, not finite, or has a K that its groups do not divide.
    """
    tokens = None if activation is None else quantize(x, activation)
    sums = _sums_of_codes(x, tokens, weight)
    if sums is None:
        x = x if tokens is None else dequantize(tokens, x.dtype)
        return functional.linear(x, dequantize(weight, x.dtype), bias)
    if tokens is not None:
        sums = sums * tokens.step
    y = sums * weight.step.flatten()
    return (y if bias is None else y + bias).to(x.dtype)


def _has_scale_outside(operand: Operand) -> bool:
    """Whether the scale can be taken out of a sum over K."""
    return operand.symmetric and isinstance(operand.granularity, PerRow | PerToken | PerTensor)


def _is_integer_product(weight: Operand, activation: Operand | None) -> bool:
    operands = (weight, activation)
    return all(o is not None and _has_scale_outside(o) and isinstance(o.format, IntegerFormat) for o in operands)


def _sums_of_codes(x: Tensor, tokens: QuantizedTensor | None, weight: QuantizedTensor) -> Tensor | None:
    """``[..., N]``, or ``None`` where codes cannot be summed as they are."""
    operands = [part.operand for part in (weight, tokens) if part is not None]
    if tokens is not None and _is_integer_product(*operands) and x.shape[-1] <= exact_int32_terms(128, 128):
        return _integer_sums(tokens.codes, weight.codes)
    storable = all(_has_scale_outside(operand) and operand.format.storage is not None for operand in operands)
    if x.dtype == torch.float16 or not storable:
        return None
    left = x if tokens is None else tokens.codes.to(x.dtype)
    return functional.linear(left, weight.codes.to(x.dtype))


def _integer_sums(x: Tensor, weight: Tensor) -> Tensor:
    """Sums of integer codes (float32 of int32); zeros fill up what CUDA's kernel asks of shapes."""
    n, k = weight.shape
    left, right = x.reshape(-1, k).to(torch.int8), weight.to(torch.int8)
    m = left.shape[0]
    left = functional.pad(left, (0, -k % INT8_MULTIPLE, 0, max(0, INT8_ROWS - m)))
    right = functional.pad(right, (0, -k % INT8_MULTIPLE, 0, -n % INT8_MULTIPLE))
    return torch._int_mm(left, right.t())[:m, :n].float().reshape(*x.shape[:-1], n)
