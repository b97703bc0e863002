"""Every shipped kernel, or those of ``--kernel``, against every property of its operation."""

from pathlib import Path

from quantsuite import contestants
from quantsuite.conformance.cases import CheckCase

kernel_folder = Path(contestants.__file__).parent
"""Whose files are under test if no ``--kernel`` is named."""


def test_kernel(conformance_check: CheckCase) -> None:
    conformance_check()
