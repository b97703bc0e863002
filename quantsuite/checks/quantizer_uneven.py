"""Quantizers of tensors whose last group is not full."""

from __future__ import annotations

import torch
from torch import Tensor

from quantsuite.bounds import bound_element
from quantsuite.checks.draws import normal
from quantsuite.checks.oracle import nearest_values, rounding_error
from quantsuite.checks.outcome import CheckFailure, NotApplicable, compare
from quantsuite.checks.quantizing import quantized
from quantsuite.checks.uneven import has_groups, refused_or, sizes, with_small_tail
from quantsuite.kernels.protocol import Quantizer
from quantsuite.quantize import pad_to_blocks
from quantsuite.scheme import Operand


def check_uneven_groups(kernel: Quantizer, operand: Operand, *, device: str, dtype: torch.dtype, seed: int) -> float:
    """A last group that is not full is refused, or quantized as what it holds: to the nearest value at its own scale.

    With a zero point, or a searched scale, to values within the bound, no more of them than there are codes.
    """
    if not has_groups(operand):
        raise NotApplicable(f"{operand} has no groups along K")
    tightest, taken = 0.0, 0
    for rows, k, tail in sizes(operand):
        x = with_small_tail(normal(rows, k, seed=seed, device=device, dtype=dtype), tail)
        case = f"normal [{rows}, {k}], of whose last group there are {tail}"
        got = refused_or(case, f"{kernel.name}.quantize", lambda x=x: quantized(kernel, operand, x))
        if got is not None:
            taken, tightest = taken + 1, max(tightest, _compare(case, got, x, operand, tail))
    if not taken:
        raise NotApplicable(f"{kernel.name} refuses a last group of {operand} that is not full")
    return tightest


def _compare(case: str, got: Tensor, x: Tensor, operand: Operand, tail: int) -> float:
    exact = x.double().cpu()
    padded = pad_to_blocks(exact, operand.granularity)
    kept = tuple(slice(size) for size in x.shape)
    bound = bound_element(padded, operand)[kept]
    bound = bound + rounding_error(exact.abs() + bound, got.dtype)
    tightest = compare(case, got, exact, bound)
    if not operand.symmetric or operand.clip:
        most, codes = max(len(row.unique()) for row in got[..., -tail:]), 2**operand.format.bits
        if most > codes:
            raise CheckFailure(f"{case}: {most} values came out of one group, {operand} has {codes} codes")
        return tightest
    expected, settled = (each[kept] for each in nearest_values(padded, operand))
    expected = torch.where(settled, expected, got.double().cpu())
    return max(tightest, compare(case, got, expected, rounding_error(expected.abs(), got.dtype)))
