"""General statistics of outcomes: intervals, paired tests and the bootstrap; what knows no metric.

scipy and arch are imported where they are called: what only reads outcomes does not wait for them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 4000
BOOTSTRAP_SEED = 0
FEWEST_CORRELATED = 11
"""Items whose correlations :func:`arch.bootstrap.optimal_block_length` can estimate, at the lags that it looks at."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate with the interval that covers the truth with probability ``CONFIDENCE``."""

    estimate: float
    low: float
    high: float

    @property
    def covers_zero(self) -> bool:
        return self.low <= 0 <= self.high


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


def _block_length(residuals: np.ndarray) -> int:
    """The cube root of the number of items (Künsch, 1989), or the longer optimum that their correlation asks for.

    The optimum is that of Politis and White (2004) as corrected by Patton, Politis and White (2009); of too few items
    no correlation is estimated.
    """
    from arch.bootstrap import optimal_block_length

    least = max(1, round(len(residuals) ** (1 / 3)))
    if len(residuals) < FEWEST_CORRELATED:
        return least
    if np.ptp(residuals) <= np.finfo(float).eps * np.abs(residuals).max():
        return least
    return max(least, math.ceil(optimal_block_length(residuals)["circular"].iloc[0]))


def block_bootstrap(
    totals: Sequence[float], units: Sequence[float], *, seed: int = BOOTSTRAP_SEED
) -> tuple[Interval, float]:
    """``sum(totals) / sum(units)`` of neighbouring items, by moving-block bootstrap.

    Items are drawn in blocks, since windows of one text are dependent.

    Args:
        totals: of each item.
        units: that the mean is over, of each item.
        seed: of the resampling.

    Returns:
        The percentile interval, and the two-sided p value of zero that belongs to it: twice the smaller
        share of resampled means on one side of zero, at least ``2 / (RESAMPLES + 1)``.

    Raises:
        ValueError: if there are fewer than two items.
    """
    from arch.bootstrap import MovingBlockBootstrap

    sums, sizes = np.asarray(totals, dtype=float), np.asarray(units, dtype=float)
    if len(sums) < 2:
        raise ValueError(f"{len(sums)} item cannot be resampled; raise --limit so that there are at least two")
    estimate = _mean(sums, sizes)
    bootstrap = MovingBlockBootstrap(_block_length(sums - estimate * sizes), sums, sizes, seed=seed)
    means = bootstrap.apply(_mean, RESAMPLES).ravel()
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    one_side = min(np.count_nonzero(means <= 0), np.count_nonzero(means >= 0))
    p_value = min(1.0, 2 * (one_side + 1) / (RESAMPLES + 1))
    return Interval(estimate=estimate, low=float(low), high=float(high)), p_value


def _mean(totals: np.ndarray, units: np.ndarray) -> float:
    return float(totals.sum() / units.sum())
