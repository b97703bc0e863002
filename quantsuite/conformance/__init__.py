"""The checks as pytest tests: for a kernel from the command line, or inside another project's suite.

::

    pytest --pyargs quantsuite.conformance --kernel mypackage.module:kernel

    @parametrize_with_checks([kernel], expected_failures={"mine/int8-row/*/ties_go_to_even": "rounds away"})
    def test_kernel(check):
        check()
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest


def parametrize_with_checks(
    kernels: Sequence[Any],
    *,
    expected_failures: Mapping[str, str] | None = None,
    device: str = "cpu",
    seed: int = 0,
) -> pytest.MarkDecorator:
    """Parametrize the argument ``check`` of a test with every check of some kernels.

    They are objects, so their checks run in this process: one that ends it or never returns takes the run with it, and
    ``--check-timeout`` does not apply.  ``--kernel`` gives each file or module a process of its own.

    Args:
        kernels: objects with what :mod:`quantsuite.kernels.protocol` asks for.
        expected_failures: reasons by id ``kernel/scheme/dtype/property``, ``*`` for any characters;
            each must fail with :class:`~quantsuite.checks.CheckFailure`.
        device: where the inputs lie.
        seed: of the inputs.

    Raises:
        KernelError: if a kernel lacks what its operation needs.
        ValueError: if an expected failure matches no case.
    """
    from quantsuite.conformance import cases as made
    from quantsuite.kernels.validation import validate

    for kernel in kernels:
        validate(kernel, repr(kernel))
    cases = made.make_cases(kernels, device=device, seed=seed)
    known = made.expected_failures(expected_failures or {}, cases)
    return pytest.mark.parametrize("check", list(made.parameters(cases, known, ())))
