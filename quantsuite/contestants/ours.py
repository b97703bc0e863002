"""quantsuite's own quantizer and quantized linear layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from quantsuite.linear import QuantizedLinear, UnsupportedError, check_supported
from quantsuite.quantize import dequantize, quantize
from quantsuite.scheme import CATALOGUE, Execution, Operand, Scheme


class Quantizer:
    """Round to nearest in every format and granularity."""

    name = "ours"
    operation = "quantize"
    dtypes = ("float32", "bfloat16", "float16")
    schemes = (
        *("int8-tensor", "int8-row", "int8-token", "int8-g64", "int8-b16x32", "int8-row-asym", "int8-row-full"),
        *("int4-g128", "int4-g32-asym", "int4-g32-full", "int4-g128-clip", "int3-g64", "int2-row", "int8-row-sbf16"),
        *("fp8-tensor", "fp8-row", "fp8-b32x64", "fp8e5m2-row", "fp6e2m3-g32", "fp6e3m2-row", "fp4-g32", "nf4-g64"),
        *("mxfp8", "mxfp8e5m2", "mxfp6e2m3", "mxfp6e3m2", "mxfp4", "mxint8", "nvfp4"),
    )

    def quantize(self, x: Tensor, operand: Operand) -> Tensor:
        return dequantize(quantize(x, operand))


@dataclass(frozen=True)
class Linear:
    """The layer, simulated or real."""

    execution: Execution
    schemes: tuple[str, ...]
    operation: str = "linear"
    dtypes: tuple[str, ...] = ("float32", "bfloat16", "float16")

    @property
    def name(self) -> str:
        return f"ours-{self.execution}"

    def unsupported(self, scheme: Scheme, device: str) -> str | None:
        try:
            check_supported(scheme, self.execution, device)
        except UnsupportedError as error:
            return str(error)
        return None

    def pack(self, weight: Tensor, scheme: Scheme) -> nn.Module:
        return QuantizedLinear(weight, None, scheme, self.execution).freeze()

    @torch.no_grad()
    def linear(self, x: Tensor, packed: Any) -> Tensor:
        return packed(x)


_PACKED = ("int4-g128", "int4-g128-asym", "nf4-g64", "fp4-g32", "mxfp4", "nvfp4")
_BOTH = ("int8-row:int8-token", "int4-row:int8-token", "fp8-row:fp8-token", "fp8-b128x128:fp8-g128", "mxfp4:mxfp8")

CONTESTANTS = [
    Quantizer(),
    Linear("real", (*map(str, CATALOGUE), *_PACKED, *_BOTH)),
    Linear("simulated", ("int8-row", "fp8-g64", "int4-g128-asym", *_BOTH)),
]
