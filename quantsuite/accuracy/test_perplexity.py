"""Requirements on perplexity, scheme by scheme."""

import math

import numpy as np
import pytest

from quantsuite.metrics import Perplexities
from quantsuite.records import Record


@pytest.mark.cells("perplexity")
def test_perplexity(measured: Record) -> None:
    """A text takes nats, and no model codes it in less than the text's entropy."""
    items = measured.items
    assert isinstance(items, Perplexities)
    assert len(items) == measured.dataset.items
    assert measured.value == measured.metric.value(items)
    assert sum(items.nats) >= 0
    if items.floor_nats is not None and len(items) > 1:
        excess = np.subtract(items.nats, items.floor_nats)
        assert excess.mean() + 3 * excess.std(ddof=1) / math.sqrt(len(excess)) >= 0
