"""What greedy decoding matches in every cell."""

from quantsuite.accuracy.test_matches import test_matches

__all__ = ["test_matches"]
