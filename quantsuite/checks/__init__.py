"""Conformance as a library: what quantized arithmetic must hold, for any kernel.

A check is a function ``check_x(kernel, scheme, *, device, dtype, seed) -> float`` that returns the largest
error as a fraction of its bound (0: exact), alone or in :class:`Measured`, and raises
:class:`CheckFailure`, :class:`NotApplicable` or :class:`NotSupported`.
"""

from __future__ import annotations

from collections.abc import Callable

from quantsuite.checks import (
    accumulator,
    biases,
    chosen,
    layers,
    product_draws,
    product_layouts,
    product_lifetimes,
    product_magnitudes,
    product_uneven,
    products,
    quantizer_draws,
    quantizer_lifetimes,
    quantizer_uneven,
    quantizer_values,
    quantizers,
    sizes,
    special,
    training,
)
from quantsuite.checks.outcome import CheckFailure, Measured, NotApplicable, NotSupported
from quantsuite.kernels.operations import OPERATIONS

Check = Callable[..., float | Measured]

__all__ = [
    "CHECKS",
    "HYGIENE",
    "Check",
    "CheckFailure",
    "Measured",
    "NotApplicable",
    "NotSupported",
    "property_name",
    "register_checks",
]


CHECKS: dict[str, tuple[Check, ...]] = {}
"""The checks of each operation, in the order of their modules."""
HYGIENE = {"repeatable", "product_repeatable"}
"""Properties without which right values look wrong, on plain operands: that a result is a tensor of its shape and
dtype, that it is the same when asked for again, that inputs are kept.  They run first; a module adds those of its own
in a set ``HYGIENE``."""


def register_checks(operation: str, *modules: object) -> None:
    """Add the functions ``check_x`` of modules to the checks of an operation.

    Raises:
        ValueError: if there is no such operation (:func:`quantsuite.kernels.operations.register_operation`).
    """
    if operation not in OPERATIONS:
        raise ValueError(f"there is no operation {operation!r}; known: {', '.join(OPERATIONS)}")
    found = [value for module in modules for name, value in vars(module).items() if name.startswith("check_")]
    for module in modules:
        HYGIENE.update(getattr(module, "HYGIENE", ()))
    CHECKS[operation] = (*CHECKS.get(operation, ()), *found)


register_checks("quantize", quantizer_lifetimes, quantizers, quantizer_values, quantizer_uneven, quantizer_draws)
register_checks(
    "linear",
    product_layouts,
    product_lifetimes,
    product_magnitudes,
    products,
    sizes,
    product_uneven,
    special,
    layers,
    biases,
    chosen,
    accumulator,
    training,
    product_draws,
)


def property_name(check: Check) -> str:
    """What a check is called in test ids and records."""
    return check.__name__.removeprefix("check_")
