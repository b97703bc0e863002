"""Every contestant of ``kernels/``, or of ``--kernel``, against every property of its operation."""

from pathlib import Path

from quantsuite.numerics.test_contestants import test_contestant

__all__ = ["contestant_folder", "test_contestant"]

contestant_folder = Path(__file__).parent.parent / "kernels"
