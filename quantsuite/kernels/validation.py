"""Whether an object is a kernel: that it has what its operation needs, and declares what there is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import torch
from torch import Tensor

from quantsuite.kernels.operations import OPERATIONS
from quantsuite.kernels.protocol import Layouts

LONGEST_NAME = 100
NO_NAME = "none"
"""What contrasts call the lack of a kernel."""


class KernelError(ValueError):
    """A kernel that cannot be loaded, or that lacks what its operation needs."""


def validate(kernel: Any, where: str) -> Any:
    """The kernel, if it is one.

    Raises:
        KernelError: naming what is missing, or what is declared and what may be.
    """
    absent = [name for name in ("name", "operation", "schemes") if not hasattr(kernel, name)]
    if not absent:
        if kernel.operation not in list(OPERATIONS):  # it may be of any type, one without a hash too
            known = " or ".join(OPERATIONS)
            raise KernelError(f"{where}: unknown operation {kernel.operation!r}; use {known}")
        requires = OPERATIONS[kernel.operation].requires
        absent = [name for name in requires if not callable(getattr(kernel, name, None))]
    if absent:
        raise KernelError(f"{where}: a kernel needs {', '.join(absent)}; see quantsuite.kernels.protocol")
    _validate_name(kernel, where)
    _validate_lists(kernel, where)
    _validate_options(kernel, where)
    return kernel


def _validate_name(kernel: Any, where: str) -> None:
    name = kernel.name
    if type(name) is not str or not 0 < len(name) <= LONGEST_NAME or not name.isprintable():
        shown = ascii(name)[:LONGEST_NAME] if type(name) in (str, int, float, bytes) else f"a {type(name).__name__}"
        raise KernelError(f"{where}: name is {shown}, expected a string of 1 to {LONGEST_NAME} printable characters")
    if name == NO_NAME or {" ", "="} & {*name}:
        raise KernelError(f"{where}: name is {name!r}, which contrasts cannot tell; use letters, digits and hyphens")


def require_product(kernel: Any, y: object, x: Tensor, n: int) -> Tensor:
    """What a kernel's ``linear`` returned of ``x`` ``[..., K]``, if it is ``[..., n]`` in the dtype of ``x``.

    Raises:
        KernelError: naming the kernel and what it returned.
    """
    expected = (*x.shape[:-1], n)
    if isinstance(y, Tensor) and y.shape == expected and y.dtype == x.dtype:
        return y
    found = f"a Tensor {list(y.shape)} of {y.dtype}" if isinstance(y, Tensor) else f"a {type(y).__name__}"
    raise KernelError(
        f"{kernel.name}.linear of {list(x.shape)} returned {found}, expected {list(expected)} of {x.dtype}"
    )


def _validate_lists(kernel: Any, where: str) -> None:
    """Whether a kernel's schemes and dtypes are such."""
    names = getattr(kernel, "dtypes", ("float32",))
    for attribute, value in (("schemes", kernel.schemes), ("dtypes", names)):
        if isinstance(value, str) or not isinstance(value, Sequence) or not all(isinstance(v, str) for v in value):
            raise KernelError(f"{where}: {attribute} of {kernel.name} is {value!r}, expected a list of strings")
    for scheme in kernel.schemes:
        try:
            OPERATIONS[kernel.operation].parse(scheme)
        except ValueError as error:
            raise KernelError(f"{where}: {kernel.name} claims {scheme!r}: {error}") from error
    for name in names:
        if not getattr(getattr(torch, name, None), "is_floating_point", False):
            raise KernelError(f"{where}: {kernel.name} has dtype {name!r}; use names such as 'bfloat16'")


def _validate_options(kernel: Any, where: str) -> None:
    """Whether what a kernel may declare besides is of its kind."""
    for attribute in ("accumulator_bits", "work"):
        value = getattr(kernel, attribute, 1)
        if type(value) is not int or value < 1:
            raise KernelError(f"{where}: {attribute} of {kernel.name} is {value!r}, expected a whole number from 1")
    for attribute, known in (("layouts", get_args(Layouts)), ("takes_bias", (True, False))):
        value = getattr(kernel, attribute, known[0])
        if value not in list(known):
            raise KernelError(f"{where}: {attribute} of {kernel.name} is {value!r}, expected one of {known}")
    for name in OPERATIONS[kernel.operation].optional:
        if not callable(getattr(kernel, name, print)):
            raise KernelError(f"{where}: {name} of {kernel.name} is {getattr(kernel, name)!r}, expected a function")
