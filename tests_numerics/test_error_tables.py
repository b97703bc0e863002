"""The report's error tables: measured on random tensors, and as the closed form predicts."""

from quantsuite.numerics.test_error_tables import *  # noqa: F403
