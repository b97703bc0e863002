"""Every registered kernel: quantsuite's own quantizers and products, torch's, and whatever else joined."""

from __future__ import annotations

from typing import Any

from quantsuite.kernels.registry import registered


def __getattr__(name: str) -> list[Any]:
    """``KERNELS``: all that are registered when it is asked for."""
    if name == "KERNELS":
        return list(registered().values())
    raise AttributeError(name)
