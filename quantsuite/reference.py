"""Quantization and products in float64: obvious and slow, the oracle of everything else."""

from __future__ import annotations

import torch
from torch import Tensor

from quantsuite.formats import FloatFormat, Format
from quantsuite.granularity import share_scales
from quantsuite.scheme import Operand


def representable(fmt: Format) -> Tensor:
    """Every finite value of a format in ascending order, float64, by enumeration."""
    if isinstance(fmt, FloatFormat):
        steps = 2**fmt.mantissa_bits
        subnormal = [m / steps * 2.0**fmt.smallest_exponent for m in range(steps)]
        exponents = range(fmt.smallest_exponent, fmt.smallest_exponent + 2**fmt.exponent_bits)
        normal = [(1 + m / steps) * 2.0**e for e in exponents for m in range(steps)]
        magnitudes = [value for value in subnormal + normal if value <= fmt.max]
    else:
        magnitudes = [float(value) for value in range(int(fmt.max) + 1)]
    return torch.tensor(sorted({sign * value for sign in (-1, 1) for value in magnitudes}), dtype=torch.float64)


def round_to(fmt: Format, values: Tensor) -> Tensor:
    """The nearest representable value, by comparing with all; of two, the even code (float64).

    Values are cut to ``max`` first: far beyond it, differences from all codes round to the same.
    """
    table = representable(fmt)
    distance = (values.double().clamp(-fmt.max, fmt.max).unsqueeze(-1) - table).abs()
    nearest = distance.amin(-1, keepdim=True)
    zero = int((table == 0).nonzero()[0])
    even = (torch.arange(len(table)) - zero) % 2 == 0
    candidate = distance == nearest
    preferred = torch.where((candidate & even).any(-1, keepdim=True), candidate & even, candidate)
    return table[preferred.to(torch.int8).argmax(-1)]


def quantize_dequantize(tensor: Tensor, operand: Operand) -> Tensor:
    """Symmetric quantization and its inverse with an exact scale (float64), shape of ``tensor``.

    Raises:
        ValueError: if the operand has a zero point.
    """
    if not operand.symmetric:
        raise ValueError(f"{operand} has a zero point, the reference has none; compare with bounds.bound_element")
    view, shared = share_scales(tensor.double(), operand.granularity)
    scale = view.abs().amax(shared, keepdim=True) / operand.format.max
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    return (round_to(operand.format, view / scale) * scale).reshape(tensor.shape)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x W^T + b`` in float64; ``x`` is ``[..., K]``, ``weight`` ``[N, K]``."""
    product = x.double() @ weight.double().T
    return product if bias is None else product + bias.double()
