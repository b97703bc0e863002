"""Simulated execution, and as a kernel: values of codes, multiplied in the dtype of the activations."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from quantsuite.quantize import QuantizedTensor, dequantize, fake_quantize, quantize
from quantsuite.scheme import Scheme


def multiply_simulated(
    x: Tensor, weight: Tensor, scheme: Scheme, *, bias: Tensor | None = None, activation_scale: Tensor | None = None
) -> Tensor:
    """``Q(x) W^T + b`` in the dtype of ``x``: activations are quantized and dequantized, the weight is as it is given.

    Args:
        x: ``[..., K]``.
        weight: ``[N, K]``, the values of its codes, in the dtype of ``x``.
        scheme: whose activations are quantized, if it has any.
        bias: ``[N]``.
        activation_scale: of static activations.

    Returns:
        ``[..., N]``; gradients pass straight through the quantization.
    """
    if scheme.activation is not None and x.numel():
        x = fake_quantize(x, scheme.activation, activation_scale)
    return functional.linear(x, weight, bias)


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
        weight = packed.values.to(x.dtype)
        return multiply_simulated(x, weight, packed.scheme, bias=bias, activation_scale=activation_scale)


KERNELS = [Simulated()]
