"""Plain torch: casts to FP8, and the quantized products of its operator library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from quantsuite.granularity import PerTensor, share_scales
from quantsuite.kernels.protocol import probe_product
from quantsuite.quantize import QuantizedTensor, quantize, storage_dtype
from quantsuite.scheme import Operand, Scheme

ALIGNMENT = 64
"""Bytes that torch's allocations for the CPU begin at multiples of."""


class Float8Cast:
    """``(x / scale).to(float8)``, the conversion of torch, with a scale of amax / max."""

    name = "torch-float8"
    operation = "quantize"
    dtypes = ("float32", "bfloat16")
    schemes = ("fp8-tensor", "fp8-row", "fp8-g128", "fp8e5m2-row")

    def quantize(self, x: Tensor, operand: Operand) -> Tensor:
        view, shared = share_scales(x.float(), operand.granularity)
        if not torch.isfinite(view).all():
            raise ValueError("values are NaN or infinite")
        scale = (view.abs().amax(shared, keepdim=True) / operand.format.max).clamp(min=torch.finfo(torch.float32).tiny)
        codes = (view / scale).clamp(-operand.format.max, operand.format.max).to(storage_dtype(operand.format))
        return (codes.float() * scale).reshape(x.shape)


@dataclass(frozen=True)
class _Packed:
    weight: QuantizedTensor
    scheme: Scheme


class _Product:
    """What the products share: packing by quantsuite, and asking the device with one small product."""

    operation = "linear"
    dtypes: ClassVar[tuple[str, ...]] = ("float32", "bfloat16")

    def pack(self, weight: Tensor, scheme: Scheme) -> _Packed:
        assert scheme.weight is not None
        return self.pack_quantized(quantize(weight, scheme.weight), scheme)

    def pack_quantized(self, quantized: QuantizedTensor, scheme: Scheme) -> Any:
        return _Packed(quantized, scheme)

    def unpack(self, packed: Any) -> QuantizedTensor:
        return packed.weight

    def linear(self, x: Tensor, packed: Any) -> Tensor:
        raise NotImplementedError

    def unsupported(self, scheme: Scheme, device: str) -> str | None:
        return probe_product(self, scheme, device, 32, 32, 64)

    def unsupported_shape(self, scheme: Scheme, device: str, m: int, n: int, k: int) -> str | None:
        return probe_product(self, scheme, device, m, n, k)


class Int8Matmul(_Product):
    """``_int_mm`` of int8 codes, summed in int32 and scaled in float32.

    Where K is 1, the CPU's of torch 2.13 returns numbers that are no products.
    """

    name = "torch-int-mm"
    schemes = ("int8-row:int8-token", "int8-tensor:int8-tensor", "int8-row:int8-tensor")
    accumulator_bits = 31

    def unsupported_shape(self, scheme: Scheme, device: str, m: int, n: int, k: int) -> str | None:
        if k == 1 and device == "cpu":
            return "K=1, of which _int_mm gives wrong products on a CPU; take K from 2 on"
        return super().unsupported_shape(scheme, device, m, n, k)

    def linear(self, x: Tensor, packed: _Packed) -> Tensor:
        assert packed.scheme.activation is not None
        flat = x.reshape(-1, x.shape[-1])
        activation = quantize(flat, packed.scheme.activation)
        sums = torch._int_mm(activation.values.contiguous(), packed.weight.values.contiguous().t())
        y = sums.float() * activation.scale * packed.weight.scale.flatten()
        return y.reshape(*x.shape[:-1], -1).to(x.dtype)


class Int8WeightOnly(_Product):
    """``_weight_int8pack_mm``: activations as they are, int8 codes and a scale a row in the activations' dtype.

    The CPU's bfloat16 kernel of torch 2.13 reads beyond the end of rows whose K is no multiple of 16 and brings the
    process down, so that such a K cannot be tried; so do activations that do not begin at a multiple of 64 bytes, which
    are copied.
    """

    name = "torch-int8pack"
    schemes = ("int8-row",)
    dtypes = ("float32", "bfloat16")
    rounds_scales = True

    def unsupported_shape(self, scheme: Scheme, device: str, m: int, n: int, k: int) -> str | None:
        if k % 16:
            return f"K={k} is no multiple of 16, beyond which _weight_int8pack_mm reads"
        return super().unsupported_shape(scheme, device, m, n, k)

    def linear(self, x: Tensor, packed: _Packed) -> Tensor:
        flat, scale = x.reshape(-1, x.shape[-1]).contiguous(), packed.weight.scale.flatten().to(x.dtype)
        flat = flat.clone() if flat.data_ptr() % ALIGNMENT else flat
        y = torch._weight_int8pack_mm(flat, packed.weight.values.contiguous(), scale)
        return y.reshape(*x.shape[:-1], -1)


class ScaledMatmul(_Product):
    """``_scaled_mm`` of E4M3 codes, with one scale an operand or one a row of each."""

    name = "torch-scaled-mm"
    schemes = ("fp8-tensor:fp8-tensor", "fp8-row:fp8-token")
    dtypes = ("bfloat16",)

    def linear(self, x: Tensor, packed: _Packed) -> Tensor:
        assert packed.scheme.activation is not None
        flat = x.reshape(-1, x.shape[-1])
        activation, weight = quantize(flat, packed.scheme.activation), packed.weight
        whole = isinstance(packed.scheme.activation.granularity, PerTensor)
        scales = (t.scale.reshape(()) if whole else t.scale for t in (activation, weight))
        x_scale, w_scale = scales
        y = torch._scaled_mm(
            activation.values.contiguous(),
            weight.values.contiguous().t(),
            x_scale,
            w_scale if whole else w_scale.t(),
            out_dtype=x.dtype,
        )
        return y.reshape(*x.shape[:-1], -1)


KERNELS = [Float8Cast(), Int8Matmul(), Int8WeightOnly(), ScaledMatmul()]
