"""Requirements on perplexity, scheme by scheme."""

from quantsuite.accuracy.test_perplexity import test_perplexity

__all__ = ["test_perplexity"]
