"""Every contestant of ``kernels/``, or of ``--kernel``, against every property of its operation."""

from quantsuite.conformance.cases import CheckCase


def test_contestant(conformance_check: CheckCase) -> None:
    conformance_check()
