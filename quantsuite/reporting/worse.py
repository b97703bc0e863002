"""Does lower precision give worse results?  Answered in sentences computed from the data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from quantsuite.intervals import CONFIDENCE
from quantsuite.power import USUAL_POWER
from quantsuite.reporting.analysis import MetricAnalysis, ModelAnalysis
from quantsuite.reporting.findings import Answer, Finding, comparison_of, sample, summarize
from quantsuite.reporting.power import sight_of
from quantsuite.reporting.rows import Row, facet, unique
from quantsuite.reporting.wording import approximately, count, enumerate_variants, joined

WORSE = "Does lower precision give worse results?"
WORSE_RULE = "A variant is worse if the paired interval of its loss against {reference} lies above zero."


def answer_worse(model: ModelAnalysis) -> Answer:
    """Of each metric of a model that compares a quantized scheme with the reference."""
    findings = tuple(_worse_in(metric) for metric in model.metrics if metric.compared)
    summary = summarize(findings) or f"Not answered: no quantized scheme was compared with {model.reference}."
    return Answer(question=WORSE, rule=WORSE_RULE.format(reference=model.reference), summary=summary, findings=findings)


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
        *([] if worse else _sensitivity_sentence(metric)),
        *_margin_sentences(metric),
    ]
    return Finding(subject=metric.task.name, answer=answer, sentences=tuple(sentences))


def _extent(rows: Sequence[Row]) -> str:
    """Whether a loss that is there matters."""
    verdicts = {comparison_of(row).verdict for row in rows}
    if "worse" in verdicts:
        return "yes, beyond the margin"
    return "yes, within the margin" if verdicts == {"equivalent or better"} else "yes"


def _worse_rows(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.comparison is not None and row.comparison.loss.low > 0]


def _better_rows(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.comparison is not None and row.comparison.loss.high < 0]


def _holm(rows: Sequence[Row]) -> list[Row]:
    """The rows whose change stays significant under Holm's correction for all of them."""
    ordered = sorted(rows, key=lambda row: comparison_of(row).p_value)
    kept = []
    for position, row in enumerate(ordered):
        if comparison_of(row).p_value > (1 - CONFIDENCE) / (len(ordered) - position):
            break
        kept.append(row)
    return kept


def _format_sentence(metric: MetricAnalysis, form: str) -> str:
    rows = [row for row in metric.compared if facet(row, "format") == form]
    worse, better = _worse_rows(rows), _better_rows(rows)
    rest = len(rows) - len(worse) - len(better)
    parts = []
    if worse:
        parts.append(f"{len(worse)} of {len(rows)} are distinguishably worse than {metric.reference}: {_names(worse)}")
    if better:
        parts.append(
            f"{len(better)} of {len(rows)} are distinguishably better than {metric.reference}: {_names(better)}"
        )
    if rest == len(rows):
        parts.append(f"not distinguishable from {metric.reference} at {sample(metric)} ({count(rest, 'variants')})")
    elif rest:
        parts.append(f"the other {rest} {'is' if rest == 1 else 'are'} not distinguishable at {sample(metric)}")
    return f"{(form or metric.reference).upper()}: {'; '.join(parts)}."


def _names(rows: Sequence[Row]) -> str:
    return enumerate_variants(row.record for row in sorted(rows, key=lambda row: -comparison_of(row).loss.estimate))


def _chance_sentence(rows: Sequence[Row], worse: Sequence[Row], lasting: Sequence[Row]) -> list[str]:
    if not worse or len(rows) < 2:
        return []
    lead = f"With Holm's correction for {len(rows)} comparisons, {len(lasting)} of the {len(worse)} stay worse"
    return [lead + ("." if lasting else ": chance alone may explain what is seen.")]


def _largest_loss_sentence(metric: MetricAnalysis) -> str:
    scale = metric.metric.scale
    row = max(metric.compared, key=lambda row: comparison_of(row).loss.estimate)
    loss = comparison_of(row).loss
    if loss.estimate < 0:
        return f"No variant loses anything; the least gain is that of {row.label}: {scale.change_interval(loss)} lost."
    return f"The largest loss is that of {row.label}: {scale.change_interval(loss)} {scale.change_unit}."


def _sensitivity_sentence(metric: MetricAnalysis) -> list[str]:
    if all(comparison_of(row).identical for row in metric.compared):
        return ["The outcomes are identical, item by item."]
    if unknown := [row for row in metric.compared if not comparison_of(row).loss.is_bounded]:
        return [f"No loss can be excluded: {comparison_of(unknown[0]).too_few}."]
    if (sight := sight_of(metric.rows)) is None:
        return []
    seen = f"A loss smaller than about {sight.told_from_none} could have gone unseen"
    return [f"{seen}: one of that size is told from none in {USUAL_POWER:.0%} of runs."]


def _margin_sentences(metric: MetricAnalysis) -> list[str]:
    scale = metric.metric.scale
    rows = metric.compared
    verdicts = Counter(comparison_of(row).verdict for row in rows)
    counted = [f"{verdicts[name]} {name}" for name in ("equivalent or better", "undecided", "worse") if verdicts[name]]
    sentences = [f"Against the margin of {scale.margin(comparison_of(rows[0]).margin)}: {joined(counted)}."]
    needed = sorted({size for row in rows if (size := comparison_of(row).items_to_decide) is not None})
    if needed:
        span = " to ".join(unique((approximately(needed[0]), approximately(needed[-1]))))
        items = metric.metric.noun
        sentences.append(f"About {span} {items} would decide what is undecided, if the changes stay as estimated.")
    return sentences
