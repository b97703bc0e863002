"""Where kernels are loaded from: files, modules, and what installed packages offer."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from quantsuite import places
from quantsuite.kernels.validation import KernelError, validate

ENTRY_POINT_GROUP = "quantsuite.kernels"


class MissingLibraryError(ImportError):
    """A kernel's library is not installed; the message holds the line that installs it."""


def require(library: str, extra: str) -> ModuleType:
    """Import a kernel's library.

    Raises:
        MissingLibraryError: naming the extra that installs it.
    """
    try:
        return importlib.import_module(library)
    except ImportError as error:
        raise MissingLibraryError(
            f"{library} cannot be imported ({error}); pip install 'quantsuite[{extra}]'"
        ) from error


@dataclass(frozen=True, kw_only=True)
class Source:
    """Kernels from one file, module or entry point, or the reason why there are none."""

    kernels: Sequence[Any] = field(default=())
    missing: str | None = None


def _kernels_of(module: ModuleType, where: str) -> list[Any]:
    if hasattr(module, "operation"):
        return [validate(module, where)]
    if not getattr(module, "KERNELS", None):
        raise KernelError(f"{where}: set KERNELS to a list of them, or name one object as {where}:name")
    return [validate(kernel, where) for kernel in module.KERNELS]


def load(location: str) -> Source:
    """Kernels from ``path.py``, ``path.py:name``, ``package.module`` or ``package.module:name``.

    Without a name they are the module's list ``KERNELS``, or the module itself if it has an ``operation``.

    Raises:
        KernelError: if nothing is there, or what is there is no kernel.
    """
    place, attribute = places.split(location)
    require_file(location)
    try:
        module = places.load_module(place)
    except MissingLibraryError as error:
        return Source(missing=str(error))
    except ModuleNotFoundError as error:
        raise KernelError(f"{location}: {error}; is its package installed?") from error
    if not attribute:
        return Source(kernels=_kernels_of(module, place))
    if not hasattr(module, attribute):
        raise KernelError(f"{place} has no {attribute!r}; it has {places.public_names(module)}")
    return Source(kernels=[validate(getattr(module, attribute), location)])


def require_file(location: str) -> None:
    """Whether a location that is a file's is there, without loading it.

    Raises:
        KernelError: if it is not.
    """
    place, _ = places.split(location)
    if places.is_missing(place):
        raise KernelError(f"{place} does not exist; give a path to a Python file or a module's name")


def discover(folder: Path | None) -> list[str]:
    """Where there are kernels, as :func:`load` takes it: Python files in a folder, then installed entry points."""
    files = [] if folder is None else [str(path) for path in sorted(folder.glob("[!_]*.py"))]
    return files + [entry.value for entry in entry_points(group=ENTRY_POINT_GROUP)]
