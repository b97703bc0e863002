"""Number formats: which values a code can stand for, and rounding to them.  No scales here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Format(Protocol):
    """A finite set of representable values.

    Attributes:
        name: the format's name in a scheme.
        max: the largest finite value, the one a block's largest magnitude is scaled to.
        bits: bits of one code.
        storage: the torch dtype that holds one code a byte, or ``None`` if codes need packing.
    """

    @property
    def name(self) -> str: ...
    @property
    def max(self) -> float: ...
    @property
    def bits(self) -> int: ...
    @property
    def storage(self) -> torch.dtype | None: ...

    def round(self, values: Tensor) -> Tensor:
        """The nearest representable values (float32), ties to even, saturating at ``max``; NaN stays NaN."""
        ...


@dataclass(frozen=True, kw_only=True)
class IntegerFormat:
    """Signed integers, symmetric: ``-max .. max`` with ``max = 2**(bits - 1) - 1``."""

    name: str
    bits: int

    @property
    def max(self) -> float:
        return float(2 ** (self.bits - 1) - 1)

    @property
    def storage(self) -> torch.dtype | None:
        return torch.int8 if self.bits == 8 else None

    def round(self, values: Tensor) -> Tensor:
        return values.float().round().clamp(-self.max, self.max)


@dataclass(frozen=True, kw_only=True)
class FloatFormat:
    """A sign, ``exponent_bits`` and ``mantissa_bits``, with subnormals.

    Args:
        smallest_exponent: of a normal number, that is one minus the exponent bias.
        max: the largest finite value; it depends on which codes are NaN or infinite.
        storage: a torch dtype with these values, where there is one.
    """

    name: str
    exponent_bits: int
    mantissa_bits: int
    smallest_exponent: int
    max: float
    storage: torch.dtype | None = None

    @property
    def bits(self) -> int:
        return 1 + self.exponent_bits + self.mantissa_bits

    def ulp(self, values: Tensor) -> Tensor:
        """Spacing of the representable values at each magnitude, as float32."""
        normal = values.float().abs().clamp(min=2.0**self.smallest_exponent)
        exponent = torch.frexp(normal).exponent - 1 - self.mantissa_bits
        return torch.ldexp(torch.ones_like(normal), exponent)

    def round(self, values: Tensor) -> Tensor:
        ulp = self.ulp(values)
        return ((values.float() / ulp).round() * ulp).clamp(-self.max, self.max)


INT8 = IntegerFormat(name="int8", bits=8)
INT4 = IntegerFormat(name="int4", bits=4)
INT3 = IntegerFormat(name="int3", bits=3)
INT2 = IntegerFormat(name="int2", bits=2)
FP8_E4M3 = FloatFormat(
    name="fp8", exponent_bits=4, mantissa_bits=3, smallest_exponent=-6, max=448.0, storage=torch.float8_e4m3fn
)
FP8_E5M2 = FloatFormat(
    name="fp8e5m2", exponent_bits=5, mantissa_bits=2, smallest_exponent=-14, max=57344.0, storage=torch.float8_e5m2
)
FP6_E2M3 = FloatFormat(name="fp6e2m3", exponent_bits=2, mantissa_bits=3, smallest_exponent=0, max=7.5)
FP6_E3M2 = FloatFormat(name="fp6e3m2", exponent_bits=3, mantissa_bits=2, smallest_exponent=-2, max=28.0)
FP4_E2M1 = FloatFormat(name="fp4", exponent_bits=2, mantissa_bits=1, smallest_exponent=0, max=6.0)

FORMATS: dict[str, Format] = {
    f.name: f for f in (INT8, INT4, INT3, INT2, FP8_E4M3, FP8_E5M2, FP6_E2M3, FP6_E3M2, FP4_E2M1)
}
