"""How a check ends: a factor of the bound, a failure with its smallest case, not applicable, or not supported."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor


class CheckFailure(AssertionError):
    """A property that a kernel breaks; the message holds the case, the bound and the excess."""


@dataclass(frozen=True)
class Measured:
    """What a check that holds has measured.

    Args:
        tightness: the largest error as a fraction of its bound; 0 where the result is exact.
        details: further numbers by name.
    """

    tightness: float
    details: dict[str, float] = field(default_factory=dict)


class NotApplicable(Exception):
    """A property that a scheme or a dtype does not have; the message says why."""


class NotSupported(Exception):
    """What a kernel does not take on a device, in its own words."""


@contextmanager
def unchanged(function: str, given: Tensor) -> Iterator[None]:
    """What a kernel is given holds the same bits after it; expected values come from the very tensor.

    Raises:
        CheckFailure: if it does not.
    """
    __tracebackhide__ = True
    before = _bits(given)
    yield
    if not torch.equal(before, _bits(given)):
        raise CheckFailure(f"{function} changed its input {list(given.shape)}, which belongs to its caller")


def _bits(x: Tensor) -> Tensor:
    return x.detach().reshape(-1).clone(memory_format=torch.contiguous_format).view(torch.uint8)


def require_tensor(function: str, got: object, shape: Sequence[int]) -> Tensor:
    """What a kernel's function returned, if it is a floating-point tensor of a shape.

    Raises:
        CheckFailure: naming what it returned and what is expected.
    """
    __tracebackhide__ = True
    expected = f"a Tensor {list(shape)}"
    if not isinstance(got, Tensor):
        found = "None" if got is None else f"an object of type {type(got).__name__}"
    elif got.shape != tuple(shape):
        found = f"a Tensor {list(got.shape)}"
    elif not got.is_floating_point():
        found, expected = f"a Tensor of {got.dtype}", "one of floating-point values"
    else:
        return got
    raise CheckFailure(f"{function} returned {found}, expected {expected}")


def compare(case: str, got: Tensor, expected: Tensor, bound: Tensor | float) -> float:
    """The largest error as a fraction of its bound.

    Args:
        case: what was computed, for the message.
        got: any float dtype; compared in float64.
        expected: float64 in the shape of ``got``.
        bound: non-negative, broadcast to ``expected``; zero demands equality.

    Returns:
        0 if all elements are equal.

    Raises:
        CheckFailure: showing the element that exceeds its bound by the largest factor.
    """
    __tracebackhide__ = True
    if got.shape != expected.shape:
        raise CheckFailure(f"{case}: shape {list(got.shape)}, expected {list(expected.shape)}")
    if got.numel() == 0:
        return 0.0
    value, expected = got.detach().double().cpu(), expected.detach().double().cpu()
    limit = torch.as_tensor(bound, dtype=torch.float64).cpu().expand_as(expected)
    error = (value - expected).abs()
    factor = torch.where(error == 0, 0.0, error / limit)
    factor = torch.where(value.isnan() | factor.isnan(), torch.inf, factor)
    worst = int(factor.argmax())
    if factor.reshape(-1)[worst] > 1:
        place = [int(i) for i in torch.unravel_index(torch.tensor(worst), expected.shape)]
        v, e, b = (t.reshape(-1)[worst].item() for t in (value, expected, limit))
        excess = "no error is allowed" if b == 0 else f"{abs(v - e) / b:.4g} times the bound {b:.6g}"
        broken = int((factor > 1).sum())
        raise CheckFailure(
            f"{case}: element {place} is {v:.9g}, expected {e:.9g}: error {abs(v - e):.6g}, {excess}"
            f" ({broken} of {factor.numel()} elements)"
        )
    return float(factor.reshape(-1)[worst])


def same(case: str, got: Tensor, expected: Tensor) -> float:
    """Zero if two tensors are equal, element for element.

    Raises:
        CheckFailure: showing the largest difference.
    """
    __tracebackhide__ = True
    return compare(case, got, expected.double(), 0.0)
