"""What the checks of a quantizer share: what it makes of a tensor, and the bound of that."""

from __future__ import annotations

import torch
from torch import Tensor

from quantsuite.bounds import bound_element
from quantsuite.checks.oracle import rounding_error
from quantsuite.checks.outcome import compare, require_tensor, unchanged
from quantsuite.kernels import protocol
from quantsuite.kernels.protocol import Quantizer
from quantsuite.scheme import Operand


def quantized(kernel: Quantizer, operand: Operand, x: Tensor) -> Tensor:
    """What a kernel makes of a tensor, contiguous if it declares to take no others.

    Raises:
        CheckFailure: if it is no tensor in the shape of ``x``, or if ``x`` was changed.
    """
    __tracebackhide__ = True
    name = f"{kernel.name}.quantize"
    with unchanged(name, x):
        given = x.contiguous() if protocol.layouts(kernel) == "contiguous" else x
        return require_tensor(name, kernel.quantize(given, operand), x.shape)


def within(operand: Operand, case: str, got: Tensor, x: Tensor) -> float:
    """Compare with the element bound, widened by a rounding to the dtype of what was returned.

    Raises:
        CheckFailure: if an element exceeds it.
    """
    __tracebackhide__ = True
    exact = x.detach().double().cpu()
    bound = bound_element(x.detach().contiguous().cpu(), operand)
    bound = bound if got.dtype == torch.float32 else bound + rounding_error(exact.abs() + bound, got.dtype)
    return compare(case, got, exact, bound)
