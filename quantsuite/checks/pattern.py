"""Where a result is wrong, in words: the columns, tiles, groups or steps in which its wrong elements lie."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

TILES = (16, 32, 64, 128, 256)
"""Sizes in which kernels cut an axis."""
NAMED, FILLED, FEWEST = 4, 0.75, 8
"""How many indices are named one by one; of a range that is wrong in most, the share and the least length."""


def axis_names(dimensions: int, axes: Sequence[str] = ()) -> list[str]:
    """A noun for each axis: those that are given, else element; row and column; the leading ones by number."""
    if len(axes) == dimensions:
        return list(axes)
    last = ["element"] if dimensions == 1 else ["row", "column"]
    return [*(f"index of axis {axis}" for axis in range(dimensions - len(last))), *last][:dimensions]


def describe_places(wrong: Tensor, axes: Sequence[str] = ()) -> str:
    """Where a tensor of truth values is true, of which it is in one place at least.

    Args:
        wrong: of any number of dimensions.
        axes: a singular noun for each dimension, as ``("token", "output")``.
    """
    count, total = int(wrong.sum()), wrong.numel()
    if count == total:
        return "all elements" if total > 1 else "the only element"
    if count == 1:
        return "one element"
    names = axis_names(wrong.dim(), axes)
    hit = [_hit(wrong, axis) for axis in range(wrong.dim())]
    partial = [axis for axis, found in enumerate(hit) if not found.all()]
    told = [axis for axis in partial if _is_told(hit[axis])] or partial
    parts = [_indices(hit[axis], names[axis]) for axis in told]
    within = math.prod(int(found.sum()) if axis in told else len(found) for axis, found in enumerate(hit))
    flat = _pattern(wrong.reshape(-1), "element") if count < within else None
    if flat and not flat.startswith("every"):
        return f"{flat}, in memory order"
    if parts:
        where = ", in ".join(parts)
        return f"all of {where}" if count == within else f"only {where} ({count} of {within} elements there)"
    if wrong.dim() == 2 and wrong.shape[0] == wrong.shape[1] and torch.equal(wrong, wrong.diag().diag()):
        return "only on the diagonal"
    return f"{flat}, in memory order" if flat else "scattered"


def _hit(wrong: Tensor, axis: int) -> Tensor:
    """For each index of an axis whether any element there is wrong."""
    return wrong.movedim(axis, 0).reshape(wrong.shape[axis], -1).any(1)


def _is_told(hit: Tensor) -> bool:
    """Whether the wrong indices of an axis are few, or make a pattern or most of a run; else chance chose them."""
    places = hit.nonzero().flatten().tolist()
    run = len(places) >= FEWEST and len(places) >= FILLED * (places[-1] - places[0] + 1)
    return len(places) <= NAMED or _pattern(hit, "") is not None or (run and len(places) < FILLED * len(hit))


def _indices(hit: Tensor, name: str) -> str:
    """The true ones of an axis of which some are not."""
    places, size = hit.nonzero().flatten().tolist(), len(hit)
    if len(places) == 1:
        return f"the last {name} ({places[0]})" if places[0] == size - 1 > 0 else f"{name} {places[0]}"
    if found := _pattern(hit, name):
        return found
    plural = plural_of(name)
    if len(places) <= NAMED:
        return f"{plural} {_enumerated(places)}"
    first, last = places[0], places[-1]
    if len(places) >= FEWEST and len(places) >= FILLED * (last - first + 1):
        start = _start(places, size, most=True)
        return f"{len(places)} of {_range(start, last, size, plural)}"
    return f"{len(places)} of {size} {plural}, the first {_enumerated(places[:3])}"


def plural_of(name: str) -> str:
    """The plural of an axis's noun."""
    return name.replace("index", "indices") if name.startswith("index") else f"{name}s"


def _enumerated(places: Sequence[int]) -> str:
    *first, last = map(str, places)
    return f"{', '.join(first)} and {last}" if first else last


def _pattern(hit: Tensor, name: str) -> str | None:
    """A run, or a step, or places in every tile, that has exactly the true ones."""
    places, size, plural = hit.nonzero().flatten().tolist(), len(hit), plural_of(name)
    first, last = places[0], places[-1]
    if len(places) == last - first + 1:
        return _range(first, last, size, plural)
    steps = {later - earlier for earlier, later in itertools.pairwise(places)}
    if len(steps) == 1 and len(places) > 2:
        (step,) = steps
        every = {2: "every second", 3: "every third"}.get(step, f"every {step}th")
        whole = first < step and last + step >= size
        if whole or len(places) >= FEWEST:
            return f"{every} {name} from {first} {'on' if whole else f'to {last}'}"
    for tile in (4, 8, *TILES):
        if size >= 2 * tile and (found := _residues(hit, tile)) is not None:
            return f"{plural} {found} of every {tile}"
    return None


def _residues(hit: Tensor, tile: int) -> str | None:
    """The places within a tile that are hit in every one, and no others are."""
    places = torch.arange(len(hit)) % tile
    found = hit[:tile].nonzero().flatten().tolist()
    if not found or not torch.equal(torch.isin(places, torch.tensor(found)), hit):
        return None
    if len(found) > 1 and len(found) == found[-1] - found[0] + 1:
        return f"{found[0]} to {found[-1]}"
    return _enumerated(found) if len(found) <= NAMED else None


def _start(places: Sequence[int], size: int, *, most: bool) -> int:
    """The first place, or the start of its tile if the run reaches the end and is most of that tile."""
    first, last = places[0], places[-1]
    for tile in TILES:
        start = first // tile * tile
        if most and last == size - 1 and len(places) >= FILLED * (size - start):
            return start
    return first


def _range(first: int, last: int, size: int, plural: str) -> str:
    """A run of indices, as the group or the tile that it is, if it is one."""
    length = last - first + 1
    group = f"group of {length} {plural} ({first} to {last})"
    if length in TILES and first % length == 0 and size > length:
        return f"the last {group}" if last == size - 1 else f"the {group}"
    if last < size - 1:
        return f"the first {length} {plural}" if first == 0 and length > 1 else f"{plural} {first} to {last}"
    for tile in TILES:
        start = (size - 1) // tile * tile
        if start == 0:
            break
        if first == start:
            return f"the last, partial tile of {tile}: {plural} {first} on"
        if first > start and length > 1:
            return f"{plural} {first} on, {first - start} and up of the last tile of {tile}"
    return f"{plural} {first} on"
