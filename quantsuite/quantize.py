"""Tensor to quantized tensor and back, and fake quantization with a straight-through gradient."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from quantsuite.formats import Format, IntegerFormat
from quantsuite.granularity import share_scales
from quantsuite.scheme import Operand

_SMALLEST_SCALE = torch.finfo(torch.float32).tiny


@dataclass(frozen=True, kw_only=True)
class QuantizedTensor:
    """Codes with their scales: ``(codes - zero_point) * scale`` is the value.

    Args:
        codes: the tensor's own shape, in the format's storage dtype, or as float32 values where
            the format has none.
        scale: float32, in the shape that :func:`~quantsuite.granularity.share_scales` broadcasts.
        zero_point: int32 in the shape of ``scale``; ``None`` if symmetric.
        operand: how the tensor was quantized.
    """

    codes: Tensor
    scale: Tensor
    zero_point: Tensor | None
    operand: Operand

    @property
    def nbytes(self) -> int:
        """Bytes of codes, scales and zero points as stored."""
        parts = (self.codes, self.scale, self.zero_point)
        return sum(part.numel() * part.element_size() for part in parts if part is not None)


def integer_range(operand: Operand) -> tuple[int, int]:
    """Smallest and largest code: ``-qmax .. qmax``, or all ``2**bits`` codes with a zero point."""
    qmax = int(operand.format.max)
    return (-qmax if operand.symmetric else -qmax - 1), qmax


def _check_finite(values: Tensor) -> None:
    if not torch.isfinite(values).all():
        bad = int((~torch.isfinite(values)).sum())
        raise ValueError(
            f"{bad} of {values.numel()} values are NaN or infinite; no scale can represent them. "
            "Repair or re-download the tensor"
        )


def _symmetric_scale(view: Tensor, shared: tuple[int, ...], fmt: Format) -> Tensor:
    """``amax / max``; blocks whose scale would not be a normal float32 get the smallest that is."""
    return (view.abs().amax(shared, keepdim=True) / fmt.max).clamp(min=_SMALLEST_SCALE)


def _asymmetric_scale(view: Tensor, shared: tuple[int, ...], fmt: IntegerFormat, qmin: int) -> tuple[Tensor, Tensor]:
    """``(max - min) / (2**bits - 1)`` over the block and zero, so that zero is represented exactly."""
    high = view.amax(shared, keepdim=True).clamp(min=0)
    low = view.amin(shared, keepdim=True).clamp(max=0)
    scale = (high / (2**fmt.bits - 1) - low / (2**fmt.bits - 1)).clamp(min=_SMALLEST_SCALE)
    return scale, (qmin - (low / scale).round()).to(torch.int32)


def quantize(tensor: Tensor, operand: Operand) -> QuantizedTensor:
    """Round-to-nearest quantization with the scale that maps the largest magnitude to ``max``.

    Args:
        tensor: ``[..., K]``, any floating dtype; computed in float32.
        operand: format, granularity and symmetry.

    Raises:
        ValueError: if a value is NaN or infinite, or a group does not divide its dimension.
    """
    view, shared = share_scales(tensor.detach().float(), operand.granularity)
    if tensor.numel() == 0:
        raise ValueError(f"a tensor of shape {list(tensor.shape)} has no elements to quantize")
    _check_finite(view)
    fmt = operand.format
    if operand.symmetric:
        scale, zero_point = _symmetric_scale(view, shared, fmt), None
        codes = fmt.round(view / scale)
    else:
        assert isinstance(fmt, IntegerFormat)
        low, high = integer_range(operand)
        scale, zero_point = _asymmetric_scale(view, shared, fmt, low)
        codes = ((view / scale).round() + zero_point).clamp(low, high)
    codes = codes.reshape(tensor.shape)
    if fmt.storage is not None:
        codes = codes.to(fmt.storage)
    return QuantizedTensor(codes=codes, scale=scale, zero_point=zero_point, operand=operand)


def dequantize(quantized: QuantizedTensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """The values that the codes stand for, computed in float32 and rounded once to ``dtype``."""
    view, _ = share_scales(quantized.codes, quantized.operand.granularity)
    values = view.float()
    if quantized.zero_point is not None:
        values = values - quantized.zero_point
    return (values * quantized.scale).reshape(quantized.codes.shape).to(dtype)


class _FakeQuantize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, tensor: Tensor, operand: Operand) -> Tensor:
        return dequantize(quantize(tensor, operand), tensor.dtype)

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return gradient, None


def fake_quantize(tensor: Tensor, operand: Operand) -> Tensor:
    """Quantize and dequantize in the tensor's dtype; the gradient passes unchanged.

    No value clips, since the scale covers the largest magnitude, so the straight-through
    gradient (Bengio et al., 2013) is one everywhere.
    """
    return _FakeQuantize.apply(tensor, operand)
