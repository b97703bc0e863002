"""Every check of the kernels of ``--kernel``, or of installed entry points."""

from quantsuite.conformance.cases import CheckCase


def test_conformance(conformance_check: CheckCase) -> None:
    conformance_check()
