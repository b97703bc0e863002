"""What outcomes are summed up to, with its interval and its paired change: a mean, a proportion, a ratio."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from quantsuite.intervals import Change, Interval, block_mean, mcnemar, paired_proportion_difference, wilson


class Estimator(Protocol):
    """A number of ``outcomes``, one an item, over ``units``, of each item."""

    def value(self, outcomes: Sequence[float], units: Sequence[float]) -> float: ...
    def interval(self, outcomes: Sequence[float], units: Sequence[float]) -> Interval: ...
    def change(self, reference: Sequence[float], candidate: Sequence[float], units: Sequence[float]) -> Change: ...


@dataclass(frozen=True)
class Mean:
    """The mean of a unit, by the spread of blocks of neighbours; of too few items its interval is unbounded."""

    def value(self, outcomes: Sequence[float], units: Sequence[float]) -> float:
        return sum(outcomes) / sum(units)

    def interval(self, outcomes: Sequence[float], units: Sequence[float]) -> Interval:
        """Raises ValueError if there are no items."""
        return block_mean(outcomes, units)[0]

    def change(self, reference: Sequence[float], candidate: Sequence[float], units: Sequence[float]) -> Change:
        """Raises ValueError if there are no items."""
        interval, p_value = block_mean(np.subtract(candidate, reference), units)
        return Change(interval=interval, p_value=p_value)


@dataclass(frozen=True)
class ExponentialOfMean(Mean):
    """A perplexity: its value and interval are exponentials, its change is that of the logarithm."""

    def value(self, outcomes: Sequence[float], units: Sequence[float]) -> float:
        """Raises ValueError if it is larger than any float64."""
        return exponential(super().value(outcomes, units))

    def interval(self, outcomes: Sequence[float], units: Sequence[float]) -> Interval:
        """Raises ValueError if there are no items, or an end that is finite is larger than any float64."""
        log = super().interval(outcomes, units)
        return Interval(estimate=exponential(log.estimate), low=exponential(log.low), high=exponential(log.high))


SMALLEST_MEAN = 1e-12
"""Added to the means of a ratio, so that one of nothing is finite: far below what float32 resolves."""


@dataclass(frozen=True)
class LogRatioOfMeans(Mean):
    """A mean that is never negative, whose change is the logarithm of a ratio: of sizes that differ by factors.

    By the delta method, ``ln(c / r)`` has the error of the mean of ``outcome_c / c - outcome_r / r``, item by item, so
    that what both have in common cancels.
    """

    def change(self, reference: Sequence[float], candidate: Sequence[float], units: Sequence[float]) -> Change:
        """Raises ValueError if there are no items."""
        sizes = np.asarray(units, dtype=float)
        totals = [np.asarray(each, dtype=float) + SMALLEST_MEAN * sizes for each in (reference, candidate)]
        before, after = (float(each.sum() / sizes.sum()) for each in totals)
        estimate = math.log(after / before)
        shares = totals[1] / after - totals[0] / before + estimate * sizes
        interval, p_value = block_mean(shares, units)
        return Change(interval=replace(interval, estimate=estimate), p_value=p_value)


@dataclass(frozen=True)
class Proportion:
    """The share of items that are right: outcomes are ``True`` and ``False``, every item counts one."""

    def value(self, outcomes: Sequence[float], units: Sequence[float]) -> float:
        return sum(outcomes) / len(outcomes)

    def interval(self, outcomes: Sequence[float], units: Sequence[float]) -> Interval:
        return wilson(int(sum(outcomes)), len(outcomes))

    def change(self, reference: Sequence[float], candidate: Sequence[float], units: Sequence[float]) -> Change:
        """Exact McNemar, with the interval of Bonett and Price."""
        lost, gained = flips(reference, candidate)
        interval = paired_proportion_difference(lost, gained, len(reference))
        return Change(interval=interval, p_value=mcnemar(lost, gained), lost=lost, gained=gained)


@dataclass(frozen=True)
class Census(Proportion):
    """The share of all that there is, of which nothing was drawn: its interval is its value."""

    def interval(self, outcomes: Sequence[float], units: Sequence[float]) -> Interval:
        share = self.value(outcomes, units)
        return Interval(estimate=share, low=share, high=share)


def flips(reference: Sequence[float], candidate: Sequence[float]) -> tuple[int, int]:
    """Items right before and wrong now, and wrong before and right now."""
    pairs = list(zip(reference, candidate, strict=True))
    return sum(bool(r and not c) for r, c in pairs), sum(bool(c and not r) for r, c in pairs)


def exponential(mean_nats: float) -> float:
    """The perplexity of a mean in nats.

    Raises:
        ValueError: if it is larger than any float64.
    """
    try:
        return math.exp(mean_nats)
    except OverflowError:
        raise ValueError(f"a mean of {mean_nats:.6g} nats has no perplexity in float64, the largest is 709") from None
