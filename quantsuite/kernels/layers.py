"""Layers and fake quantizers of others as kernels, by one line each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from quantsuite.kernels.protocol import DEFAULT_DTYPES
from quantsuite.kernels.validation import KernelError, validate
from quantsuite.scheme import Operand, Scheme


@dataclass(frozen=True, kw_only=True)
class LayerKernel:
    """A replacement of ``nn.Linear``: packing is converting a layer that holds the weight."""

    name: str
    convert: Callable[[nn.Linear], nn.Module]
    schemes: Sequence[str]
    dtypes: Sequence[str]
    keeps_values: bool
    operation: str = "linear"

    def pack(self, weight: Tensor, scheme: Scheme) -> nn.Module:
        n, k = weight.shape
        layer = nn.Linear(k, n, bias=False, device="meta")
        layer.weight = nn.Parameter(weight.detach().clone())
        converted = self.convert(layer)
        if not isinstance(converted, nn.Module):
            raise KernelError(f"{self.name}: convert returned a {type(converted).__name__}, expected an nn.Module")
        return converted.eval()

    @torch.no_grad()
    def linear(self, x: Tensor, packed: nn.Module) -> Tensor:
        return packed(x)


@dataclass(frozen=True, kw_only=True)
class TrainableLayerKernel(LayerKernel):
    """A layer that is trained as it is: its weight is a parameter and gradients pass straight to it."""

    def trainable(self, packed: nn.Module) -> nn.Module:
        """The layer, which the caller puts into training."""
        return packed


@dataclass(frozen=True, kw_only=True)
class FakeQuantizerKernel:
    """A module of a tensor's values, a new one for each tensor, whose range it observes."""

    name: str
    make: Callable[[], nn.Module]
    schemes: Sequence[str]
    dtypes: Sequence[str]
    operation: str = "quantize"

    @torch.no_grad()
    def quantize(self, x: Tensor, operand: Operand) -> Tensor:
        return self.make()(x)


def kernel_of_layer(
    name: str,
    convert: Callable[[nn.Linear], nn.Module],
    schemes: Sequence[str],
    *,
    trains: bool = False,
    keeps_values: bool = False,
    dtypes: Sequence[str] = DEFAULT_DTYPES,
) -> Any:
    """The product of whatever takes the place of an ``nn.Linear``.

    Args:
        name: of the kernel.
        convert: makes the layer of an ``nn.Linear`` without a bias, which it may change.
        schemes: that the layer is of.
        trains: whether it is trained with its quantization in place: as ``train()`` it is to give what it gives as
            ``eval()``, and gradients are to pass straight.
        keeps_values: whether it keeps the weight's values, as a layer that trains does.
        dtypes: of the activations and the weight.

    Raises:
        KernelError: if a scheme is none.
    """
    kind = TrainableLayerKernel if trains else LayerKernel
    given = {"name": name, "convert": convert, "schemes": tuple(schemes), "dtypes": tuple(dtypes)}
    return validate(kind(**given, keeps_values=keeps_values or trains), name)


def kernel_of_fake_quantizer(
    name: str, make: Callable[[], nn.Module], schemes: Sequence[str], *, dtypes: Sequence[str] = DEFAULT_DTYPES
) -> Any:
    """The quantizer of a module that returns the values that a tensor's codes stand for.

    Args:
        name: of the kernel.
        make: makes the module, once for each tensor, since it may observe a range.
        schemes: operands that it is of, such as ``int8-row``.
        dtypes: of the tensors.

    Raises:
        KernelError: if an operand is none.
    """
    kernel = FakeQuantizerKernel(name=name, make=make, schemes=tuple(schemes), dtypes=tuple(dtypes))
    return validate(kernel, name)
