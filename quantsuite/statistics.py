"""Paired comparisons, verdicts and ranks: from items and their metric to what may be said."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from quantsuite.intervals import FEWEST_ITEMS, Interval
from quantsuite.margins import Margins
from quantsuite.metrics import Metric, change

Verdict = Literal["equivalent or better", "worse", "undecided", "other"]

NOISE = 2.0
"""Noise floors by which two runs' drifts may differ: each has rounded once."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A candidate against a reference on the same items.

    Args:
        change: candidate minus reference, in the unit of the metric's changes before its scale: of accuracy a fraction,
            of perplexity its logarithm.
        loss: the same change, signed so that positive is worse.
        p_value: two-sided, of no change.
        lost: items that were right in the reference and are wrong in the candidate; ``gained`` the reverse;
            ``None`` where items are not right or wrong.
        verdict: of the loss against the margin.
        items_to_decide: how many items would give a verdict if the change stays as estimated;
            ``None`` if there is one, the estimate lies on the margin, or items are too few to say.
        of_reference: whether values are distances from a reference, and the change the logarithm of their ratio.
        floor: the noise floor of values that are distances from a reference, ``None`` where it was not measured.
        within_floor: whether the two values are nearer to each other than the floor.
        too_few: why the interval is unbounded and the verdict undecided, with the way out; empty where it is not.
    """

    change: Interval
    loss: Interval
    p_value: float
    lost: int | None
    gained: int | None
    items: int
    margin: float
    verdict: Verdict
    items_to_decide: int | None
    too_few: str = ""
    of_reference: bool = False
    floor: float | None = None
    within_floor: bool = False

    @property
    def identical(self) -> bool:
        """Whether no item's outcome changed; the interval of an accuracy has a width even so."""
        return not (self.change.estimate or self.lost or self.gained)

    @property
    def is_distinguishable(self) -> bool:
        """Whether the interval excludes zero, and the values are no nearer than the noise floor."""
        return not (self.change.covers_zero or self.within_floor)


def verdict_of_runs(change: Interval, band: float) -> Verdict:
    """Where a change between two runs of one thing lies against a band on both sides of none."""
    if -band <= change.low and change.high <= band:
        return "equivalent or better"
    return "other" if change.low > band or change.high < -band else "undecided"


def verdict(loss: Interval, margin: float) -> Verdict:
    """Where the interval of a loss (positive is worse) lies against the margin."""
    if loss.high <= margin:
        return "equivalent or better"
    return "worse" if loss.low > margin else "undecided"


def too_few(metric: Metric, interval: Interval, items: int) -> str:
    """Why an interval of so many items is unbounded, with the way out; empty if it is not."""
    if interval.is_bounded:
        return ""
    return f"too few {metric.noun}: {items:,}, an interval takes {FEWEST_ITEMS}; raise --limit"


def items_to_decide(loss: Interval, margin: float, items: int) -> int | None:
    """Items at which an interval that narrows as ``1 / sqrt(n)`` leaves the margin outside."""
    distance = abs(margin - loss.estimate)
    half = (loss.high - loss.low) / 2
    if verdict(loss, margin) != "undecided" or distance == 0 or not loss.is_bounded:
        return None
    return max(items + 1, math.ceil(items * (half / distance) ** 2))


def compare(
    metric: Metric,
    reference: Any,
    candidate: Any,
    margins: Margins,
    *,
    reference_metric: Metric | None = None,
    floor: float | None = None,
) -> Comparison:
    """The paired comparison of two sets of outcomes of the same items.

    Args:
        metric: of the candidate's items.
        reference: items.
        candidate: items.
        margins: the losses that count as none.
        reference_metric: of the reference's items, if it is another.
        floor: of a metric of distances from a reference, the reference's own.

    Raises:
        ValueError: if the metric has no paired comparison, or the items cannot be paired.
    """
    found = change(reference_metric or metric, reference, metric, candidate)
    loss = found.interval
    if metric.better == "higher":
        loss = Interval(estimate=-loss.estimate, low=-loss.high, high=-loss.low)
    margin = margins.of(metric)
    known = (reference_metric or metric).value(reference)
    if metric.of_reference and floor and known:
        margin = max(margin, math.log1p(NOISE * floor / known))
    found_verdict = verdict_of_runs(loss, margin) if metric.of_reference else verdict(loss, margin)
    return Comparison(
        change=found.interval,
        loss=loss,
        p_value=found.p_value,
        lost=found.lost,
        gained=found.gained,
        items=len(reference),
        margin=margin,
        verdict=found_verdict,
        items_to_decide=None if metric.of_reference else items_to_decide(loss, margin, len(reference)),
        too_few=too_few(metric, loss, len(reference)),
        of_reference=metric.of_reference,
        floor=floor,
        within_floor=floor is not None and abs(metric.value(candidate) - known) <= floor,
    )


def _place(metric: Metric, items: Any) -> tuple[float, list[float]]:
    """What sorts candidates on the same items, the best first."""
    outcomes = list(map(float, metric.outcomes_of(items)))
    return (1 if metric.better == "lower" else -1) * math.fsum(outcomes) / sum(metric.units(items)), outcomes


def _alike(metric: Metric, leader: Any, other: Any, floor: float | None) -> bool:
    if floor is not None and abs(metric.value(leader) - metric.value(other)) <= floor:
        return True
    return metric.compare(leader, other).interval.covers_zero


def shared_ranks(metric: Metric, items: Sequence[Any], *, floor: float | None = None) -> list[int]:
    """The rank of each candidate, 1 the best.

    In the order of their estimates, a candidate shares the rank of the first of the running group if
    the paired interval between the two covers zero; otherwise it opens a new group, whose rank is one
    more than the number of candidates before it.  A shared rank says "not distinguishable from the
    group's first on these items"; intervals are not corrected for the number of comparisons.
    Where items are too few for intervals, all share the first rank.  Values that are no farther apart than the noise
    ``floor`` share one too.
    Equal estimates are ordered by their outcomes, so that ranks do not depend on the order given.

    Raises:
        ValueError: if the metric has no paired comparison, or the items cannot be paired.
    """
    order = sorted(range(len(items)), key=lambda i: _place(metric, items[i]))
    ranks = [0] * len(items)
    leader = -1
    for position, index in enumerate(order):
        if leader < 0 or not _alike(metric, items[leader], items[index], floor):
            leader, rank = index, position + 1
        ranks[index] = rank
    return ranks
