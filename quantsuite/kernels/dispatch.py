"""Which kernel multiplies: the one that is named, or the first of a table that is data and can.

A layer packs its weight once, for the kernel of its scheme, device and size.  M and the dtype are known at each call
only, and may choose another kernel then, of those with the same ``packing``.
"""

from __future__ import annotations

import fnmatch
import tomllib
from collections.abc import Iterable, Iterator
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import msgspec
import torch

from quantsuite.kernels import registry
from quantsuite.kernels.protocol import UnsupportedError, dtypes, packing, takes, unsupported, unsupported_shape
from quantsuite.scheme import Scheme

TABLE = Path(__file__).parent / "table.toml"


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A line of the table; see the table's own words."""

    scheme: str
    kernel: str
    device: str = ""
    rows: tuple[int, int] = (1, 0)
    required: bool = False

    def fits(self, scheme: Scheme, device: str, m: int) -> bool:
        first, last = self.rows
        return (
            fnmatch.fnmatchcase(str(scheme), self.scheme)
            and device.startswith(self.device)
            and (m == 0 or first <= m <= (last or m))
        )


@cache
def read_table(path: Path = TABLE) -> list[Rule]:
    """The rules of a table.

    Raises:
        ValueError: naming the rule and its first mistake.
    """
    try:
        return msgspec.convert(tomllib.loads(path.read_text()).get("rule", []), list[Rule])
    except (msgspec.ValidationError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{path}: {error}") from error


def _named(dtypes: Iterable[torch.dtype]) -> str:
    return ", ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)


def _candidates(scheme: Scheme, device: str, m: int, rules: list[Rule]) -> Iterator[tuple[Rule, Any]]:
    for rule in rules:
        if rule.fits(scheme, device, m):
            kernel = registry.find(rule.kernel)
            if takes(kernel, scheme):
                yield rule, kernel


@lru_cache(maxsize=4096)
def choose(
    scheme: Scheme,
    device: str,
    m: int,
    n: int,
    k: int,
    dtype: torch.dtype = torch.bfloat16,
    packed_as: str | None = None,
) -> Any:
    """The kernel that the table gives for ``x [m, k]`` and a weight ``[n, k]``.

    Args:
        scheme: of the layer.
        device: where both lie.
        m: rows of activations.
        n: rows of the weight.
        k: columns.
        dtype: of the activations.
        packed_as: the packing that the weight has already; ``None`` if it is still to be packed.

    Raises:
        UnsupportedError: if no kernel can, with the reason of the first that was asked.
    """
    reasons = []
    for rule, kernel in _candidates(scheme, device, m, read_table()):
        if packed_as not in (None, packing(kernel)) or dtype not in dtypes(kernel):
            continue
        if (reason := unsupported(kernel, scheme, device)) is not None:
            reasons.append(reason)
            if rule.required:
                break
            continue
        if (reason := unsupported_shape(kernel, scheme, device, m, n, k)) is None:
            return kernel
        reasons.append(reason)
    reason = reasons[0] if reasons else f"no kernel takes it in {_named([dtype])} on {device}"
    raise UnsupportedError(f"{scheme}: {reason}; run it with --execution simulated")


def require_dtype(kernel: Any, scheme: Scheme, dtype: torch.dtype) -> None:
    """Raise :class:`UnsupportedError` if a kernel does not take activations of a dtype."""
    if dtype not in dtypes(kernel):
        raise UnsupportedError(f"{scheme}: {kernel.name} takes no {_named([dtype])}; it takes {_named(dtypes(kernel))}")


def require(kernel: Any, scheme: Scheme, device: str, dtype: torch.dtype | None = None) -> Any:
    """A kernel that was named, if it can.

    Raises:
        UnsupportedError: if it does not claim the scheme, takes no such activations, or the device cannot run it.
    """
    if kernel.operation != "linear":
        raise UnsupportedError(f"{kernel.name} is a kernel of {kernel.operation}, a layer needs one of linear")
    if not takes(kernel, scheme):
        raise UnsupportedError(f"{scheme}: {kernel.name} does not claim it; it claims {', '.join(kernel.schemes)}")
    if dtype is not None:
        require_dtype(kernel, scheme, dtype)
    if (reason := unsupported(kernel, scheme, device)) is not None:
        raise UnsupportedError(f"{scheme}: {kernel.name}: {reason}; run it with --execution simulated")
    return kernel
