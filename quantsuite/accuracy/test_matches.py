"""Requirements on what greedy decoding matches, scheme by scheme."""

import pytest

from quantsuite.metrics import Matches
from quantsuite.records import Record


@pytest.mark.cells("matches")
def test_matches(measured: Record) -> None:
    """Every item is decoded once, and what is recorded is what that gives."""
    items = measured.items
    assert isinstance(items, Matches)
    assert len(items) == measured.dataset.items
    assert measured.value == measured.metric.value(items)
