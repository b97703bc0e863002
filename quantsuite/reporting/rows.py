"""Records as a report's rows: with their interval, their comparison with the reference, and their rank."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from quantsuite.facets import facets_of
from quantsuite.intervals import Interval
from quantsuite.margins import Margins
from quantsuite.pairs import compare_records, noise_floor
from quantsuite.records import Record, differences
from quantsuite.statistics import Comparison, shared_ranks, too_few

T = TypeVar("T")

NAMED_FAULTS = 5
"""Of a cell; of more the number is given."""


def unique(values: Iterable[T]) -> list[T]:
    """Without repetitions, in the order of first appearance; values need not be hashable."""
    found: list[T] = []
    for value in values:
        if value not in found:
            found.append(value)
    return found


@dataclass(frozen=True, kw_only=True)
class Row:
    """One record with what may be said about it.

    Args:
        record: the measured cell, or the one without a number.
        interval: of the value; ``None`` where nothing was measured or items are too few.
        comparison: with the reference, paired; ``None`` for itself and where there is none.
        rank: among the records that can be compared, 1 the best; shared where not distinguishable.
        weight_ratio: weight bytes over those of the reference.
        note: why a number is missing, or what else is to be known.
        floor: the noise floor of a distance from the reference; ``None`` where it was not measured.
    """

    record: Record
    interval: Interval | None = None
    comparison: Comparison | None = None
    rank: int | None = None
    weight_ratio: float | None = None
    note: str | None = None
    floor: float | None = None

    @property
    def label(self) -> str:
        subject = self.record.subject
        label = self.record.scheme if subject.execution is None else f"{subject.scheme} {subject.execution}"
        return label + subject.chosen

    @property
    def value(self) -> str:
        """As it is shown."""
        record = self.record
        if record.measured and record.metric.in_words is not None:
            return record.metric.in_words(record.items).value
        return record.metric.scale.value(record.value)

    @property
    def remark(self) -> str:
        """What a value in words leaves to be known."""
        in_words = self.record.metric.in_words if self.record.measured else None
        return "" if in_words is None else in_words(self.record.items).remark


def facet(row: Row, field: str) -> str:
    """The value of a field of a row's record."""
    return facets_of(row.record)[field]


def rows_of(records: Sequence[Record], margins: Margins, run: Sequence[Record] = ()) -> list[Row]:
    """One row a record of one model and task, compared with the model's reference but not ranked.

    Args:
        records: of the task.
        margins: the losses that count as none.
        run: all records of the model, one of which may hold the noise floor.
    """
    reference = next((record for record in records if record.subject.is_reference), None)
    floor = noise_floor(records[0], run or records)
    return [replace(_row(record, reference, margins), floor=floor) for record in records]


def _row(record: Record, reference: Record | None, margins: Margins) -> Row:
    if not record.measured:
        return Row(record=record, note=_reason(record))
    notes = [] if record.outcome == "passed" else [_reason(record)]
    interval = comparison = None
    if record.metric.in_words is not None:
        return Row(record=record, weight_ratio=_weight_ratio(record, reference), note=_faults(record, notes))
    try:
        interval = record.metric.interval(record.items)
        if why := too_few(record.metric, interval, len(record.items)):
            interval, notes = None, [*notes, why]
    except ValueError as error:
        notes.append(str(error))
    if record is not reference and record.metric.is_paired and not record.metric.of_reference:
        comparison, why_not = compare_records(reference, record, margins)
        notes += [why_not] if why_not else []
    return Row(
        record=record,
        interval=interval,
        comparison=comparison,
        weight_ratio=_weight_ratio(record, reference),
        note="; ".join(unique(notes)) or None,
    )


def _faults(record: Record, notes: Sequence[str]) -> str | None:
    """The first faults of a value in words, that which is the reason of the outcome not twice."""
    assert record.metric.in_words is not None
    faults = [each for each in record.metric.in_words(record.items).faults if not any(each in note for note in notes)]
    rest = [f"and {len(faults) - NAMED_FAULTS:,} more"] if len(faults) > NAMED_FAULTS else []
    return "; ".join((*notes, *faults[:NAMED_FAULTS], *rest)) or None


def _reason(record: Record) -> str:
    return f"{record.outcome}: {record.reason or 'no reason given'}"


def _weight_ratio(record: Record, reference: Record | None) -> float | None:
    if reference is None or not reference.weight_bytes or record.weight_bytes is None:
        return None
    return record.weight_bytes / reference.weight_bytes


def ranked(rows: Sequence[Row]) -> list[Row]:
    """Measured rows best first, with ranks where they can be compared; then the others as they came."""
    measured = [row for row in rows if row.record.measured]
    ranks = _ranks(measured)
    sign = -1 if rows[0].record.metric.better == "higher" else 1
    measured = [replace(row, rank=rank) for row, rank in zip(measured, ranks, strict=True)]
    measured.sort(key=lambda row: (row.rank or len(rows) + 1, sign * (row.record.value or 0.0)))
    return measured + [row for row in rows if not row.record.measured]


def _ranks(rows: Sequence[Row]) -> list[int | None]:
    """Ranks among the reference and what was compared with it; without one, of what equals the first's conditions."""
    ranks: list[int | None] = [None] * len(rows)
    if not rows or not rows[0].record.metric.is_paired:
        return ranks
    first = next((row for row in rows if row.record.subject.is_reference), rows[0] if rows else None)
    chosen = [
        index
        for index, row in enumerate(rows)
        if row is first or (first is not None and not differences(row.record, first.record, with_model=True))
    ]
    items = [rows[index].record.items for index in chosen]
    try:
        found = shared_ranks(rows[0].record.metric, items, floor=rows[0].floor) if len(items) > 1 else []
    except ValueError:
        return ranks
    for index, rank in zip(chosen, found, strict=False):
        ranks[index] = rank
    return ranks
