"""Requirements on what greedy decoding matches, scheme by scheme."""

import pytest

from quantsuite.metrics import Matches
from quantsuite.records import Record


@pytest.mark.cells("matches")
def test_matches(measured: Record) -> None:
    """Every item is decoded once, and the rate is the share of those that match."""
    items = measured.items
    assert isinstance(items, Matches)
    assert len(items) == measured.dataset.items
    assert measured.value == sum(items.matched) / len(items)
