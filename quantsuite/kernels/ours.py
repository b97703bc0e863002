"""quantsuite's own products of activations, quantized or not, with a stored weight: ``y = x W^T + b``.

All three share one packing, so that each call may take another of them.
"""

from __future__ import annotations

from functools import cache
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from quantsuite.bounds import exact_int32_terms
from quantsuite.formats import IntegerFormat
from quantsuite.granularity import PerRow, PerTensor, PerToken
from quantsuite.kernels import stored
from quantsuite.kernels.stored import StoredWeight, unpack_weight
from quantsuite.quantize import QuantizedTensor, dequantize, quantize
from quantsuite.scheme import Operand, Scheme

INT8_ROWS, INT8_MULTIPLE = 17, 8
"""The fewest rows, and what K and N are multiples of, in CUDA's product of int8 matrices."""


class _StoredProduct:
    """What the products share: the packing, and a bias of their own."""

    operation = "linear"
    packing = stored.PACKING
    takes_bias = True
    dtypes: ClassVar[tuple[str, ...]] = ("float32", "bfloat16", "float16")

    pack = staticmethod(stored.pack_weight)
    pack_quantized = staticmethod(stored.pack_quantized)
    unpack = staticmethod(stored.unpack_weight)

    def takes(self, scheme: Scheme) -> bool:
        return scheme.weight is not None

    def unsupported(self, scheme: Scheme, device: str) -> str | None:
        return stored.missing_dtypes(scheme, device)


def _tokens(x: Tensor, packed: StoredWeight, scale: Tensor | None) -> QuantizedTensor | None:
    operand = packed.scheme.activation
    return None if operand is None else quantize(x, operand, scale=scale)


def _no_tokens(x: Tensor, packed: StoredWeight) -> Tensor:
    """The product ``[..., N]`` of no activations, which have no scale."""
    return x.new_zeros(*x.shape[:-1], packed.shape[0])


def _has_scale_outside(operand: Operand | None) -> bool:
    """Whether the scale can be taken out of a sum over K."""
    return operand is not None and operand.symmetric and isinstance(operand.granularity, PerRow | PerToken | PerTensor)


def _scaled(
    sums: Tensor, tokens: QuantizedTensor | None, weight: QuantizedTensor, bias: Tensor | None, dtype: torch.dtype
) -> Tensor:
    if tokens is not None:
        sums = sums * tokens.step
    y = sums * weight.step.flatten()
    return (y if bias is None else y + bias).to(dtype)


class IntegerProduct(_StoredProduct):
    """Integer codes of both operands multiplied and summed in int32, exactly; the sums are scaled in float32.

    Where neither scale changes along K.
    """

    name = "ours-int32"
    accumulator_bits = 31
    schemes = (
        *("int8-row:int8-token", "int8-tensor:int8-tensor", "int4-row:int8-token"),
        *("int8-row-full:int8-token-full", "int8-row:int8-tensor-static"),
    )

    def takes(self, scheme: Scheme) -> bool:
        operands = (scheme.weight, scheme.activation)
        return all(o is not None and _has_scale_outside(o) and isinstance(o.format, IntegerFormat) for o in operands)

    def unsupported(self, scheme: Scheme, device: str) -> str | None:
        return super().unsupported(scheme, device) or _missing_integer_product(device)

    def unsupported_shape(self, scheme: Scheme, device: str, m: int, n: int, k: int) -> str | None:
        longest = exact_int32_terms(128, 128)
        return None if k <= longest else f"K={k:,} may overflow int32; the longest exact sum has {longest:,} terms"

    def linear(
        self, x: Tensor, packed: StoredWeight, *, bias: Tensor | None = None, activation_scale: Tensor | None = None
    ) -> Tensor:
        if x.numel() == 0:
            return _no_tokens(x, packed)
        tokens, weight = _tokens(x, packed, activation_scale), unpack_weight(packed)
        assert tokens is not None
        return _scaled(_integer_sums(tokens.values, weight.values), tokens, weight, bias, x.dtype)


class CodesProduct(_StoredProduct):
    """Codes of eight bits multiplied in the dtype of ``x``, which holds them exactly; the sums are scaled.

    Where neither scale changes along K, and not in float16, whose 65,504 sums of codes exceed.  A result is rounded
    to the dtype of ``x`` once more than that of dequantized operands, and infinite where ``sum |x| |codes|``
    exceeds float32's 3.4e38 though the result would not.
    """

    name = "ours-codes"
    dtypes = ("float32", "bfloat16")
    schemes = ("int8-tensor", "int8-row", "fp8-tensor", "fp8-row", "fp8-row:fp8-token", "fp8-row:fp8-tensor-static")

    def takes(self, scheme: Scheme) -> bool:
        operands = [operand for operand in (scheme.weight, scheme.activation) if operand is not None]
        return scheme.weight is not None and all(
            _has_scale_outside(operand) and operand.format.storage is not None for operand in operands
        )

    def linear(
        self, x: Tensor, packed: StoredWeight, *, bias: Tensor | None = None, activation_scale: Tensor | None = None
    ) -> Tensor:
        if x.numel() == 0:
            return _no_tokens(x, packed)
        tokens, weight = _tokens(x, packed, activation_scale), unpack_weight(packed)
        left = x if tokens is None else tokens.values.to(x.dtype)
        return _scaled(functional.linear(left, weight.values.to(x.dtype)), tokens, weight, bias, x.dtype)


class DequantizedProduct(_StoredProduct):
    """Both operands dequantized to the dtype of ``x``, then multiplied: every scheme, every shape."""

    name = "ours-dequantized"
    schemes = (
        *("int8-tensor", "int8-row", "int8-g64", "fp8-row", "fp8-g128"),
        *("int4-g128", "int4-g128-asym", "nf4-g64", "fp4-g32", "mxfp4", "nvfp4", "int3-g64", "fp6e3m2-g32"),
        *("int8-row:int8-token", "int4-row:int8-token", "fp8-b128x128:fp8-g128", "mxfp4:mxfp8"),
    )

    def linear(
        self, x: Tensor, packed: StoredWeight, *, bias: Tensor | None = None, activation_scale: Tensor | None = None
    ) -> Tensor:
        if x.numel() == 0:
            return _no_tokens(x, packed)
        tokens = _tokens(x, packed, activation_scale)
        x = x if tokens is None else dequantize(tokens, x.dtype)
        return functional.linear(x, dequantize(unpack_weight(packed), x.dtype), bias)


@cache
def _missing_integer_product(device: str) -> str | None:
    codes = torch.ones(1, 8, dtype=torch.int8, device=device)
    try:
        _integer_sums(codes, codes)
    except (RuntimeError, NotImplementedError) as error:
        return f"{device} cannot multiply int8 codes: {str(error).splitlines()[0]}"
    return None


def _integer_sums(x: Tensor, weight: Tensor) -> Tensor:
    """Sums of integer codes (float32 of int32); zeros fill up what CUDA's kernel asks of shapes."""
    n, k = weight.shape
    left, right = x.reshape(-1, k).to(torch.int8), weight.to(torch.int8)
    m = left.shape[0]
    left = functional.pad(left, (0, -k % INT8_MULTIPLE, 0, max(0, INT8_ROWS - m)))
    right = functional.pad(right, (0, -k % INT8_MULTIPLE, 0, -n % INT8_MULTIPLE))
    return torch._int_mm(left, right.t())[:m, :n].float().reshape(*x.shape[:-1], n)


KERNELS = [IntegerProduct(), CodesProduct(), DequantizedProduct()]
