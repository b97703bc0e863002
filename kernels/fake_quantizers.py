"""Torch's fake quantizers, whose observers take the range of the tensor at hand."""

from quantsuite.contestants.fake_quantizers import KERNELS

__all__ = ["KERNELS"]
