"""Hypothesis strategies for schemes and their parts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from quantsuite.formats import FORMATS, IntegerFormat
from quantsuite.granularity import Granularity, PerBlock, PerGroup, PerHead, PerRow, PerTensor, PerToken
from quantsuite.scale_formats import SCALE_FORMATS
from quantsuite.scheme import BLOCK_FORMATS, Operand, Scheme


def granularities() -> st.SearchStrategy[Granularity]:
    """Every kind of granularity, with group and block sizes up to 4,096."""
    sizes = st.integers(1, 4096)
    named = st.sampled_from([PerTensor(), PerRow(), PerToken(), PerHead()])
    return st.one_of(named, st.builds(PerGroup, sizes), st.builds(PerBlock, sizes, sizes))


@st.composite
def operands(draw: st.DrawFn) -> Operand:
    """Operands of every format, range and scale, those of block formats among them."""
    if draw(st.booleans()):
        operand = draw(st.sampled_from(list(BLOCK_FORMATS.values())))
        return replace(operand, dynamic=draw(st.booleans()))
    fmt = draw(st.sampled_from(list(FORMATS.values())))
    kinds: list[dict[str, Any]] = [{"scale": scale} for scale in SCALE_FORMATS.values()] + [{"clip": True}]
    if isinstance(fmt, IntegerFormat):
        kinds += [{"symmetric": False}, {"full_range": True}]
    return Operand(
        format=fmt, granularity=draw(granularities()), dynamic=draw(st.booleans()), **draw(st.sampled_from(kinds))
    )


def _length(granularity: Granularity) -> int:
    return granularity.size if isinstance(granularity, PerGroup) else 32


@st.composite
def tensors(draw: st.DrawFn, operand: Operand) -> Tensor:
    """Finite matrices that an operand divides, in any floating dtype and of any magnitude.

    From denormal to 1e30; with rows and columns of zeros, planted outliers, a mean off zero, or values
    halfway between codes.
    """
    block = operand.granularity if isinstance(operand.granularity, PerBlock) else None
    rows = draw(st.integers(1, 4)) * (block.rows if block else 1)
    columns = draw(st.integers(1, 3)) * (block.columns if block else _length(operand.granularity))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    values = torch.randn(rows, columns, generator=generator)
    kind = draw(st.sampled_from(["normal", "shifted", "outliers", "zeros", "ties", "constant"]))
    if kind == "shifted":
        values = values + draw(st.floats(-100, 100))
    elif kind == "outliers":
        places = torch.randint(values.numel(), (3,), generator=generator)
        values.view(-1)[places] *= 10.0 ** draw(st.integers(1, 8))
    elif kind == "zeros":
        values[draw(st.integers(0, rows - 1))] = 0
        values[:, :: draw(st.integers(1, columns))] = 0
    elif kind == "ties":
        values = (2 * values).round() + 0.5
        values[:, 0] = operand.format.max
    elif kind == "constant":
        values = torch.full_like(values, draw(st.sampled_from([1.0, -1.0, 1 / 3])))
    values = values * 10.0 ** draw(st.integers(-45, 22 if kind == "outliers" else 28))
    dtype = draw(st.sampled_from([torch.float32, torch.bfloat16, torch.float16]))
    limit = torch.finfo(dtype).max
    return values.clamp(-limit, limit).to(dtype)


@st.composite
def schemes(draw: st.DrawFn) -> Scheme:
    """Schemes with and without activation, KV cache and method."""
    weight = draw(st.none() | operands())
    return Scheme(
        weight=weight,
        activation=None if weight is None else draw(st.none() | operands()),
        kv_cache=draw(st.none() | operands()),
        method=draw(st.none() | st.sampled_from(["awq", "gptq", "smoothquant"])),
    )
