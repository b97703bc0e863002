"""How wrong values relate to the right ones, in words: a factor, another order, a neighbour's value, no value."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from quantsuite.checks.pattern import axis_names, plural_of

ROUNDING = 2.0**-8
"""Relative, of the narrowest dtype of results; a factor is told apart from one by much more than that."""


def describe_values(got: Tensor, expected: Tensor, bound: Tensor, wrong: Tensor, axes: Sequence[str] = ()) -> str:
    """What all wrong elements have in common; empty if it is nothing, or there are too few to tell.

    Args:
        got: float64.
        expected: in the shape of ``got``.
        bound: within which two values count as equal, in the shape of ``got``.
        wrong: truth values in the shape of ``got``.
        axes: a singular noun for each dimension.
    """
    values, right, limit = got[wrong], expected[wrong], bound[wrong]
    for name, holds in (
        ("NaN", values.isnan()),
        ("infinite", values.isinf()),
        ("zero", (values == 0) & (right != 0)),
    ):
        if holds.all():
            return f"all {name}" if len(values) > 1 else ""
    if len(values) < 2 or not (values.isfinite().all() and right.isfinite().all()):
        return ""
    return _factor(values, right, limit) or _offset(values, right, limit) or _moved(got, expected, bound, wrong, axes)


def _factor(values: Tensor, right: Tensor, limit: Tensor) -> str:
    """One factor of all, where the right ones are no single value, and it is more than the bound could make."""
    told = right.abs() > 4 * limit
    if int(told.sum()) < 2 or not (right != 0).all():
        return ""
    ratio = float((values[told] / right[told]).median())
    for factor in (_plain(ratio), ratio):
        slack = min(ROUNDING, abs(factor - 1) / 16) * (factor * right).abs()
        if _equal(values, factor * right, limit * max(1.0, abs(factor)) + slack):
            return "all of the wrong sign" if factor == -1 else f"all by the factor {factor:.6g}"
    return ""


def _plain(ratio: float) -> float:
    """The power of two, of either sign, within 0.4% of a ratio, else the ratio."""
    if ratio == 0:
        return ratio
    size = 2.0 ** round(math.log2(abs(ratio)))
    return math.copysign(size, ratio) if abs(abs(ratio) / size - 1) < ROUNDING else ratio


def _offset(values: Tensor, right: Tensor, limit: Tensor) -> str:
    """One difference of all, larger than the bound could make."""
    difference = float((values - right).median())
    if abs(difference) <= 4 * float(limit.max()) or not _equal(values, right + difference, limit):
        return ""
    return f"all by the difference {difference:.6g}"


def _moved(got: Tensor, expected: Tensor, bound: Tensor, wrong: Tensor, axes: Sequence[str]) -> str:
    """Values that belong to another place."""
    names = axis_names(got.dim(), axes)
    for axis, name in enumerate(names):
        for step, which in ((-1, "next"), (1, "previous")):
            if got.shape[axis] > 2 and _equal(got[wrong], expected.roll(step, axis)[wrong], bound[wrong]):
                return f"each is the value of the {which} {name}"
        if got.shape[axis] > 2 and _equal(got[wrong], expected.flip(axis)[wrong], bound[wrong]):
            return f"{plural_of(name)} in reverse order"
    ours, theirs = got[wrong].sort().values, expected[wrong].sort().values
    distinct = int((theirs.diff() > 2 * float(bound.max())).sum()) >= 2
    return "the right values in another order" if distinct and _equal(ours, theirs, float(bound.max())) else ""


def _equal(values: Tensor, others: Tensor, limit: Tensor | float) -> bool:
    """Within the bound and float64's own roundings."""
    return bool(((values - others).abs() <= limit + 1e-12 * others.abs()).all())
