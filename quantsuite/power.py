"""Power: what loss so many items can show, and how many items it takes.

A loss is *worse* if its whole interval lies above the margin, and *equivalent or better* if none of it does.  How often
either is found, over runs on other items of the same kind, depends on the true loss, the number of items, and how much
their outcomes change: :class:`Flips` of what is right or wrong, :class:`Spread` of any other mean.

scipy is imported where it is called: what only reads outcomes does not wait for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from quantsuite.intervals import CONFIDENCE, FEWEST_ITEMS, block_length
from quantsuite.metrics import Metric

POWERS = (0.5, 0.8, 0.95)
USUAL_POWER = 0.8
MOST_ITEMS = 10**9
_EXTREME = 35.0
"""Standard errors beyond which a probability is 0 or 1 in float64."""


@dataclass(frozen=True, kw_only=True)
class Flips:
    """Items that are right or wrong, of which a share changes between reference and candidate.

    Args:
        share: of all items, those right in one of the two alone; at least the loss.

    Raises:
        ValueError: if it is no share.
    """

    share: float

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"a share of {self.share:g} items changes; use a number from 0 to 1")

    def beyond(self, loss: float, margin: float, items: int) -> float:
        """The probability that the whole interval of a true loss lies above the margin.

        Exact: the sum over the numbers d of discordant pairs, binomial of all items, of the probability that enough of
        the d are lost, binomial again (Duffy, Biometrics 40, 1984), where enough is what the adjusted Wald interval of
        Bonett and Price (2012) asks for.

        Raises:
            ValueError: if the loss is larger than 1.
        """
        from scipy import stats

        if abs(loss) > 1:
            raise ValueError(f"a loss of {loss:g} of all items is none; use a fraction, 0.02 of 2 points")
        share = max(self.share, abs(loss))
        spread = 10 * math.sqrt(items * share * (1 - share)) + 30
        discordant = np.arange(max(0, int(items * share - spread)), min(items, int(items * share + spread)) + 1)
        needed = _most_not_beyond(discordant, margin, items)
        lost = stats.binom.sf(needed, discordant, (1 + loss / share) / 2 if share else 0.5)
        return float(stats.binom.pmf(discordant, items, share) @ lost)


def _most_not_beyond(discordant: np.ndarray, margin: float, items: int) -> np.ndarray:
    """Of so many discordant pairs the most that may be lost with the interval's lower end at the margin or below.

    That end is ``c - sqrt(a (q - c**2))`` with c the adjusted loss, q the adjusted share and ``a = z**2 / (n + 2)``;
    where it is the margin, c is the larger root of a square equation.
    """
    from scipy import stats

    adjusted = items + 2
    a = float(stats.norm.ppf(0.5 + CONFIDENCE / 2)) ** 2 / adjusted
    under = a * ((1 + a) * (discordant + 2) / adjusted - margin**2)
    centre = (margin + np.sqrt(np.maximum(under, 0.0))) / (1 + a)
    return np.floor((centre * adjusted + discordant) / 2)


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A mean of items in blocks of neighbours, as :func:`~quantsuite.intervals.block_mean` compares it.

    Args:
        error: standard error of the change, of so many items.
        items: of which the error is.
        blocks: that they make.
    """

    error: float
    items: int
    blocks: float

    def beyond(self, loss: float, margin: float, items: int) -> float:
        """The probability that the whole interval of a true loss lies above the margin; 0 of too few items.

        By the noncentral t distribution of as many degrees of freedom as there are blocks, less one (Johnson, Kotz and
        Balakrishnan, Continuous Univariate Distributions 2, chapter 31).  The error falls as ``1 / sqrt(n)``, and
        blocks grow as the cube root of n.
        """
        from scipy import special

        if items < FEWEST_ITEMS:
            return 0.0
        ratio = items / self.items
        error, freedom = self.error / math.sqrt(ratio), max(1.0, self.blocks * ratio ** (2 / 3) - 1)
        if error == 0:
            return float(loss > margin)
        distance = float(np.clip((loss - margin) / error, -_EXTREME, _EXTREME))
        return float(1 - special.nctdtr(freedom, distance, special.stdtrit(freedom, 0.5 + CONFIDENCE / 2)))


Design = Flips | Spread
"""What the power of a comparison depends on, beside its items."""


def design_of(metric: Metric, reference: Any, candidate: Any) -> Design | None:
    """The design of a paired comparison of items, by their own changes; ``None`` if they are too few to tell.

    The share of flips is Laplace's ``(d + 1) / (n + 2)``: none among few is not none.

    Raises:
        ValueError: if the metric has no paired comparison, or the items cannot be paired.
    """
    from scipy import special

    found = metric.compare(reference, candidate)
    if found.lost is not None and found.gained is not None:
        return Flips(share=(found.lost + found.gained + 1) / (len(reference) + 2))
    if not found.interval.is_bounded:
        return None
    units = np.asarray(metric.units(reference), dtype=float)
    changes = np.subtract(metric.outcomes_of(candidate), metric.outcomes_of(reference), dtype=float)
    residuals = changes - changes.sum() / units.sum() * units
    largest = np.abs(residuals).max()
    blocks = len(units) / block_length(residuals / largest if largest else residuals)
    half = (found.interval.high - found.interval.low) / 2
    error = half / float(special.stdtrit(blocks - 1, 0.5 + CONFIDENCE / 2))
    return Spread(error=error, items=len(units), blocks=blocks)


def equivalent(design: Design, margin: float, items: int, *, loss: float = 0.0) -> float:
    """How often a loss is called equivalent or better: unless another is given, that of a scheme that loses nothing."""
    return design.beyond(-loss, -margin, items)


def smallest_seen(design: Design, margin: float, items: int, power: float = USUAL_POWER) -> float | None:
    """The loss that is found beyond the margin in a share ``power`` of runs; ``None`` if none is by so few items.

    With a margin of 0 it is the loss that is distinguished from none.
    """
    from scipy import optimize

    def excess(loss: float) -> float:
        return design.beyond(loss, margin, items) - power

    most = 1.0 if isinstance(design, Flips) else margin + _EXTREME * design.error * math.sqrt(design.items / items)
    if most == margin:
        return margin
    return float(optimize.brentq(excess, margin, most)) if excess(most) > 0 > excess(margin) else None


def items_needed(design: Design, loss: float, margin: float, power: float = USUAL_POWER) -> int | None:
    """About how many items decide a true loss in a share ``power`` of runs; ``None`` if ``MOST_ITEMS`` do not.

    To decide is to find it worse if it is above the margin, and equivalent or better if it is below.

    Raises:
        ValueError: if it lies on the margin, where no number of items decides.
    """
    if loss == margin:
        raise ValueError(f"a loss of {loss:g} lies on the margin of {margin:g}; no number of items decides it")

    def decides(items: int) -> bool:
        found = design.beyond(loss, margin, items) if loss > margin else equivalent(design, margin, items, loss=loss)
        return found >= power

    return _first(decides)


def _first(holds: Callable[[int], bool]) -> int | None:
    """The smallest number from which on a condition holds, of one that is false below it."""
    high = 1
    while not holds(high):
        if high >= MOST_ITEMS:
            return None
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
