"""Every kernel of ``kernels/``, or of ``--kernel``, against every property of its operation."""

from pathlib import Path

from quantsuite.numerics.test_kernels import test_kernel

__all__ = ["kernel_folder", "test_kernel"]

kernel_folder = Path(__file__).parent.parent / "kernels"
