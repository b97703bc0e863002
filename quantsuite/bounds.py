"""Proven bounds on the error of quantized elements and products."""

from __future__ import annotations

import torch
from torch import Tensor

from quantsuite.formats import FloatFormat, IntegerFormat, TableFormat
from quantsuite.granularity import share_scales
from quantsuite.quantize import CLIP_FRACTIONS, largest_code
from quantsuite.reference import power_of_two_step
from quantsuite.scale_formats import SMALLEST_SCALE, PowerOfTwoScale, TwoLevelScale
from quantsuite.scheme import Operand

FLOAT32_ROUNDOFF = 2.0**-24
ROUNDINGS = 6
"""Float32 roundings of one element: of its scale (three for E4M3's two levels), quotient, product and clamp."""
HALF_SUBNORMAL = 2.0**-150
"""The most by which float32 rounds what is too small for a normal number."""


def step_range(peak: Tensor, operand: Operand) -> tuple[Tensor, Tensor]:
    """The least and the greatest step (float64) that float32 arithmetic can arrive at, beside its roundings.

    Scales that are rounded to a coarse format may go either way where float32 cannot tell; rounding is
    monotone, so that the two ends are the rounded ends.  Clip search chooses from a range.

    Args:
        peak: float64, the largest magnitude of each block, all of one tensor.
        operand: symmetric.
    """
    fmt = operand.format
    if isinstance(operand.scale, PowerOfTwoScale):
        exact = power_of_two_step(peak, fmt)
        return exact, exact
    slack = ROUNDINGS * FLOAT32_ROUNDOFF
    if isinstance(operand.scale, TwoLevelScale):
        factor = (peak.amax() / fmt.max / operand.scale.format.max).clamp(min=SMALLEST_SCALE)
        ratio = peak / fmt.max / factor
        low, high = (operand.scale.round((ratio * (1 + sign * slack)).float()).double() for sign in (-1, 1))
        return low * factor, high * factor
    scale = (peak / largest_code(operand)).clamp(min=SMALLEST_SCALE)
    if operand.scale.bits < 32:
        ends = ((scale * (1 + sign * slack)).clamp(max=operand.scale.max) for sign in (-1, 1))
        low, high = (operand.scale.round(end.float()).double() for end in ends)
        return low, high
    return (scale * CLIP_FRACTIONS[-1]).clamp(min=SMALLEST_SCALE) if operand.clip else scale, scale


def _half_gap(view: Tensor, operand: Operand, low: Tensor, high: Tensor) -> Tensor:
    """Half the distance between the representable values around each element that is not clipped."""
    fmt = operand.format
    match fmt:
        case IntegerFormat():
            return (high / 2).expand_as(view)
        case FloatFormat():
            smallest = high * 2.0 ** (fmt.smallest_exponent - fmt.mantissa_bits - 1)
            return torch.maximum(view.abs() * 2.0 ** -(fmt.mantissa_bits + 1), smallest)
        case TableFormat():
            values = torch.tensor(fmt.values, dtype=torch.float64, device=view.device)
            places = torch.bucketize(torch.where(low > 0, view / low, 0.0).contiguous(), values).clamp(
                1, len(values) - 1
            )
            return (values[places] - values[places - 1]) / 2 * high
    raise ValueError(f"no bound is known for {fmt.name}")


def bound_element(tensor: Tensor, operand: Operand) -> Tensor:
    """An upper bound on ``|x - dequantize(quantize(x))|`` for each element.

    Symmetric: an element that the codes' range covers at its step ``s`` is at most half the distance of
    two neighbouring values away: ``s / 2`` for an integer, ``max(2^-(m+1) |x|, s 2^(e - m - 1))`` for a float
    with ``m`` mantissa bits and smallest exponent ``e``, half the gap of the table for NF4, whose gaps grow
    away from zero.  An element beyond the range is clipped, by ``|x| - s max``: nothing where the step is
    ``amax / max``, half a step in the full range (``s = 2 amax / (2^b - 1)``), more where the step was rounded
    down to a power of two or to E4M3, or chosen smaller by clip search.  At most six float32 roundings add
    ``6 u |x|``, ``u = 2^-24``; values below the normal ones are off by half a subnormal, times the code.
    Saturation at float32's largest value only moves a result towards ``x``.

    With a zero point: with ``s = (max - min) / (2**bits - 1)`` an element clips only at the end towards
    which the zero point was rounded, by no more than that rounding, half a step.  Float32 roundings of the
    scale (twice), the quotients of the element and of the minimum, and the product add at most
    ``6 u (max - min)``.

    Zero is a value of every format and stays zero.

    Returns:
        float64, the shape of ``tensor``.
    """
    view, shared = share_scales(tensor.double(), operand.granularity)
    slack = ROUNDINGS * FLOAT32_ROUNDOFF
    if not operand.symmetric:
        extent = view.amax(shared, keepdim=True).clamp(min=0) - view.amin(shared, keepdim=True).clamp(max=0)
        scale = (extent / (2**operand.format.bits - 1)).clamp(min=SMALLEST_SCALE)
        return torch.where(view == 0, 0.0, scale / 2 + slack * extent).reshape(tensor.shape)
    low, high = step_range(view.abs().amax(shared, keepdim=True), operand)
    bound = torch.maximum(_half_gap(view, operand, low, high), view.abs() - low * operand.format.max)
    bound = bound * (1 + slack) + slack * view.abs() + HALF_SUBNORMAL * (operand.format.max + 1)
    return torch.where(view == 0, 0.0, bound).reshape(tensor.shape)


def accumulation_error(terms: int, roundoff: float = FLOAT32_ROUNDOFF) -> float:
    """``gamma = n u / (1 - n u)``: the error of a sum of ``n`` products relative to the sum of magnitudes.

    In any order of summation (Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 3.1).

    Raises:
        ValueError: if ``n u >= 1``, where nothing is guaranteed.
    """
    if terms * roundoff >= 1:
        raise ValueError(
            f"{terms:,} terms in an accumulator of unit roundoff {roundoff:g} have no bound; "
            f"use fewer than {int(1 / roundoff):,}"
        )
    return terms * roundoff / (1 - terms * roundoff)


def _product_roundings(
    x: Tensor, weight: Tensor, dtype: torch.dtype, operand_roundings: int, roundoff: float
) -> Tensor:
    """The error of computing ``x W^T`` from magnitudes (float64): operands, sum and result rounded.

    Rounding ``a`` to ``dtype`` errs by ``v a``, ``v`` its unit roundoff, or, below its smallest normal number, by
    ``t``, half its smallest subnormal; rounding a product, besides, by half of float32's, ``h``.  Rounded operands
    thus have products of magnitude at most ``|x| |w| (1 + v)^operands + (1 + v) t (|x| + |w|) + t^2 + h``, whose
    sum grows by ``(1 + gamma)`` and by ``(1 + v)^3`` with the result's three roundings, which add ``3 t (1 + v)^2``.
    """
    terms, v = x.shape[-1], torch.finfo(dtype).eps / 2
    t = v * torch.finfo(dtype).smallest_normal
    growth = (1 + accumulation_error(terms, roundoff)) * (1 + v) ** 3
    relative = (1 + v) ** operand_roundings * growth - 1
    absolute = growth * (1 + v) * t * (x.sum(-1, keepdim=True) + weight.sum(-1))
    constant = growth * terms * (t**2 + HALF_SUBNORMAL) + 3 * t * (1 + v) ** 2
    return relative * (x @ weight.T) + absolute + constant


def bound_execution(
    x: Tensor, weight: Tensor, dtype: torch.dtype, bias: Tensor | None = None, *, quantized_operands: int = 1
) -> Tensor:
    """How far two executions of one scheme may be apart.

    Each multiplies the same dequantized operands, up to one rounding of each to ``dtype``, sums K products in
    float32 or better (:func:`accumulation_error`), and rounds the result at most three times to ``dtype``, a bias
    included; roundings to float32 of sums that are exact stand for those of the sum.  Nothing overflows: sums of
    codes, scaled afterwards, are ``1 / scale`` times as large as the result.  Half of this bound is how far one
    execution may be from the exact product.

    Args:
        x: ``[..., K]``, dequantized if it is quantized.
        weight: ``[N, K]``, dequantized.
        dtype: of the layer's input and of the result.
        bias: ``[N]`` or ``None``.
        quantized_operands: 1 if the weight alone is quantized, 2 if ``x`` is too.

    Returns:
        float64 ``[..., N]``.
    """
    bound = _product_roundings(x.double().abs(), weight.double().abs(), dtype, quantized_operands, FLOAT32_ROUNDOFF)
    if bias is not None:
        bound = bound + ((1 + torch.finfo(dtype).eps / 2) ** 3 - 1) * bias.double().abs()
    return 2 * bound


def bound_matmul(
    x: Tensor,
    weight: Tensor,
    x_operand: Operand | None,
    weight_operand: Operand | None,
    *,
    dtype: torch.dtype,
    accumulator_roundoff: float = FLOAT32_ROUNDOFF,
) -> Tensor:
    """How far a quantized product may be from the exact ``x W^T`` of the operands before quantization.

    ``|y - y'| <= |x| |dW| + |dx| |W| + |dx| |dW|`` with :func:`bound_element` of each, plus what computing
    the product of the quantized operands adds: each of them rounded to ``dtype``, the sum, and the result
    rounded at most three times.

    Args:
        x: ``[..., K]``.
        weight: ``[N, K]``.
        x_operand: how ``x`` is quantized, ``None`` if it is not.
        weight_operand: how ``weight`` is quantized, ``None`` if it is not.
        dtype: of the dequantized operands and of the result.
        accumulator_roundoff: unit roundoff of the accumulator; 0 if it is exact.

    Returns:
        float64 ``[..., N]``.

    Raises:
        ValueError: if K is too large for the accumulator.
    """
    (x, dx), (weight, dw) = (
        (tensor.double().abs(), torch.zeros(()) if operand is None else bound_element(tensor, operand))
        for tensor, operand in ((x, x_operand), (weight, weight_operand))
    )
    dx, dw = dx.expand_as(x).double(), dw.expand_as(weight).double()
    quantization = x @ dw.T + dx @ (weight + dw).T
    return quantization + _product_roundings(x + dx, weight + dw, dtype, 2, accumulator_roundoff)


def exact_int32_terms(x_max: int = 127, weight_max: int = 127) -> int:
    """The largest K at which a sum of products of integer codes cannot overflow int32, whatever the codes."""
    return (2**31 - 1) // (x_max * weight_max)
