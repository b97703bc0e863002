"""Where the result of a quantization is certain up to float32 roundings, and what it is there."""

from __future__ import annotations

import torch
from torch import Tensor

from quantsuite import reference
from quantsuite.bounds import FLOAT32_ROUNDOFF, ROUNDINGS
from quantsuite.checks.draws import code_values
from quantsuite.checks.outcome import NotApplicable
from quantsuite.granularity import share_scales
from quantsuite.scheme import Operand

NEAR = 2.0**-16
"""Relative distance within which float32 arithmetic may see a tie where there is none."""


def rounding_error(values: Tensor, dtype: torch.dtype, times: int = 1) -> Tensor:
    """The largest error of magnitudes (float64) that are computed in float32 and rounded to a dtype ``times`` times."""
    info = torch.finfo(dtype)
    relative = info.eps / 2 + ROUNDINGS * FLOAT32_ROUNDOFF
    return times * (relative * values + info.smallest_normal * info.eps / 2)


def scale_rounding(x: Tensor, operand: Operand, dtype: torch.dtype) -> Tensor:
    """How much further an element (float64) may be off where scales are rounded to a dtype narrower than float32.

    With a zero point: a scale that is half an ulp too small shortens the range by as much relative to it, and so does
    the quotient, rounded to the same dtype, that the zero point is rounded from; an element at the end is clipped by
    both.  Without one, the error is relative to the element itself, as any rounding of it.
    """
    if operand.symmetric or dtype == torch.float32:
        return torch.zeros(x.shape, dtype=torch.float64)
    view, shared = share_scales(x.double().cpu(), operand.granularity)
    extent = view.amax(shared, keepdim=True).clamp(min=0) - view.amin(shared, keepdim=True).clamp(max=0)
    return (torch.finfo(dtype).eps * extent).expand_as(view).reshape(x.shape)


def nearest_values(x: Tensor, operand: Operand) -> tuple[Tensor, Tensor]:
    """The nearest value at the defined scale (float64) of each element, and where it is no other (bool).

    What float32 arithmetic may decide either way is not settled: within ``NEAR`` of a tie, of the element or of a
    rounded scale.

    Raises:
        NotApplicable: if the operand has a zero point or a searched scale.
    """
    if not operand.symmetric or operand.clip:
        raise NotApplicable(f"{operand} has a zero point or a searched scale")
    view, shared = share_scales(x.double().cpu(), operand.granularity)
    peak, low = view.abs().amax(shared, keepdim=True), code_values(operand)[0]
    below, step, above = (
        reference.symmetric_step(peak * (1 + sign * NEAR), operand, peak.amax()) for sign in (-1, 0, 1)
    )
    quotient = torch.where(step > 0, view / step, 0.0)
    less, more = (reference.round_to(operand.format, quotient * (1 + sign * NEAR)).clamp(min=low) for sign in (-1, 1))
    settled = (less == more) & (above <= below * (1 + 3 * NEAR))
    return (less * step).reshape(x.shape), settled.reshape(x.shape)
