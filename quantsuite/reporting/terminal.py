"""Summaries for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from quantsuite.contrasts import Contrast
from quantsuite.gate import GateResult
from quantsuite.intervals import CONFIDENCE
from quantsuite.margins import Margins
from quantsuite.metrics import Metric
from quantsuite.metrics.scale import MISSING
from quantsuite.power import equivalent
from quantsuite.records import Record
from quantsuite.reporting.analysis import ContrastAnalysis, by_metric, by_model, contrasts_of
from quantsuite.reporting.contrasts import contrast_table, question
from quantsuite.reporting.power import Sight, power_table, sight_of
from quantsuite.reporting.rows import Row, rows_of, unique
from quantsuite.reporting.tables import Table as ReportTable
from quantsuite.reporting.wording import (
    count,
    enumerate_variants,
    joined,
    margins_of,
    noise_floor_sentence,
    unquantized_share,
)

LABEL_WIDTH = 21
VARIANT_WIDTH = 22
METRIC_WIDTH = 31
GAP = 2

_STYLES = {"equivalent or better": "green", "worse": "red", "undecided": "yellow"}
_POWER_TITLE = "about how many items decide the loss, by the share of runs that do"
_POWER_LEGEND = (
    "ok: found equivalent or better; worse: found beyond the margin. "
    "Spread: the share of items that change, or the standard error of their mean."
)
_SHORT = {"equivalent or better": "ok", "worse": "worse", "undecided": "undecided"}


@dataclass(frozen=True)
class _ModelSummary:
    """A model's table, cut into several where its metrics do not fit side by side, and what its cells leave out."""

    model: str
    metrics: tuple[tuple[str, Metric, tuple[Row, ...]], ...]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        longest = max(len(row.record.scheme) for _, _, rows in self.metrics for row in rows)
        side_by_side = max(1, (options.max_width - min(longest, VARIANT_WIDTH) - GAP) // (METRIC_WIDTH + GAP))
        for begin in range(0, len(self.metrics), side_by_side):
            yield self._table(self.metrics[begin : begin + side_by_side])
        rows = [row for _, _, found in self.metrics for row in found]
        for note in unique(row.note for row in rows if row.note):
            variants = enumerate_variants(row.record for row in rows if row.note == note)
            yield Text(f"{variants}: {note}", style="dim")
        for task, _, found in self.metrics:
            if sight := sight_of(found):
                yield Text(f"{task}: {sight.line}", style="dim")

    def _table(self, metrics: Sequence[tuple[str, Metric, tuple[Row, ...]]]) -> Table:
        table = Table(title=self.model, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
        table.add_column("scheme", overflow="fold", max_width=VARIANT_WIDTH)
        for task, metric, _ in metrics:
            table.add_column(f"{task}\n{_units(metric)}", overflow="fold", max_width=METRIC_WIDTH)
        rows = {(task, _variant(row)): row for task, _, found in metrics for row in found}
        for scheme, execution in unique(_variant(row) for _, _, found in metrics for row in found):
            cells = [_cell(rows.get((task, (scheme, execution)))) for task, _, _ in metrics]
            table.add_row(Text.assemble(scheme, ("\n" + execution if execution else "", "dim")), *cells)
        return table


def _variant(row: Row) -> tuple[str, str]:
    subject = row.record.subject
    return row.record.scheme, ", ".join(part for part in (subject.execution, subject.plan) if part)


def _units(metric: Metric) -> str:
    unit = metric.scale.change_unit
    compared = metric.is_paired and not metric.of_reference
    return f"{metric.heading}; change, {unit}" if compared else metric.heading


def _cell(row: Row | None) -> Text:
    """The value with its interval and verdict; below it the change from the reference."""
    if row is None:
        return Text(MISSING, style="dim")
    if not row.record.measured:
        return Text(row.record.outcome, style="dim")
    scale = row.record.metric.scale
    text = Text(row.value, style="red" if row.record.outcome == "failed" else "")
    if row.interval is not None:
        text.append(f" {scale.interval(row.interval)}")
    if row.comparison is not None:
        verdict = row.comparison.verdict
        text.append(f" {_SHORT[verdict]}", style=_STYLES[verdict])
        text.append(f"\n{scale.change_interval(row.comparison.change)}", style="dim")
    elif row.remark:
        text.append(f"\n{row.remark}", style="dim")
    return text


def terminal_summary(records: Sequence[Record], margins: Margins, contrasts: Sequence[Contrast] = ()) -> RenderableType:
    """A table a model: for each scheme and execution the value, the paired change from the reference and the verdict.

    Args:
        records: one a cell.
        margins: the losses that count as none.
        contrasts: a table each.
    """
    parts: list[RenderableType] = []
    for model, own in by_model(records).items():
        metrics = tuple(
            (group[0].task.name, group[0].metric, tuple(rows_of(group, margins, own))) for group in by_metric(own)
        )
        parts.append(_ModelSummary(model, metrics))
        for name, metric, rows in metrics:
            if noise := noise_floor_sentence(metric, rows[0].floor):
                parts.append(Text(f"{name}: {noise}", style="dim"))
        parts += [Text(f"unquantized: {share}", style="dim") for share in unique(map(unquantized_share, own)) if share]
    legend = f"{CONFIDENCE:.0%} intervals"
    if shown := margins_of((record.metric for record in records), margins):
        references = joined(unique(record.environment.dtype for record in records))
        legend += (
            f"; changes are paired with {references}. ok: the loss is within the margin ({shown}); worse: beyond it"
        )
    parts.append(Text(f"{legend}.", style="dim"))
    for model in unique(record.subject.model for record in records) if contrasts else ():
        own = [record for record in records if record.subject.model == model]
        parts += [_contrast_summary(model, found) for found in contrasts_of(own, contrasts, margins)]
    return Group(*parts)


def _contrast_summary(model: str, found: ContrastAnalysis) -> Table:
    """A contrast's pairs on one task."""
    return _table(contrast_table(found), f"{model} {found.task}: {question(found)}")


def power_summary(records: Sequence[Record], margins: Margins, loss: float) -> RenderableType:
    """A table a model: about how many items a loss takes, by the changes of each task's own items.

    Args:
        records: one a cell.
        margins: the losses that count as none.
        loss: in the unit of the metrics' changes before their scale.

    Raises:
        ValueError: if nothing in the records was compared, or no loss of a proportion is so large.
    """
    parts: list[RenderableType] = []
    for model, own in by_model(records).items():
        found = ((group[0].task.name, sight_of(rows_of(group, margins))) for group in by_metric(own))
        if sights := [(task, sight) for task, sight in found if sight is not None]:
            parts.append(_table(power_table(sights, loss), f"{model}: {_POWER_TITLE}"))
    if not parts:
        raise ValueError("no task of this run has a scheme that differs from its reference; state --flips and --items")
    return Group(*parts, Text(_POWER_LEGEND, style="dim"))


def assumed_power(sight: Sight, loss: float) -> RenderableType:
    """The same of stated assumptions, with what so many items can see.

    Raises:
        ValueError: if no loss of a proportion is so large.
    """
    table = _table(power_table([("assumed", sight)], loss), _POWER_TITLE)
    times = sight.design.beyond(loss, sight.margin, sight.items)
    lossless = equivalent(sight.design, sight.margin, sight.items)
    undecided = 1 - lossless - sight.design.beyond(0.0, sight.margin, sight.items)
    lines = (
        f"{count(sight.items, sight.metric.noun)} find it worse in {times:.0%} of runs.",
        f"What loses nothing is called equivalent in {lossless:.0%}, undecided in {undecided:.0%}.",
    )
    return Group(table, *map(Text, lines), Text(_POWER_LEGEND, style="dim"))


def _table(shown: ReportTable, title: str) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for index, head in enumerate(shown.heads):
        table.add_column(head, overflow="fold", justify="right" if shown.is_number(index) else "left")
    for row in shown.rows:
        table.add_row(*map(Text, row))
    return table


def scheme_line(label: str, records: Sequence[Record], margins: Margins) -> str:
    """One scheme in one line: of its metrics the loss that is nearest its margin, or beyond it, and the seconds.

    Args:
        label: of the scheme and its execution.
        records: its cells, and those of the reference.
        margins: the losses that count as none.
    """
    own = [record for record in records if record.subject.label == label]
    shown = f"{own[0].label:<{LABEL_WIDTH}}"
    failed = next((record for record in own if not record.measured), None)
    if failed is not None:
        outcome = "n/a" if failed.outcome == "unsupported" else failed.outcome
        return f"{shown} {outcome}: {failed.reason}"
    seconds = f"{sum(record.seconds for record in own):.1f} s"
    rows = [row for group in by_metric(records) for row in rows_of(group, margins) if row.record.subject.label == label]
    compared = [row for row in rows if row.comparison is not None]
    if not compared:
        values = map(_named_value, rows)
        return f"{shown} {', '.join(values)}, {seconds}"
    worst = max(
        compared,
        key=lambda row: (row.comparison.verdict == "worse", row.comparison.loss.high - row.comparison.margin),
    )
    scale = worst.record.metric.scale
    change = f"{scale.change_interval(worst.comparison.change)} {scale.change_unit}"
    return f"{shown} {_SHORT[worst.comparison.verdict]:<9} {change}, {seconds}"


def _named_value(row: Row) -> str:
    """``direct 92.3 %``, ``document 2.146``, ``in-place 21 of 21``: the recipe and the value."""
    metric = row.record.metric
    sign = "" if metric.in_words else metric.scale.sign
    return f"{row.record.task.name.rpartition('/')[2]} {row.value} {sign}".rstrip()


def gate_summary(result: GateResult) -> RenderableType:
    """The failing cells with their reasons, what was not compared, and the gate's one line."""
    line = Text(result.summary, style="bold green" if result.passed else "bold red")
    notes = map(Text, result.notes)
    if not result.failures:
        return Group(*notes, line)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for head in ("task", "scheme", "status", "reason"):
        table.add_column(head, overflow="fold")
    for check in result.failures:
        style = _STYLES.get(check.status, "red")
        table.add_row(check.task, check.label, Text(check.status, style=style), Text(check.reason or ""))
    return Group(table, *notes, line)
