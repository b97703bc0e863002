"""optimum-quanto's quantized linear layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from quantsuite.kernels.loading import require
from quantsuite.kernels.protocol import probe_product
from quantsuite.scheme import Scheme

quanto = require("optimum.quanto", extra="quanto")

_TYPES = {"int8": "qint8", "int4": "qint4", "int2": "qint2", "fp8": "qfloat8_e4m3fn", "fp8e5m2": "qfloat8_e5m2"}


class WeightOnly:
    """``quantize`` and ``freeze`` of a linear layer, weights only."""

    name = "quanto-weight-only"
    operation = "linear"
    dtypes = ("float32", "bfloat16")
    schemes = ("int8-row", "fp8-row", "fp8e5m2-row", "int4-g128-asym", "int2-g128-asym")

    def unsupported(self, scheme: Scheme, device: str) -> str | None:
        return probe_product(self, scheme, device, 32, 32, 128)

    def unsupported_shape(self, scheme: Scheme, device: str, m: int, n: int, k: int) -> str | None:
        if str(scheme) == "int8-row" and k % 16:
            return f"K={k} is no multiple of 16, beyond which torch._weight_int8pack_mm reads"
        return probe_product(self, scheme, device, m, n, k)

    def pack(self, weight: Tensor, scheme: Scheme) -> Any:
        assert scheme.weight is not None
        n, k = weight.shape
        layer = nn.Linear(k, n, bias=False, device="meta")
        layer.weight = nn.Parameter(weight.clone(), requires_grad=False)
        holder = nn.Sequential(layer)
        quanto.quantize(holder, weights=getattr(quanto, _TYPES[scheme.weight.format.name]))
        quanto.freeze(holder)
        return holder

    @torch.no_grad()
    def linear(self, x: Tensor, packed: nn.Module) -> Tensor:
        return packed(x)


KERNELS = [WeightOnly()]
