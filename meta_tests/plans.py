"""Schemes, names and codes of plans that several tests share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from quantsuite.quantize import QuantizedTensor, integer_range
from quantsuite.scheme import Scheme

UP, DOWN, Q = "model.layers.0.mlp.up_proj", "model.layers.1.mlp.down_proj", "model.layers.0.self_attn.q_proj"
INT8, INT4, STATIC = map(Scheme.parse, ("int8-row", "int4-g32", "int8-row:int8-tensor-static"))


def assert_same_bits(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        other = theirs[name]
        assert (tensor.dtype, tensor.shape) == (other.dtype, other.shape), name
        assert torch.equal(tensor.flatten().view(torch.uint8), other.flatten().view(torch.uint8)), name


def nudged(weight: QuantizedTensor) -> QuantizedTensor:
    """Codes as a method with an eye on errors chooses them: some are the next ones to the nearest."""
    low, high = integer_range(weight.operand)
    codes = weight.values.clone()
    codes[::2, ::3] = torch.where(codes[::2, ::3] < high, codes[::2, ::3] + 1, codes[::2, ::3] - 1)
    assert low <= codes.min() and codes.max() <= high
    return replace(weight, values=codes)
