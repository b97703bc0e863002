"""Plain torch: casts to FP8, and the quantized products of its operator library."""

from quantsuite.contestants.torch import CONTESTANTS

__all__ = ["CONTESTANTS"]
