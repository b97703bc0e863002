"""Plots of an analysis as SVG text: the same for the same records, readable on light and dark."""

from __future__ import annotations

import io
import itertools
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from quantsuite.contrasts import Contrast
from quantsuite.facets import coarseness
from quantsuite.intervals import Interval
from quantsuite.metrics import Metric
from quantsuite.records import ErrorPoint
from quantsuite.reporting.analysis import ContrastAnalysis, MetricAnalysis, ModelAnalysis
from quantsuite.reporting.contrasts import column_of, row_of, sides
from quantsuite.reporting.rows import facet, unique

INK = "#5f6368"
"""Every line and letter; where the page sets the colour it is replaced by ``currentColor``."""

# Okabe and Ito's palette, distinguishable with colour-blindness, in shades that show on white and on black.
COLOURS = {"int8": "#2f86c1", "fp8": "#d9731a"}
OTHER_COLOURS = ("#159d77", "#c272a3", "#b59a00")
COLUMNS = 3
PANEL_WIDTH = 3.4

_STYLE = {
    "svg.hashsalt": "quantsuite",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.titlecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
}


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A figure: ``name`` for its file, ``title`` and ``caption`` for the page."""

    name: str
    title: str
    caption: str
    svg: str

    @property
    def inline(self) -> str:
        """The SVG for an HTML page: ids of its own, colours of the text around it."""
        text = self.svg[self.svg.index("<svg") :].replace(INK, "currentColor")
        text = re.sub(r'\bid="', f'id="{self.name}-', text)
        text = re.sub(r'href="#', f'href="#{self.name}-', text)
        text = re.sub(r"url\(#", f"url(#{self.name}-", text)
        return text.replace("<svg ", f'<svg role="img" aria-label="{self.title}" ', 1)


def plots(model: ModelAnalysis, slug: str) -> dict[str, Plot]:
    """The plots that the model's records allow: ``ranking``, a contrast by its name, ``granularity``."""
    ranking = [metric for metric in model.metrics if metric.compared]
    trends = [metric for metric in model.metrics if metric.trends]
    drawn, reference = {}, model.reference
    if ranking:
        caption = (
            f"Paired loss against {reference} with its interval. The solid line is {reference}, "
            "the dashed line the margin; losses lie to the right. Filled: real; hollow: simulated."
        )
        rows = max(len(metric.compared) for metric in ranking)
        svg = _draw(
            ranking, _ranking_panel, 1.3 + 0.2 * rows, labels=0.5, formats=_formats(ranking), reference=reference
        )
        drawn["ranking"] = Plot(name=f"{slug}-ranking", title=f"Loss against {reference}", caption=caption, svg=svg)
    for contrast in unique(found.contrast for found in model.contrasts if found.contrast.prominent):
        shown = [found for found in model.contrasts if found.contrast == contrast]
        if shown := [found for found in shown if any(pair.comparison for pair in found.pairs)]:
            drawn[contrast.name] = _contrast_plot(contrast, shown, slug)
    if trends:
        caption = (
            f"Paired loss against {reference} with its interval; losses lie above the solid line, "
            "the dashed line is the margin. Filled, solid: real; hollow, dotted: simulated."
        )
        svg = _draw(trends, _trend_panel, 3.2, labels=0.3, formats=_formats(trends), reference=reference)
        drawn["granularity"] = Plot(name=f"{slug}-granularity", title="Loss by granularity", caption=caption, svg=svg)
    return drawn


def _contrast_plot(contrast: Contrast, found: Sequence[ContrastAnalysis], slug: str) -> Plot:
    reference, candidate = sides(found[0])
    title = f"{candidate} against {reference}"
    caption = f"Paired loss of {title}: to the right {candidate} is worse."
    if "execution" in contrast.match:
        caption += " Filled: real; hollow: simulated."
    rows = max(len(unique(row_of(each, pair) for pair in each.pairs)) for each in found)
    svg = _draw(found, _pairs_panel, max(3.0, 1.3 + 0.2 * rows), labels=0.2)
    return Plot(name=f"{slug}-{contrast.name}", title=title, caption=caption, svg=svg)


@dataclass(frozen=True, kw_only=True)
class ErrorPanel:
    """Errors of one quantity over ``x``."""

    title: str
    x_label: str
    points: tuple[ErrorPoint, ...]


def plot_errors(panels: Sequence[ErrorPanel]) -> str:
    """SVG of measured errors (dots) and their closed form (lines), logarithmic in both directions."""
    columns = min(2, len(panels))
    rows = math.ceil(len(panels) / columns)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(6.0 * columns, 3.2 * rows + 0.6), layout="constrained")
        series = unique(point.series for panel in panels for point in panel.points)
        colours = dict(zip(series, itertools.cycle((*COLOURS.values(), *OTHER_COLOURS)), strict=False))
        for index, panel in enumerate(panels):
            _error_panel(figure.add_subplot(rows, columns, index + 1), panel, colours)
        handles = [
            Line2D([], [], color=colour, marker="o", linestyle="none", label=name) for name, colour in colours.items()
        ]
        figure.legend(handles=handles, loc="outside upper left", ncols=2, frameon=False)
        return _svg(figure)


def _error_panel(axes: Axes, panel: ErrorPanel, colours: dict[str, str]) -> None:
    for series, colour in colours.items():
        points = sorted((point for point in panel.points if point.series == series), key=lambda point: point.x)
        axes.plot([point.x for point in points], [point.measured for point in points], "o", color=colour, markersize=4)
        predicted = [point for point in points if point.predicted is not None]
        axes.plot([point.x for point in predicted], [point.predicted for point in predicted], color=colour, linewidth=1)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.grid(color=INK, alpha=0.18, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel(panel.x_label)
    axes.set_ylabel("relative error")
    axes.set_title(panel.title, loc="left")


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    return buffer.getvalue()


Drawn = TypeVar("Drawn", MetricAnalysis, ContrastAnalysis)


def _draw(
    found: Sequence[Drawn],
    panel: Callable[[Axes, Drawn], None],
    height: float,
    *,
    labels: float,
    formats: Sequence[str] = (),
    reference: str = "",
) -> str:
    """One panel a metric, at most ``COLUMNS`` in a row.

    Args:
        found: a panel each.
        panel: draws one.
        height: of a panel, in inches.
        labels: inches more a panel for tick labels.
        formats: that colours tell apart.
        reference: what a scheme without a format of its own is of.
    """
    columns = min(COLUMNS, len(found))
    rows = math.ceil(len(found) / columns)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=((PANEL_WIDTH + labels) * columns, height * rows + 0.4), layout="constrained")
        for index, each in enumerate(found):
            panel(figure.add_subplot(rows, columns, index + 1), each)
        handles = [
            Line2D([], [], color=_colour(form), marker="o", linestyle="none", label=(form or reference).upper())
            for form in formats
        ]
        if len(handles) > 1:
            figure.legend(handles=handles, loc="outside upper left", ncols=len(handles), frameon=False)
        return _svg(figure)


def _formats(metrics: Iterable[MetricAnalysis]) -> list[str]:
    return unique(facet(row, "format") for metric in metrics for row in metric.compared)


def _colour(form: str) -> str:
    if form in COLOURS:
        return COLOURS[form]
    return OTHER_COLOURS[sum(map(ord, form)) % len(OTHER_COLOURS)]


def _dot(
    axes: Axes, position: float, interval: Interval, factor: float, colour: str, *, filled: bool, upright: bool = False
) -> None:
    estimate = interval.estimate * factor
    # Bonett and Price's interval need not enclose the estimate, and matplotlib refuses negative bars; it draws no
    # infinite ones.
    bars = [[max(0.0, estimate - interval.low * factor)], [max(0.0, interval.high * factor - estimate)]]
    style = {"fmt": "o", "color": colour, "markersize": 4.5, "elinewidth": 1.3}
    style["markerfacecolor"] = colour if filled else "none"
    if upright:
        axes.errorbar([position], [estimate], yerr=bars, **style)
    else:
        axes.errorbar([estimate], [position], xerr=bars, **style)


def _is_filled(execution: str | None) -> bool:
    return execution != "simulated"


def _loss_label(metric: Metric) -> str:
    scale = metric.scale
    return f"loss, {scale.change_name or scale.change_unit}"


def _zero_and_margin(axes: Axes, metric: MetricAnalysis, *, upright: bool) -> None:
    line = axes.axhline if upright else axes.axvline
    margin = next(row.comparison.margin for row in metric.compared if row.comparison is not None)
    line(0, color=INK, linewidth=1)
    line(margin * metric.metric.scale.change_factor, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    axes.grid(axis="y" if upright else "x", color=INK, alpha=0.18, linewidth=0.6)
    axes.set_axisbelow(True)


def _ranking_panel(axes: Axes, metric: MetricAnalysis) -> None:
    factor = metric.metric.scale.change_factor
    rows = metric.compared
    for position, row in enumerate(rows):
        subject = row.record.subject
        assert row.comparison is not None
        filled = _is_filled(subject.execution)
        _dot(axes, position, row.comparison.loss, factor, _colour(facet(row, "format")), filled=filled)
    _zero_and_margin(axes, metric, upright=False)
    axes.set_yticks(range(len(rows)), [row.label for row in rows], fontsize=7.5)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(_loss_label(metric.metric))
    axes.set_title(metric.task.name, loc="left")


def _spread(index: int, count: int, step: float = 0.16) -> float:
    return step * (index - (count - 1) / 2)


def _pairs_panel(axes: Axes, found: ContrastAnalysis) -> None:
    factor = found.metric.scale.change_factor
    pairs = [pair for pair in found.pairs if pair.comparison is not None]
    rows = unique(row_of(found, pair) for pair in pairs)
    columns = unique(column_of(found, pair) for pair in pairs)
    for pair in pairs:
        assert pair.comparison is not None
        spread = _spread(columns.index(column_of(found, pair)), len(columns), 0.3)
        filled = "execution" not in found.contrast.match or _is_filled(pair.reference.subject.execution)
        _dot(axes, rows.index(row_of(found, pair)) + spread, pair.comparison.loss, factor, INK, filled=filled)
    axes.axvline(0, color=INK, linewidth=1)
    axes.grid(axis="x", color=INK, alpha=0.18, linewidth=0.6)
    axes.set_yticks(range(len(rows)), [" ".join(row) for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.locator_params(axis="x", nbins=5)
    reference, candidate = sides(found)
    axes.set_xlabel(f"{candidate} against {reference}: {_loss_label(found.metric)}")
    axes.set_title(found.task, loc="left")


def _trend_panel(axes: Axes, metric: MetricAnalysis) -> None:
    factor = metric.metric.scale.change_factor
    ladder = sorted({point.granularity for trend in metric.trends for point in trend.points}, key=coarseness)
    for index, trend in enumerate(metric.trends):
        filled = _is_filled(trend.execution)
        positions = [ladder.index(point.granularity) + _spread(index, len(metric.trends)) for point in trend.points]
        losses = [point.row.comparison.loss for point in trend.points if point.row.comparison is not None]
        for position, loss in zip(positions, losses, strict=True):
            _dot(axes, position, loss, factor, _colour(trend.format), filled=filled, upright=True)
        axes.plot(
            positions,
            [loss.estimate * factor for loss in losses],
            color=_colour(trend.format),
            linewidth=1,
            linestyle="-" if filled else ":",
        )
    _zero_and_margin(axes, metric, upright=True)
    axes.set_xticks(range(len(ladder)), ladder)
    axes.set_xlabel("granularity, coarse to fine")
    axes.set_ylabel(_loss_label(metric.metric))
    axes.set_title(metric.task.name, loc="left")
