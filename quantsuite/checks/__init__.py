"""Conformance as a library: what quantized arithmetic must hold, for any kernel.

A check is a function ``check_x(kernel, scheme, *, device, dtype, seed) -> float`` that returns the largest
error as a fraction of its bound (0: exact), alone or in :class:`Measured`, and raises
:class:`CheckFailure`, :class:`NotApplicable` or :class:`NotSupported`.
"""

from __future__ import annotations

from collections.abc import Callable

from quantsuite.checks import accumulator, products, quantizers
from quantsuite.checks.outcome import CheckFailure, Measured, NotApplicable, NotSupported

Check = Callable[..., float | Measured]

__all__ = ["CHECKS", "Check", "CheckFailure", "Measured", "NotApplicable", "NotSupported", "property_name"]


def _checks(*modules: object) -> tuple[Check, ...]:
    return tuple(value for module in modules for name, value in vars(module).items() if name.startswith("check_"))


CHECKS: dict[str, tuple[Check, ...]] = {
    "quantize": _checks(quantizers),
    "linear": _checks(products, accumulator),
}
"""The checks of each operation, in the order of their modules."""


def property_name(check: Check) -> str:
    """What a check is called in test ids and records."""
    return check.__name__.removeprefix("check_")
