"""Requirements on drift from the reference, scheme by scheme."""

from quantsuite.accuracy.test_drift import test_drift

__all__ = ["test_drift"]
