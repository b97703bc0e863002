"""The two questions, and what they are seen against."""

from __future__ import annotations

from quantsuite.reporting.analysis import MetricAnalysis, ModelAnalysis
from quantsuite.reporting.findings import Answer
from quantsuite.reporting.group_size import answer_group_size
from quantsuite.reporting.wording import capital, noise_floor_sentence
from quantsuite.reporting.worse import answer_worse


def answers(model: ModelAnalysis) -> tuple[Answer, Answer]:
    """Both questions for one model."""
    return answer_worse(model), answer_group_size(model)


def floor_sentence(metric: MetricAnalysis) -> str | None:
    """How far bf16 is from the text's known entropy, or from itself, where that is known."""
    if noise := noise_floor_sentence(metric.metric, metric.rows[0].floor):
        return f"{capital(noise)}; what is nearer to each other shares a rank."
    details = next((row.record.details for row in metric.rows if row.record.subject.is_reference), {})
    if "bits_per_byte" not in details or "floor_bits_per_byte" not in details:
        return None
    bits, floor = details["bits_per_byte"], details["floor_bits_per_byte"]
    needs = f"{metric.reference} needs {bits:.4f}, {bits - floor:.4f} more"
    return f"The entropy of this text is {floor:.4f} bits per byte; {needs}."
