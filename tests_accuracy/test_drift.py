"""Requirements on drift from the reference, scheme by scheme."""

from quantsuite.accuracy.test_drift import test_drift, test_real_is_near_to_simulated

__all__ = ["test_drift", "test_real_is_near_to_simulated"]
