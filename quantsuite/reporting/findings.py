"""The form of an answer, and what answers share in saying."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quantsuite.reporting.analysis import MetricAnalysis
from quantsuite.reporting.rows import Row, unique
from quantsuite.reporting.wording import capital, joined
from quantsuite.statistics import Comparison


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


def summarize(findings: Sequence[Finding]) -> str:
    """``Yes, beyond the margin: a and b; undecided: c.``"""
    by_answer: dict[str, list[str]] = {}
    for finding in findings:
        by_answer.setdefault(finding.answer, []).append(finding.subject)
    text = "; ".join(f"{answer}: {joined(subjects)}" for answer, subjects in by_answer.items())
    return f"{capital(text)}." if text else ""


def comparison_of(row: Row) -> Comparison:
    """With the reference, of a row that has one."""
    assert row.comparison is not None
    return row.comparison


def sample(metric: MetricAnalysis) -> str:
    """``n=1,000 questions``, or the range where rows differ."""
    sizes = sorted({comparison_of(row).items for row in metric.compared})
    return f"n={' to '.join(f'{size:,}' for size in unique((sizes[0], sizes[-1])))} {metric.metric.noun}"
