"""Right kernels that are not quantsuite's, one by one in what they may do otherwise, and such as fail."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from quantsuite.quantize import QuantizedTensor, quantize
from quantsuite.scheme import Scheme


class Reciprocal:
    """Multiplies by the reciprocal of a scale where others divide, and sums scaled values of blocks of K."""

    operation, dtypes, name = "linear", ("float32", "bfloat16"), "reciprocal"
    schemes: tuple[str, ...] = ("int8-row",)

    def pack(self, weight: Tensor, scheme: Scheme) -> tuple[Tensor, Tensor]:
        inverse = 127 / weight.float().abs().amax(1, keepdim=True)
        return (weight.float() * inverse).round().char(), 1 / inverse

    def linear(self, x: Tensor, packed: tuple[Tensor, Tensor]) -> Tensor:
        codes, step = packed
        parts = zip(x.float().split(48, -1), (codes.float() * step).split(48, -1), strict=True)
        total = x.new_zeros((*x.shape[:-1], len(codes)), dtype=torch.float32)
        for left, right in parts:
            total += left @ right.T
        return total.to(x.dtype)


class RoundsScales:
    """Keeps scales in float32 and multiplies by them in the activations' dtype, as it says."""

    operation, dtypes, name, rounds_scales = "linear", ("float32", "bfloat16"), "rounds-scales", True
    schemes: tuple[str, ...] = ("int8-row",)

    def pack(self, weight: Tensor, scheme: Scheme) -> QuantizedTensor:
        assert scheme.weight is not None
        return quantize(weight, scheme.weight)

    def unpack(self, packed: QuantizedTensor) -> QuantizedTensor:
        return packed

    def linear(self, x: Tensor, packed: QuantizedTensor) -> Tensor:
        y = (x @ packed.values.to(x.dtype).T).float()
        return (y * packed.scale.to(x.dtype).float().flatten()).to(x.dtype)


class RoundsSilently(RoundsScales):
    name, rounds_scales = "rounds-silently", False


class Prefills(RoundsScales):
    """Takes no single token."""

    name, rounds_scales = "prefills", False

    def linear(self, x: Tensor, packed: QuantizedTensor) -> Tensor:
        return ((x @ packed.values.to(x.dtype).T).float() * packed.scale.flatten()).to(x.dtype)

    def unsupported_shape(self, scheme: Scheme, device: str, m: int, n: int, k: int) -> str | None:
        return "takes two tokens or more" if m == 1 else None


class Raises(RoundsScales):
    name = "raises"

    def linear(self, x: Tensor, packed: Any) -> Tensor:
        raise RuntimeError("an illegal instruction\nand more")


KERNELS = [Reciprocal(), RoundsScales(), RoundsSilently(), Prefills(), Raises()]
