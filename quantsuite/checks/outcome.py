"""How a check ends: a factor of the bound, a failure with its smallest case, not applicable, or not supported."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from quantsuite.checks.pattern import describe_places
from quantsuite.checks.relation import describe_values

FAR = 1000
"""Times the bound beyond which an error is told without the ratio."""
PRODUCT_AXES = ("token", "output")
"""What the axes of a product ``[M, N]`` are called."""


class CheckFailure(AssertionError):
    """A property that a kernel breaks; the message holds the case, the bound and the excess, and where it is wrong."""

    @property
    def reason(self) -> str:
        """What was found, in one line, equal for all cases that have it alike."""
        return "; ".join(str(self).splitlines())


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


def compare(case: str, got: Tensor, expected: Tensor, bound: Tensor | float, *, axes: Sequence[str] = ()) -> float:
    """The largest error as a fraction of its bound.

    Args:
        case: what was computed, for the message.
        got: any float dtype; compared in float64.
        expected: float64 in the shape of ``got``.
        bound: non-negative, broadcast to ``expected``; zero demands equality.
        axes: a singular noun for each dimension, for the message; row and column unless given.

    Returns:
        0 if all elements are equal.

    Raises:
        CheckFailure: showing the element that exceeds its bound by the largest factor, and where the wrong ones lie.
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
        shown = _element(*(t.reshape(-1)[worst].item() for t in (value, expected, limit)))
        where = _wrong_ones(value, expected, limit, factor > 1, axes)
        raise CheckFailure(f"{case}: element {place} {shown}\n{where}")
    return float(factor.reshape(-1)[worst])


def _element(value: float, expected: float, bound: float) -> str:
    """What one element is, what it should be, and what is allowed; a ratio only where it says something."""
    error = abs(value - expected)
    text = f"is {value:.9g}, expected {expected:.9g}"
    if not math.isfinite(error):
        return text
    if bound == 0:
        return f"{text}: error {error:.6g}, no error is allowed"
    if expected == 0 or error > FAR * bound:
        return f"{text}: error {error:.6g}, the bound is {bound:.6g}"
    return f"{text}: error {error:.6g}, {error / bound:.4g} times the bound {bound:.6g}"


def _wrong_ones(value: Tensor, expected: Tensor, limit: Tensor, wrong: Tensor, axes: Sequence[str]) -> str:
    """How many elements are wrong, where they lie, and what they have in common."""
    common = describe_values(value, expected, limit, wrong, axes)
    places = describe_places(wrong, axes)
    count = f"{int(wrong.sum())} of {wrong.numel()} elements of {list(wrong.shape)}"
    return f"wrong: {places}{f', {common}' if common else ''}; {count}"


def same(case: str, got: Tensor, expected: Tensor, *, axes: Sequence[str] = ()) -> float:
    """Zero if two tensors are equal, element for element.

    Raises:
        CheckFailure: showing the largest difference.
    """
    __tracebackhide__ = True
    return compare(case, got, expected.double(), 0.0, axes=axes)
