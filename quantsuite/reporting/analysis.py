"""What a report says, computed once from records: intervals, paired comparisons, ranks and trends."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from quantsuite.intervals import Interval
from quantsuite.margins import Margins
from quantsuite.metrics import Metric
from quantsuite.records import Dataset, Record, TaskLabel, differences_with_model
from quantsuite.statistics import Comparison, compare, shared_ranks

COMPARED_FORMATS = ("int8", "fp8")
EXECUTION_PAIR = ("simulated", "real")
NO_REFERENCE = "no bf16 in this run"

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One record with what may be said about it.

    Args:
        record: the measured cell, or the one without a number.
        interval: of the value; ``None`` where nothing was measured or one item is too few.
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
        return subject.scheme if subject.execution is None else f"{subject.scheme} {subject.execution}"


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two records compared with each other: the comparison, or the reason why there is none."""

    reference: Record
    candidate: Record
    comparison: Comparison | None
    note: str | None


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
class GroupAccuracies:
    """Right answers of one record by group: ``(right, questions)``."""

    label: str
    counts: dict[str, tuple[int, int]]


@dataclass(frozen=True, kw_only=True)
class MetricAnalysis:
    """One metric of one model.

    Args:
        task: its name and version.
        metric: of its items.
        rows: the measured ones first, the best at the top, then those without a number.
        format_pairs: FP8 against INT8 of equal granularity and execution.
        execution_pairs: real against simulated of one scheme.
        trends: one for each format and execution with two granularities or more.
        groups: accuracies by group of bf16, the best and the worst row.
    """

    task: TaskLabel
    metric: Metric
    rows: tuple[Row, ...]
    format_pairs: tuple[Pair, ...]
    execution_pairs: tuple[Pair, ...]
    trends: tuple[Trend, ...]
    groups: tuple[GroupAccuracies, ...]

    @property
    def compared(self) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.comparison is not None)

    @property
    def datasets(self) -> list[Dataset]:
        return unique(row.record.dataset for row in self.rows if row.record.dataset is not None)


@dataclass(frozen=True, kw_only=True)
class ModelAnalysis:
    """All metrics of one model."""

    model: str
    records: tuple[Record, ...]
    metrics: tuple[MetricAnalysis, ...]


def unique(values: Iterable[T]) -> list[T]:
    """Without repetitions, in the order of first appearance; values need not be hashable."""
    found: list[T] = []
    for value in values:
        if value not in found:
            found.append(value)
    return found


def analyse(records: Sequence[Record], margins: Margins) -> list[ModelAnalysis]:
    """Everything that the report shows, model by model in the records' order."""
    models = []
    for title, own in by_model(records).items():
        metrics = tuple(_analyse_metric(group, margins) for group in by_metric(own))
        models.append(ModelAnalysis(model=title, records=tuple(own), metrics=metrics))
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
        format_pairs=tuple(_format_pairs(records, margins)),
        execution_pairs=tuple(_execution_pairs(records, margins)),
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


def compare_records(
    reference: Record | None, candidate: Record, margins: Margins
) -> tuple[Comparison | None, str | None]:
    """The paired comparison, or why there is none."""
    if reference is None:
        return None, NO_REFERENCE
    if reference.items is None or candidate.items is None:
        missing = reference if reference.items is None else candidate
        return None, f"{missing.subject.label} was not measured"
    if different := differences_with_model(candidate, reference):
        return None, f"not comparable with {reference.subject.label}: {'; '.join(different)}"
    try:
        return compare(candidate.metric, reference.items, candidate.items, margins), None
    except ValueError as error:
        return None, f"not comparable with {reference.subject.label}: {error}"


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
        if row is first or (first is not None and not differences_with_model(row.record, first.record))
    ]
    items = [rows[index].record.items for index in chosen]
    try:
        found = shared_ranks(rows[0].record.metric, items) if len(items) > 1 else []
    except ValueError:
        return ranks
    for index, rank in zip(chosen, found, strict=False):
        ranks[index] = rank
    return ranks


def is_weight_only(record: Record) -> bool:
    """Whether nothing but the weight is quantized, so that format and granularity are the whole scheme."""
    subject = record.subject
    return subject.scheme == f"{subject.format}-{subject.granularity}"


def _format_pairs(records: Sequence[Record], margins: Margins) -> list[Pair]:
    reference, candidate = (
        {
            (record.subject.granularity, record.subject.execution): record
            for record in records
            if record.measured and is_weight_only(record) and record.subject.format == name
        }
        for name in COMPARED_FORMATS
    )
    keys = sorted(reference.keys() & candidate.keys(), key=lambda key: (coarseness(key[0]), _execution_order(key[1])))
    return _pairs([(reference[key], candidate[key]) for key in keys], margins)


def _execution_order(execution: str | None) -> int:
    return EXECUTION_PAIR.index(execution) if execution in EXECUTION_PAIR else -1


def _execution_pairs(records: Sequence[Record], margins: Margins) -> list[Pair]:
    simulated, real = (
        {record.subject.scheme: record for record in records if record.measured and record.subject.execution == name}
        for name in EXECUTION_PAIR
    )
    return _pairs([(simulated[name], real[name]) for name in simulated if name in real], margins)


def _pairs(records: Iterable[tuple[Record, Record]], margins: Margins) -> list[Pair]:
    pairs = []
    for reference, candidate in records:
        if candidate.metric.is_paired:
            comparison, note = compare_records(reference, candidate, margins)
            pairs.append(Pair(reference=reference, candidate=candidate, comparison=comparison, note=note))
    return pairs


def coarseness(granularity: str | None) -> tuple[int, int]:
    """Sorts granularities from coarse to fine: tensor, row, then groups from large to small."""
    if group := re.fullmatch(r"g(\d+)", granularity or ""):
        return 2, -int(group[1])
    return {"tensor": 0, "row": 1}.get(granularity or "", 3), 0


def _trends(rows: Sequence[Row], margins: Margins) -> list[Trend]:
    comparable = [row for row in rows if row.comparison is not None and is_weight_only(row.record)]
    series = [row for row in comparable if coarseness(row.record.subject.granularity)[0] < 3]
    series.sort(key=lambda row: coarseness(row.record.subject.granularity))
    keys = unique((row.record.subject.format, row.record.subject.execution) for row in series)
    keys.sort(key=lambda key: (key[0] not in COMPARED_FORMATS, key[0] == COMPARED_FORMATS[1], _execution_order(key[1])))
    trends = []
    for form, execution in keys:
        own = [row for row in series if (row.record.subject.format, row.record.subject.execution) == (form, execution)]
        if len(own) > 1:
            trends.append(Trend(format=form or "", execution=execution, points=_points(own, margins)))
    return trends


def _points(rows: Sequence[Row], margins: Margins) -> tuple[Point, ...]:
    finest = rows[-1].record
    return tuple(
        Point(
            granularity=row.record.subject.granularity or "",
            row=row,
            against_finest=None if row.record is finest else compare_records(finest, row.record, margins)[0],
        )
        for row in rows
    )


def _groups(rows: Sequence[Row]) -> list[GroupAccuracies]:
    scored = [row for row in rows if row.record.measured and row.record.metric.groups is not None]
    quantized = [row for row in scored if not row.record.subject.is_reference]
    chosen = [row for row in scored if row.record.subject.is_reference] + quantized[:1] + quantized[1:][-1:]
    groups = []
    for row in chosen:
        metric, items = row.record.metric, row.record.items
        assert metric.groups is not None
        counts: dict[str, tuple[int, int]] = {}
        for group, right in zip(metric.groups(items), metric.outcomes(items), strict=True):
            before = counts.get(group, (0, 0))
            counts[group] = (before[0] + right, before[1] + 1)
        groups.append(GroupAccuracies(label=row.label, counts=counts))
    return groups
