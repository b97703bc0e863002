"""Expected quantization error of normally distributed values.

``n`` independent standard normal values share a scale ``s``, which their largest magnitude ``a`` decides.  Given
``a``, the others are normal values cut off at ``a``.  What rounds to the value ``c`` of ``s`` times the format lies
in the cell ``l .. r`` between the middles to its neighbours, the outermost of which reach to ``a``.  With ``m`` the
point of the cell that is nearest to ``c``, ``c`` itself unless it lies beyond ``a``, the normal density ``p`` and
distribution ``P``,

- ``E|x - c| = 2 p(m) - p(l) - p(r) + c (2 P(m) - P(l) - P(r))`` and
- ``E(x - c)^2 = (1 + c^2) (P(r) - P(l)) + l p(l) - r p(r) + 2 c (p(r) - p(l))``

by integration, summed over all cells, divided by ``P(a) - P(-a)``; the error of ``a`` itself is added, and the mean
is averaged over the distribution of ``a``, ``(2 P(a) - 1)^n``.  E4M3 scales depend on the largest magnitude of the
whole tensor too, given which one block holds it and the others are cut off at it.  No other approximation is made.

Errors uniform within a gap (Bennett, 1948) give nearly the same more simply where gaps are narrow: ``s / 4`` and
``s^2 / 12`` for an integer format, and for a float with ``m`` mantissa bits and many binades, by its log-uniform
mantissa, ``2^-(m + 2) / (2 ln 2)`` and ``2^-m / sqrt(32 ln 2)`` relative to the values whatever the scale.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import torch
from scipy import stats

from quantsuite.formats import IntegerFormat
from quantsuite.granularity import share_scales
from quantsuite.quantize import integer_range
from quantsuite.reference import representable, symmetric_step
from quantsuite.scheme import Operand

MEAN_MAGNITUDE = math.sqrt(2 / math.pi)
"""Of a standard normal value."""
NODES = 100
"""Of the Gauss-Legendre quadrature over the distribution of the largest magnitude, in each of its binades."""
BINADES = 2.0 ** np.arange(-12, 6)
"""Where scales that are powers of two jump."""
NEGLIGIBLE = 1e-10
"""A probability that changes no figure."""


def elements_per_scale(shape: Sequence[int], operand: Operand) -> int:
    """How many elements of a tensor of this shape share a scale."""
    view, shared = share_scales(torch.empty(tuple(shape), device="meta"), operand.granularity)
    return math.prod(view.shape[dimension] for dimension in shared)


def has_closed_form(operand: Operand) -> bool:
    """Whether the errors are known here: not with a zero point, nor with searched scales."""
    return operand.symmetric and not operand.clip


def _average_over_largest(count: int, statistic: Callable[[np.ndarray], np.ndarray], below: float = math.inf) -> float:
    """``E[statistic(a)]`` of the largest magnitude ``a`` of ``count`` standard normal values below ``below``."""
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    inside = np.log1p(-2 * stats.norm.sf(below))
    levels = np.exp(count * (np.log1p(-2 * stats.norm.sf(np.minimum(BINADES, below))) - inside))
    edges = np.unique([0.0, *levels, 1.0])
    wide = np.diff(edges) > NEGLIGIBLE
    middle, half = ((edges[1:] + edges[:-1]) / 2)[wide, None], (np.diff(edges) / 2)[wide, None]
    exceeding = -np.expm1(np.log(middle + half * nodes) / count + inside)
    return float(statistic(stats.norm.isf(exceeding / 2).ravel()) @ (half * weights).ravel())


def expected_largest(count: int) -> float:
    """``E[max |x|]`` of ``count`` standard normal values."""
    return _average_over_largest(count, lambda largest: largest)


def _magnitude_in_cells(center: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """``E[|x - c|; l < x < r]``."""
    density, below = stats.norm.pdf, stats.norm.cdf
    near = center.clip(left, right)
    return 2 * density(near) - density(left) - density(right) + center * (2 * below(near) - below(left) - below(right))


def _square_in_cells(center: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """``E[(x - c)^2; l < x < r]``."""
    at_left, at_right = stats.norm.pdf(left), stats.norm.pdf(right)
    inside = stats.norm.cdf(right) - stats.norm.cdf(left)
    return (1 + center**2) * inside + left * at_left - right * at_right + 2 * center * (at_right - at_left)


_IN_CELLS = {1: _magnitude_in_cells, 2: _square_in_cells}


class _Blocks:
    """Blocks of ``count`` elements that share a scale; errors to a power, of all and of all but the largest."""

    def __init__(self, operand: Operand, count: int, power: int) -> None:
        if not has_closed_form(operand):
            raise ValueError(f"no closed form of {operand} is known: drop -asym and -clip")
        self.operand, self.count, self.power = operand, count, power
        values = representable(operand.format).numpy()
        low = integer_range(operand)[0] if isinstance(operand.format, IntegerFormat) else operand.format.min
        self.values = values[values >= low]

    def _step(self, largest: np.ndarray, of_tensor: float) -> np.ndarray:
        peak, of_all = torch.from_numpy(largest), torch.tensor(of_tensor, dtype=torch.float64)
        return symmetric_step(peak, self.operand, of_all).numpy()[:, None]

    def beside(self, largest: np.ndarray, of_tensor: float = math.nan) -> np.ndarray:
        """The mean over a block's other elements, for each ``largest`` (in a tensor whose largest is given)."""
        step, end = self._step(largest, of_tensor), largest[:, None]
        middles = (step * (self.values[1:] + self.values[:-1]) / 2).clip(-end, end)
        left, right = np.hstack([-end, middles]), np.hstack([middles, end])
        return _IN_CELLS[self.power](step * self.values, left, right).sum(1) / (1 - 2 * stats.norm.sf(largest))

    def all(self, largest: np.ndarray, of_tensor: float = math.nan) -> np.ndarray:
        """The mean over a block's elements, for each ``largest``, which is as often negative as positive."""
        rounded = self._step(largest, of_tensor) * self.values
        own = [np.abs(rounded - end[:, None]).min(1) ** self.power for end in (largest, -largest)]
        return ((self.count - 1) * self.beside(largest, of_tensor) + sum(own) / 2) / self.count


@cache
def _mean_error(operand: Operand, shape: tuple[int, ...], power: int) -> float:
    """The mean of the error's power over elements and scales of a tensor of this shape."""
    count = elements_per_scale(shape, operand)
    blocks, others = _Blocks(operand, count, power), math.prod(shape) // count - 1
    if not operand.scale.of_tensor:
        return _average_over_largest(count, blocks.all)

    def of_tensor(largest: float) -> float:
        holder = blocks.all(np.array([largest]), largest).item()
        rest = _average_over_largest(count, lambda peak: blocks.all(peak, largest), below=largest)
        return (holder + others * rest) / (others + 1)

    return _average_over_largest(math.prod(shape), np.vectorize(of_tensor))


def relative_mean_error(operand: Operand, shape: Sequence[int]) -> float:
    """``sum |dx| / sum |x|`` of a tensor of this shape.

    Raises:
        ValueError: if the operand has a zero point or searches its scales.
    """
    return _mean_error(operand, tuple(shape), 1) / MEAN_MAGNITUDE


def relative_mean_error_beside(operand: Operand, outlier: float) -> float:
    """``sum |dx| / sum |x|`` of standard normal values that share a scale with an outlier of this size, without it.

    The outlier sets the scale, so that it is to be larger than the values, four or more.
    """
    return _Blocks(operand, 1, 1).beside(np.array([outlier]), outlier).item() / MEAN_MAGNITUDE


def relative_rms_error(operand: Operand, shape: Sequence[int]) -> float:
    """``sqrt(sum dx^2 / sum x^2)`` of a tensor of this shape; raises as :func:`relative_mean_error`."""
    return math.sqrt(_mean_error(operand, tuple(shape), 2))


def relative_product_error(x_error: float, weight_error: float) -> float:
    """Relative Frobenius error of ``x W^T`` whose operands have these relative RMS errors, all independent."""
    return math.sqrt(x_error**2 + weight_error**2 + x_error**2 * weight_error**2)
