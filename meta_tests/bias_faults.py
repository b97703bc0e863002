"""Faults in biases, in codes that were chosen, and in last groups that are not full, and the check of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from meta_tests.mutants import (
    AsymmetricQuantizer,
    DequantizedProduct,
    PlainQuantizer,
    StoredProduct,
    exact_sums,
)
from quantsuite.granularity import share_scales
from quantsuite.quantize import QuantizedTensor, dequantize
from quantsuite.scheme import Operand

PLAIN = PlainQuantizer()


def keep(values: Tensor, given: Tensor, tail: int) -> Tensor:
    return values


@dataclass(frozen=True, kw_only=True)
class PaddedQuantizer:
    """Zeros complete the last group and are cut off again; both steps can be replaced."""

    quantizer: Any = PLAIN
    pad: Callable[[Tensor, int], Tensor] = lambda x, more: functional.pad(x, (0, more))
    tail: Callable[[Tensor, Tensor, int], Tensor] = keep
    name: str = "padded"
    operation: str = "quantize"
    schemes: tuple[str, ...] = ("int4-g32", "fp4-g32")

    def quantize(self, x: Tensor, operand: Operand) -> Tensor:
        size = operand.granularity.size  # type: ignore[union-attr]
        k = x.shape[-1]
        values = self.quantizer.quantize(self.pad(x, -k % size), operand)[..., :k]
        return self.tail(values, x, k % size)


PADDED_ASYMMETRIC = PaddedQuantizer(quantizer=AsymmetricQuantizer(), schemes=("int4-g32-asym",))
FAULTLESS_WITH_TAILS = [
    PaddedQuantizer(),
    PADDED_ASYMMETRIC,
    DequantizedProduct(quantizer=PaddedQuantizer(), schemes=("int4-g32",), name="padded-product"),
]


@dataclass(frozen=True, kw_only=True)
class BiasOfShapes(StoredProduct):
    """Adds the bias as often as the shapes of activations say."""

    times: Callable[[Tensor], int] = lambda x: 1

    def linear(self, x: Tensor, packed: Any, bias: Tensor | None = None) -> Tensor:
        return super().linear(x, packed, None if bias is None else bias * self.times(x))


def as_contiguous(y: Tensor, bias: Tensor) -> Tensor:
    return y + bias.as_strided(bias.shape, (1,))


def from_the_storage(y: Tensor, bias: Tensor) -> Tensor:
    return y + bias.as_strided(bias.shape, bias.stride(), 0)


def in_place(y: Tensor, bias: Tensor) -> Tensor:
    """The product is added to the bias."""
    total = y + bias
    bias.detach().mul_(2)
    return total


def raw_bits(y: Tensor, bias: Tensor) -> Tensor:
    """The bias is read in the dtype of the activations."""
    return y + bias.to(torch.float32) * (1 if bias.dtype == torch.float32 else 2)


def restricted(quantized: QuantizedTensor) -> QuantizedTensor:
    values = quantized.values.float().clamp(min=-quantized.operand.format.max)
    return replace(quantized, values=values.to(quantized.values.dtype))


def zero_point_inside(quantized: QuantizedTensor) -> QuantizedTensor:
    assert quantized.zero_point is not None
    return replace(quantized, zero_point=quantized.zero_point.clamp(-7, 6))


def scale_of_the_largest(quantized: QuantizedTensor) -> QuantizedTensor:
    """As if the largest magnitude of a block had the largest code; the codes stay."""
    view, shared = share_scales(dequantize(quantized), quantized.operand.granularity)
    scale = view.abs().amax(shared, keepdim=True) / quantized.operand.format.max
    near = (scale / quantized.scale - 1).abs() < 0.2
    return replace(quantized, scale=torch.where(near, scale, quantized.scale * 1.25))


def repeated(x: Tensor, more: int) -> Tensor:
    """The window of the last group reaches into the group before."""
    return torch.cat([x, 8 * x[..., :more]], -1) if x.shape[-1] > more else functional.pad(x, (0, more))


def as_it_came(values: Tensor, given: Tensor, tail: int) -> Tensor:
    return torch.cat(
        [values[..., : values.shape[-1] - tail], given[..., given.shape[-1] - tail :].to(values.dtype)], -1
    )


def first_16_of_tail(x: Tensor, w: Tensor) -> Tensor:
    tail = x.shape[1] % 32
    last = x.shape[1] - tail + 16 if tail > 16 else x.shape[1]
    return exact_sums(x[:, :last], w[:, :last])


UNEVEN = {"quantizer": PaddedQuantizer(), "schemes": ("int4-g32",)}
BIAS_FAULTS: list[tuple[str, Any, str, str]] = [
    (
        "bias of every part of split-K",
        BiasOfShapes(times=lambda x: -(-x.shape[-1] // 1024)),
        "int8-row",
        "product_bias_at_all_sizes",
    ),
    (
        "bias of every part of split-K, beyond 4096",
        BiasOfShapes(times=lambda x: -(-x.shape[-1] // 4096)),
        "int4-g32",
        "product_bias_at_all_sizes",
    ),
    (
        "bias of every batch",
        BiasOfShapes(times=lambda x: len(x) if x.ndim == 3 else 1),
        "int8-row:int8-token",
        "product_bias_at_all_sizes",
    ),
    (
        "no bias beyond 32 tokens",
        BiasOfShapes(times=lambda x: int(x.shape[0] <= 32)),
        "int8-row",
        "product_bias_at_all_sizes",
    ),
    ("bias read as contiguous", StoredProduct(add=as_contiguous), "int8-row", "product_bias_layouts"),
    ("bias read without its offset", StoredProduct(add=from_the_storage), "int8-row", "product_bias_layouts"),
    ("bias is changed", StoredProduct(add=in_place), "int4-g32", "product_bias_layouts"),
    ("bias of another dtype", StoredProduct(add=raw_bits), "int8-row", "product_bias_layouts"),
    ("-128 becomes -127", StoredProduct(accepts=restricted), "int8-row-full", "every_chosen_code"),
    ("-8 becomes -7", StoredProduct(accepts=restricted), "int4-g32-full", "every_chosen_code"),
    ("zero points at the ends clamped", StoredProduct(accepts=zero_point_inside), "int4-g32-asym", "every_chosen_code"),
    ("scale of the largest code", StoredProduct(accepts=scale_of_the_largest), "int4-g32", "chosen_scales"),
    ("unpacks -127 for -128", StoredProduct(shows=restricted), "int8-row-full", "every_chosen_code_is_kept"),
    ("unpacks other zero points", StoredProduct(shows=zero_point_inside), "int4-g32-asym", "every_chosen_code_is_kept"),
    ("tail as it came", PaddedQuantizer(tail=as_it_came), "int4-g32", "uneven_groups"),
    ("tail as it came", replace(PADDED_ASYMMETRIC, tail=as_it_came), "int4-g32-asym", "uneven_groups"),
    ("scale of a window of the tail", PaddedQuantizer(pad=repeated), "int4-g32", "uneven_groups"),
    (
        "half of a tail multiplied",
        DequantizedProduct(sums=first_16_of_tail, **UNEVEN),
        "int4-g32",
        "product_of_uneven_groups",
    ),
    (
        "tail's weight by the scale of a window",
        DequantizedProduct(quantizer=PaddedQuantizer(pad=repeated)),
        "int4-g32",
        "product_of_uneven_groups",
    ),
]
