"""Requirements on multiple-choice accuracy, scheme by scheme."""

import pytest

from quantsuite.records import Choices, Record


@pytest.mark.cells("choices")
def test_multiple_choice(measured: Record) -> None:
    """Every question is answered once, and a likelihood is one of a probability."""
    items = measured.items
    assert isinstance(items, Choices)
    assert len(items) == measured.dataset.items
    taken = items.normalized if measured.task.metric == "normalized accuracy" else items.predicted
    assert measured.value == sum(a == t for a, t in zip(items.answer, taken, strict=True)) / len(items)
    assert all(value <= 0 for row in items.log_likelihoods or () for value in row)
