"""torchao's ``quantize_`` configurations, applied to a linear layer."""

from quantsuite.contestants.torchao import CONTESTANTS

__all__ = ["CONTESTANTS"]
