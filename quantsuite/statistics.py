"""Paired comparisons, verdicts and ranks: from items and their metric to what may be said."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from quantsuite.intervals import FEWEST_ITEMS, Interval
from quantsuite.margins import Margins
from quantsuite.metrics import Metric, change

Verdict = Literal["equivalent or better", "worse", "undecided"]


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

    @property
    def identical(self) -> bool:
        """Whether no item's outcome changed; the interval of an accuracy has a width even so."""
        return not (self.change.estimate or self.lost or self.gained)


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
    metric: Metric, reference: Any, candidate: Any, margins: Margins, *, reference_metric: Metric | None = None
) -> Comparison:
    """The paired comparison of two sets of outcomes of the same items.

    Args:
        metric: of the candidate's items.
        reference: items.
        candidate: items.
        margins: the losses that count as none.
        reference_metric: of the reference's items, if it is another.

    Raises:
        ValueError: if the metric has no paired comparison, or the items cannot be paired.
    """
    found = change(reference_metric or metric, reference, metric, candidate)
    loss = found.interval
    if metric.better == "higher":
        loss = Interval(estimate=-loss.estimate, low=-loss.high, high=-loss.low)
    margin = margins.of(metric)
    return Comparison(
        change=found.interval,
        loss=loss,
        p_value=found.p_value,
        lost=found.lost,
        gained=found.gained,
        items=len(reference),
        margin=margin,
        verdict=verdict(loss, margin),
        items_to_decide=items_to_decide(loss, margin, len(reference)),
        too_few=too_few(metric, loss, len(reference)),
    )


def _place(metric: Metric, items: Any) -> tuple[float, list[float]]:
    """What sorts candidates on the same items, the best first."""
    outcomes = list(map(float, metric.outcomes_of(items)))
    return (1 if metric.better == "lower" else -1) * math.fsum(outcomes) / sum(metric.units(items)), outcomes


def shared_ranks(metric: Metric, items: Sequence[Any]) -> list[int]:
    """The rank of each candidate, 1 the best.

    In the order of their estimates, a candidate shares the rank of the first of the running group if
    the paired interval between the two covers zero; otherwise it opens a new group, whose rank is one
    more than the number of candidates before it.  A shared rank says "not distinguishable from the
    group's first on these items"; intervals are not corrected for the number of comparisons.
    Where items are too few for intervals, all share the first rank.
    Equal estimates are ordered by their outcomes, so that ranks do not depend on the order given.

    Raises:
        ValueError: if the metric has no paired comparison, or the items cannot be paired.
    """
    order = sorted(range(len(items)), key=lambda i: _place(metric, items[i]))
    ranks = [0] * len(items)
    leader = -1
    for position, index in enumerate(order):
        if leader < 0 or not metric.compare(items[leader], items[index]).interval.covers_zero:
            leader, rank = index, position + 1
        ranks[index] = rank
    return ranks
