"""The report's files: a Markdown page with its plots beside it, and one self-contained HTML page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from tabulate import tabulate

from quantsuite.contrasts import Contrast
from quantsuite.intervals import CONFIDENCE
from quantsuite.margins import Margins
from quantsuite.records import Run
from quantsuite.reporting import tables
from quantsuite.reporting.analysis import ContrastAnalysis, MetricAnalysis, ModelAnalysis, analyse
from quantsuite.reporting.answers import answers, floor_sentence
from quantsuite.reporting.contrasts import contrast_table, question
from quantsuite.reporting.figures import Plot, plots
from quantsuite.reporting.findings import Answer
from quantsuite.reporting.numerics import numerics_section
from quantsuite.reporting.power import sight_of
from quantsuite.reporting.rows import unique
from quantsuite.reporting.tables import Table
from quantsuite.reporting.wording import capital, count, joined


@dataclass(frozen=True, kw_only=True)
class MetricSection:
    """A metric's tables; those that its records do not fill are ``None``."""

    name: str
    direction: str
    floor: str | None
    power: str | None
    ranking: Table
    trends: Table | None
    details: Table | None
    groups: Table | None


@dataclass(frozen=True, kw_only=True)
class ContrastSection:
    """A contrast's tables, each with its task's name."""

    contrast: Contrast
    question: str
    tables: tuple[tuple[str, Table], ...]


@dataclass(frozen=True, kw_only=True)
class ModelSection:
    """A model's part of the page; ``plots`` by what they show, ``grouped`` the heading of tables by group."""

    name: str
    slug: str
    reference: str
    answers: tuple[Answer, ...]
    metrics: tuple[MetricSection, ...]
    contrasts: tuple[ContrastSection, ...]
    grouped: str
    plots: dict[str, Plot]
    datasets: Table
    provenance: Table


def write_report(
    run: Run, folder: Path, *, margins: Margins | None = None, contrasts: Sequence[Contrast] = ()
) -> list[Path]:
    """Write ``report.md`` with its plots and ``report.html``, which needs no other file.

    Args:
        run: of one file or several, one record a cell.
        folder: made if it is missing; its earlier ``report-*.svg`` are removed.
        margins: the losses that count as none.
        contrasts: beside those of every report.

    Returns:
        The files written, the HTML page first.

    Raises:
        ValueError: if there are no records, or a contrast does not tell two of them apart.
    """
    if not (run.records or run.properties or run.errors):
        raise ValueError("no records to report on; run pytest tests_accuracy first")
    margins = margins or Margins()
    sections = [
        _model_section(model, f"{_slug(model.model)}-{number}", margins)
        for number, model in enumerate(analyse(run.records, margins, contrasts), 1)
    ]
    numerics = numerics_section(run.properties, run.errors)
    words = {
        "models": sections,
        "summary": _summary(run),
        "numerics": numerics,
        "confidence": f"{CONFIDENCE:.0%}",
    }
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("report-*.svg"):
        old.unlink()
    files = {
        "report.html": _environment(html=True).get_template("report.html.j2").render(words),
        "report.md": _environment(html=False).get_template("report.md.j2").render(words),
    }
    drawn = [plot for section in sections for plot in section.plots.values()] + list(numerics.plots if numerics else ())
    files |= {_file_name(plot): plot.svg for plot in drawn}
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in files]


def _summary(run: Run) -> str:
    parts = []
    if run.records:
        measured = sum(record.measured for record in run.records)
        models = unique(record.subject.model for record in run.records)
        missing = len(run.records) - measured
        text = f"{count(len(run.records), 'records')} of {joined(models)}: {measured} measured"
        parts.append(f"{text}, {missing} without a number (listed with the reason)" if missing else text)
    if run.properties:
        kernels = len({result.contestant for result in run.properties})
        parts.append(f"{count(len(run.properties), 'checks')} of {count(kernels, 'kernels')}")
    if run.errors:
        parts.append(f"{count(len(run.errors), 'errors')} of random tensors")
    return f"{'; '.join(parts)}."


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "model"


def _model_section(model: ModelAnalysis, slug: str, margins: Margins) -> ModelSection:
    return ModelSection(
        name=model.model,
        slug=slug,
        reference=model.reference,
        answers=answers(model),
        metrics=tuple(_metric_section(metric) for metric in model.metrics),
        contrasts=tuple(
            _contrast_section([found for found in model.contrasts if found.contrast == contrast])
            for contrast in unique(found.contrast for found in model.contrasts)
        ),
        grouped=capital(f"{joined(unique(metric.metric.unit for metric in model.metrics if metric.groups))} by group"),
        plots=plots(model, slug),
        datasets=tables.datasets(model),
        provenance=tables.provenance(model, margins),
    )


def _contrast_section(found: Sequence[ContrastAnalysis]) -> ContrastSection:
    return ContrastSection(
        contrast=found[0].contrast,
        question=question(found[0]),
        tables=tuple((each.task, contrast_table(each)) for each in found),
    )


def _metric_section(metric: MetricAnalysis) -> MetricSection:
    return MetricSection(
        name=metric.task.name,
        direction="all are required" if metric.metric.in_words else f"{metric.metric.better} is better",
        floor=floor_sentence(metric),
        power=sight.sentence if (sight := sight_of(metric.rows)) else None,
        ranking=tables.ranking(metric),
        trends=tables.trends(metric) if metric.trends else None,
        details=tables.details(metric),
        groups=tables.groups(metric),
    )


def _environment(*, html: bool) -> Environment:
    environment = Environment(
        loader=PackageLoader("quantsuite.reporting"),
        autoescape=html,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"table": _html_table if html else _markdown_table, "file": _file_name}
    if html:
        environment.filters["inline"] = lambda plot: Markup(plot.inline)
    else:
        environment.filters["plain"] = _markdown_text
    return environment


def _file_name(plot: Plot) -> str:
    return f"report-{plot.name}.svg"


def _markdown_text(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return re.sub(r"([\\`*_|\[\]<])", r"\\\1", " ".join(text.split()))


def _markdown_table(table: Table) -> str:
    align = ["right" if table.is_number(index) else "left" for index in range(len(table.heads))]
    rows = [[_markdown_text(cell) for cell in row] for row in table.rows]
    heads = [_markdown_text(head) for head in table.heads]
    return tabulate(rows, heads, tablefmt="pipe", colalign=align if rows else None, disable_numparse=True)


def _html_table(table: Table) -> Markup:
    """A table that scrolls by itself, so that the page does not."""
    classes = ["number" if table.is_number(index) else "words" for index in range(len(table.heads))]
    classes = ["verdict" if head == "Verdict" else name for head, name in zip(table.heads, classes, strict=True)]
    lines = ['<div class="scroll"><table>']
    if any(table.heads):
        lines.append(f"<thead>{_html_row('th', table.heads, classes)}</thead>")
    lines.append("<tbody>")
    lines += [_html_row("td", row, classes, table.kind(index)) for index, row in enumerate(table.rows)]
    lines.append("</tbody></table></div>")
    return Markup("\n".join(lines))


def _html_row(tag: str, cells: Sequence[str], classes: Sequence[str], kind: str = "") -> str:
    inner = "".join(f'<{tag} class="{name}">{escape(cell)}</{tag}>' for cell, name in zip(cells, classes, strict=True))
    return f'<tr class="{kind}">{inner}</tr>' if kind else f"<tr>{inner}</tr>"
