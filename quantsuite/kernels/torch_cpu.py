"""Torch's quantized products that x86 and ARM processors run: oneDNN's INT8, and two with weights of four bits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from quantsuite.granularity import PerGroup
from quantsuite.kernels.protocol import probe_product
from quantsuite.quantize import QuantizedTensor, quantize
from quantsuite.scheme import Operand, Scheme

FOUR_BITS = 16
"""Codes of a weight of four bits; the middle one stands for zero where there is no zero point."""


@dataclass(frozen=True)
class _Packed:
    """What an operator packed of ``[n, k]``, and the scales that it takes beside."""

    weight: Tensor
    scales: Tensor
    shape: tuple[int, int]
    scheme: Scheme


class _CpuProduct:
    """What the operators share: codes by quantsuite, and asking the processor with one small product."""

    operation = "linear"
    dtypes: ClassVar[tuple[str, ...]] = ("float32", "bfloat16")
    least_shape: ClassVar[tuple[int, int, int]] = (32, 32, 64)

    def pack(self, weight: Tensor, scheme: Scheme) -> _Packed:
        assert scheme.weight is not None
        return self.pack_quantized(quantize(weight, scheme.weight), scheme)

    def pack_quantized(self, quantized: QuantizedTensor, scheme: Scheme) -> _Packed:
        raise NotImplementedError

    def linear(self, x: Tensor, packed: _Packed) -> Tensor:
        raise NotImplementedError

    def unsupported(self, scheme: Scheme, device: str) -> str | None:
        if not device.startswith("cpu"):
            return f"{self.name} runs on processors alone, not on {device}"  # type: ignore[attr-defined]
        return probe_product(self, scheme, device, *self.least_shape)  # type: ignore[arg-type]

    def unsupported_shape(self, scheme: Scheme, device: str, m: int, n: int, k: int) -> str | None:
        return probe_product(self, scheme, device, m, n, k)  # type: ignore[arg-type]


class OneDnnInt8(_CpuProduct):
    """``onednn::qlinear_pointwise``: int8 codes of both operands, one scale of ``x`` and one a row of the weight.

    The scale of ``x`` is given by calibration, or taken from it, which changes nothing of the operator; checks of the
    first stand for both, since each call takes milliseconds.
    """

    name = "torch-onednn-int8"
    schemes = ("int8-row:int8-tensor-static",)
    accumulator_bits = 31

    def takes(self, scheme: Scheme) -> bool:
        operand = scheme.activation
        always = operand and replace(scheme, activation=replace(operand, dynamic=True))
        return always == Scheme.parse("int8-row:int8-tensor")

    def pack_quantized(self, quantized: QuantizedTensor, scheme: Scheme) -> _Packed:
        n, k = quantized.shape
        weight = torch.ops.onednn.qlinear_prepack(quantized.values.contiguous(), None)
        return _Packed(weight, quantized.scale.flatten().contiguous(), (n, k), scheme)

    def linear(self, x: Tensor, packed: _Packed, *, activation_scale: Tensor | None = None) -> Tensor:
        assert packed.scheme.activation is not None
        flat = x.reshape(-1, x.shape[-1]).contiguous()
        tokens = quantize(flat, packed.scheme.activation, scale=activation_scale)
        zeros = torch.zeros_like(packed.scales, dtype=torch.int32)
        given = (packed.weight, packed.scales, zeros, None, 1.0, 0, x.dtype, "none", [], "")
        y = torch.ops.onednn.qlinear_pointwise(tokens.values, tokens.scale.item(), 0, *given)
        return y.reshape(*x.shape[:-1], packed.shape[0])

    def nbytes(self, packed: _Packed) -> int:
        """Of the codes, which lie in a tensor of oneDNN's that has no storage, and the scales."""
        return packed.weight.numel() + packed.scales.nbytes


class Int4WeightOnly(_CpuProduct):
    """``_weight_int4pack_mm_for_cpu``: ``(q - 8) scale + zero``, scale and zero of a group in the dtype of ``x``."""

    name = "torch-int4pack-cpu"
    schemes = ("int4-g32", "int4-g64", "int4-g128")
    dtypes = ("float32", "bfloat16", "float16")
    least_shape = (32, 32, 128)
    rounds_scales = True

    def pack_quantized(self, quantized: QuantizedTensor, scheme: Scheme) -> _Packed:
        n, k = quantized.shape
        weight = torch.ops.aten._convert_weight_to_int4pack_for_cpu(_from_zero(quantized).int(), 1)
        scale = quantized.scale.reshape(n, -1).t()
        return _Packed(weight, torch.stack([scale, torch.zeros_like(scale)], -1).contiguous(), (n, k), scheme)

    def linear(self, x: Tensor, packed: _Packed) -> Tensor:
        flat = x.reshape(-1, x.shape[-1]).contiguous()
        size = packed.shape[1] // len(packed.scales)
        y = torch.ops.aten._weight_int4pack_mm_for_cpu(flat, packed.weight, size, packed.scales.to(x.dtype))
        return y.reshape(*x.shape[:-1], packed.shape[0])


class DynamicInt4(_CpuProduct):
    """``_dyn_quant_matmul_4bit``: weights of four bits, tokens quantized to eight with a zero point inside.

    Groups take float32 alone.
    """

    name = "torch-dyn-quant-4bit"
    schemes = ("int4-g32:int8-token-asym", "int4-g64:int8-token-asym")
    dtypes = ("float32",)

    def pack_quantized(self, quantized: QuantizedTensor, scheme: Scheme) -> _Packed:
        n, k = quantized.shape
        codes = _from_zero(quantized).to(torch.uint8)
        pairs = (codes[:, ::2] | codes[:, 1::2] << 4).contiguous()
        scale = quantized.scale.reshape(n, -1).contiguous()
        weight = torch.ops.aten._dyn_quant_pack_4bit_weight(pairs, scale, None, _group(scheme.weight, k), k, n)
        return _Packed(weight, scale.new_empty(0), (n, k), scheme)

    def unsupported_shape(self, scheme: Scheme, device: str, m: int, n: int, k: int) -> str | None:
        if k % 2:
            return f"K={k} is odd, whose last code has no other to share a byte with"
        return super().unsupported_shape(scheme, device, m, n, k)

    def linear(self, x: Tensor, packed: _Packed) -> Tensor:
        n, k = packed.shape
        flat = x.reshape(-1, k).contiguous()
        y = torch.ops.aten._dyn_quant_matmul_4bit(flat, packed.weight, _group(packed.scheme.weight, k), k, n)
        return y.reshape(*x.shape[:-1], n)


class DynamicInt4Rows(DynamicInt4):
    """The same with one scale a row."""

    name = "torch-dyn-quant-4bit-row"
    schemes = ("int4-row:int8-token-asym",)
    dtypes = ("float32", "bfloat16")


def _from_zero(quantized: QuantizedTensor) -> Tensor:
    """Codes ``[N, K]`` of four bits, counted from the lowest."""
    n, k = quantized.shape
    return (quantized.values.reshape(n, -1)[:, :k] + FOUR_BITS // 2).contiguous()


def _group(operand: Operand | None, k: int) -> int:
    """How many columns share a scale."""
    assert operand is not None
    return operand.granularity.size if isinstance(operand.granularity, PerGroup) else k


KERNELS: list[Any] = [OneDnnInt8(), Int4WeightOnly(), DynamicInt4(), DynamicInt4Rows()]
