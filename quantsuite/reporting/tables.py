"""The report's tables as text cells, for Markdown and HTML alike."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from quantsuite.facets import coarseness
from quantsuite.intervals import CONFIDENCE
from quantsuite.margins import Margins
from quantsuite.metrics.scale import MISSING
from quantsuite.records import Record
from quantsuite.reporting.analysis import MetricAnalysis, ModelAnalysis
from quantsuite.reporting.rows import Row, unique
from quantsuite.reporting.wording import capital, margins_of, mebibytes, percent, unquantized_share

Kind = Literal["", "reference", "worse", "undecided", "unmeasured"]

_WORDS = ("Verdict", "Finding", "Note", "Schemes", "Properties", "Outcome", "Shape")


@dataclass(frozen=True, kw_only=True)
class Table:
    """Text cells under heads; the first ``labels`` columns are words, the rest numbers.  ``title`` may stand above."""

    title: str = ""
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    labels: int = 1
    kinds: tuple[Kind, ...] = field(default=())

    def is_number(self, column: int) -> bool:
        return column >= self.labels and not self.heads[column].startswith(_WORDS)

    def kind(self, index: int) -> Kind:
        return self.kinds[index] if self.kinds else ""


def ranking(metric: MetricAnalysis) -> Table:
    """All rows of a metric, the best first, those without a number last."""
    scale = metric.metric.scale
    bits = any("bits_per_byte" in row.record.details for row in metric.rows)
    interval = f"{CONFIDENCE:.0%} interval"
    heads = ["Rank", "Scheme", "Execution", "Plan", "Alias", metric.metric.heading, interval]
    heads += ["bits per byte"] if bits else []
    heads += [f"Change from {metric.reference}, {scale.change_unit}", "Verdict"]
    heads += ["Weights, MiB", f"Weights, share of {metric.reference}", "Note"]
    rows = []
    for row in metric.rows:
        subject = row.record.subject
        cells = [
            MISSING if row.rank is None else str(row.rank),
            row.record.scheme,
            subject.execution or MISSING,
            subject.plan or MISSING,
            (metric.reference.upper() if subject.is_reference else subject.alias) or MISSING,
            row.value,
            scale.interval(row.interval),
        ]
        cells += [fixed(row.record.details.get("bits_per_byte"))] if bits else []
        cells += [
            _change(row),
            row.comparison.verdict if row.comparison else MISSING,
            mebibytes(row.record.weight_bytes),
            percent(row.weight_ratio),
            "; ".join(filter(None, (row.note, row.remark))),
        ]
        rows.append(tuple(cells))
    kinds = tuple(_kind(row) for row in metric.rows)
    return _without_empty(Table(heads=tuple(heads), rows=tuple(rows), labels=5, kinds=kinds))


def _change(row: Row) -> str:
    if row.comparison is None:
        return MISSING
    return row.record.metric.scale.change_interval(row.comparison.change)


def _kind(row: Row) -> Kind:
    if not row.record.measured:
        return "unmeasured"
    if row.record.subject.is_reference:
        return "reference"
    if row.comparison is None or row.comparison.verdict == "equivalent or better":
        return ""
    return row.comparison.verdict


def _without_empty(table: Table) -> Table:
    """The table without the columns that say nothing."""
    columns = list(zip(*table.rows, strict=True))
    keep = [i for i, column in enumerate(columns) if i == 1 or any(cell not in ("", MISSING) for cell in column)]
    return Table(
        heads=tuple(table.heads[i] for i in keep),
        rows=tuple(tuple(row[i] for i in keep) for row in table.rows),
        labels=sum(i < table.labels for i in keep),
        kinds=table.kinds,
    )


def fixed(value: float | None) -> str:
    """Five decimals."""
    return MISSING if value is None else f"{value:.5f}"


def _number(value: float | None) -> str:
    return MISSING if value is None else f"{value:,.0f}" if value == round(value) else f"{value:.5g}"


def suffix(execution: str | None) -> str:
    """`` (real)`` behind a column head; empty for none."""
    return f" ({execution})" if execution else ""


def trends(metric: MetricAnalysis) -> Table:
    """The change from the reference by granularity, a column for each format and execution."""
    ladder = sorted({point.granularity for trend in metric.trends for point in trend.points}, key=coarseness)
    unit = metric.metric.scale.change_unit
    heads = [f"{trend.format.upper()}{suffix(trend.execution)}, {unit}" for trend in metric.trends]
    columns = [{point.granularity: _change(point.row) for point in trend.points} for trend in metric.trends]
    rows = [(granularity, *(column.get(granularity, MISSING) for column in columns)) for granularity in ladder]
    return Table(heads=("Granularity", *heads), rows=tuple(rows))


def details(metric: MetricAnalysis) -> Table | None:
    """Further numbers of the recipe, or ``None`` if it reports none."""
    keys, names = unique(key for row in metric.rows for key in row.record.details), metric.metric.detail_names
    if not keys:
        return None
    rows = [
        (row.label, *(_number(row.record.details.get(key)) for key in keys))
        for row in metric.rows
        if row.record.details
    ]
    return Table(heads=("Variant", *(names.get(key, key.replace("_", " ")) for key in keys)), rows=tuple(rows))


def groups(metric: MetricAnalysis) -> Table | None:
    """The value by group of the reference, the best and the worst, or ``None`` if the metric has no groups."""
    if not metric.groups:
        return None
    names = sorted({name for column in metric.groups for name in column.sums})
    sign = f", {metric.metric.scale.sign}" if metric.metric.scale.sign else ""
    rows = []
    for name in names:
        sums = [column.sums.get(name, (0, 0)) for column in metric.groups]
        values = [metric.metric.scale.value(total / units) if units else MISSING for total, units in sums]
        rows.append((name.replace("_", " "), f"{max(units for _, units in sums):,}", *values))
    heads = ("Group", capital(metric.metric.noun), *(f"{column.label}{sign}" for column in metric.groups))
    return Table(heads=heads, rows=tuple(rows))


def datasets(model: ModelAnalysis) -> Table:
    """Which items each metric was measured on."""
    rows = [
        (
            metric.task.name,
            str(metric.task.version),
            dataset.name,
            dataset.sha256,
            f"{dataset.items:,}",
            f"{dataset.limit:,}" if dataset.limit else "all",
            str(dataset.seed),
        )
        for metric in model.metrics
        for dataset in metric.datasets
    ]
    return Table(
        heads=("Metric", "Version", "Dataset", "Dataset sha256", "Items", "Limit", "Seed"), rows=tuple(rows), labels=4
    )


def provenance(model: ModelAnalysis, margins: Margins) -> Table:
    """What was measured, where, with what, and by which statistics."""
    records = model.records
    created = sorted(record.created for record in records if record.created)
    environments = unique(record.environment for record in records)
    kernels = unique((record.subject.kernel, record.subject.kernel_sha256) for record in records)
    rows = [
        ("Model", model.model),
        ("Model sha256", _listed(record.subject.model_sha256 for record in records)),
        *(("Kernel sha256", f"{name} {sha256}") for name, sha256 in kernels if sha256),
        ("Engine", _listed(record.subject.engine for record in records)),
        ("Left unquantized", _listed(map(unquantized_share, records))),
        ("Device", _listed(each.device for each in environments)),
        ("Hardware", _listed(each.hardware for each in environments)),
        ("dtype of the reference", _listed(each.dtype for each in environments)),
        ("Threads", _listed(str(each.threads) for each in environments)),
        ("Versions", _listed(_versions(record) for record in records)),
        ("Created", " to ".join(unique(created[:1] + created[-1:])) or MISSING),
        ("Measuring time", f"{sum(record.seconds for record in records):,.1f} s"),
        ("Margins", margins_of((metric.metric for metric in model.metrics), margins) or MISSING),
        ("Confidence", f"{CONFIDENCE:.0%}"),
        ("Intervals of means", "standard error of moving blocks, Student's t"),
    ]
    return Table(heads=("", ""), rows=tuple(rows), labels=2)


def _versions(record: Record) -> str:
    return ", ".join(f"{name} {version}" for name, version in sorted(record.environment.versions.items()))


def _listed(values: Iterable[str]) -> str:
    return "; ".join(unique(value for value in values if value)) or MISSING
