"""Hypothesis strategies for schemes and their parts."""

from __future__ import annotations

from hypothesis import strategies as st

from quantsuite.formats import FORMATS, IntegerFormat
from quantsuite.granularity import Granularity, PerBlock, PerGroup, PerHead, PerRow, PerTensor, PerToken
from quantsuite.scheme import Operand, Scheme


def granularities() -> st.SearchStrategy[Granularity]:
    """Every kind of granularity, with group and block sizes up to 4,096."""
    sizes = st.integers(1, 4096)
    named = st.sampled_from([PerTensor(), PerRow(), PerToken(), PerHead()])
    return st.one_of(named, st.builds(PerGroup, sizes), st.builds(PerBlock, sizes, sizes))


@st.composite
def operands(draw: st.DrawFn) -> Operand:
    """Operands of every format; a zero point only where the format has integers."""
    fmt = draw(st.sampled_from(list(FORMATS.values())))
    return Operand(
        format=fmt,
        granularity=draw(granularities()),
        symmetric=draw(st.booleans()) if isinstance(fmt, IntegerFormat) else True,
        dynamic=draw(st.booleans()),
    )


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
