"""Requirements on what was measured, row by row and scheme by scheme."""

from quantsuite.accuracy.test_requirements import test_requirement

__all__ = ["test_requirement"]
