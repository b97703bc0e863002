"""Layers that are trained with their quantization in place: a right one, and wrong ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from quantsuite.kernels.layers import kernel_of_layer
from quantsuite.kernels.simulated import multiply_simulated
from quantsuite.quantize import dequantize, fake_quantize, quantize
from quantsuite.scheme import Operand, Scheme


class FakeLinear(nn.Module):
    """A right layer of any scheme; what training adds may be replaced."""

    def __init__(self, linear: nn.Linear, scheme: Scheme) -> None:
        super().__init__()
        self.weight, self.scheme = linear.weight, scheme

    def quantized(self, tensor: Tensor, operand: Operand) -> Tensor:
        return fake_quantize(tensor, operand)

    def forward(self, x: Tensor) -> Tensor:
        assert self.scheme.weight is not None
        return multiply_simulated(x, self.quantized(self.weight, self.scheme.weight), self.scheme)


class Detached(FakeLinear):
    """No gradient reaches the weight."""

    def quantized(self, tensor: Tensor, operand: Operand) -> Tensor:
        return dequantize(quantize(tensor.detach(), operand), tensor.dtype)


class Masked(FakeLinear):
    """The gradient of negative weights is zero."""

    def quantized(self, tensor: Tensor, operand: Operand) -> Tensor:
        values = fake_quantize(tensor, operand)
        return torch.where(tensor < 0, values.detach(), values)


class Noisy(FakeLinear):
    """A tenth of a per cent is added in training."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (1.001 if self.training else 1.0)


class Unquantized(FakeLinear):
    """Training leaves out the quantization."""

    def quantized(self, tensor: Tensor, operand: Operand) -> Tensor:
        return tensor if self.training else super().quantized(tensor, operand)


class Doubled(FakeLinear):
    """The gradient of the activations comes twice."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + (x - x.detach()))


def kernel_of(layer: type[FakeLinear], scheme: str) -> Any:
    """The kernel of a layer, as an author would make it."""
    parsed = Scheme.parse(scheme)
    return kernel_of_layer(layer.__name__, lambda linear: layer(linear, parsed), [scheme], trains=True)


CHECK = "training_is_inference"
TRAINING_FAULTS: list[tuple[str, Any, str, str]] = [
    (f"{layer.__name__.lower()} in training, {scheme}", kernel_of(layer, scheme), scheme, CHECK)
    for layer in (Detached, Masked, Noisy, Unquantized, Doubled)
    for scheme in ("int8-row", "int4-g32:int8-token")
]
