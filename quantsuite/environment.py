"""Where a record was made: device, hardware and versions."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterable
from functools import cache

import torch

from quantsuite.records import Environment

PACKAGES = ("quantsuite", "torch", "transformers", "datasets", "tokenizers", "numpy", "scipy")


def resolve_device(device: str) -> str:
    """``auto`` is the accelerator if there is one, else the CPU; a named device is taken at its word.

    Raises:
        ValueError: if a named device is not there.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.ones(1, device=device).item()  # A device that computes: "meta" makes tensors too.
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"device {device!r} is not usable: {str(error).splitlines()[0]}; use --device cpu") from error
    return device


def describe_environment(device: str, dtype: str, *, packages: Iterable[str] = ()) -> Environment:
    """The environment of a record made on a device.

    Args:
        device: as torch names it.
        dtype: of the reference, as records name it.
        packages: distributions whose versions matter beside ``PACKAGES``.
    """
    return Environment(
        device=_accelerator(device) or device,
        dtype=dtype,
        versions=_versions((*PACKAGES, *packages)),
        hardware=_accelerator(device) or _processor(),
        threads=torch.get_num_threads(),
    )


@cache
def _versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Of those that are installed; their metadata is read, none is imported."""
    versions = {"python": platform.python_version()}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


@cache
def _accelerator(device: str) -> str | None:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else None


@cache
def _processor() -> str:
    return f"{platform.processor() or platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"
