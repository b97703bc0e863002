"""Granularities: which elements of a tensor share one scale."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class PerTensor:
    """One scale for the whole tensor."""

    def __str__(self) -> str:
        return "tensor"


@dataclass(frozen=True)
class PerRow:
    """One scale a row of a weight ``[N, K]``: an output channel."""

    def __str__(self) -> str:
        return "row"


@dataclass(frozen=True)
class PerToken:
    """One scale a row of an activation ``[..., tokens, K]``."""

    def __str__(self) -> str:
        return "token"


@dataclass(frozen=True)
class PerHead:
    """One scale a token and head of a key or value ``[..., tokens, heads, head_dim]``."""

    def __str__(self) -> str:
        return "head"


@dataclass(frozen=True)
class PerGroup:
    """One scale for ``size`` neighbours along K."""

    size: int

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"group size {self.size} is not positive; use for example 128")

    def __str__(self) -> str:
        return f"g{self.size}"


@dataclass(frozen=True)
class PerBlock:
    """One scale for a block of ``rows x columns`` of a weight ``[N, K]``."""

    rows: int
    columns: int

    def __post_init__(self) -> None:
        if self.rows < 1 or self.columns < 1:
            raise ValueError(f"block {self.rows}x{self.columns} is empty; use for example 128x128")

    def __str__(self) -> str:
        return f"b{self.rows}x{self.columns}"


Granularity = PerTensor | PerRow | PerToken | PerHead | PerGroup | PerBlock

_NAMED: dict[str, Granularity] = {str(g): g for g in (PerTensor(), PerRow(), PerToken(), PerHead())}


def parse_granularity(text: str) -> Granularity:
    """The inverse of ``str``: ``tensor``, ``row``, ``token``, ``head``, ``g128``, ``b128x128``.

    Raises:
        ValueError: if ``text`` is none of these.
    """
    if text in _NAMED:
        return _NAMED[text]
    if match := re.fullmatch(r"g(\d+)", text):
        return PerGroup(int(match[1]))
    if match := re.fullmatch(r"b(\d+)x(\d+)", text):
        return PerBlock(int(match[1]), int(match[2]))
    raise ValueError(
        f"unknown granularity {text!r}; use tensor, row, token, head, g<size> such as g128, or b<rows>x<columns>"
    )


def coarseness(granularity: Granularity | None) -> tuple[int, int]:
    """Sorts granularities from coarse to fine: tensor, row, groups from large to small, then all others."""
    match granularity:
        case PerTensor():
            return 0, 0
        case PerRow():
            return 1, 0
        case PerGroup(size):
            return 2, -size
    return 3, 0


def _divide(what: str, size: int, name: str, length: int) -> int:
    if length % size:
        powers = [d for d in (2**i for i in range(5, 13)) if length % d == 0]
        fitting = powers or [d for d in range(1, length + 1) if length % d == 0]
        raise ValueError(
            f"{what} {size} does not divide {name}={length}; use one of {', '.join(map(str, fitting[:8]))}"
        )
    return length // size


def share_scales(tensor: Tensor, granularity: Granularity) -> tuple[Tensor, tuple[int, ...]]:
    """A view of ``tensor`` and the dimensions of it along which elements share a scale.

    A reduction of the view over these dimensions with ``keepdim=True`` broadcasts against it, and
    ``view.reshape(tensor.shape)`` undoes the view.

    Args:
        tensor: ``[..., K]``; ``[N, K]`` for :class:`PerBlock`.
        granularity: which elements share a scale.

    Raises:
        ValueError: if a group or block does not divide its dimension.
    """
    match granularity:
        case PerTensor():
            return tensor, tuple(range(tensor.ndim))
        case PerRow() | PerToken() | PerHead():
            return tensor, (-1,)
        case PerGroup(size):
            groups = _divide("group size", size, "K", tensor.shape[-1])
            return tensor.unflatten(-1, (groups, size)), (-1,)
        case PerBlock(rows, columns):
            if tensor.ndim != 2:
                raise ValueError(f"blocks need a matrix [N, K], got shape {list(tensor.shape)}; use g<size>")
            n = _divide("block height", rows, "N", tensor.shape[0])
            k = _divide("block width", columns, "K", tensor.shape[1])
            return tensor.reshape(n, rows, k, columns), (1, 3)
