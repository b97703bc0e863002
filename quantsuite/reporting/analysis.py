"""What a report says, computed once from records, metric by metric and contrast by contrast."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from quantsuite.contrasts import STANDARD, Contrast, engine_contrasts, find_pairs
from quantsuite.margins import Margins
from quantsuite.metrics import Metric
from quantsuite.pairs import Pair
from quantsuite.records import Dataset, Record, TaskLabel
from quantsuite.reporting.rows import Row, ranked, rows_of, unique
from quantsuite.reporting.trends import Trend, trends_of


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
        groups: values by group of the reference, the best and the worst row.
    """

    task: TaskLabel
    metric: Metric
    rows: tuple[Row, ...]
    trends: tuple[Trend, ...]
    groups: tuple[GroupValues, ...]

    @property
    def reference(self) -> str:
        """What the rows are compared with, by the dtype that it was measured in."""
        return self.rows[0].record.environment.dtype

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

    @property
    def reference(self) -> str:
        """What is compared with, by the dtype that it was measured in."""
        return self.records[0].environment.dtype


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
        metrics = tuple(_analyse_metric(group, margins, own) for group in by_metric(own))
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


def _analyse_metric(records: Sequence[Record], margins: Margins, run: Sequence[Record]) -> MetricAnalysis:
    rows = ranked(rows_of(records, margins, run))
    return MetricAnalysis(
        task=records[0].task,
        metric=records[0].metric,
        rows=tuple(rows),
        trends=tuple(trends_of(rows, margins)),
        groups=tuple(_groups(rows)),
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
