"""Expected quantization error of normally distributed values.

``n`` independent standard normal values share the scale ``a / max``, ``a`` the largest magnitude among them.
Between two neighbouring values of the format, ``g`` apart, the error is taken as uniform (Bennett, 1948): mean
magnitude ``s g / 4``, mean square ``s^2 g^2 / 12``.  An integer format has one gap, so that these are ``s / 4``
and ``s^2 / 12``; those of other formats are weighted with the normal distribution between their values, cut
off at ``a``.  The largest value itself has no error.  What is left is averaged over the distribution of ``a``,
``(2 Phi(a) - 1)^n``.

For a float with ``m`` mantissa bits and many binades a log-uniform mantissa gives nearly the same without the
scale: ``2^-(m + 2) / (2 ln 2)`` and ``2^-m / sqrt(32 ln 2)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy import stats

from quantsuite.formats import Format, IntegerFormat
from quantsuite.reference import representable

MEAN_MAGNITUDE = math.sqrt(2 / math.pi)
"""Of a standard normal value."""
NODES = 400
"""Of the Gauss-Legendre quadrature over the distribution of the largest magnitude."""


def _average_over_largest(count: int, statistic: Callable[[np.ndarray], np.ndarray]) -> float:
    """``E[statistic(a)]`` of the largest magnitude ``a`` of ``count`` standard normal values."""
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    exceeding = -np.expm1(np.log((nodes + 1) / 2) / count)
    return float(weights @ statistic(stats.norm.isf(exceeding / 2)) / 2)


def expected_largest(count: int) -> float:
    """``E[max |x|]`` of ``count`` standard normal values."""
    return _average_over_largest(count, lambda largest: largest)


def _mean_gap(fmt: Format, count: int, power: int) -> float:
    """The mean over elements and scales of ``(s g)^power``, the largest element's taken as zero."""
    values = representable(fmt).numpy()
    values = values[values >= -fmt.max] if isinstance(fmt, IntegerFormat) else values
    gaps = np.diff(values)

    def given(largest: np.ndarray) -> np.ndarray:
        scale = largest / fmt.max
        below = stats.norm.cdf(scale[:, None] * values)
        inside = np.diff(below) / (below[:, -1:] - below[:, :1])
        return inside @ gaps**power * scale**power

    return (count - 1) / count * _average_over_largest(count, given)


def relative_mean_error(fmt: Format, count: int) -> float:
    """``sum |dx| / sum |x|`` of elements of which ``count`` share a symmetric, restricted scale ``amax / max``."""
    return _mean_gap(fmt, count, 1) / 4 / MEAN_MAGNITUDE


def relative_rms_error(fmt: Format, count: int) -> float:
    """``sqrt(sum dx^2 / sum x^2)`` of such elements."""
    return math.sqrt(_mean_gap(fmt, count, 2) / 12)


def relative_product_error(x_error: float, weight_error: float) -> float:
    """Relative Frobenius error of ``x W^T`` whose operands have these relative RMS errors, all independent."""
    return math.sqrt(x_error**2 + weight_error**2 + x_error**2 * weight_error**2)
