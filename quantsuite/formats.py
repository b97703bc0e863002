"""Number formats: which values a code stands for, and rounding, encoding and decoding.  No scales here.

Facts are plain data, and arithmetic is that of the tensors given, so that torch is not imported.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class Format(Protocol):
    """A finite set of values, each with a code of ``bits`` bits.

    Attributes:
        name: the format's name in a scheme.
        min: the most negative finite value.
        max: the largest finite value.
        bits: bits of one code.
        storage: the name of the torch dtype that holds one code a byte, or ``None`` if codes need packing.
    """

    @property
    def name(self) -> str: ...
    @property
    def min(self) -> float: ...
    @property
    def max(self) -> float: ...
    @property
    def bits(self) -> int: ...
    @property
    def storage(self) -> str | None: ...

    def round(self, values: Tensor) -> Tensor:
        """The nearest finite value (float32), of two equally near the one with the even code; NaN stays NaN.

        Beyond the ends it saturates at ``min`` and ``max``, infinities included.
        """
        ...

    def encode(self, values: Tensor) -> Tensor:
        """Codes (uint8, in the low ``bits``) of the rounded values.

        Infinities and NaN have their own codes where the format has them; else infinities saturate.

        Raises:
            ValueError: if a value is NaN and the format has no code for it.
        """
        ...

    def decode(self, codes: Tensor) -> Tensor:
        """The values (float32) of codes; the inverse of :meth:`encode` on every code, NaN's payload aside."""
        ...


def _refuse_nan(name: str, values: Tensor) -> None:
    if values.isnan().any():
        raise ValueError(f"{int(values.isnan().sum())} values are NaN, which {name} cannot represent; repair them")


@dataclass(frozen=True, kw_only=True)
class IntegerFormat:
    """Two's complement integers, ``-2**(bits - 1) .. 2**(bits - 1) - 1``.

    Symmetric quantization in the usual, restricted range leaves the most negative code unused.
    """

    name: str
    bits: int

    @property
    def min(self) -> float:
        return -float(2 ** (self.bits - 1))

    @property
    def max(self) -> float:
        return float(2 ** (self.bits - 1) - 1)

    @property
    def storage(self) -> str | None:
        return "int8" if self.bits == 8 else None

    def round(self, values: Tensor) -> Tensor:
        return values.float().round().clamp(self.min, self.max)

    def encode(self, values: Tensor) -> Tensor:
        _refuse_nan(self.name, values)
        return (self.round(values).int() & (2**self.bits - 1)).byte()

    def decode(self, codes: Tensor) -> Tensor:
        unused = 32 - self.bits
        return (codes.int() << unused >> unused).float()


@dataclass(frozen=True, kw_only=True)
class FloatFormat:
    """A sign, ``exponent_bits`` and ``mantissa_bits``, with subnormals.

    Args:
        smallest_exponent: of a normal number, that is one minus the exponent bias.
        max: the largest finite value; it depends on which codes are NaN or infinite.
        specials: ``none``; ``nan``: the code above ``max`` is NaN; ``ieee``: the one above ``max`` is infinity
            and all above that are NaN.
        storage: the name of a torch dtype with these values, where there is one.
    """

    name: str
    exponent_bits: int
    mantissa_bits: int
    smallest_exponent: int
    max: float
    specials: Literal["none", "nan", "ieee"] = "none"
    storage: str | None = None

    @property
    def min(self) -> float:
        return -self.max

    @property
    def bits(self) -> int:
        return 1 + self.exponent_bits + self.mantissa_bits

    def _exponent(self, magnitudes: Tensor) -> Tensor:
        """Of the spacing's binade (int32); that of the smallest normal number below it."""
        return magnitudes.clamp(min=2.0**self.smallest_exponent).frexp().exponent - 1

    def ulp(self, values: Tensor) -> Tensor:
        """Spacing of the representable values at each magnitude, as float32."""
        magnitudes = values.float().abs()
        return magnitudes.new_ones(magnitudes.shape).ldexp(self._exponent(magnitudes) - self.mantissa_bits)

    def round(self, values: Tensor) -> Tensor:
        ulp = self.ulp(values)
        return ((values.float() / ulp).round() * ulp).clamp(self.min, self.max)

    def _magnitude_code(self, magnitudes: Tensor) -> Tensor:
        """Place of representable magnitudes among all, int32: exponent and mantissa bits are one ascending count."""
        exponent = self._exponent(magnitudes)
        steps = magnitudes.ldexp(self.mantissa_bits - exponent).int()
        return (exponent - self.smallest_exponent) * 2**self.mantissa_bits + steps

    def encode(self, values: Tensor) -> Tensor:
        if self.specials == "none":
            _refuse_nan(self.name, values)
        values = values.float()
        finite = self.round(values.nan_to_num(nan=0.0, posinf=self.max, neginf=self.min))
        codes = self._magnitude_code(finite.abs())
        sign = 2 ** (self.bits - 1)
        if self.specials == "ieee":
            codes = codes.where(~values.isinf(), self._magnitude_code(values.new_tensor(self.max)) + 1)
        codes = codes.where(~values.isnan(), sign - 1)
        return (codes + sign * values.signbit()).byte()

    def decode(self, codes: Tensor) -> Tensor:
        codes = codes.int()
        magnitude, negative = codes & (2 ** (self.bits - 1) - 1), codes >> (self.bits - 1) & 1
        exponent, fraction = magnitude >> self.mantissa_bits, magnitude & (2**self.mantissa_bits - 1)
        steps = fraction + (exponent > 0) * 2**self.mantissa_bits
        place = exponent.clamp(min=1) - 1 + self.smallest_exponent - self.mantissa_bits
        values = steps.float().ldexp(place)
        if self.specials != "none":
            beyond = values.new_full(values.shape, math.nan)
            if self.specials == "ieee":
                beyond = beyond.where(fraction != 0, math.inf)
            values = values.where(values <= self.max, beyond)
        return values.where(negative == 0, -values)


@dataclass(frozen=True, kw_only=True)
class TableFormat:
    """Values without arithmetic structure, in ascending order; a value's place is its code."""

    name: str
    values: tuple[float, ...]

    @property
    def min(self) -> float:
        return self.values[0]

    @property
    def max(self) -> float:
        return self.values[-1]

    @property
    def bits(self) -> int:
        return (len(self.values) - 1).bit_length()

    @property
    def storage(self) -> str | None:
        return None

    def round(self, values: Tensor) -> Tensor:
        rounded = self.decode(self.encode(values.nan_to_num(nan=0.0, posinf=self.max, neginf=self.min)))
        return rounded.where(~values.isnan(), math.nan)

    def encode(self, values: Tensor) -> Tensor:
        _refuse_nan(self.name, values)
        exact, codes = values.double(), values.new_zeros(values.shape).byte()
        for code, (low, high) in enumerate(pairwise(self.values)):
            middle = (low + high) / 2
            # Of two neighbours one has an even code, which a tie goes to.
            codes += exact > middle if code % 2 == 0 else exact >= middle
        return codes

    def decode(self, codes: Tensor) -> Tensor:
        return codes.float().new_tensor(self.values)[codes.long()]


INT8 = IntegerFormat(name="int8", bits=8)
INT4 = IntegerFormat(name="int4", bits=4)
INT3 = IntegerFormat(name="int3", bits=3)
INT2 = IntegerFormat(name="int2", bits=2)
FP8_E4M3 = FloatFormat(
    name="fp8",
    exponent_bits=4,
    mantissa_bits=3,
    smallest_exponent=-6,
    max=448.0,
    specials="nan",
    storage="float8_e4m3fn",
)
FP8_E5M2 = FloatFormat(
    name="fp8e5m2",
    exponent_bits=5,
    mantissa_bits=2,
    smallest_exponent=-14,
    max=57344.0,
    specials="ieee",
    storage="float8_e5m2",
)
FP6_E2M3 = FloatFormat(name="fp6e2m3", exponent_bits=2, mantissa_bits=3, smallest_exponent=0, max=7.5)
FP6_E3M2 = FloatFormat(name="fp6e3m2", exponent_bits=3, mantissa_bits=2, smallest_exponent=-2, max=28.0)
FP4_E2M1 = FloatFormat(name="fp4", exponent_bits=2, mantissa_bits=1, smallest_exponent=0, max=6.0)
NF4 = TableFormat(
    name="nf4",
    values=(
        -1.0,
        -0.6961928009986877,
        -0.5250730514526367,
        -0.39491748809814453,
        -0.28444138169288635,
        -0.18477343022823334,
        -0.09105003625154495,
        0.0,
        0.07958029955625534,
        0.16093020141124725,
        0.24611230194568634,
        0.33791524171829224,
        0.44070982933044434,
        0.5626170039176941,
        0.7229568362236023,
        1.0,
    ),
)
"""Quantiles of the normal distribution (Dettmers et al., QLoRA, 2023, appendix E)."""

FORMATS: dict[str, Format] = {
    f.name: f for f in (INT8, INT4, INT3, INT2, FP8_E4M3, FP8_E5M2, FP6_E2M3, FP6_E3M2, FP4_E2M1, NF4)
}
