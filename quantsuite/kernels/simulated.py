"""Simulated execution as a kernel: values of codes, multiplied in the dtype of the activations."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from quantsuite.quantize import QuantizedTensor, dequantize, fake_quantize, quantize
from quantsuite.scheme import Scheme


@dataclass(frozen=True)
class SimulatedWeight:
    """The values ``[N, K]`` of a weight's codes, and the scheme of the layer."""

    values: Tensor
    scheme: Scheme


class Simulated:
    """Fake quantization of both operands, and a plain product."""

    name = "ours-simulated"
    operation = "linear"
    dtypes = ("float32", "bfloat16", "float16")
    schemes = (
        *("int8-row", "fp8-g64", "int4-g128-asym", "int8-row:int8-token", "int4-row:int8-token"),
        *("fp8-row:fp8-token", "fp8-b128x128:fp8-g128", "mxfp4:mxfp8", "int8-row:int8-tensor-static"),
    )
    takes_bias = True
    keeps_values = True

    def pack(self, weight: Tensor, scheme: Scheme) -> SimulatedWeight:
        assert scheme.weight is not None
        return SimulatedWeight(dequantize(quantize(weight, scheme.weight), weight.dtype), scheme)

    def pack_quantized(self, quantized: QuantizedTensor, scheme: Scheme) -> SimulatedWeight:
        return SimulatedWeight(dequantize(quantized), scheme)

    def linear(
        self, x: Tensor, packed: SimulatedWeight, *, bias: Tensor | None = None, activation_scale: Tensor | None = None
    ) -> Tensor:
        if packed.scheme.activation is not None:
            x = fake_quantize(x, packed.scheme.activation, activation_scale)
        return functional.linear(x, packed.values.to(x.dtype), bias)


KERNELS = [Simulated()]
