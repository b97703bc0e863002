"""Matrices whose magnitudes lie at the ends of what a dtype and scales hold, and what must become of them.

Elements are codes but for a rounding to the dtype, at scales that are no powers of two, so that roundings of a scale
decide no code: what is left is the error of the scale itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from quantsuite.bounds import bound_element
from quantsuite.checks.draws import block_shape, code_values
from quantsuite.checks.oracle import nearest_values, scale_rounding
from quantsuite.checks.outcome import NotApplicable
from quantsuite.granularity import PerBlock, PerGroup, PerTensor, share_scales
from quantsuite.kernels.protocol import flushes_subnormals, rounds_scales
from quantsuite.quantize import largest_code
from quantsuite.scale_formats import PowerOfTwoScale
from quantsuite.scheme import Operand

LOWEST_PEAK, HIGHEST_PEAK = 2.0**-60, 2.0**100
"""In dtypes of float32's range, of scales that are floats: what is multiplied with codes, or divided, stays normal."""


@dataclass(frozen=True, kw_only=True)
class Extreme:
    """A matrix ``[rows, K]`` of small or large magnitudes.

    Args:
        name: of the case.
        values: in the dtype, on the CPU.
        expected: what they become, float64.
        allowed: by how much that may be missed, float64, beside roundings to the dtype.
        inverse: a power of two that brings the values near one as far as the dtype of products has room for it.
    """

    name: str
    values: Tensor
    expected: Tensor
    allowed: Tensor
    inverse: float


def peaks(kernel: object, operand: Operand, dtype: torch.dtype) -> dict[str, tuple[float, float]]:
    """Of blocks, the range of largest magnitudes by name: small, and large.

    In float16 they are its normal numbers' ends, and with E8M0 those that have a scale of 2^-127 at least.  A kernel
    that flushes subnormal numbers, or rounds scales to the dtype of its input, is given those whose scales are normal
    there.
    """
    info, wide = torch.finfo(dtype), dtype != torch.float16
    low, high = (LOWEST_PEAK, HIGHEST_PEAK) if wide else (info.smallest_normal, info.max)
    if isinstance(operand.scale, PowerOfTwoScale):
        smallest = 2.0 ** (operand.scale.smallest + math.floor(math.log2(operand.format.max)))
        low, high = max(info.smallest_normal, smallest), info.max
    if flushes_subnormals(kernel) or rounds_scales(kernel):  # type: ignore[arg-type]
        steps = largest_code(operand) if operand.symmetric else 2.0**operand.format.bits
        low = max(low, 2 * info.smallest_normal * steps / min(1.0, _least(operand)) / min(1.0, largest_code(operand)))
    return {"small": (low, 2 * low), "large": (high / 2, high)}


def _least(operand: Operand) -> float:
    values = code_values(operand)
    return float(values[values > 0].min())


def _blocks(operand: Operand, rows: int, k: int) -> tuple[int, int]:
    """Rows and columns of one block of a matrix ``[rows, K]``."""
    match operand.granularity:
        case PerTensor():
            return rows, k
        case PerGroup() | PerBlock():
            return block_shape(operand)
    return 1, k


def _codes(operand: Operand, rows: int, k: int, generator: torch.Generator) -> Tensor:
    """Of each block the first is the code that sets its scale, others reach to half of it; in units of the scale."""
    table = code_values(operand)
    if not operand.symmetric:
        return torch.rand(rows, k, generator=generator, dtype=torch.float64) * 2 - 1
    table = table[table.abs() <= operand.format.max / 2]
    return table[torch.randint(len(table), (rows, k), generator=generator)]


def draw_extreme(
    kernel: object, operand: Operand, rows: int, k: int, *, dtype: torch.dtype, seed: int
) -> list[Extreme]:
    """A matrix of small magnitudes and one of large ones.

    The nearest value is expected where it is settled, else the value itself within the bound of its format, with half
    an ulp of a scale that is rounded to the dtype.  What lies beyond the largest number of the dtype saturates.

    Args:
        kernel: whose declarations narrow what is drawn.
        operand: how the matrix is quantized.
        rows: of whole blocks.
        k: of whole blocks.
        dtype: of the matrix.
        seed: of the draw.

    Raises:
        NotApplicable: if scales are rounded to a format that the magnitudes exceed.
    """
    if operand.scale.bits == 16:
        raise NotApplicable(f"scales of {operand} are rounded to 16 bits")
    generator, info = torch.Generator().manual_seed(seed), torch.finfo(dtype)
    height, width = _blocks(operand, rows, k)
    found = []
    for name, (low, high) in peaks(kernel, operand, dtype).items():
        share = torch.rand(rows // height, k // width, generator=generator, dtype=torch.float64)
        peak = (low + share * (high - low)).repeat_interleave(height, 0).repeat_interleave(width, 1)
        largest = largest_code(operand) if operand.symmetric else 1.0
        codes = _codes(operand, rows, k, generator)
        codes[::height, ::width] = largest
        values = (codes * (peak / largest)).clamp(-info.max, info.max).to(dtype)
        expected, allowed = _expected(values, operand, dtype)
        inverse = 2.0 ** (6 if name == "small" else -4)
        if dtype != torch.float16:
            inverse = 2.0 ** (60 if name == "small" else -60)
        found.append(Extreme(name=name, values=values, expected=expected, allowed=allowed, inverse=inverse))
    return found


def _expected(values: Tensor, operand: Operand, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    exact, largest = values.double(), torch.finfo(dtype).max
    bound = bound_element(exact, operand) + scale_rounding(exact, operand, dtype)
    expected, settled = exact, torch.zeros_like(exact, dtype=torch.bool)
    if operand.symmetric and not operand.clip:
        nearest, settled = nearest_values(values, operand)
        expected = torch.where(settled, nearest, exact)
    if operand.full_range:  # The largest magnitude of a block is a tie between two codes.
        view, shared = share_scales(exact, operand.granularity)
        settled = settled & (view.abs() < view.abs().amax(shared, keepdim=True)).reshape(exact.shape)
        expected = torch.where(settled, expected, exact)
    saturated = expected.clamp(-largest, largest)
    return saturated, torch.where(settled, (expected - saturated).abs(), bound)
