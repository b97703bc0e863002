"""Products with an accumulator of chosen width, to prove that the probe and the bounds see what they should."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from quantsuite.quantize import dequantize, quantize
from quantsuite.scheme import Scheme


def keep_bits(values: Tensor, bits: int, *, truncate: bool = False) -> Tensor:
    """Values rounded (ties to even) or truncated to ``bits`` significant bits, float64; ``bits`` up to 52."""
    mantissa, exponent = torch.frexp(values.double())
    scaled = torch.ldexp(mantissa, torch.tensor(bits))
    return torch.ldexp(scaled.trunc() if truncate else scaled.round(), exponent - bits)


def accumulate(x: Tensor, weight: Tensor, *, bits: int, promotion: int | None = None, truncate: bool = False) -> Tensor:
    """``x W^T`` summed one product after the other in an accumulator of ``bits`` significant bits.

    With ``promotion`` the accumulator is added to a float32 sum after each so many products and cleared,
    as DeepSeek-V3 does every 128 elements of K (its technical report, section 3.3.2).

    Args:
        x: ``[M, K]``.
        weight: ``[N, K]``.
        bits: of the accumulator's significand, the leading one included.
        promotion: length of a partial sum along K, or ``None`` for all of K.
        truncate: drop low bits instead of rounding to nearest.

    Returns:
        float32 ``[M, N]``.
    """
    products = torch.einsum("mk,nk->kmn", x.double(), weight.double())
    total = torch.zeros(products.shape[1:], dtype=torch.float32, device=x.device)
    for partial in products.split(promotion or max(1, len(products))):
        accumulator = torch.zeros_like(products[0])
        for product in partial:
            accumulator = keep_bits(accumulator + product, bits, truncate=truncate)
        total = total + accumulator.float()
    return total


@dataclass(frozen=True, kw_only=True)
class NarrowProduct:
    """A kernel whose operands are quantsuite's and whose accumulator has ``bits`` bits."""

    bits: int
    promotion: int | None = None
    truncate: bool = False
    schemes: Sequence[str] = ("fp8-row:fp8-token",)
    accumulator_bits: int = 24
    operation: str = "linear"
    keeps_values: bool = True

    @property
    def name(self) -> str:
        return f"emulated-{self.bits}-bit"

    def pack(self, weight: Tensor, scheme: Scheme) -> Any:
        assert scheme.weight is not None
        return dequantize(quantize(weight, scheme.weight)), scheme.activation

    def linear(self, x: Tensor, packed: Any) -> Tensor:
        weight, operand = packed
        flat = x.reshape(-1, x.shape[-1])
        values = flat if operand is None else dequantize(quantize(flat, operand))
        y = accumulate(values, weight, bits=self.bits, promotion=self.promotion, truncate=self.truncate)
        return y.reshape(*x.shape[:-1], -1).to(x.dtype)
