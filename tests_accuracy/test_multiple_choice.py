"""Requirements on multiple-choice accuracy, scheme by scheme."""

from quantsuite.accuracy.test_multiple_choice import test_multiple_choice

__all__ = ["test_multiple_choice"]
