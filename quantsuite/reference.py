"""Quantization and products in float64: obvious and slow, the oracle of everything else."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from quantsuite.formats import FloatFormat, Format, IntegerFormat, TableFormat
from quantsuite.granularity import share_scales
from quantsuite.scale_formats import FloatScale, PowerOfTwoScale, TwoLevelScale
from quantsuite.scheme import Operand


def representable(fmt: Format) -> Tensor:
    """Every finite value of a format in ascending order, float64, by enumeration."""
    if isinstance(fmt, TableFormat):
        return torch.tensor(fmt.values, dtype=torch.float64)
    if isinstance(fmt, IntegerFormat):
        return torch.arange(int(fmt.min), int(fmt.max) + 1, dtype=torch.float64)
    if isinstance(fmt, FloatFormat):
        steps = 2**fmt.mantissa_bits
        subnormal = [m / steps * 2.0**fmt.smallest_exponent for m in range(steps)]
        exponents = range(fmt.smallest_exponent, fmt.smallest_exponent + 2**fmt.exponent_bits)
        normal = [(1 + m / steps) * 2.0**e for e in exponents for m in range(steps)]
        magnitudes = [value for value in subnormal + normal if value <= fmt.max]
        return torch.tensor(sorted({sign * value for sign in (-1, 1) for value in magnitudes}), dtype=torch.float64)
    raise ValueError(f"the values of {fmt.name} cannot be enumerated")


def round_to(fmt: Format, values: Tensor) -> Tensor:
    """The nearest representable value, by comparing with all; of two, the even code (float64).

    Values are cut to the ends first: far beyond them, differences from all codes round to the same.
    """
    table = representable(fmt)
    distance = (values.double().clamp(fmt.min, fmt.max).unsqueeze(-1) - table).abs()
    nearest = distance.amin(-1, keepdim=True)
    first = 0 if isinstance(fmt, TableFormat) else int((table == 0).nonzero()[0])
    even = (torch.arange(len(table)) - first) % 2 == 0
    candidate = distance == nearest
    preferred = torch.where((candidate & even).any(-1, keepdim=True), candidate & even, candidate)
    return table[preferred.to(torch.int8).argmax(-1)]


def quantize_dequantize(tensor: Tensor, operand: Operand) -> Tensor:
    """Symmetric quantization and its inverse with scales computed in float64, shape of ``tensor``.

    Raises:
        ValueError: if the operand has a zero point or searches its scales.
    """
    if not operand.symmetric or operand.clip:
        raise ValueError(
            f"{operand} has a zero point or a searched scale, the reference has neither; compare with "
            "bounds.bound_element"
        )
    view, shared = share_scales(tensor.double(), operand.granularity)
    peak = view.abs().amax(shared, keepdim=True)
    step = symmetric_step(peak, operand, peak.amax())
    low = operand.format.min if operand.full_range else -operand.format.max
    return (round_to(operand.format, torch.where(step > 0, view / step, 0.0).clamp(min=low)) * step).reshape(
        tensor.shape
    )


def power_of_two_step(peak: Tensor, fmt: Format) -> Tensor:
    """The Microscaling scale (float64) of blocks whose largest magnitude (float64) is ``peak``."""
    return torch.exp2((peak.log2().floor() - math.floor(math.log2(fmt.max))).clamp(-127, 127))


def symmetric_step(peak: Tensor, operand: Operand, largest: Tensor) -> Tensor:
    """The step (float64) of blocks whose largest magnitudes are ``peak``, in a tensor whose ``largest`` is.

    Only scales of two levels, which a float32 factor maps to their format's range, depend on the tensor.
    """
    fmt = operand.format
    match operand.scale:
        case PowerOfTwoScale():
            return power_of_two_step(peak, fmt)
        case TwoLevelScale(format=of_scales):
            factor = largest / fmt.max / of_scales.max
            return round_to(of_scales, peak / fmt.max / factor) * factor
        case FloatScale(bits=16):
            return (peak / fmt.max).to(torch.bfloat16).double()
    return peak / (fmt.max + 0.5 if operand.full_range else fmt.max)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x W^T + b`` in float64; ``x`` is ``[..., K]``, ``weight`` ``[N, K]``."""
    product = x.double() @ weight.double().T
    return product if bias is None else product + bias.double()
