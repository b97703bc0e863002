"""Formats over their granularities, each compared with the finest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quantsuite.contrasts import FORMATS
from quantsuite.facets import CHOSEN, coarseness, place
from quantsuite.margins import Margins
from quantsuite.pairs import compare_records
from quantsuite.records import differences
from quantsuite.reporting.rows import Row, facet, unique
from quantsuite.statistics import Comparison

COMPARED_FORMATS = tuple(side.fields["format"] for side in (FORMATS.reference, FORMATS.candidate))


@dataclass(frozen=True, kw_only=True)
class Point:
    """A granularity of a trend: its row, and its comparison with the trend's finest granularity."""

    granularity: str
    row: Row
    against_finest: Comparison | None


@dataclass(frozen=True, kw_only=True)
class Trend:
    """One format in one execution over its granularities, the coarsest first."""

    format: str
    execution: str | None
    points: tuple[Point, ...]


def trends_of(rows: Sequence[Row], margins: Margins) -> list[Trend]:
    """Of what says nothing but format and granularity, all of it under the conditions of the first."""
    comparable = [
        row for row in rows if row.comparison is not None and not any(facet(row, name) for name in ("rest", *CHOSEN))
    ]
    series = [
        row
        for row in comparable
        if coarseness(facet(row, "granularity"))[0] < 3
        and not differences(row.record, comparable[0].record, with_model=True)
    ]
    series.sort(key=lambda row: coarseness(facet(row, "granularity")))
    keys = unique((facet(row, "format"), facet(row, "execution")) for row in series)
    known = COMPARED_FORMATS
    keys.sort(key=lambda key: (key[0] not in known, key[0] == known[1], place("execution", key[1])))
    trends = []
    for form, execution in keys:
        own = [row for row in series if (facet(row, "format"), facet(row, "execution")) == (form, execution)]
        if len(own) > 1:
            trends.append(Trend(format=form, execution=execution or None, points=_points(own, margins)))
    return trends


def _points(rows: Sequence[Row], margins: Margins) -> tuple[Point, ...]:
    finest = rows[-1].record
    return tuple(
        Point(
            granularity=facet(row, "granularity"),
            row=row,
            against_finest=None if row.record is finest else compare_records(finest, row.record, margins)[0],
        )
        for row in rows
    )
