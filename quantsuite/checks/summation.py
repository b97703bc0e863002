"""What is granted to a product of a quantized matrix with activations beside the values of its operands: roundings."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from quantsuite.bounds import FLOAT32_ROUNDOFF
from quantsuite.checks.nearest import SLACK, Nearest

DEVIATIONS = 8
"""Of a float32 sum's error, as a multiple of its root mean square: beyond it by chance in one of 10^13 sums."""
PARTIAL = 4
"""Roundings to the input's dtype of partial sums that a product on CUDA is granted, as cuBLAS splits sums there."""
FLOAT32_BITS = 24


def exactly(values: Tensor) -> Nearest:
    """Values that leave no choice."""
    values = values.detach().double()
    return Nearest(values, torch.zeros_like(values))


def rounded(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Rounded once to float32 and once to a dtype, whose largest value is not exceeded."""
    largest = torch.finfo(dtype).max
    return values.float().clamp(-largest, largest).to(dtype)


def right_operands(operand: Nearest, dtype: torch.dtype) -> list[Tensor]:
    """An operand as its codes and scales say, and rounded to the dtype: both are right to multiply with, float64."""
    other = rounded(operand.values, dtype).double()
    return [operand.values] if torch.equal(other, operand.values) else [operand.values, other]


def half_ulp(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Half the distance of neighbouring numbers of a dtype at each magnitude: the most that rounding once errs by."""
    info = torch.finfo(dtype)
    exponent = values.abs().clamp(min=info.smallest_normal).frexp().exponent - 1
    return torch.ldexp(torch.full_like(values, info.eps / 2), exponent)


def summation_error(left: Tensor, right: Tensor, dtype: torch.dtype, bits: int) -> Tensor:
    """What a sum of K products may err by before it is rounded, ``[M, N]``.

    A float32 sum of K products errs by less than ``lambda sqrt(K) u`` times the sum of magnitudes, but for a
    probability of ``2 exp(-lambda^2 / 2)`` (Higham and Mary, A New Approach to Probabilistic Rounding Error
    Analysis, 2019, theorem 2.4); a narrower accumulator, which may truncate, by up to ``K u``.

    Args:
        left: float64 ``[M, K]``.
        right: float64 ``[N, K]``.
        dtype: of the input, to which partial sums may be rounded on CUDA.
        bits: of the accumulator's significand.
    """
    k = left.shape[1]
    relative = k * 2.0 ** (1 - bits)
    if bits >= FLOAT32_BITS:
        relative = min(k, DEVIATIONS * math.sqrt(k)) * FLOAT32_ROUNDOFF
    bound = (relative + 2 * SLACK) * (left.abs() @ right.abs().T)
    if left.is_cuda:
        v = torch.finfo(dtype).eps / 2
        bound = bound + PARTIAL * v * (left.square() @ right.square().T).sqrt()
    return bound
