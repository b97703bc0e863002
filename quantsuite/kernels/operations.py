"""The operations that kernels implement: what each needs of a kernel, and what its schemes' names stand for.

Another operation joins by :func:`register_operation`, and its checks by :func:`quantsuite.checks.register_checks`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from quantsuite.scheme import Operand, Scheme


@dataclass(frozen=True, kw_only=True)
class Operation:
    """What kernels of one kind have in common.

    Args:
        name: as a kernel's ``operation`` says it.
        requires: functions that a kernel must have.
        parse: what one of a kernel's ``schemes`` stands for; raises ``ValueError`` if it is none.
        optional: functions that a kernel may have.
    """

    name: str
    requires: tuple[str, ...]
    parse: Callable[[str], Any]
    optional: tuple[str, ...] = ()


OPERATIONS: dict[str, Operation] = {}


def register_operation(operation: Operation) -> Operation:
    """Let kernels implement an operation.

    Raises:
        ValueError: if there is another of its name.
    """
    if OPERATIONS.setdefault(operation.name, operation) != operation:
        raise ValueError(f"there is an operation {operation.name!r} already; give this one a name of its own")
    return operation


QUANTIZE = register_operation(
    Operation(name="quantize", requires=("quantize",), parse=Operand.parse, optional=("takes", "unsupported"))
)
LINEAR = register_operation(
    Operation(
        name="linear",
        requires=("pack", "linear"),
        parse=Scheme.parse,
        optional=("takes", "unsupported", "unsupported_shape", "pack_quantized", "unpack", "nbytes", "trainable"),
    )
)
