"""The mass of true choices of every cell."""

from quantsuite.accuracy.test_truths import test_truths

__all__ = ["test_truths"]
