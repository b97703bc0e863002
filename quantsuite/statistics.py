"""Intervals, paired comparisons and verdicts: from per-item outcomes to what may be said."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from arch.bootstrap import MovingBlockBootstrap, optimal_block_length
from scipy import stats

from quantsuite.margins import Margins
from quantsuite.records import Choices, Direction, Divergences, Items, Perplexities, Record

CONFIDENCE = 0.95
RESAMPLES = 4000
BOOTSTRAP_SEED = 0
FEWEST_CORRELATED = 11
"""Items whose correlations :func:`arch.bootstrap.optimal_block_length` can estimate, at the lags that it looks at."""

Verdict = Literal["equivalent or better", "worse", "undecided"]


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
class Comparison:
    """A candidate against a reference on the same items.

    Args:
        change: of accuracy (a fraction) or of ln perplexity, candidate minus reference.
        loss: the same change, signed so that positive is worse.
        p_value: two-sided, of no change: exact McNemar for accuracy; for perplexity of the bootstrap.
        lost: questions that the reference answered and the candidate did not; ``gained`` the reverse;
            both 0 for perplexity.
        verdict: of the loss against the margin.
        items_to_decide: how many items would give a verdict if the change stays as estimated;
            ``None`` if there is one or the estimate lies on the margin.
    """

    change: Interval
    loss: Interval
    p_value: float
    lost: int
    gained: int
    items: int
    margin: float
    verdict: Verdict
    items_to_decide: int | None

    @property
    def identical(self) -> bool:
        """Whether no item's outcome changed; the interval of an accuracy has a width even so."""
        return not (self.change.estimate or self.lost or self.gained)


def wilson(successes: int, trials: int) -> Interval:
    """The Wilson score interval of a proportion.

    Raises:
        ValueError: if there are no trials.
    """
    if trials == 0:
        raise ValueError("no trials: a proportion of nothing has no interval")
    interval = stats.binomtest(successes, trials).proportion_ci(CONFIDENCE, method="wilson")
    return Interval(estimate=successes / trials, low=float(interval.low), high=float(interval.high))


def mcnemar(lost: int, gained: int) -> float:
    """Exact two-sided McNemar test on the discordant pairs; 1 if there are none."""
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
    return float(stats.norm.ppf(0.5 + CONFIDENCE / 2))


def _block_length(residuals: np.ndarray) -> int:
    """The cube root of the number of items (Künsch, 1989), or the longer optimum that their correlation asks for.

    The optimum is that of Politis and White (2004) as corrected by Patton, Politis and White (2009); of too few items
    no correlation is estimated.
    """
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


def value_interval(record: Record) -> Interval:
    """The record's value with its interval: Wilson for accuracy, block bootstrap for the others.

    Raises:
        ValueError: if the record holds no items.
    """
    match record.items:
        case Choices() as items:
            return wilson(sum(items.correct), len(items))
        case Perplexities() as items:
            log, _ = block_bootstrap(items.nats, items.units)
            return Interval(estimate=math.exp(log.estimate), low=math.exp(log.low), high=math.exp(log.high))
        case Divergences() as items:
            return block_bootstrap(items.kl, np.ones(len(items)))[0]
    raise ValueError(f"{record.test} holds no items: {record.outcome}, {record.reason}")


def verdict(loss: Interval, margin: float) -> Verdict:
    """Where the interval of a loss (positive is worse) lies against the margin."""
    if loss.high <= margin:
        return "equivalent or better"
    return "worse" if loss.low > margin else "undecided"


def _items_to_decide(loss: Interval, margin: float, items: int) -> int | None:
    """Items at which an interval that narrows as ``1 / sqrt(n)`` leaves the margin outside."""
    distance = abs(margin - loss.estimate)
    half = (loss.high - loss.low) / 2
    if verdict(loss, margin) != "undecided" or distance == 0:
        return None
    return max(items + 1, math.ceil(items * (half / distance) ** 2))


def paired_change(reference: Items, candidate: Items) -> tuple[Interval, float]:
    """Candidate minus reference on the same items: of accuracy, or of the mean in nats a unit.

    Returns:
        The change with its interval, and the two-sided p value of no change.

    Raises:
        ValueError: if the items are of different kinds or numbers.
    """
    if type(reference) is not type(candidate) or len(reference) != len(candidate):
        raise ValueError(
            f"{len(reference)} {type(reference).__name__} cannot be paired with "
            f"{len(candidate)} {type(candidate).__name__}; measure both on the same items"
        )
    match reference, candidate:
        case Choices(), Choices():
            lost, gained = flips(reference, candidate)
            return paired_proportion_difference(lost, gained, len(reference)), mcnemar(lost, gained)
        case Perplexities(), Perplexities():
            if reference.units != candidate.units:
                raise ValueError("the items have different numbers of units; measure both with the same tokenizer")
            difference = np.subtract(candidate.nats, reference.nats)
            return block_bootstrap(difference, reference.units)
    raise ValueError(f"{type(reference).__name__} has no paired comparison")


def flips(reference: Choices, candidate: Choices) -> tuple[int, int]:
    """Questions right before and wrong now, and wrong before and right now."""
    pairs = list(zip(reference.correct, candidate.correct, strict=True))
    return sum(r and not c for r, c in pairs), sum(c and not r for r, c in pairs)


def compare(reference: Items, candidate: Items, better: Direction, margins: Margins) -> Comparison:
    """The paired comparison of two sets of outcomes of the same items.

    Raises:
        ValueError: as :func:`paired_change`.
    """
    change, p_value = paired_change(reference, candidate)
    lost, gained, margin = 0, 0, margins.log_perplexity
    if isinstance(reference, Choices) and isinstance(candidate, Choices):
        lost, gained = flips(reference, candidate)
        margin = margins.accuracy
    loss = change
    if better == "higher":
        loss = Interval(estimate=-change.estimate, low=-change.high, high=-change.low)
    return Comparison(
        change=change,
        loss=loss,
        p_value=p_value,
        lost=lost,
        gained=gained,
        items=len(reference),
        margin=margin,
        verdict=verdict(loss, margin),
        items_to_decide=_items_to_decide(loss, margin, len(reference)),
    )


def _place(items: Items, better: Direction) -> tuple[float, list[float]]:
    """What sorts candidates on the same items, the best first."""
    match items:
        case Choices():
            outcomes, units = [float(right) for right in items.correct], len(items)
        case Perplexities():
            outcomes, units = items.nats, sum(items.units)
        case _:
            raise ValueError(f"{type(items).__name__} has no paired comparison")
    return (1 if better == "lower" else -1) * math.fsum(outcomes) / units, outcomes


def shared_ranks(items: Sequence[Items], better: Direction) -> list[int]:
    """The rank of each candidate, 1 the best.

    In the order of their estimates, a candidate shares the rank of the first of the running group if
    the paired interval between the two covers zero; otherwise it opens a new group, whose rank is one
    more than the number of candidates before it.  A shared rank says "not distinguishable from the
    group's first on these items"; intervals are not corrected for the number of comparisons.
    Equal estimates are ordered by their outcomes, so that ranks do not depend on the order given.
    """
    order = sorted(range(len(items)), key=lambda i: _place(items[i], better))
    ranks = [0] * len(items)
    leader = -1
    for position, index in enumerate(order):
        if leader < 0 or not paired_change(items[leader], items[index])[0].covers_zero:
            leader, rank = index, position + 1
        ranks[index] = rank
    return ranks
