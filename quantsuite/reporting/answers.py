"""The two questions, answered in sentences computed from the data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from quantsuite.facets import coarseness
from quantsuite.intervals import CONFIDENCE
from quantsuite.reporting.analysis import (
    COMPARED_FORMATS,
    MetricAnalysis,
    ModelAnalysis,
    Point,
    Row,
    Trend,
    facet,
    unique,
)
from quantsuite.reporting.wording import approximately, capital, count, enumerate_variants, joined
from quantsuite.statistics import Comparison, Verdict

WORSE = "Does lower precision give worse results?"
WORSE_RULE = "A variant is worse if the paired interval of its loss against bf16 lies above zero."
GROUP_SIZE = "Do INT8 and FP8 need the same group size?"
GROUP_SIZE_RULE = (
    "A granularity suffices if the paired interval of its loss against the finest granularity of its format "
    "lies within the margin, and so do those between the two. If the finest itself is worse than bf16, none suffices."
)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The answer of one metric, and what it rests on."""

    subject: str
    answer: str
    sentences: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A question with its answer over all metrics of a model, and the rule that gives it."""

    question: str
    rule: str
    summary: str
    findings: tuple[Finding, ...]


def answers(model: ModelAnalysis) -> tuple[Answer, Answer]:
    """Both questions for one model."""
    return _worse(model), _group_size(model)


def floor_sentence(metric: MetricAnalysis) -> str | None:
    """How far bf16 is from the text's known entropy, where it is known."""
    details = next((row.record.details for row in metric.rows if row.record.subject.is_reference), {})
    if "bits_per_byte" not in details or "floor_bits_per_byte" not in details:
        return None
    bits, floor = details["bits_per_byte"], details["floor_bits_per_byte"]
    return f"The entropy of this text is {floor:.4f} bits per byte; bf16 needs {bits:.4f}, {bits - floor:.4f} more."


def _worse(model: ModelAnalysis) -> Answer:
    findings = tuple(_worse_in(metric) for metric in model.metrics if metric.compared)
    summary = _summarize(findings) or "Not answered: no quantized scheme was compared with bf16."
    return Answer(question=WORSE, rule=WORSE_RULE, summary=summary, findings=findings)


def _summarize(findings: Sequence[Finding]) -> str:
    """``Yes, beyond the margin: a and b; undecided: c.``"""
    by_answer: dict[str, list[str]] = {}
    for finding in findings:
        by_answer.setdefault(finding.answer, []).append(finding.subject)
    text = "; ".join(f"{answer}: {joined(subjects)}" for answer, subjects in by_answer.items())
    return f"{capital(text)}." if text else ""


def _worse_in(metric: MetricAnalysis) -> Finding:
    rows = metric.compared
    worse, better = _worse_rows(rows), _better_rows(rows)
    lasting = [row for row in worse if row in _holm(rows)]
    if lasting:
        answer = _extent(lasting)
    elif worse:
        answer = "undecided"
    else:
        answer = "no" if better else "not distinguishable"
    sentences = [
        *(_format_sentence(metric, form) for form in unique(facet(row, "format") for row in rows)),
        *_chance_sentence(rows, worse, lasting),
        _largest_loss_sentence(metric),
        *([] if worse else [_sensitivity_sentence(metric)]),
        *_margin_sentences(metric),
    ]
    return Finding(subject=metric.task.name, answer=answer, sentences=tuple(sentences))


def _extent(rows: Sequence[Row]) -> str:
    """Whether a loss that is there matters."""
    verdicts = {_comparison(row).verdict for row in rows}
    if "worse" in verdicts:
        return "yes, beyond the margin"
    return "yes, within the margin" if verdicts == {"equivalent or better"} else "yes"


def _worse_rows(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.comparison is not None and row.comparison.loss.low > 0]


def _better_rows(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.comparison is not None and row.comparison.loss.high < 0]


def _holm(rows: Sequence[Row]) -> list[Row]:
    """The rows whose change stays significant under Holm's correction for all of them."""
    ordered = sorted(rows, key=lambda row: _comparison(row).p_value)
    kept = []
    for position, row in enumerate(ordered):
        if _comparison(row).p_value > (1 - CONFIDENCE) / (len(ordered) - position):
            break
        kept.append(row)
    return kept


def _comparison(row: Row) -> Comparison:
    assert row.comparison is not None
    return row.comparison


def _sample(metric: MetricAnalysis) -> str:
    """``n=1,000 questions``, or the range where rows differ."""
    sizes = sorted({_comparison(row).items for row in metric.compared})
    return f"n={' to '.join(f'{size:,}' for size in unique((sizes[0], sizes[-1])))} {metric.metric.noun}"


def _format_sentence(metric: MetricAnalysis, form: str) -> str:
    rows = [row for row in metric.compared if facet(row, "format") == form]
    worse, better = _worse_rows(rows), _better_rows(rows)
    rest = len(rows) - len(worse) - len(better)
    parts = []
    if worse:
        parts.append(f"{len(worse)} of {len(rows)} are distinguishably worse than bf16: {_names(worse)}")
    if better:
        parts.append(f"{len(better)} of {len(rows)} are distinguishably better than bf16: {_names(better)}")
    if rest == len(rows):
        parts.append(f"not distinguishable from bf16 at {_sample(metric)} ({count(rest, 'variants')})")
    elif rest:
        parts.append(f"the other {rest} {'is' if rest == 1 else 'are'} not distinguishable at {_sample(metric)}")
    return f"{(form or 'bf16').upper()}: {'; '.join(parts)}."


def _names(rows: Sequence[Row]) -> str:
    return enumerate_variants(row.record for row in sorted(rows, key=lambda row: -_comparison(row).loss.estimate))


def _chance_sentence(rows: Sequence[Row], worse: Sequence[Row], lasting: Sequence[Row]) -> list[str]:
    if not worse or len(rows) < 2:
        return []
    lead = f"With Holm's correction for {len(rows)} comparisons, {len(lasting)} of the {len(worse)} stay worse"
    return [lead + ("." if lasting else ": chance alone may explain what is seen.")]


def _largest_loss_sentence(metric: MetricAnalysis) -> str:
    scale = metric.metric.scale
    row = max(metric.compared, key=lambda row: _comparison(row).loss.estimate)
    loss = _comparison(row).loss
    if loss.estimate < 0:
        return f"No variant loses anything; the least gain is that of {row.label}: {scale.change_interval(loss)} lost."
    return f"The largest loss is that of {row.label}: {scale.change_interval(loss)} {scale.change_unit}."


def _sensitivity_sentence(metric: MetricAnalysis) -> str:
    scale = metric.metric.scale
    if all(_comparison(row).identical for row in metric.compared):
        return "The outcomes are identical, item by item."
    if unknown := [row for row in metric.compared if not _comparison(row).loss.is_bounded]:
        return f"No loss can be excluded: {_comparison(unknown[0]).too_few}."
    losses = [_comparison(row).loss for row in metric.compared]
    half = max((loss.high - loss.low) / 2 for loss in losses)
    return f"A loss smaller than about {scale.quantity(half)} (half the widest interval) could not have been seen."


def _margin_sentences(metric: MetricAnalysis) -> list[str]:
    scale = metric.metric.scale
    rows = metric.compared
    verdicts = Counter(_comparison(row).verdict for row in rows)
    counted = [f"{verdicts[name]} {name}" for name in ("equivalent or better", "undecided", "worse") if verdicts[name]]
    sentences = [f"Against the margin of {scale.margin(_comparison(rows[0]).margin)}: {joined(counted)}."]
    needed = sorted({size for row in rows if (size := _comparison(row).items_to_decide) is not None})
    if needed:
        span = " to ".join(unique((approximately(needed[0]), approximately(needed[-1]))))
        items = metric.metric.noun
        sentences.append(f"About {span} {items} would decide what is undecided, if the changes stay as estimated.")
    return sentences


@dataclass(frozen=True, kw_only=True)
class Need:
    """The coarsest granularity that is known to suffice; not ``decided`` if a coarser one may too.

    ``finest`` is the verdict of the finest granularity against bf16: if that is worse, none suffices.
    """

    granularity: str
    decided: bool
    finest: Verdict
    sentence: str


def _group_size(model: ModelAnalysis) -> Answer:
    findings = []
    for metric in model.metrics:
        for execution in unique(trend.execution for trend in metric.trends):
            trends = {trend.format: trend for trend in metric.trends if trend.execution == execution}
            if all(form in trends for form in COMPARED_FORMATS):
                findings.append(_same_need(metric, [trends[form] for form in COMPARED_FORMATS]))
    summary = _summarize(findings)
    if not summary:
        summary = "Not answered: it takes both formats in two granularities or more of one execution, and bf16."
    return Answer(question=GROUP_SIZE, rule=GROUP_SIZE_RULE, summary=summary, findings=tuple(findings))


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
    finest = _comparison(trend.points[-1].row).verdict
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
    loss = _comparison(finest.row).loss
    scale = metric.metric.scale
    lost = f"{scale.change_interval(loss)} {scale.change_unit}"
    return f"None suffices: {finest.granularity} itself is worse than bf16 by more than the margin (loss {lost})."


def _distinguishable_sentence(metric: MetricAnalysis, trend: Trend) -> str:
    """The coarsest granularity up to which none is distinguishable from the finest."""
    finest = coarsest = trend.points[-1]
    other = None
    for point in reversed(trend.points[:-1]):
        if point.against_finest is None or not point.against_finest.loss.covers_zero:
            other = point
            break
        coarsest = point
    against = f"from {finest.granularity} at {_sample(metric)}"
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
