"""Requirements on drift from the reference, scheme by scheme."""

import pytest

from quantsuite.metrics import Divergences
from quantsuite.records import Record


@pytest.mark.cells("drift")
def test_drift(measured: Record) -> None:
    """The reference does not drift from itself, and what is quantized does."""
    items = measured.items
    assert isinstance(items, Divergences)
    if measured.subject.is_reference:
        assert not any(items.kl)
        assert all(items.same_top)
    else:
        assert any(items.kl)
