"""Rows on the cells of a run: what is asked of which records, and what these say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from quantsuite.facets import PARTS
from quantsuite.intervals import Interval
from quantsuite.margins import Margins
from quantsuite.metrics import Metric, named_metric
from quantsuite.pairs import compare_records, noise_floor
from quantsuite.records import Record
from quantsuite.requirements.bounds import Status, judge
from quantsuite.requirements.patterns import SchemePattern, facets_of_variant, is_task
from quantsuite.requirements.rows import Row
from quantsuite.scheme import Variant
from quantsuite.statistics import too_few

if TYPE_CHECKING:
    from quantsuite.cells import Cell

WAY_OUT = (
    "layers/in-place of the run names a layer that is not as planned; where it names none, look at larger batches and "
    "at what is no layer; a requirement that is wrong is changed in its row"
)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What records say of a requirement, with the value and the bound in one line.

    ``absent`` is said of what was not measured because it was not chosen or cannot be; ``items`` is about how many
    would decide.
    """

    status: Status | Literal["failed", "absent"]
    text: str
    items: int | None = None


@dataclass(frozen=True, kw_only=True)
class Requirement:
    """A row on the record of a task under a scheme, and on that which it is compared with, if it is a loss."""

    name: str
    row: Row
    task: str
    candidate: Variant
    reference: Variant | None = None

    def __str__(self) -> str:
        against = "" if self.reference is None or not self.row.against else f"-vs-{self.reference.label}"
        return f"{self.name}-{self.task}-{self.candidate.label}{against}"

    def judge(self, records: Sequence[Record], margins: Margins) -> Finding:
        """What a run's records say of it."""
        asked = [self.candidate, *([self.reference] if self.reference else [])]
        by_variant = {record.subject.variant: record for record in records if record.task.name == self.task}
        for variant in asked:
            record = by_variant.get(variant)
            if record is None:
                return Finding(status="absent", text=f"{variant.label} {self.task} was not run with this test")
            if record.outcome != "passed" or not record.measured:
                status = "absent" if record.outcome in ("unsupported", "skipped") else "failed"
                return Finding(status=status, text=f"{variant.label} {self.task} {record.outcome}: {record.reason}")
        candidate = by_variant[self.candidate]
        if self.reference is None:
            return self._judge_value(candidate)
        return self._judge_change(candidate, by_variant[self.reference], margins, noise_floor(candidate, records))

    def _judge_value(self, record: Record) -> Finding:
        metric, items = record.metric, record.items
        interval = metric.interval(items)
        shown = f"{metric.scale.value(interval.estimate)} {metric.scale.interval(interval)} {_unit(metric)}"
        few = too_few(metric, interval, len(items))
        return self._decide(
            record, interval, shown, few, [(each.side, each.of(metric, "value", 0)) for each in self.row.bounds]
        )

    def _judge_change(self, candidate: Record, reference: Record, margins: Margins, floor: float | None) -> Finding:
        comparison, note = compare_records(reference, candidate, margins, floor=floor)
        if comparison is None:
            return Finding(status="failed", text=f"{candidate.subject.title} {self.task}: {note}")
        metric, quantity = candidate.metric, self.row.quantity
        sizes = [(each.side, each.of(metric, quantity, comparison.margin)) for each in self.row.bounds]
        if quantity == "difference":
            sizes += [("at least", -size) for _, size in sizes]
        shown = f"{quantity} {metric.scale.change_interval(comparison.loss)} {metric.scale.change_unit}"
        return self._decide(candidate, comparison.loss, shown, comparison.too_few, sizes)

    def _decide(
        self, record: Record, interval: Interval, shown: str, few: str, sizes: Sequence[tuple[str, float]]
    ) -> Finding:
        found = [judge(interval, side, size, len(record.items)) for side, size in sizes]
        required = " and ".join(map(str, self.row.bounds))
        if "margin" in required and record.metric.margin is not None and self.row.quantity != "value":
            required += f" of {record.metric.scale.margin(abs(sizes[0][1]))}"
        against = f" against {self.reference.label}" if self.reference else ""
        text = f"{record.subject.title} {self.task}: {shown}{against}, required {required}"
        statuses = [status for status, _ in found]
        if "missed" in statuses:
            return Finding(status="missed", text=f"{text}: {self.row.reason}; {WAY_OUT}")
        if "undecided" not in statuses:
            return Finding(status="met", text=text)
        items = max((count for _, count in found if count is not None), default=None)
        decide = few or _would_decide(record, items)
        estimate = Interval(estimate=interval.estimate, low=interval.estimate, high=interval.estimate)
        beyond = any(judge(estimate, side, size, len(record.items))[0] == "missed" for side, size in sizes)
        if self.row.undecided == "estimate" and beyond and not few:
            return Finding(status="missed", text=f"{text}; {decide}, and the estimate is beyond: {self.row.reason}")
        return Finding(status="undecided", text=f"{text}; {decide}: {self.row.reason}", items=items)


def _would_decide(record: Record, items: int | None) -> str:
    noun, there = record.metric.noun, f"{len(record.items):,}"
    if items is None:
        return f"{there} {noun} do not decide"
    limited = record.dataset is not None and record.dataset.limit
    way_out = "raise --limit" if limited else "there are no more of this task"
    return f"undecided by {there} {noun}, about {items:,} would decide; {way_out}"


def _unit(metric: Metric) -> str:
    return metric.scale.sign or metric.unit


def requirements_of(rows: Mapping[str, Row], cells: Sequence[Cell]) -> tuple[list[Requirement], dict[str, str]]:
    """Each row on each cell of a run that it is of, in their order, and why a row is on none, by its name."""
    found: list[Requirement] = []
    unmatched: dict[str, str] = {}
    metrics = {cell.task.name: named_metric(cell.task.label.metric) for cell in cells}
    variants = list(dict.fromkeys(cell.variant for cell in cells))
    for name, row in rows.items():
        tasks = [t for t in metrics if any(is_task(p, t) for p in row.tasks) and row.is_of_metric(metrics[t])]
        pairs = _pairs(row, variants)
        found += [
            Requirement(name=name, row=row, task=task, candidate=candidate, reference=reference)
            for candidate, reference in pairs
            for task in tasks
            if not _is_of_itself(metrics[task], reference)
        ]
        if not tasks:
            unmatched[name] = f"no task of this run is {' or '.join(row.tasks)} in the unit of the row"
        elif not pairs:
            unmatched[name] = _no_pair(row, variants)
    return found, unmatched


def _is_of_itself(metric: Metric, reference: Variant | None) -> bool:
    """Whether a distance from the reference would be compared with the reference's own."""
    return metric.of_reference and reference is not None and reference.scheme.is_reference


def _candidates(row: Row, variants: Sequence[Variant]) -> list[Variant]:
    return [
        variant
        for variant in variants
        if any(pattern.matches(variant) for pattern in row.schemes)
        and row.execution in (None, variant.execution)
        and not (variant.scheme.is_reference and row.quantity != "value")
    ]


def _pairs(row: Row, variants: Sequence[Variant]) -> list[tuple[Variant, Variant | None]]:
    """Candidates with what they are compared with; of two sets all that are equal in what neither names."""
    candidates = _candidates(row, variants)
    if row.quantity == "value":
        return [(candidate, None) for candidate in candidates]
    references = [variant for variant in variants if row.references.matches(variant)]
    return [(one, other) for one in candidates for other in references if one != other and _is_pair(row, one, other)]


def _is_pair(row: Row, candidate: Variant, reference: Variant) -> bool:
    return reference.scheme.is_reference or any(
        _alike(pattern, row.references, candidate, reference) for pattern in row.schemes if pattern.matches(candidate)
    )


def _alike(ours: SchemePattern, theirs: SchemePattern, candidate: Variant, reference: Variant) -> bool:
    """Whether two schemes are equal in what neither side names, and in what both name with the same words."""
    shared = {name for name, value in ours.fields.items() if theirs.fields.get(name) == value}
    freed = (ours.named | theirs.named) - shared
    facets, others = (facets_of_variant(each) for each in (candidate, reference))
    return all(facets[name] == others[name] for name in (*PARTS["scheme"], "execution") if name not in freed)


def _no_pair(row: Row, variants: Sequence[Variant]) -> str:
    schemes = " or ".join(pattern.text for pattern in row.schemes)
    execution = f" in {row.execution} execution" if row.execution else ""
    if not _candidates(row, variants):
        return f"no scheme of this run is {schemes}{execution}"
    return f"no scheme of this run that is {schemes}{execution} has one that is {row.references.text}, all else equal"
