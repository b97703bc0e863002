"""The kernels that there are by name: those of this package's modules, of installed packages, and registered ones.

A module of this package offers its kernels as the list ``KERNELS``, as a file of a user's own does.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
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


def _installed(name: str) -> Any:
    """The kernel of a name that an installed package offers, or ``None``.

    Raises:
        KernelError: if there is none, and packages that may have it cannot be loaded.
    """
    broken = []
    for entry in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda entry: entry.name != name):
        try:
            found = load(entry.value).kernels
        except Exception as error:  # Any package raises what it likes while it is imported.
            package = entry.value if entry.dist is None else entry.dist.name
            broken.append(f"{package} ({type(error).__name__}: {' '.join(str(error).split())})")
            continue
        for kernel in found:
            if name in (entry.name, kernel.name):
                return kernel
    if broken:
        raise KernelError(f"there is no kernel {name!r} in what loads; mend or uninstall {', '.join(broken)}")
    return None


def find(name: str) -> Any:
    """A kernel by its name, or by that of the entry point that offers it.

    Raises:
        KernelError: if there is none of this name, naming the installed packages that cannot be loaded.
    """
    known = registered()
    kernel = known.get(name) or _installed(name)
    if kernel is None:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise KernelError(f"there is no kernel {name!r}; {hint}known: {', '.join(known)}")
    return kernel
