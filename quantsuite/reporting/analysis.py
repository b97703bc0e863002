"""What a report says, computed once from records: intervals, paired comparisons, ranks and trends."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from quantsuite.contrasts import FORMATS, STANDARD, Contrast, engine_contrasts, find_pairs
from quantsuite.facets import CHOSEN, coarseness, facets_of, place
from quantsuite.intervals import Interval
from quantsuite.margins import Margins
from quantsuite.metrics import Metric
from quantsuite.pairs import Pair, compare_records
from quantsuite.records import Dataset, Record, TaskLabel, differences
from quantsuite.statistics import Comparison, shared_ranks, too_few

COMPARED_FORMATS = tuple(side.fields["format"] for side in (FORMATS.reference, FORMATS.candidate))

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One record with what may be said about it.

    Args:
        record: the measured cell, or the one without a number.
        interval: of the value; ``None`` where nothing was measured or items are too few.
        comparison: with bf16, paired; ``None`` for bf16 itself and where there is none.
        rank: among the records that can be compared, 1 the best; shared where not distinguishable.
        weight_ratio: weight bytes over those of bf16.
        note: why a number is missing, or what else is to be known.
    """

    record: Record
    interval: Interval | None = None
    comparison: Comparison | None = None
    rank: int | None = None
    weight_ratio: float | None = None
    note: str | None = None

    @property
    def label(self) -> str:
        subject = self.record.subject
        label = subject.scheme if subject.execution is None else f"{subject.scheme} {subject.execution}"
        return label + subject.chosen


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


@dataclass(frozen=True, kw_only=True)
class GroupValues:
    """Outcomes of one record by group: ``(their sum, over so many units)``."""

    label: str
    sums: dict[str, tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class MetricAnalysis:
    """One metric of one model.

    Args:
        task: its name and version.
        metric: of its items.
        rows: the measured ones first, the best at the top, then those without a number.
        trends: one for each format and execution with two granularities or more.
        groups: values by group of bf16, the best and the worst row.
    """

    task: TaskLabel
    metric: Metric
    rows: tuple[Row, ...]
    trends: tuple[Trend, ...]
    groups: tuple[GroupValues, ...]

    @property
    def compared(self) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.comparison is not None)

    @property
    def datasets(self) -> list[Dataset]:
        return unique(row.record.dataset for row in self.rows if row.record.dataset is not None)


@dataclass(frozen=True, kw_only=True)
class ContrastAnalysis:
    """A contrast's pairs on one task, or from one task to another."""

    contrast: Contrast
    pairs: tuple[Pair, ...]

    @property
    def task(self) -> str:
        """Its name, or both."""
        pair = self.pairs[0]
        return " to ".join(unique((pair.reference.task.name, pair.candidate.task.name)))

    @property
    def metric(self) -> Metric:
        return self.pairs[0].candidate.metric


@dataclass(frozen=True, kw_only=True)
class ModelAnalysis:
    """All metrics of one model, and what contrasts find in it, contrast by contrast and task by task."""

    model: str
    records: tuple[Record, ...]
    metrics: tuple[MetricAnalysis, ...]
    contrasts: tuple[ContrastAnalysis, ...]


def unique(values: Iterable[T]) -> list[T]:
    """Without repetitions, in the order of first appearance; values need not be hashable."""
    found: list[T] = []
    for value in values:
        if value not in found:
            found.append(value)
    return found


def analyse(records: Sequence[Record], margins: Margins, contrasts: Sequence[Contrast] = ()) -> list[ModelAnalysis]:
    """Everything that the report shows, model by model in the records' order.

    Args:
        records: one a cell.
        margins: the losses that count as none.
        contrasts: beside those of every report.

    Raises:
        ContrastError: if a contrast does not tell two records apart.
    """
    models, seen = [], set()
    for title, own in by_model(records).items():
        metrics = tuple(_analyse_metric(group, margins) for group in by_metric(own))
        found = contrasts_of(own, [each for each in (*contrasts, *STANDARD) if not each.crosses_settings], margins)
        model = own[0].subject.model
        if model not in seen:
            # What is compared across engines, devices or dtypes stands where its model comes first.
            whole = [record for record in records if record.subject.model == model]
            crossing = [each for each in (*contrasts, *engine_contrasts(whole)) if each.crosses_settings]
            found += contrasts_of(whole, crossing, margins)
            seen.add(model)
        models.append(ModelAnalysis(model=title, records=tuple(own), metrics=metrics, contrasts=tuple(found)))
    return models


def by_model(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Records of one model together; of one engine, device and dtype too, where a model was measured in several."""
    settings = unique(record.key.setting for record in records)
    models = [model for model, *_ in settings]
    found = {}
    for setting in settings:
        model, *rest = filter(None, setting)
        title = model if models.count(model) == 1 else f"{model} ({', '.join(rest)})"
        found[title] = [record for record in records if record.key.setting == setting]
    return found


def contrasts_of(records: Sequence[Record], contrasts: Iterable[Contrast], margins: Margins) -> list[ContrastAnalysis]:
    """The pairs of each contrast in the records of a model, task by task in the records' order.

    Raises:
        ContrastError: if a contrast does not tell two records apart.
    """
    order = unique(record.task.name for record in records)
    found = []
    for contrast in contrasts:
        by_task: dict[tuple[int, int], list[Pair]] = {}
        for pair in find_pairs(records, contrast, margins):
            place = order.index(pair.reference.task.name), order.index(pair.candidate.task.name)
            by_task.setdefault(place, []).append(pair)
        found += [ContrastAnalysis(contrast=contrast, pairs=tuple(by_task[place])) for place in sorted(by_task)]
    return found


def by_metric(records: Sequence[Record]) -> list[list[Record]]:
    """Records of equal metric name together."""
    names = unique(record.task.name for record in records)
    return [[record for record in records if record.task.name == name] for name in names]


def _analyse_metric(records: Sequence[Record], margins: Margins) -> MetricAnalysis:
    rows = _ranked(rows_of(records, margins))
    return MetricAnalysis(
        task=records[0].task,
        metric=records[0].metric,
        rows=tuple(rows),
        trends=tuple(_trends(rows, margins)),
        groups=tuple(_groups(rows)),
    )


def rows_of(records: Sequence[Record], margins: Margins) -> list[Row]:
    """One row a record of one model and metric, compared with the model's bf16 but not ranked."""
    reference = next((record for record in records if record.subject.is_reference), None)
    return [_row(record, reference, margins) for record in records]


def _row(record: Record, reference: Record | None, margins: Margins) -> Row:
    if not record.measured:
        return Row(record=record, note=_reason(record))
    notes = [] if record.outcome == "passed" else [_reason(record)]
    interval = comparison = None
    try:
        interval = record.metric.interval(record.items)
        if why := too_few(record.metric, interval, len(record.items)):
            interval, notes = None, [*notes, why]
    except ValueError as error:
        notes.append(str(error))
    if record is not reference and record.metric.is_paired:
        comparison, why_not = compare_records(reference, record, margins)
        notes += [why_not] if why_not else []
    return Row(
        record=record,
        interval=interval,
        comparison=comparison,
        weight_ratio=_weight_ratio(record, reference),
        note="; ".join(unique(notes)) or None,
    )


def _reason(record: Record) -> str:
    return f"{record.outcome}: {record.reason or 'no reason given'}"


def _weight_ratio(record: Record, reference: Record | None) -> float | None:
    if reference is None or not reference.weight_bytes or record.weight_bytes is None:
        return None
    return record.weight_bytes / reference.weight_bytes


def _ranked(rows: Sequence[Row]) -> list[Row]:
    """Measured rows best first, with ranks where they can be compared; then the others as they came."""
    measured = [row for row in rows if row.record.measured]
    ranks = _ranks(measured)
    sign = -1 if rows[0].record.metric.better == "higher" else 1
    measured = [replace(row, rank=rank) for row, rank in zip(measured, ranks, strict=True)]
    measured.sort(key=lambda row: (row.rank or len(rows) + 1, sign * (row.record.value or 0.0)))
    return measured + [row for row in rows if not row.record.measured]


def _ranks(rows: Sequence[Row]) -> list[int | None]:
    """Ranks among bf16 and what was compared with it; without bf16, among what equals the first row's conditions."""
    ranks: list[int | None] = [None] * len(rows)
    first = next((row for row in rows if row.record.subject.is_reference), rows[0] if rows else None)
    chosen = [
        index
        for index, row in enumerate(rows)
        if row is first or (first is not None and not differences(row.record, first.record, with_model=True))
    ]
    items = [rows[index].record.items for index in chosen]
    try:
        found = shared_ranks(rows[0].record.metric, items) if len(items) > 1 else []
    except ValueError:
        return ranks
    for index, rank in zip(chosen, found, strict=False):
        ranks[index] = rank
    return ranks


def facet(row: Row, field: str) -> str:
    """The value of a field of a row's record."""
    return facets_of(row.record)[field]


def _trends(rows: Sequence[Row], margins: Margins) -> list[Trend]:
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


def _groups(rows: Sequence[Row]) -> list[GroupValues]:
    scored = [row for row in rows if row.record.measured and row.record.metric.groups is not None]
    quantized = [row for row in scored if not row.record.subject.is_reference]
    chosen = [row for row in scored if row.record.subject.is_reference] + quantized[:1] + quantized[1:][-1:]
    groups = []
    for row in chosen:
        metric, items = row.record.metric, row.record.items
        assert metric.groups is not None
        sums: dict[str, tuple[float, float]] = {}
        for group, outcome, units in zip(
            metric.groups(items), metric.outcomes_of(items), metric.units(items), strict=True
        ):
            before = sums.get(group, (0, 0))
            sums[group] = (before[0] + outcome, before[1] + units)
        groups.append(GroupValues(label=row.label, sums=sums))
    return groups
