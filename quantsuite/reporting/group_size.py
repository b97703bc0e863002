"""Do INT8 and FP8 need the same group size?  Answered in sentences computed from the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quantsuite.facets import coarseness
from quantsuite.reporting.analysis import MetricAnalysis, ModelAnalysis
from quantsuite.reporting.findings import Answer, Finding, comparison_of, sample, summarize
from quantsuite.reporting.rows import unique
from quantsuite.reporting.trends import COMPARED_FORMATS, Point, Trend
from quantsuite.reporting.wording import approximately
from quantsuite.statistics import Verdict

GROUP_SIZE = "Do INT8 and FP8 need the same group size?"
GROUP_SIZE_RULE = (
    "A granularity suffices if the paired interval of its loss against the finest granularity of its format "
    "lies within the margin, and so do those between the two. "
    "If the finest itself is worse than {reference}, none suffices."
)


@dataclass(frozen=True, kw_only=True)
class Need:
    """The coarsest granularity that is known to suffice; not ``decided`` if a coarser one may too.

    ``finest`` is the verdict of the finest granularity against the reference: if that is worse, none suffices.
    """

    granularity: str
    decided: bool
    finest: Verdict
    sentence: str


def answer_group_size(model: ModelAnalysis) -> Answer:
    """Of each metric and execution of a model that measured both formats in two granularities or more."""
    findings = []
    for metric in model.metrics:
        for execution in unique(trend.execution for trend in metric.trends):
            trends = {trend.format: trend for trend in metric.trends if trend.execution == execution}
            if all(form in trends for form in COMPARED_FORMATS):
                findings.append(_same_need(metric, [trends[form] for form in COMPARED_FORMATS]))
    summary = summarize(findings)
    if not summary:
        formats = "both formats in two granularities or more of one execution"
        summary = f"Not answered: it takes {formats}, and {model.reference}."
    return Answer(
        question=GROUP_SIZE,
        rule=GROUP_SIZE_RULE.format(reference=model.reference),
        summary=summary,
        findings=tuple(findings),
    )


def _same_need(metric: MetricAnalysis, trends: Sequence[Trend]) -> Finding:
    needs = [need(metric, trend) for trend in trends]
    subject = " ".join(part for part in (metric.task.name, trends[0].execution) if part)
    return Finding(subject=subject, answer=_agreement(needs), sentences=tuple(each.sentence for each in needs))


def _agreement(needs: Sequence[Need]) -> str:
    finest = {each.finest for each in needs}
    if finest == {"worse"}:
        return "no granularity measured suffices"
    if "worse" in finest:
        return "undecided" if "undecided" in finest else "no"
    if all(each.decided for each in needs):
        return "yes" if len({each.granularity for each in needs}) == 1 else "no"
    coarsest = min(needs, key=lambda each: coarseness(each.granularity))
    # A format that needs a finer granularity than already suffices for the other differs from it for certain.
    finer = [each for each in needs if each.decided and coarseness(each.granularity) > coarseness(coarsest.granularity)]
    return "no" if finer else "undecided"


def need(metric: MetricAnalysis, trend: Trend) -> Need:
    """Walk from the finest granularity to coarser ones as long as they lose no more than the margin against it."""
    enough, stop = trend.points[-1], None
    for point in reversed(trend.points[:-1]):
        if point.against_finest is None or point.against_finest.verdict != "equivalent or better":
            stop = point
            break
        enough = point
    decided = stop is None or (stop.against_finest is not None and stop.against_finest.verdict == "worse")
    finest = comparison_of(trend.points[-1].row).verdict
    if finest == "worse":
        sufficient = _insufficient_sentence(metric, trend.points[-1])
    else:
        sufficient = _sufficient_sentence(metric, trend, enough, stop)
    return Need(
        granularity=enough.granularity,
        decided=decided,
        finest=finest,
        sentence=f"{trend.format.upper()}: {_distinguishable_sentence(metric, trend)} {sufficient}",
    )


def _insufficient_sentence(metric: MetricAnalysis, finest: Point) -> str:
    loss = comparison_of(finest.row).loss
    scale = metric.metric.scale
    lost = f"{scale.change_interval(loss)} {scale.change_unit}"
    worse = f"is worse than {metric.reference} by more than the margin"
    return f"None suffices: {finest.granularity} itself {worse} (loss {lost})."


def _distinguishable_sentence(metric: MetricAnalysis, trend: Trend) -> str:
    """The coarsest granularity up to which none is distinguishable from the finest."""
    finest = coarsest = trend.points[-1]
    other = None
    for point in reversed(trend.points[:-1]):
        if point.against_finest is None or not point.against_finest.loss.covers_zero:
            other = point
            break
        coarsest = point
    against = f"from {finest.granularity} at {sample(metric)}"
    parts = []
    if coarsest is not finest:
        parts.append(f"{coarsest.granularity} is not distinguishable {against} (loss {_loss_of(metric, coarsest)})")
    if other is not None:
        how = "is distinguishable" if parts else f"is distinguishable {against}"
        parts.append(f"{other.granularity} {how} (loss {_loss_of(metric, other)})")
    return f"{'; '.join(parts)}."


def _sufficient_sentence(metric: MetricAnalysis, trend: Trend, enough: Point, stop: Point | None) -> str:
    if stop is None:
        return f"The coarsest, {enough.granularity}, suffices."
    known = "" if enough is trend.points[-1] else f"{enough.granularity} suffices; "
    if stop.against_finest is None:
        return f"{known}{stop.granularity} could not be compared."
    lost = f"it loses {_loss_of(metric, stop)}"
    if stop.against_finest.verdict == "worse":
        known = known or f"{enough.granularity} is needed; "
        return f"{known}{stop.granularity} does not suffice: {lost}."
    size = stop.against_finest.items_to_decide
    decide = "" if size is None else f"; about {approximately(size)} {metric.metric.noun} would decide"
    return f"{known}{'whether' if known else 'Whether'} {stop.granularity} suffices is undecided: {lost}{decide}."


def _loss_of(metric: MetricAnalysis, point: Point) -> str:
    if point.against_finest is None:
        return "an amount that could not be compared"
    scale = metric.metric.scale
    return f"{scale.change_interval(point.against_finest.loss)} {scale.change_unit}"
