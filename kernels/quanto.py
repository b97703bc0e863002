"""optimum-quanto's quantized linear layers."""

from quantsuite.contestants.quanto import KERNELS

__all__ = ["KERNELS"]
