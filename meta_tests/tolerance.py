"""How far a seeded simulation's count or mean may lie from what theory says."""

from __future__ import annotations

from scipy import stats

FALSE_ALARM = 1e-3
"""Chance that a count lies outside although the theory holds; seeds are fixed, so that it happens once or never."""


def fewest(trials: int, probability: float) -> int:
    """The successes that a binomial count falls below with at most the chance ``FALSE_ALARM``."""
    return int(stats.binom.ppf(FALSE_ALARM, trials, probability))


def most(trials: int, probability: float) -> int:
    """The successes that a binomial count exceeds with at most the chance ``FALSE_ALARM``."""
    return int(stats.binom.isf(FALSE_ALARM, trials, probability))
