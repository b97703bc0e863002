"""Expected quantization error of normally distributed values.

``n`` independent standard normal values share the scale ``s = a / max``, ``a`` the largest magnitude among them.
Given ``a``, the others are normal values cut off at ``a``, and the largest itself has no error.  What rounds to the
value ``c`` of ``s`` times the format lies in the cell ``l .. r`` between the middles to its neighbours, where, with
the normal density ``p`` and distribution ``P``,

- ``E|x - c| = 2 p(c) - p(l) - p(r) + c (2 P(c) - P(l) - P(r))`` and
- ``E(x - c)^2 = (1 + c^2) (P(r) - P(l)) + l p(l) - r p(r) + 2 c (p(r) - p(l))``

by integration, summed over all cells, divided by ``P(a) - P(-a)`` and averaged over the distribution of ``a``,
``(2 P(a) - 1)^n``.  No other approximation is made.

Errors uniform within a gap (Bennett, 1948) give nearly the same more simply where gaps are narrow: ``s / 4`` and
``s^2 / 12`` for an integer format, and for a float with ``m`` mantissa bits and many binades, by its log-uniform
mantissa, ``2^-(m + 2) / (2 ln 2)`` and ``2^-m / sqrt(32 ln 2)`` relative to the values whatever the scale.
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


Error = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def _magnitude_in_cells(center: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """``E[|x - c|; l < x < r]``."""
    density, below = stats.norm.pdf, stats.norm.cdf
    return (
        2 * density(center) - density(left) - density(right) + center * (2 * below(center) - below(left) - below(right))
    )


def _square_in_cells(center: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """``E[(x - c)^2; l < x < r]``."""
    at_left, at_right = stats.norm.pdf(left), stats.norm.pdf(right)
    inside = stats.norm.cdf(right) - stats.norm.cdf(left)
    return (1 + center**2) * inside + left * at_left - right * at_right + 2 * center * (at_right - at_left)


def _error_beside(fmt: Format, largest: np.ndarray, error: Error) -> np.ndarray:
    """The mean of an error over normal values cut off at ``largest``, which sets their scale, for each ``largest``."""
    values = representable(fmt).numpy()
    values = values[values >= -fmt.max] if isinstance(fmt, IntegerFormat) else values
    edges = np.concatenate([values[:1], (values[1:] + values[:-1]) / 2, values[-1:]])
    scale = largest[:, None] / fmt.max
    cells = error(scale * values, scale * edges[:-1], scale * edges[1:])
    return cells.sum(1) / (2 * stats.norm.cdf(largest) - 1)


def _mean_error(fmt: Format, count: int, error: Error) -> float:
    """The mean of an error over elements and scales, the largest element's taken as zero."""
    return (count - 1) / count * _average_over_largest(count, lambda largest: _error_beside(fmt, largest, error))


def relative_mean_error(fmt: Format, count: int) -> float:
    """``sum |dx| / sum |x|`` of elements of which ``count`` share a symmetric, restricted scale ``amax / max``."""
    return _mean_error(fmt, count, _magnitude_in_cells) / MEAN_MAGNITUDE


def relative_mean_error_beside(fmt: Format, outlier: float) -> float:
    """``sum |dx| / sum |x|`` of standard normal values that share a scale with an outlier of this size, without it.

    The outlier sets the scale, so that it is to be larger than the values, four or more.
    """
    return float(_error_beside(fmt, np.array([outlier]), _magnitude_in_cells)[0]) / MEAN_MAGNITUDE


def relative_rms_error(fmt: Format, count: int) -> float:
    """``sqrt(sum dx^2 / sum x^2)`` of such elements."""
    return math.sqrt(_mean_error(fmt, count, _square_in_cells))


def relative_product_error(x_error: float, weight_error: float) -> float:
    """Relative Frobenius error of ``x W^T`` whose operands have these relative RMS errors, all independent."""
    return math.sqrt(x_error**2 + weight_error**2 + x_error**2 * weight_error**2)
