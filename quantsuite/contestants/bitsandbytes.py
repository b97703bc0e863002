"""bitsandbytes: LLM.int8 and its four-bit formats."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from quantsuite.granularity import PerGroup
from quantsuite.kernels.loading import require
from quantsuite.kernels.protocol import probe, probe_product
from quantsuite.scheme import Operand, Scheme

bnb = require("bitsandbytes", extra="bitsandbytes")


class FourBit:
    """``quantize_4bit`` and back, blocks of 64 values in the order of memory.

    Its ``fp4`` is a table of its own, which has 1/192 of the largest value where E2M1 has 1/12: it is no ``fp4`` here.
    """

    name = "bitsandbytes-4bit"
    operation = "quantize"
    dtypes = ("float32", "bfloat16")
    schemes = ("nf4-g64",)

    def unsupported(self, operand: Operand, device: str) -> str | None:
        return probe(lambda: self.quantize(torch.ones(1, 64, device=device), operand))

    def quantize(self, x: Tensor, operand: Operand) -> Tensor:
        assert isinstance(operand.granularity, PerGroup)
        if x.shape[-1] % operand.granularity.size:  # a block would go on in the next row
            raise ValueError(f"K={x.shape[-1]} is no multiple of {operand.granularity.size}; pad it")
        codes, state = bnb.functional.quantize_4bit(
            x, blocksize=operand.granularity.size, quant_type=operand.format.name
        )
        return bnb.functional.dequantize_4bit(codes, state)


class Int8Linear:
    """``Linear8bitLt`` with no outlier columns: LLM.int8 of vectors on both sides."""

    name = "bitsandbytes-int8"
    operation = "linear"
    dtypes = ("float32", "bfloat16")
    schemes = ("int8-row:int8-token",)

    def unsupported(self, scheme: Scheme, device: str) -> str | None:
        return probe_product(self, scheme, device, 32, 32, 64)

    def pack(self, weight: Tensor, scheme: Scheme) -> Any:
        n, k = weight.shape
        layer = bnb.nn.Linear8bitLt(k, n, bias=False, has_fp16_weights=False, threshold=0.0)
        layer.weight = bnb.nn.Int8Params(weight.clone(), requires_grad=False, has_fp16_weights=False)
        return layer.to(weight.device)

    @torch.no_grad()
    def linear(self, x: Tensor, packed: nn.Module) -> Tensor:
        return packed(x)


KERNELS = [FourBit(), Int8Linear()]
