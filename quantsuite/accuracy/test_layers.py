"""Requirements on each layer of a quantized model where it stands, scheme by scheme."""

import pytest

from quantsuite.metrics import Layers
from quantsuite.records import Record


@pytest.mark.cells("layers")
def test_layers(measured: Record) -> None:
    """Every matrix is quantized as planned, holds the codes that its scheme defines, and multiplies as they say."""
    items = measured.items
    assert isinstance(items, Layers)
    wrong = [f"{name}: {fault}" for name, fault in zip(items.names, items.faults, strict=True) if fault]
    if wrong:
        count = f"{len(wrong)} of {len(items)} layers"
        pytest.fail(f"{count} are not what {measured.label} says: {wrong[0]}", pytrace=False)
