"""General statistics of outcomes: intervals and paired tests; what knows no metric.

scipy is imported where it is called: what only reads outcomes does not wait for it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95
FEWEST_ITEMS = 10
"""Of a mean with an interval: of fewer, blocks are too few to tell their own spread."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate with the interval that covers the truth with probability ``CONFIDENCE``.

    Where items are too few to say how far off the estimate may be, an end is infinite.
    """

    estimate: float
    low: float
    high: float

    @property
    def covers_zero(self) -> bool:
        return self.low <= 0 <= self.high

    @property
    def is_bounded(self) -> bool:
        return math.isfinite(self.low) and math.isfinite(self.high)


@dataclass(frozen=True, kw_only=True)
class Change:
    """Candidate minus reference on the same items.

    Args:
        interval: of the change.
        p_value: two-sided, of no change.
        lost: items right before and wrong now, ``gained`` the reverse; ``None`` where items are not right or wrong.
    """

    interval: Interval
    p_value: float
    lost: int | None = None
    gained: int | None = None


def wilson(successes: int, trials: int) -> Interval:
    """The Wilson score interval of a proportion.

    Raises:
        ValueError: if there are no trials.
    """
    from scipy import stats

    if trials == 0:
        raise ValueError("no trials: a proportion of nothing has no interval")
    interval = stats.binomtest(successes, trials).proportion_ci(CONFIDENCE, method="wilson")
    return Interval(estimate=successes / trials, low=float(interval.low), high=float(interval.high))


def mcnemar(lost: int, gained: int) -> float:
    """Exact two-sided McNemar test on the discordant pairs; 1 if there are none."""
    from scipy import stats

    if lost + gained == 0:
        return 1.0
    return float(stats.binomtest(lost, lost + gained, 0.5).pvalue)


def paired_proportion_difference(lost: int, gained: int, trials: int) -> Interval:
    """Change of a proportion on the same items: the adjusted Wald interval of Bonett and Price (2012)."""
    p_lost, p_gained = (lost + 1) / (trials + 2), (gained + 1) / (trials + 2)
    centre = p_gained - p_lost
    half = _z() * math.sqrt((p_lost + p_gained - centre**2) / (trials + 2))
    return Interval(estimate=(gained - lost) / trials, low=max(-1.0, centre - half), high=min(1.0, centre + half))


def _z() -> float:
    from scipy import stats

    return float(stats.norm.ppf(0.5 + CONFIDENCE / 2))


def block_length(residuals: np.ndarray) -> int:
    """Neighbours in a block: the cube root of the items (Künsch, 1989), or more if their correlation asks for it.

    What it asks for is the optimum of Andrews (1991) for an autoregression of the residuals' first lag, up to a
    quarter of the items.  That of Politis and White (2004) covers no better: of 148 items with autocorrelation 0.6
    (4,000 sets) intervals cover 92.7% with Andrews', 91.8% with theirs, 90.3% with the cube root alone.
    """
    items, power = len(residuals), residuals @ residuals
    least = math.ceil(math.cbrt(items))
    correlation = max(0.0, float(residuals[1:] @ residuals[:-1] / power)) if power else 0.0
    asked = 1.1447 * math.cbrt(items * (2 * correlation / (1 - correlation**2)) ** 2)
    return max(least, min(math.ceil(asked), items // 4))


def block_mean(totals: Sequence[float], units: Sequence[float]) -> tuple[Interval, float]:
    """``sum(totals) / sum(units)`` of neighbouring items, by the standard error of moving blocks and Student's t.

    The error is that of the residuals ``totals - mean * units``, summed in all blocks of b neighbours, since windows
    of one text are dependent.  Of k = n / b blocks t has k - 1 degrees of freedom, and ``sqrt(k / (k - 1))`` makes up
    for their being taken about their own mean.  Interval and p value are of one statistic: zero lies outside the
    interval where p is below ``1 - CONFIDENCE``.

    Of independent items with symmetric tails intervals cover what they claim, from 10 items on.  They fall short of
    95% where neighbours are dependent (autocorrelation 0.6: 90% at 10 items, 89% at 30, 92% at 148) or items are
    skewed (lognormal: 91%, 91%, 93%); the README has the table, ``python -m meta_tests.interval_coverage`` measures it.

    Args:
        totals: of each item.
        units: that the mean is over, of each item.

    Returns:
        The interval, and the two-sided p value of zero.  Of fewer than ``FEWEST_ITEMS`` the interval is unbounded and
        p is 1.

    Raises:
        ValueError: if there are no items.
    """
    from scipy import special

    sums, sizes = np.asarray(totals, dtype=float), np.asarray(units, dtype=float)
    items, size = len(sums), float(sizes.sum())
    if items == 0:
        raise ValueError("no items: a mean of nothing has no interval")
    estimate = float(sums.sum() / size)
    if items < FEWEST_ITEMS:
        return Interval(estimate=estimate, low=-math.inf, high=math.inf), 1.0
    error, freedom = _block_error(sums - estimate * sizes)
    error /= size
    half = float(special.stdtrit(freedom, 0.5 + CONFIDENCE / 2)) * error
    interval = Interval(estimate=estimate, low=estimate - half, high=estimate + half)
    if error == 0:
        return interval, float(estimate == 0)
    return interval, float(2 * special.stdtr(freedom, -abs(estimate) / error))


def _block_error(residuals: np.ndarray) -> tuple[float, float]:
    """The standard error of a sum of residuals, and its degrees of freedom."""
    items, scale = len(residuals), np.abs(residuals).max()
    # Relative to the largest, whose square need not be a float64.
    relative = residuals / scale if scale else residuals
    length = block_length(relative)
    blocks = items / length
    running = np.concatenate(([0.0], np.cumsum(relative)))
    variance = blocks * np.var(running[length:] - running[:-length])
    return float(scale * math.sqrt(variance * blocks / (blocks - 1))), blocks - 1
