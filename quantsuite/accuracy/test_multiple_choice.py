"""Requirements on multiple-choice accuracy, scheme by scheme."""

import pytest

from quantsuite.metrics import Choices
from quantsuite.records import Record


@pytest.mark.cells("choices")
def test_multiple_choice(measured: Record) -> None:
    """Every question is answered once, and a likelihood is one of a probability."""
    items = measured.items
    assert isinstance(items, Choices)
    assert len(items) == measured.dataset.items
    assert measured.value == measured.metric.value(items)
    assert all(value <= 0 for row in items.log_likelihoods or () for value in row)
