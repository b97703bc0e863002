"""The kernels that a run names, and which of them multiplies under a scheme."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from quantsuite import places
from quantsuite.kernels.dispatch import require_dtype
from quantsuite.kernels.protocol import UnsupportedError, dtypes, takes
from quantsuite.kernels.registry import register_from
from quantsuite.kernels.validation import KernelError
from quantsuite.scheme import Scheme


class UserKernels:
    """Kernels of ``--kernel``, loaded and registered in this process.

    Args:
        locations: as :func:`~quantsuite.kernels.loading.load` takes them.
        dtype: of the model, which is that of the activations.

    Attributes:
        names: of the kernels of each location.
        sha256: by kernel, of the file of its location, not of what that imports; empty for a module without one.

    Raises:
        KernelError: if one cannot be loaded, or none multiplies.
    """

    def __init__(self, locations: Sequence[str], dtype: torch.dtype) -> None:
        by_location = {location: register_from(location) for location in locations}
        found = [kernel for kernels in by_location.values() for kernel in kernels]
        _require_names(by_location)
        self._dtype = dtype
        self.names = {location: [kernel.name for kernel in kernels] for location, kernels in by_location.items()}
        files = {location: _file_sha256(location) for location in locations}
        self.sha256 = {name: files[location] for location, names in self.names.items() for name in names}
        self._products = [kernel for kernel in found if kernel.operation == "linear"]
        if not self._products:
            places, names = ", ".join(locations), ", ".join(kernel.name for kernel in found)
            raise KernelError(f"{places}: only kernels of other operations, {names}; a model needs one of linear")

    def of(self, scheme: Scheme) -> str:
        """Name of the first kernel that takes a scheme in the model's dtype, whatever the method that chose the codes.

        Raises:
            UnsupportedError: if none does.
        """
        plain = replace(scheme, method=None)
        claiming = [kernel for kernel in self._products if takes(kernel, plain)]
        for kernel in claiming:
            if self._dtype in dtypes(kernel):
                return kernel.name
        if claiming:
            require_dtype(claiming[0], scheme, self._dtype)
        claims = "; ".join(f"{kernel.name} claims {', '.join(kernel.schemes)}" for kernel in self._products)
        raise UnsupportedError(f"{scheme}: no kernel that was named implements it; {claims}")


def _file_sha256(location: str) -> str:
    """SHA-256 of the file of a location that was loaded; empty if its module is of none."""
    module, _ = places.split(location)
    file = getattr(places.load_module(module), "__file__", None)
    return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else ""


def _require_names(by_location: Mapping[str, Sequence[Any]]) -> None:
    """Kernels of several places have several names, since records tell them apart by these."""
    seen: dict[str, str] = {}
    for location, kernels in by_location.items():
        for kernel in kernels:
            if (other := seen.setdefault(kernel.name, location)) != location:
                raise KernelError(f"{location}: its kernel is named {kernel.name!r}, as that of {other} is; rename one")
