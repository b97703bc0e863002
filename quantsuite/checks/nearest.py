"""Whether a quantized tensor is what its operand defines: the scales, and of each element the nearest value."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from quantsuite import reference
from quantsuite.bounds import FLOAT32_ROUNDOFF, ROUNDINGS, step_range
from quantsuite.checks.oracle import NEAR
from quantsuite.checks.outcome import CheckFailure
from quantsuite.formats import IntegerFormat
from quantsuite.granularity import PerBlock, PerGroup, PerRow, share_scales
from quantsuite.quantize import CLIP_FRACTIONS, QuantizedTensor, integer_range, largest_code, pad_to_blocks
from quantsuite.scale_formats import SMALLEST_SCALE
from quantsuite.scheme import Operand

SLACK = ROUNDINGS * FLOAT32_ROUNDOFF
SEARCHED = 2**16
"""Elements, in whole rows, whose scales are searched for again."""


@dataclass(frozen=True)
class Nearest:
    """Rows of a quantized tensor that were found right, float64.

    Args:
        values: ``[rows, K]``, what the codes stand for.
        open: how far each may be from another value that float32 arithmetic may choose as well; mostly 0.
    """

    values: Tensor
    open: Tensor


def values_of(quantized: QuantizedTensor, rows: Tensor) -> Tensor:
    """What the codes of some rows ``[rows, K]`` stand for, float64."""
    return _Rows(quantized, rows).dequantized


def check_nearest(
    tensor: Tensor, quantized: QuantizedTensor, rows: Tensor, *, given_scale: Tensor | None = None
) -> Nearest:
    """Whether scales are those of the operand's definition, and the codes of some rows the nearest to their elements.

    Args:
        tensor: ``[N, K]``.
        quantized: of ``tensor``, by whatever quantizer.
        rows: int64, whose codes are looked at; scales are at all.
        given_scale: from elsewhere, such as calibration, and not from the tensor.

    Raises:
        CheckFailure: naming the first scale, zero point or code that is another.
    """
    if given_scale is None:
        _check_scales(tensor, quantized)
    else:
        _check_given(quantized, given_scale)
    part = _Rows(quantized, rows)
    exact = pad_to_blocks(tensor[rows], quantized.operand.granularity).double()
    exact = torch.nn.functional.pad(exact, (0, part.values.shape[1] - exact.shape[1]))
    less, more = part.nearest(exact)
    wrong = (part.values != less) & (part.values != more)
    if wrong[:, : tensor.shape[1]].any():
        row, column = wrong.nonzero()[0].tolist()
        raise CheckFailure(
            f"code of element [{int(rows[row])}, {column}] stands for {part.values[row, column]:g}, "
            f"{exact[row, column] / part.step[row, column] + part.zero_point[row, column]:.6g} of a step is nearest to "
            f"{less[row, column]:g} ({int(wrong.sum()):,} of {wrong.numel():,} codes)"
        )
    if quantized.operand.clip and given_scale is None:
        _check_search(part, exact)
    width = slice(tensor.shape[1])
    return Nearest(part.dequantized[:, width], ((more - less).abs() * part.step)[:, width])


class _Rows:
    """Some rows of a quantized tensor, element by element: values, steps and zero points, float64 ``[rows, K]``."""

    def __init__(self, quantized: QuantizedTensor, rows: Tensor) -> None:
        self.operand = quantized.operand
        view, _ = share_scales(quantized.values, self.operand.granularity)
        index: tuple[Tensor, ...] = (rows,)
        if isinstance(self.operand.granularity, PerBlock):
            index = (rows // self.operand.granularity.rows, rows % self.operand.granularity.rows)

        def take(scales: Tensor) -> Tensor:
            return torch.broadcast_to(scales, view.shape)[index].reshape(len(rows), -1).double()

        self.values = take(view.float())
        self.step = take(quantized.step.double())
        self.zero_point = take(torch.zeros(()) if quantized.zero_point is None else quantized.zero_point)

    @property
    def dequantized(self) -> Tensor:
        return (self.values - self.zero_point) * self.step

    def nearest(self, exact: Tensor) -> tuple[Tensor, Tensor]:
        """The value nearest to each element, seen a little nearer to zero and a little farther from it."""
        quotient = torch.where(self.step > 0, exact / self.step, 0.0)
        # Subtracting a zero point from a quotient rounds relative to the larger of the two.
        blur = NEAR * torch.maximum(quotient.abs(), self.zero_point.abs())
        less, more = (_round(quotient + self.zero_point + sign * blur, self.operand) for sign in (-1, 1))
        return less, more


def _round(values: Tensor, operand: Operand) -> Tensor:
    """The nearest value that a code of an operand stands for, in units of the step."""
    if isinstance(operand.format, IntegerFormat):
        return values.round().clamp(*integer_range(operand))
    table = reference.representable(operand.format).to(values.device)
    middles = (table[1:] + table[:-1]) / 2
    return table[torch.bucketize(values.contiguous(), middles)]


def _check_scales(tensor: Tensor, quantized: QuantizedTensor) -> None:
    operand = quantized.operand
    view, shared = share_scales(pad_to_blocks(tensor, operand.granularity), operand.granularity)
    step = quantized.step.double()
    if operand.symmetric:
        low, high = step_range(view.abs().amax(shared, keepdim=True).double(), operand)
    else:
        least = view.amin(shared, keepdim=True).double().clamp(max=0)
        most = view.amax(shared, keepdim=True).double().clamp(min=0)
        low = high = ((most - least) / (2**operand.format.bits - 1)).clamp(min=SMALLEST_SCALE)
        _check_zero_points(quantized, least)
    if step.shape != low.shape:
        raise CheckFailure(f"scales {list(step.shape)}, {operand} has {list(low.shape)}")
    wrong = (step < low * (1 - SLACK)) | (step > high * (1 + SLACK))
    if wrong.any():
        place = wrong.nonzero()[0].tolist()
        at = tuple(place)
        raise CheckFailure(
            f"scale {place} of {operand} is {step[at].item():.9g}, expected {high[at].item():.9g} "
            f"({int(wrong.sum()):,} of {wrong.numel():,} scales)"
        )


def _check_given(quantized: QuantizedTensor, scale: Tensor) -> None:
    expected = quantized.operand.scale.round(scale.float()).double().expand_as(quantized.step)
    if (wrong := quantized.step.double() != expected).any():
        at = tuple(wrong.nonzero()[0].tolist())
        raise CheckFailure(f"scale {list(at)} is {quantized.step[at]:.9g}, given is {expected[at]:.9g}")


def _check_search(part: _Rows, exact: Tensor) -> None:
    """That no fraction of the largest magnitude that is searched has a smaller squared error than the scale.

    Of rows and groups; a scale of more rows than are looked at cannot be told.  Another search may be finer, and
    float32 roundings of a scale move the values of its block by at most ``SLACK`` of them each.
    """
    operand = part.operand
    if not isinstance(operand.granularity, PerRow | PerGroup):
        return
    some = slice(None, None, math.ceil(exact.numel() / SEARCHED))
    view, shared = share_scales(exact[some], operand.granularity)

    def error(step: Tensor) -> Tensor:
        codes = _round(torch.where(step > 0, view / step, 0.0), operand)
        return (codes * step - view).square().sum(shared, keepdim=True).sqrt()

    whole = (view.abs().amax(shared, keepdim=True) / largest_code(operand)).clamp(min=SMALLEST_SCALE)
    steps = ((whole * fraction).clamp(min=SMALLEST_SCALE) for fraction in CLIP_FRACTIONS)
    least = reduce(torch.minimum, map(error, steps))
    step = share_scales(part.step[some], operand.granularity)[0].amax(shared, keepdim=True)
    found, slack = error(step), SLACK * view.square().sum(shared, keepdim=True).sqrt()
    if (wrong := found > least + slack).any():
        at = tuple(wrong.nonzero()[0].tolist())
        raise CheckFailure(
            f"scale {step[at]:.9g} of {operand}, {step[at] / whole[at]:.3f} of the largest magnitude's, has an error "
            f"of {found[at]:.6g}, the best that is searched {least[at]:.6g} "
            f"({int(wrong.sum()):,} of {wrong.numel():,} scales)"
        )


def _check_zero_points(quantized: QuantizedTensor, low: Tensor) -> None:
    first, _ = integer_range(quantized.operand)
    exact = first - low / quantized.step.double()
    zero_point = torch.zeros(()) if quantized.zero_point is None else quantized.zero_point.double()
    wrong = (zero_point - exact).abs() > 0.5 + NEAR * exact.abs()
    if wrong.any():
        at = tuple(wrong.nonzero()[0].tolist())
        raise CheckFailure(
            f"zero point {list(at)} is {zero_point.expand_as(exact)[at]:g}, expected {exact[at]:.6g} rounded"
        )
