"""Simulated and real execution of a scheme are the same model."""

from quantsuite.accuracy.test_agreement import test_simulated_and_real_agree

__all__ = ["test_simulated_and_real_agree"]
