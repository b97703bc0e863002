"""Requirements on perplexity, scheme by scheme."""

import math

import numpy as np
import pytest

from quantsuite.records import Perplexities, Record


@pytest.mark.cells("perplexity")
def test_perplexity(measured: Record) -> None:
    """A perplexity is at least one, and no model codes a text in less than the text's entropy."""
    items = measured.items
    assert isinstance(items, Perplexities)
    assert len(items) == measured.dataset.items
    assert measured.value == pytest.approx(math.exp(math.fsum(items.nats) / sum(items.units)))
    assert measured.value >= 1
    if items.floor_nats is not None and len(items) > 1:
        excess = np.subtract(items.nats, items.floor_nats)
        assert excess.mean() + 3 * excess.std(ddof=1) / math.sqrt(len(excess)) >= 0
