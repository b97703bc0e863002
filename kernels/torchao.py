"""torchao's ``quantize_`` configurations, applied to a linear layer."""

from quantsuite.contestants.torchao import KERNELS

__all__ = ["KERNELS"]
