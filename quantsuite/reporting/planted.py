"""The score of the checks: faults that were planted in kernels, by category, and what caught them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from quantsuite.metrics.scale import MISSING
from quantsuite.records import PropertyResult
from quantsuite.reporting.rows import unique
from quantsuite.reporting.tables import Table
from quantsuite.reporting.topics import Topic


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A planted fault, and the properties that it breaks."""

    name: str
    category: str
    caught_by: Sequence[str]


def planted_faults(results: Sequence[PropertyResult]) -> list[Fault]:
    """The faults of results whose ``planted`` is a category; the fault's name is the contestant's."""
    return [
        Fault(
            name=name,
            category=category,
            caught_by=unique(
                result.property
                for result in results
                if (result.planted, result.contestant) == (category, name) and result.outcome == "fails"
            ),
        )
        for category, name in unique((result.planted, result.contestant) for result in results)
    ]


def planted_topic(results: Sequence[PropertyResult]) -> list[Topic]:
    """The score by category, the faults that one check alone catches, and those that none does."""
    if not results:
        return []
    faults = planted_faults(results)
    categories = [[fault for fault in faults if fault.category == name] for name in unique(f.category for f in faults)]
    rows = [_row(own[0].category, own) for own in categories]
    heads = ("Category", "Planted", "Caught", "Share", "Checks a caught fault, median", "Caught by one check alone")
    scores = Table(heads=heads, rows=(*rows, _row("all", faults)))
    weak = sorted((fault for fault in faults if len(fault.caught_by) < 2), key=lambda fault: len(fault.caught_by))
    listed = tuple((f.name, f.category, _spoken(f.caught_by[0]) if f.caught_by else "none") for f in weak)
    tables = [scores]
    if listed:
        title = "Faults that no check, or one alone, catches"
        tables.append(Table(title=title, heads=("Fault", "Category", "Caught by"), rows=listed, labels=3))
    words = (
        "Kernels in which one fault each was planted, under the same checks. A fault is caught where at least one "
        "check fails; one that a single check catches escapes as soon as that check is weakened."
    )
    return [Topic(heading="Planted faults", words=words, tables=tuple(tables))]


def _row(name: str, faults: Sequence[Fault]) -> tuple[str, ...]:
    counts = [len(fault.caught_by) for fault in faults if fault.caught_by]
    share = f"{len(counts) / len(faults):.1%}"
    middle = f"{median(counts):g}" if counts else MISSING
    return (name, str(len(faults)), str(len(counts)), share, middle, str(counts.count(1)))


def _spoken(name: str) -> str:
    return name.replace("_", " ")
