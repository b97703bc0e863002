"""Requirements on drift from the reference, scheme by scheme."""

import pytest
import torch

from quantsuite.metrics import Divergences
from quantsuite.quantize import MODEL_DTYPES
from quantsuite.records import Record


@pytest.mark.cells("drift")
def test_drift(measured: Record) -> None:
    """The reference drifts from itself by no more than roundings explain; what is quantized drifts."""
    items = measured.items
    assert isinstance(items, Divergences)
    assert measured.value == measured.metric.value(items)
    if measured.subject.is_reference:
        assert measured.value <= rounding(measured.environment.dtype)
        assert measured.details["same_top_rate"] >= 0.98
    elif not measured.task.name.endswith("execution-drift"):
        assert any(items.kl), (
            f"{measured.subject.label} predicts as the reference does, bit for bit: nothing is quantized"
        )


def rounding(dtype: str) -> float:
    """Nats between two executions of one model that round differently.

    Logits of 16 to 32 carry an error of up to 16 eps each; a divergence is half the variance of their difference,
    ``(16 eps) ** 2 / 3``.  Log-probabilities themselves are float32, to about 1e-6.
    """
    return (16 * torch.finfo(MODEL_DTYPES[dtype]).eps) ** 2 / 3 + 1e-6
