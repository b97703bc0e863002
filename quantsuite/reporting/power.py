"""What loss a run could have seen, in a sentence, and how many items another loss takes, as a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from quantsuite.margins import Margins
from quantsuite.metrics import Metric
from quantsuite.metrics.scale import MISSING
from quantsuite.power import (
    POWERS,
    USUAL_POWER,
    Design,
    Flips,
    Spread,
    design_of,
    equivalent,
    items_needed,
    smallest_seen,
)
from quantsuite.reporting.rows import Row
from quantsuite.reporting.tables import Table
from quantsuite.reporting.wording import approximately, count, percent


@dataclass(frozen=True, kw_only=True)
class Sight:
    """What comparisons of so many items can see.

    Args:
        metric: of the items.
        design: how much their outcomes change.
        items: of one comparison.
        margin: the loss that counts as none.
    """

    metric: Metric
    design: Design
    items: int
    margin: float

    @property
    def basis(self) -> str:
        """``1,000 questions, of which 5.0 % change``."""
        items = count(self.items, self.metric.noun)
        if isinstance(self.design, Flips):
            return f"{items}, of which {percent(self.design.share)} change"
        assert isinstance(self.design, Spread)
        return f"{items}, whose mean has a standard error of {self.metric.scale.quantity(self.design.error)}"

    @property
    def told_from_none(self) -> str:
        """The loss that is distinguished from none with the usual power."""
        return self._seen(0.0)

    @property
    def sentence(self) -> str:
        """What is seen how often, in a line."""
        lossless = equivalent(self.design, self.margin, self.items)
        return (
            f"In {USUAL_POWER:.0%} of runs a loss of {self.told_from_none} is told from none, and one of "
            f"{self._seen(self.margin)} found worse; what loses nothing is called equivalent in {_share(lossless)} "
            f"({self.basis})."
        )

    @property
    def line(self) -> str:
        """The same for a terminal."""
        lossless = _share(equivalent(self.design, self.margin, self.items))
        worse = self._seen(self.margin)
        return f"{USUAL_POWER:.0%} power at a loss of {self.told_from_none} (worse: {worse}); no loss: ok in {lossless}"

    def _seen(self, margin: float) -> str:
        loss = smallest_seen(self.design, margin, self.items)
        return "any size" if loss is None else self.metric.scale.quantity(loss)


def _share(probability: float) -> str:
    if 0.01 <= probability < 0.995:
        return f"{probability:.0%}"
    return "less than 1%" if probability < 0.01 else "over 99%"


def sight_of(rows: Sequence[Row]) -> Sight | None:
    """What the comparisons of one task can see, by the variant of the median interval.

    Those whose outcomes are all the reference's count only where there are no others.  ``None`` if nothing is compared
    or items are too few.
    """
    reference = next((row.record for row in rows if row.record.subject.is_reference), None)
    compared = [row for row in rows if row.comparison is not None and row.comparison.loss.is_bounded]
    changed = [row for row in compared if row.comparison and not row.comparison.identical]
    ordered = sorted(changed or compared, key=_width)
    if reference is None or not ordered:
        return None
    row = ordered[len(ordered) // 2]
    metric, comparison = row.record.metric, row.comparison
    assert comparison is not None
    design = design_of(metric, reference.items, row.record.items)
    if design is None or (isinstance(design, Spread) and not design.error):
        return None
    return Sight(metric=metric, design=design, items=comparison.items, margin=comparison.margin)


def _width(row: Row) -> float:
    assert row.comparison is not None
    return row.comparison.loss.high - row.comparison.loss.low


def power_table(sights: Iterable[tuple[str, Sight]], loss: float) -> Table:
    """About how many items find a true loss worse, or equivalent if it is within the margin, by task and power.

    Args:
        sights: of each task, by its name.
        loss: in the unit of the metrics' changes before their scale.

    Raises:
        ValueError: if a proportion cannot lose so much.
    """
    rows = [(task, *_needs(sight, loss)) for task, sight in sights]
    heads = ("task", "loss", "found", "spread", "items", *(f"{power:.0%}" for power in POWERS))
    return Table(heads=heads, rows=tuple(rows), labels=3)


def _needs(sight: Sight, loss: float) -> list[str]:
    scale, design = sight.metric.scale, sight.design
    spread = percent(design.share) if isinstance(design, Flips) else f"{scale.quantity(design.error).split()[0]}"
    measured = [spread, f"{sight.items:,}"]
    if loss == sight.margin:
        return [scale.margin(loss), "undecided", *measured, *(MISSING for _ in POWERS)]
    needed = [items_needed(sight.design, loss, sight.margin, power) for power in POWERS]
    found = "worse" if loss > sight.margin else "ok"
    return [
        scale.margin(loss),
        found,
        *measured,
        *("> 10^9" if each is None else approximately(each) for each in needed),
    ]


def assumed(metric: Metric, flips: float, items: int, margins: Margins) -> Sight:
    """Of questions of which a share changes.

    Raises:
        ValueError: if it is no share, or there are no items.
    """
    if items < 1:
        raise ValueError(f"{items:,} items show nothing; use 1 or more")
    return Sight(metric=metric, design=Flips(share=flips), items=items, margin=margins.of(metric))
