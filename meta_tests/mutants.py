"""A plain quantizer and a plain product, made of steps that a test can exchange for wrong ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from quantsuite.granularity import share_scales
from quantsuite.kernels import stored
from quantsuite.quantize import QuantizedTensor, dequantize, largest_code, quantize
from quantsuite.scale_formats import SMALLEST_SCALE
from quantsuite.scheme import Operand, Scheme

Shared = tuple[int, ...]


def amax_scale(view: Tensor, shared: Shared, operand: Operand) -> Tensor:
    return (view.abs().amax(shared, keepdim=True) / largest_code(operand)).clamp(min=SMALLEST_SCALE)


def nearest(values: Tensor, operand: Operand) -> Tensor:
    return operand.format.round(values)


def in_range(codes: Tensor, operand: Operand) -> Tensor:
    low = operand.format.min if operand.full_range else -operand.format.max
    return codes.clamp(low, operand.format.max)


@dataclass(frozen=True, kw_only=True)
class PlainQuantizer:
    """``clip(round(x / scale)) * scale``, symmetric; every step can be replaced."""

    before: Callable[[Tensor], Tensor] = lambda x: x
    scale: Callable[[Tensor, Shared, Operand], Tensor] = amax_scale
    round: Callable[[Tensor, Operand], Tensor] = nearest
    clip: Callable[[Tensor, Operand], Tensor] = in_range
    scale_used: Callable[[Tensor], Tensor] = lambda scale: scale
    after: Callable[[Tensor], Tensor] = lambda values: values
    refuses: bool = True
    name: str = "plain"
    operation: str = "quantize"
    schemes: tuple[str, ...] = ("int8-row", "int8-row-full", "int4-g32", "fp8-row", "fp4-g32")

    def quantize(self, x: Tensor, operand: Operand) -> Tensor:
        if self.refuses and not torch.isfinite(x).all():
            raise ValueError("NaN or infinite")
        view, shared = share_scales(self.before(x).float(), operand.granularity)
        scale = self.scale(view, shared, operand)
        codes = self.clip(self.round(view / scale, operand), operand)
        return self.after((codes * self.scale_used(scale)).reshape(x.shape))


@dataclass(frozen=True, kw_only=True)
class AsymmetricQuantizer:
    """``(clip(round(x / scale) + zero) - zero) * scale``."""

    zero: Callable[[Tensor], Tensor] = torch.round
    high: Callable[[Tensor], Tensor] = lambda high: high.clamp(min=0)
    minus: Callable[[Tensor], Tensor] = lambda zero: zero
    name: str = "plain-asymmetric"
    operation: str = "quantize"
    schemes: tuple[str, ...] = ("int8-row-asym",)

    def quantize(self, x: Tensor, operand: Operand) -> Tensor:
        if not torch.isfinite(x).all():
            raise ValueError("NaN or infinite")
        view, shared = share_scales(x.float(), operand.granularity)
        steps = 2**operand.format.bits - 1
        high, low = self.high(view.amax(shared, keepdim=True)), view.amin(shared, keepdim=True).clamp(max=0)
        scale = (high / steps - low / steps).clamp(min=SMALLEST_SCALE)
        zero = self.zero(-low / scale)
        codes = ((view / scale).round() + zero).clamp(0, steps)
        return ((codes - self.minus(zero)) * scale).reshape(x.shape)


def exact_sums(x: Tensor, weight: Tensor) -> Tensor:
    return (x.double() @ weight.double().T).float()


@dataclass(frozen=True, kw_only=True)
class PlainProduct:
    """Codes multiplied and summed, then scaled by rows and tokens; every step can be replaced."""

    sums: Callable[[Tensor, Tensor], Tensor] = exact_sums
    x_scale: Callable[[Tensor], Tensor] = lambda scale: scale
    w_scale: Callable[[Tensor], Tensor] = lambda scale: scale
    before: Callable[[Tensor], Tensor] = lambda x: x
    after: Callable[[Tensor], Tensor] = lambda y: y
    quantizes_x: bool = False
    refuses: bool = True
    accumulator_bits: int = 24
    keeps_values: bool = True
    name: str = "plain-product"
    operation: str = "linear"
    schemes: tuple[str, ...] = ("int8-row:int8-token", "fp8-row:fp8-token", "int8-row")

    def _codes(self, matrix: Tensor, operand: Operand) -> tuple[Tensor, Tensor]:
        if self.refuses and not torch.isfinite(matrix).all():
            raise ValueError("NaN or infinite")
        scale = amax_scale(matrix.float(), (-1,), operand)
        return in_range(nearest(matrix.float() / scale, operand), operand), scale

    def pack(self, weight: Tensor, scheme: Scheme) -> Any:
        assert scheme.weight is not None
        codes, scale = self._codes(weight, scheme.weight)
        return codes, self.w_scale(scale), scheme.activation or (scheme.weight if self.quantizes_x else None)

    def linear(self, x: Tensor, packed: Any) -> Tensor:
        w_codes, w_scale, operand = packed
        flat = self.before(x.reshape(-1, x.shape[-1]))
        if self.refuses and not torch.isfinite(flat).all():
            raise ValueError("NaN or infinite")
        codes, scale = (flat.float(), torch.ones(())) if operand is None else self._codes(flat, operand)
        y = self.sums(codes, w_codes) * self.x_scale(scale) * w_scale.T
        return self.after(y).reshape(*x.shape[:-1], w_codes.shape[0]).to(x.dtype)


@dataclass(frozen=True, kw_only=True)
class DequantizedProduct:
    """Activations, not quantized, with the values of a quantizer that may have a fault of its own."""

    quantizer: Any = PlainQuantizer()
    before: Callable[[Tensor], Tensor] = lambda x: x
    sums: Callable[[Tensor, Tensor], Tensor] = exact_sums
    keeps_values: bool = True
    name: str = "dequantized-product"
    operation: str = "linear"
    schemes: tuple[str, ...] = ("int8-row", "int4-g32")

    def pack(self, weight: Tensor, scheme: Scheme) -> Any:
        assert scheme.weight is not None
        return self.quantizer.quantize(weight, scheme.weight)

    def linear(self, x: Tensor, packed: Any) -> Tensor:
        flat = self.before(x.reshape(-1, x.shape[-1]))
        if not torch.isfinite(flat).all():
            raise ValueError("NaN or infinite")
        return self.sums(flat, packed).reshape(*x.shape[:-1], len(packed)).to(x.dtype)


@dataclass(frozen=True, kw_only=True)
class StoredProduct:
    """A weight stored as quantsuite stores it, with all that a layer asks for; every step can be replaced."""

    chooses: Callable[[QuantizedTensor], QuantizedTensor] = lambda quantized: quantized
    accepts: Callable[[QuantizedTensor], QuantizedTensor] = lambda quantized: quantized
    shows: Callable[[QuantizedTensor], QuantizedTensor] = lambda quantized: quantized
    keeps: Callable[[Tensor], Any] = lambda weight: None
    add: Callable[[Tensor, Tensor], Tensor] = torch.add
    takes_bias: bool = True
    name: str = "stored-product"
    operation: str = "linear"
    schemes: tuple[str, ...] = ("int8-row", "int4-g32", "int8-row:int8-token")

    def pack(self, weight: Tensor, scheme: Scheme) -> Any:
        assert scheme.weight is not None
        quantized = self.chooses(quantize(weight, scheme.weight))
        return stored.pack_quantized(quantized, scheme), self.keeps(weight)

    def pack_quantized(self, quantized: QuantizedTensor, scheme: Scheme) -> Any:
        return stored.pack_quantized(self.accepts(quantized), scheme), None

    def unpack(self, packed: Any) -> QuantizedTensor:
        return self.shows(stored.unpack_weight(packed[0]))

    def linear(self, x: Tensor, packed: Any, bias: Tensor | None = None) -> Tensor:
        weight = packed[0]
        values = (
            x
            if weight.scheme.activation is None or x.numel() == 0
            else dequantize(quantize(x, weight.scheme.activation))
        )
        y = exact_sums(values, dequantize(stored.unpack_weight(weight)))
        return (y if bias is None else self.add(y, bias)).to(x.dtype)
