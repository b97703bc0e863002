"""quantsuite's own quantizer and quantized linear layer."""

from quantsuite.contestants.ours import KERNELS

__all__ = ["KERNELS"]
