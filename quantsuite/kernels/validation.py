"""Whether an object is a kernel: that it has what its operation needs, and declares what there is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import torch
from torch import Tensor

from quantsuite.kernels.operations import OPERATIONS
from quantsuite.kernels.protocol import DEFAULT_DTYPES, FEWEST_BITS, Layouts, dtypes, output_dtype

LONGEST_NAME = 100
NO_NAME = "none"
"""What contrasts call the lack of a kernel."""
FLAGS = ("takes_bias", "rounds_scales", "deterministic", "flushes_subnormals", "keeps_values")
"""What a kernel declares as true or false."""


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
    """What a kernel's ``linear`` returned of ``x`` ``[..., K]``, in the dtype of ``x``.

    It must be ``[..., n]`` in the dtype that the kernel declares, that of ``x`` unless it does.

    Raises:
        KernelError: naming the kernel and what it returned.
    """
    expected, dtype = (*x.shape[:-1], n), output_dtype(kernel) or x.dtype
    if isinstance(y, Tensor) and y.shape == expected and y.dtype == dtype:
        return y.to(x.dtype)
    found = f"a Tensor {list(y.shape)} of {y.dtype}" if isinstance(y, Tensor) else f"a {type(y).__name__}"
    raise KernelError(f"{kernel.name}.linear of {list(x.shape)} returned {found}, expected {list(expected)} of {dtype}")


def _validate_lists(kernel: Any, where: str) -> None:
    """Whether a kernel's schemes and dtypes are such."""
    names = getattr(kernel, "dtypes", DEFAULT_DTYPES)
    for attribute, value in (("schemes", kernel.schemes), ("dtypes", names)):
        if isinstance(value, str) or not isinstance(value, Sequence) or not all(isinstance(v, str) for v in value):
            raise KernelError(f"{where}: {attribute} of {kernel.name} is {value!r}, expected a list of strings")
    for scheme in kernel.schemes:
        try:
            OPERATIONS[kernel.operation].parse(scheme)
        except ValueError as error:
            raise KernelError(f"{where}: {kernel.name} claims {scheme!r}: {error}") from error
    if not names:
        raise KernelError(f"{where}: dtypes of {kernel.name} is empty, so that nothing is tried; name one or drop it")
    for name in names:
        _validate_dtype(kernel, "dtype", name, where)


def _validate_dtype(kernel: Any, what: str, name: object, where: str) -> None:
    if not (isinstance(name, str) and getattr(getattr(torch, name, None), "is_floating_point", False)):
        raise KernelError(f"{where}: {kernel.name} has {what} {name!r}; use names such as 'bfloat16'")


def _validate_output(kernel: Any, where: str) -> None:
    """Whether the dtype of the output, if one is declared, holds what an input's does."""
    if getattr(kernel, "output_dtype", None) is None:
        return
    _validate_dtype(kernel, "output_dtype", kernel.output_dtype, where)
    returned = output_dtype(kernel)
    for taken in dtypes(kernel):
        if returned != torch.promote_types(taken, returned):
            raise KernelError(
                f"{where}: {kernel.name} returns {returned} of {taken}, whose values it does not hold; "
                "leave that out of its dtypes"
            )


def _validate_options(kernel: Any, where: str) -> None:
    """Whether what a kernel may declare besides is of its kind."""
    for attribute, least in (("accumulator_bits", FEWEST_BITS), ("work", 1)):
        value = getattr(kernel, attribute, least)
        if type(value) is not int or value < least:
            why = ", below which the bound of a sum lets all zeros pass" if least == FEWEST_BITS else ""
            raise KernelError(
                f"{where}: {attribute} of {kernel.name} is {value!r}, expected a whole number from {least}{why}"
            )
    for attribute, known in (("layouts", get_args(Layouts)), *((flag, (True, False)) for flag in FLAGS)):
        value = getattr(kernel, attribute, known[0])
        if value not in list(known):
            raise KernelError(f"{where}: {attribute} of {kernel.name} is {value!r}, expected one of {known}")
    _validate_output(kernel, where)
    for name in OPERATIONS[kernel.operation].optional:
        if not callable(getattr(kernel, name, print)):
            raise KernelError(f"{where}: {name} of {kernel.name} is {getattr(kernel, name)!r}, expected a function")
