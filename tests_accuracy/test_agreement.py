"""Simulated and real execution of a scheme are the same model."""

from quantsuite.accuracy.test_agreement import test_real_is_near_to_simulated, test_simulated_and_real_agree

__all__ = ["test_real_is_near_to_simulated", "test_simulated_and_real_agree"]
