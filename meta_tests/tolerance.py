"""How far a seeded simulation's count or mean may lie from what theory says."""

from __future__ import annotations

import math

from scipy import stats
from torch import Tensor

FALSE_ALARM = 1e-3
"""Chance that a count lies outside although the theory holds; seeds are fixed, so that it happens once or never."""
FALSE_ALARM_OF_A_MEAN = 1e-5
"""As many means are compared as make this of all of them together about ``FALSE_ALARM``."""


def fewest(trials: int, probability: float) -> int:
    """The successes that a binomial count falls below with at most the chance ``FALSE_ALARM``."""
    return int(stats.binom.ppf(FALSE_ALARM, trials, probability))


def most(trials: int, probability: float) -> int:
    """The successes that a binomial count exceeds with at most the chance ``FALSE_ALARM``."""
    return int(stats.binom.isf(FALSE_ALARM, trials, probability))


def spread_of_mean(draws: Tensor) -> Tensor:
    """How far the mean of independent draws ``[n, ...]`` may lie from what is expected, by Student's t."""
    quantile = stats.t.isf(FALSE_ALARM_OF_A_MEAN / 2, len(draws) - 1)
    return quantile * draws.std(0) / math.sqrt(len(draws))
