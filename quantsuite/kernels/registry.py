"""The kernels that there are by name: those of this package's modules, of installed packages, and registered ones.

A module of this package offers its kernels as the list ``KERNELS``, as a file of a user's own does.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Iterator
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from quantsuite import kernels
from quantsuite.kernels.loading import ENTRY_POINT_GROUP, load
from quantsuite.kernels.validation import KernelError, validate

_REGISTERED: dict[str, Any] = {}


@cache
def built_in() -> dict[str, Any]:
    """The kernels of the modules of :mod:`quantsuite.kernels`, by name, in the order of the modules' names."""
    found = {}
    for place in pkgutil.iter_modules(kernels.__path__, f"{kernels.__name__}."):
        for kernel in getattr(importlib.import_module(place.name), "KERNELS", ()):
            found[kernel.name] = validate(kernel, place.name)
    return found


def register(kernel: Any, *, replace: bool = False) -> Any:
    """Add a kernel, so that it is found by its name and checked with all others.

    Args:
        kernel: to add.
        replace: whether it takes the place of one that was registered under its name; never of a built-in one.

    Raises:
        KernelError: if it lacks what its operation needs, or another has its name.
    """
    validate(kernel, repr(kernel))
    others = built_in() if replace else registered()
    if kernel.name in others and others[kernel.name] is not kernel:
        raise KernelError(f"there is a kernel {kernel.name!r} already; give this one a name of its own")
    _REGISTERED[kernel.name] = kernel
    return kernel


def register_from(location: str) -> list[Any]:
    """Load and register the kernels of a file or module, in this process, in the place of earlier ones of their names.

    Raises:
        KernelError: in one line, if they cannot be loaded, or their library is not installed.
    """
    try:
        source = load(location)
    except KernelError:
        raise
    except Exception as error:  # A file of anyone's raises what it likes while it is imported.
        raise KernelError(f"{location}: {type(error).__name__}: {' '.join(str(error).split())}") from error
    if source.missing is not None:
        raise KernelError(source.missing)
    return [register(kernel, replace=True) for kernel in source.kernels]


def unregister(kernel: Any) -> None:
    """Undo :func:`register`."""
    _REGISTERED.pop(kernel.name, None)


def registered() -> dict[str, Any]:
    """All kernels by name but those of installed packages, which are loaded by name or in their own process."""
    return {**built_in(), **_REGISTERED}


def _installed(name: str) -> Iterator[Any]:
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        yield from (kernel for kernel in load(entry.value).kernels if name in (entry.name, kernel.name))


def find(name: str) -> Any:
    """A kernel by its name, or by that of the entry point that offers it.

    Raises:
        KernelError: if there is none of this name.
    """
    known = registered()
    kernel = known.get(name) or next(_installed(name), None)
    if kernel is None:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise KernelError(f"there is no kernel {name!r}; {hint}known: {', '.join(known)}")
    return kernel
