"""quantsuite's own quantizer as a kernel."""

from __future__ import annotations

from torch import Tensor

from quantsuite.quantize import dequantize, quantize
from quantsuite.scheme import Operand


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


KERNELS = [Quantizer()]
