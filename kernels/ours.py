"""Every registered kernel: quantsuite's own quantizers and products, torch's, and whatever else joined."""

from quantsuite.contestants.ours import KERNELS

__all__ = ["KERNELS"]
