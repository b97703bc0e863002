"""Requirements on the mass of true choices, scheme by scheme."""

import pytest

from quantsuite.metrics import Truths
from quantsuite.records import Record


@pytest.mark.cells("truths")
def test_truths(measured: Record) -> None:
    """Every question is scored once, and a mass is a share of a probability."""
    items = measured.items
    assert isinstance(items, Truths)
    assert len(items) == measured.dataset.items
    assert 0 <= measured.value <= 1
    assert all(value <= 0 for row in items.log_likelihoods for value in row)
