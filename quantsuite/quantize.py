"""Tensor to quantized tensor and back, and fake quantization with a straight-through gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from quantsuite.formats import Format, IntegerFormat
from quantsuite.granularity import Granularity, PerBlock, PerGroup, share_scales
from quantsuite.scale_formats import SMALLEST_SCALE, ScaleFormat
from quantsuite.scheme import DTYPES, Operand

MODEL_DTYPES = dict(zip(DTYPES, (torch.bfloat16, torch.float16, torch.float32), strict=True))
"""What the names of a model's dtypes stand for."""
CLIP_FRACTIONS = tuple(1 - step / 40 for step in range(21))
"""Of the largest magnitude, tried by clip search: 1 down to one half."""


@dataclass(frozen=True, kw_only=True)
class QuantizedTensor:
    """What codes stand for in units of a scale, with the scales: ``(values - zero_point) * step`` approximates.

    Args:
        values: those of the format, in the tensor's own shape (padded, if it was), in the format's storage dtype, or
            in float32 where it has none; ``format.encode`` gives their bits.
        scale: in the dtype of the operand's scale format, in the shape that
            :func:`~quantsuite.granularity.share_scales` broadcasts.
        tensor_scale: float32 scalar that all scales are multiplied with; ``None`` but for scales of two levels.
        zero_point: int8 in the shape of ``scale``; ``None`` if symmetric.
        shape: of the tensor before padding.
        operand: how the tensor was quantized.
    """

    values: Tensor
    scale: Tensor
    zero_point: Tensor | None
    operand: Operand
    shape: torch.Size
    tensor_scale: Tensor | None = None

    @property
    def step(self) -> Tensor:
        """What values are multiplied with: float32 in the shape of ``scale``."""
        scale = self.scale.float()
        return scale if self.tensor_scale is None else scale * self.tensor_scale

    @property
    def nbytes(self) -> int:
        """Bytes of codes (packed), scales and zero points."""
        parts = (self.scale, self.tensor_scale, self.zero_point)
        scales = sum(part.numel() * part.element_size() for part in parts if part is not None)
        return math.ceil(self.values.numel() * self.operand.format.bits / 8) + scales


def integer_range(operand: Operand) -> tuple[int, int]:
    """Smallest and largest code: ``-max .. max`` in the restricted range, else all ``2**bits`` codes."""
    low = operand.format.min if operand.full_range or not operand.symmetric else -operand.format.max
    return int(low), int(operand.format.max)


def _check_finite(values: Tensor) -> None:
    if not torch.isfinite(values).all():
        bad = int((~torch.isfinite(values)).sum())
        raise ValueError(
            f"{bad} of {values.numel()} values are NaN or infinite; no scale can represent them. "
            "Repair or re-download the tensor"
        )


def largest_code(operand: Operand) -> float:
    """What a block's largest magnitude is scaled to: ``max``, half a step more in the full range.

    The full range's middle is half a step below zero, so that ``amax`` falls between its two ends:
    on the negative side it is rounded, on the positive side clipped, by half a step.
    """
    return operand.format.max + 0.5 if operand.full_range else operand.format.max


def _searched_scale(view: Tensor, shared: tuple[int, ...], fmt: Format, scale: Tensor) -> Tensor:
    """Of ``CLIP_FRACTIONS`` of each scale the one with the least squared error, the largest if several."""
    best, least = scale, torch.full_like(scale, torch.inf, dtype=torch.float64)
    for fraction in CLIP_FRACTIONS:
        tried = (scale * fraction).clamp(min=SMALLEST_SCALE)
        codes = fmt.round(view / tried).clamp(-fmt.max, fmt.max)
        error = ((codes * tried).double() - view).square().sum(shared, keepdim=True)
        best, least = torch.where(error < least, tried, best), torch.minimum(error, least)
    return best


def storage_dtype(fmt: Format | ScaleFormat) -> torch.dtype | None:
    """The dtype that holds a format's codes, or scales; ``None`` if codes need packing."""
    return None if fmt.storage is None else getattr(torch, fmt.storage)


def pad_to_blocks(tensor: Tensor, granularity: Granularity) -> Tensor:
    """The tensor with zeros after its last column (and row) where the last group or block is not full."""
    match granularity:
        case PerGroup(size):
            return functional.pad(tensor, (0, -tensor.shape[-1] % size))
        case PerBlock(rows, columns) if tensor.ndim == 2:
            return functional.pad(tensor, (0, -tensor.shape[1] % columns, 0, -tensor.shape[0] % rows))
    return tensor


def _symmetric(view: Tensor, shared: tuple[int, ...], operand: Operand) -> tuple[Tensor, Tensor | None]:
    """Scales (float32), and the factor of those that have one."""
    scale, factor = operand.scale.choose(view.abs().amax(shared, keepdim=True), largest_code(operand))
    return (_searched_scale(view, shared, operand.format, scale) if operand.clip else scale), factor


def _asymmetric_scale(view: Tensor, shared: tuple[int, ...], fmt: IntegerFormat, qmin: int) -> tuple[Tensor, Tensor]:
    """``(max - min) / (2**bits - 1)`` over the block and zero, so that zero is represented exactly."""
    high = view.amax(shared, keepdim=True).clamp(min=0)
    low = view.amin(shared, keepdim=True).clamp(max=0)
    scale = (high / (2**fmt.bits - 1) - low / (2**fmt.bits - 1)).clamp(min=SMALLEST_SCALE)
    return scale, (qmin - (low / scale).round()).to(torch.int8)


def _given_scale(view: Tensor, shared: tuple[int, ...], operand: Operand, scale: Tensor) -> Tensor:
    """A scale that was found elsewhere, rounded to the operand's scale format, float32, in the shape of the view's."""
    if not operand.symmetric or operand.scale.of_tensor:
        kind = "a scale of two levels" if operand.symmetric else "a zero point"
        raise ValueError(f"{operand} has {kind}, which cannot be given; quantize it with a scale of its own values")
    wanted = torch.empty(view.shape, device="meta").amax(shared, keepdim=True).shape
    scale = scale.detach().to(view.device, torch.float32)
    try:
        scale = (scale if scale.numel() > 1 else scale.reshape(())).expand(wanted)
    except RuntimeError:
        shapes = f"shape {list(scale.shape)}, expected {list(wanted)}"
        raise ValueError(f"the scale given for {operand} has {shapes} or one value for all") from None
    if not (torch.isfinite(scale) & (scale > 0)).all():
        raise ValueError(f"a scale given for {operand} is zero, negative, NaN or infinite; calibrate it again")
    return operand.scale.round(scale)


def quantize(tensor: Tensor, operand: Operand, *, pad: bool = False, scale: Tensor | None = None) -> QuantizedTensor:
    """Round-to-nearest quantization with the scale that maps the largest magnitude to the largest code.

    Scales below the smallest normal float32 are raised to it.

    Args:
        tensor: ``[..., K]``, any floating dtype; computed in float32.
        operand: format, granularity, range and scales.
        pad: complete the last group of K (and the last rows of a block) with zeros, which change no scale
            and are dropped by :func:`dequantize`, instead of raising.
        scale: from calibration, broadcast to the shape of :attr:`QuantizedTensor.scale`; values beyond its
            range saturate.  ``None``: from the tensor's own values.

    Raises:
        ValueError: if a value is NaN or infinite, there is none, or a group does not divide its dimension; if a
            static operand has no scale, or one of another shape.
    """
    if scale is None and not operand.dynamic:
        raise ValueError(f"{operand} has no scale of its own values; give one from calibration, or drop -static")
    if tensor.numel() == 0:
        raise ValueError(f"a tensor of shape {list(tensor.shape)} has no elements to quantize")
    values = tensor.detach().float()
    if pad:
        values = pad_to_blocks(values, operand.granularity)
    view, shared = share_scales(values, operand.granularity)
    _check_finite(view)
    fmt, zero_point, tensor_scale = operand.format, None, None
    if scale is not None:
        scale = _given_scale(view, shared, operand, scale)
    elif operand.symmetric:
        scale, tensor_scale = _symmetric(view, shared, operand)
    if operand.symmetric:
        step = scale if tensor_scale is None else scale * tensor_scale
        rounded = fmt.round(torch.where(step > 0, view / step, 0.0))
        if isinstance(fmt, IntegerFormat):
            rounded = rounded.clamp(*integer_range(operand))
    else:
        assert isinstance(fmt, IntegerFormat)
        low, high = integer_range(operand)
        scale, zero_point = _asymmetric_scale(view, shared, fmt, low)
        rounded = ((view / scale).round() + zero_point).clamp(low, high)
    return QuantizedTensor(
        values=rounded.reshape(values.shape).to(storage_dtype(fmt) or rounded.dtype),
        scale=scale.to(storage_dtype(operand.scale)),
        tensor_scale=tensor_scale,
        zero_point=zero_point,
        shape=tensor.shape,
        operand=operand,
    )


def dequantize(quantized: QuantizedTensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """The values that the codes stand for, computed in float32 and rounded once to ``dtype``.

    They saturate at the largest value of ``dtype``, which the code next to a value in range may exceed.
    """
    view, _ = share_scales(quantized.values, quantized.operand.granularity)
    values = view.float()
    if quantized.zero_point is not None:
        values = values - quantized.zero_point
    values = (values * quantized.step).reshape(quantized.values.shape)
    largest = min(torch.finfo(dtype).max, torch.finfo(torch.float32).max)
    return values[tuple(slice(size) for size in quantized.shape)].clamp(-largest, largest).to(dtype)


class _FakeQuantize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, tensor: Tensor, operand: Operand, scale: Tensor | None) -> Tensor:
        return dequantize(quantize(tensor, operand, scale=scale), tensor.dtype)

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        return gradient, None, None


def fake_quantize(tensor: Tensor, operand: Operand, scale: Tensor | None = None) -> Tensor:
    """Quantize and dequantize in the tensor's dtype; the gradient passes unchanged.

    The scale covers the largest magnitude, so that at most half a step is clipped (more by clip search and
    by block formats) and the straight-through gradient (Bengio et al., 2013) is one everywhere.  A ``scale``
    is given as to :func:`quantize`.
    """
    return _FakeQuantize.apply(tensor, operand, scale)
