"""Expected quantization error of normally distributed values, in closed form.

A tensor of independent standard normal values, one scale for every ``block`` of them, ``s = amax / max``:

- Integer: the error is taken as uniform over a step, so that its mean magnitude is ``s / 4`` and its mean
  square ``s^2 / 12`` (Bennett, 1948).
- Float: a value is ``x = t 2^e`` whose mantissa ``t`` in [1, 2) is log-uniform (Benford's law) whatever
  ``|x|``, since the scale has any phase; its error is uniform over a spacing ``2^(e - m) = |x| 2^-m / t``: mean
  magnitude ``|x| 2^-(m + 2) E[1 / t]``, mean square ``x^2 2^(-2 m) E[1 / t^2] / 12``, with ``E[1 / t] = 1 / (2 ln 2)``
  and ``E[1 / t^2] = 3 / (8 ln 2)``.  Subnormal values are left out.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import integrate, stats

from quantsuite.formats import FloatFormat, Format, IntegerFormat

MEAN_MAGNITUDE = math.sqrt(2 / math.pi)
"""Of a standard normal value."""


def expected_largest(count: int, power: int = 1) -> float:
    """``E[max |x|^power]`` of ``count`` standard normal values: the integral of one minus the distribution."""

    def exceeds(t: float) -> float:
        return power * t ** (power - 1) * -np.expm1(count * np.log1p(-2 * stats.norm.sf(t)))

    value, _ = integrate.quad(exceeds, 0, 12, limit=400, points=[stats.norm.isf(0.5 / (count + 1))])
    return float(value)


def relative_mean_error(fmt: Format, block: int) -> float:
    """``sum |dx| / sum |x|`` of elements.

    Raises:
        ValueError: if no closed form is known for the format.
    """
    match fmt:
        case IntegerFormat():
            return expected_largest(block) / fmt.max / 4 / MEAN_MAGNITUDE
        case FloatFormat():
            return 2.0 ** -(fmt.mantissa_bits + 2) / (2 * math.log(2))
    raise ValueError(f"no closed form of the expected error is known for {fmt.name}")


def relative_rms_error(fmt: Format, block: int) -> float:
    """``sqrt(sum dx^2 / sum x^2)`` of elements.

    Raises:
        ValueError: as :func:`relative_mean_error`.
    """
    match fmt:
        case IntegerFormat():
            return math.sqrt(expected_largest(block, 2) / 12) / fmt.max
        case FloatFormat():
            return 2.0**-fmt.mantissa_bits / math.sqrt(32 * math.log(2))
    raise ValueError(f"no closed form of the expected error is known for {fmt.name}")


def relative_product_error(x_error: float, weight_error: float) -> float:
    """Relative Frobenius error of ``x W^T`` whose operands have these relative RMS errors, all independent."""
    return math.sqrt(x_error**2 + weight_error**2 + x_error**2 * weight_error**2)
