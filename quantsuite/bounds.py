"""Proven bounds on the error of quantized elements and products."""

from __future__ import annotations

import torch
from torch import Tensor

from quantsuite.formats import FloatFormat
from quantsuite.granularity import share_scales
from quantsuite.scheme import Operand

FLOAT32_ROUNDOFF = 2.0**-24


def bound_element(tensor: Tensor, operand: Operand) -> Tensor:
    """An upper bound on ``|x - dequantize(quantize(x))|`` for each element.

    Symmetric: with the scale ``s = amax / max`` no element clips.  An integer code is then at most half a
    step from ``x / s``, a float code at most half a spacing: ``max(2^-(m+1) |x|, s 2^(e - m - 1))``
    with ``m`` mantissa bits and smallest exponent ``e``.  Four float32 roundings (of the scale, the
    quotient, the product, and the clamp at ``max``, which cuts a quotient that rounding lifted above
    it) add at most ``4 u |x|``, ``u = 2^-24``.  A block whose scale would underflow has error at most
    half the smallest scale's step, which is the same formula with the scale that was used.

    With a zero point: with ``s = (max - min) / (2**bits - 1)`` an element clips only at the end towards
    which the zero point was rounded, by no more than that rounding, half a step.  Float32 roundings of the
    scale (twice), the quotients of the element and of the minimum, and the product add at most
    ``6 u (max - min)``.

    Returns:
        float64, the shape of ``tensor``.
    """
    view, shared = share_scales(tensor.double(), operand.granularity)
    if not operand.symmetric:
        extent = view.amax(shared, keepdim=True).clamp(min=0) - view.amin(shared, keepdim=True).clamp(max=0)
        scale = (extent / (2**operand.format.bits - 1)).clamp(min=torch.finfo(torch.float32).tiny)
        return (scale / 2 + 6 * FLOAT32_ROUNDOFF * extent).expand_as(view).reshape(tensor.shape)
    scale = (view.abs().amax(shared, keepdim=True) / operand.format.max).clamp(min=torch.finfo(torch.float32).tiny)
    fmt = operand.format
    if isinstance(fmt, FloatFormat):
        smallest = scale * 2.0 ** (fmt.smallest_exponent - fmt.mantissa_bits - 1)
        bound = torch.maximum(view.abs() * 2.0 ** -(fmt.mantissa_bits + 1), smallest)
    else:
        bound = (scale / 2).expand_as(view)
    return (bound * (1 + 4 * FLOAT32_ROUNDOFF) + 4 * FLOAT32_ROUNDOFF * view.abs()).reshape(tensor.shape)


def bound_execution(x: Tensor, weight: Tensor, dtype: torch.dtype, bias: Tensor | None = None) -> Tensor:
    """How far two executions of one weight-only scheme may be apart.

    Each multiplies ``x`` by the same dequantized weight, up to one rounding of it to ``dtype``
    (unit roundoff ``v``), sums K products in float32 or better, ``gamma = K u / (1 - K u)`` (Higham,
    2002, section 3.1), and rounds the result at most three times to ``dtype``, a bias included.  What is
    too small for a normal number of ``dtype`` is rounded to a multiple of the smallest subnormal.  This is
    half of the bound: how far one execution may be from the exact product with ``weight``; two differ by
    at most twice that.

    Args:
        x: ``[..., K]``.
        weight: ``[N, K]``, dequantized.
        dtype: of ``x`` and of the result.
        bias: ``[N]`` or ``None``.

    Returns:
        float64 ``[..., N]``.
    """
    v = torch.finfo(dtype).eps / 2
    k = x.shape[-1]
    gamma = k * FLOAT32_ROUNDOFF / (1 - k * FLOAT32_ROUNDOFF)
    relative = (1 + v) * (1 + gamma) * (1 + v) ** 3 - 1
    bound = relative * (x.double().abs() @ weight.double().abs().T)
    if bias is not None:
        bound = bound + ((1 + v) ** 3 - 1) * bias.double().abs()
    underflow = v * torch.finfo(dtype).smallest_normal
    return 2 * (bound + underflow * (x.double().abs().sum(-1, keepdim=True) + 3))


def bound_matmul(
    x: Tensor,
    weight: Tensor,
    x_operand: Operand | None,
    w_operand: Operand | None,
    *,
    accumulator_bits: int = 24,
    out_dtype: torch.dtype,
) -> Tensor:
    """Stand-in until core's."""
    v, u = torch.finfo(out_dtype).eps / 2, 2.0**-accumulator_bits
    k = x.shape[-1]

    def spread(t: Tensor, operand: Operand | None) -> Tensor:
        if operand is None:
            return torch.zeros_like(t, dtype=torch.float64)
        error = bound_element(t, operand)
        return error + v * (t.double().abs() + error)

    dx, dw = spread(x, x_operand), spread(weight, w_operand)
    ax, aw = x.double().abs(), weight.double().abs()
    gamma = k * u / (1 - k * u)
    magnitude = (ax + dx) @ (aw + dw).T
    rounding = ((1 + gamma) * (1 + v) ** 3 - 1) * magnitude
    return ax @ dw.T + dx @ aw.T + dx @ dw.T + rounding + 3 * v * torch.finfo(out_dtype).smallest_normal
