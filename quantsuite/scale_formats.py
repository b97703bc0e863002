"""Formats of scales: which values a scale may take, and which one a block of values gets.  Free of torch's import."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from quantsuite.formats import FP8_E4M3, FloatFormat

if TYPE_CHECKING:
    from torch import Tensor

SMALLEST_SCALE = 2.0**-126
"""The smallest normal float32; scales below it are raised to it."""


class ScaleFormat(Protocol):
    """What one scale is stored in.

    Attributes:
        name: as it ends an operand's name: ``int8-g128-sbf16``.
        bits: of one scale.
        storage: the name of the torch dtype that holds it.
        of_tensor: whether a float32 factor for the whole tensor belongs to the scales, so that every element of it
            may change how all others are quantized.
    """

    @property
    def name(self) -> str: ...
    @property
    def bits(self) -> int: ...
    @property
    def storage(self) -> str: ...
    @property
    def of_tensor(self) -> bool: ...

    def round(self, values: Tensor) -> Tensor:
        """The representable scale (float32) of each positive value."""
        ...

    def choose(self, peak: Tensor, largest: float) -> tuple[Tensor, Tensor | None]:
        """The scales that map blocks' largest magnitudes to the largest code.

        Args:
            peak: float32, the largest magnitude of each block.
            largest: the code that it is mapped to.

        Returns:
            Representable scales (float32) in the shape of ``peak``, and their factor (float32 scalar) or ``None``.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class FloatScale:
    """A float: ``amax / largest`` rounded to nearest."""

    name: str
    bits: int
    storage: str
    max: float
    of_tensor: bool = False

    def round(self, values: Tensor) -> Tensor:
        if self.bits == 32:
            return values.clamp(min=SMALLEST_SCALE)
        return values.clamp(min=SMALLEST_SCALE, max=self.max).bfloat16().float()

    def choose(self, peak: Tensor, largest: float) -> tuple[Tensor, None]:
        return self.round(peak / largest), None


@dataclass(frozen=True, kw_only=True)
class PowerOfTwoScale:
    """E8M0: a power of two from ``2**smallest`` to ``2**-smallest`` (OCP Microscaling v1.0)."""

    name: str
    storage: str
    smallest: int
    bits: int = 8
    of_tensor: bool = False

    def round(self, values: Tensor) -> Tensor:
        """The power of two at or below each value."""
        exponent = (values.frexp().exponent - 1).where(values > 0, self.smallest)
        return values.new_ones(values.shape).ldexp(exponent.clamp(self.smallest, -self.smallest))

    def choose(self, peak: Tensor, largest: float) -> tuple[Tensor, None]:
        """``2 ** (floor(log2(amax)) - floor(log2(max)))`` (OCP Microscaling v1.0, section 6.3).

        The exponent of a block of zeros, and of one too small, is the smallest.
        """
        below = math.frexp(largest)[1] - 1
        exponent = (peak.frexp().exponent - 1 - below).where(peak > 0, self.smallest)
        return peak.new_ones(peak.shape).ldexp(exponent.clamp(self.smallest, -self.smallest)), None


@dataclass(frozen=True, kw_only=True)
class TwoLevelScale:
    """Scales in a float format of few bits, and a float32 factor that maps the largest of them to its ``max``."""

    name: str
    format: FloatFormat
    of_tensor: bool = True

    @property
    def bits(self) -> int:
        return self.format.bits

    @property
    def storage(self) -> str:
        assert self.format.storage is not None
        return self.format.storage

    def round(self, values: Tensor) -> Tensor:
        return self.format.round(values)

    def choose(self, peak: Tensor, largest: float) -> tuple[Tensor, Tensor]:
        """As NVFP4: a block whose scale rounds to zero becomes zeros.

        The divisor is a normal number, so that the quotient is rounded relatively even where ``peak`` is subnormal.
        """
        factor = (peak.amax() / (largest * self.format.max)).clamp(min=SMALLEST_SCALE)
        return self.round(peak / (factor * largest)), factor


FP32_SCALE = FloatScale(name="fp32", bits=32, storage="float32", max=(2 - 2**-23) * 2.0**127)
BF16_SCALE = FloatScale(name="bf16", bits=16, storage="bfloat16", max=(2 - 2**-7) * 2.0**127)
E8M0_SCALE = PowerOfTwoScale(name="e8m0", storage="float8_e8m0fnu", smallest=-127)
E4M3_SCALE = TwoLevelScale(name="e4m3", format=FP8_E4M3)
SCALE_FORMATS: dict[str, ScaleFormat] = {f.name: f for f in (FP32_SCALE, BF16_SCALE, E8M0_SCALE, E4M3_SCALE)}
