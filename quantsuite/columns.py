"""Columns of a record's items in a file: long lists of numbers as text, without loss.

A column is a JSON list, or one of

- ``{"f4": TEXT}``: the values, little-endian, deflated (zlib), as base64; the key is numpy's name of their type:
  ``b1`` (truth values), ``i1``, ``i2``, ``i4``, ``i8``, ``f4``, ``f8``;
- ``{"index": COLUMN, "names": [...]}``: texts, each by its place among the names;
- ``{"lengths": COLUMN, "values": COLUMN}``: rows of numbers, one after the other.
"""

from __future__ import annotations

import zlib
from base64 import b64decode, b64encode
from collections.abc import Sequence
from itertools import accumulate, chain, pairwise
from typing import Any

import numpy as np

SHORTEST_PACKED = 16
"""Values; fewer stay a list, which is shorter and can be read."""
LARGEST_UNPACKED = 2**30
"""Bytes of a column: what is deflated says by nothing how large it becomes."""
_TYPES: dict[type, tuple[str, ...]] = {bool: ("b1",), int: ("i1", "i2", "i4", "i8"), float: ("f4", "f8")}
_NAMES = tuple(chain.from_iterable(_TYPES.values()))


def pack(column: Any) -> Any:
    """A column as it is written: the shortest type that holds every value exactly, or the column itself."""
    if not isinstance(column, list) or len(column) < SHORTEST_PACKED:
        return column
    kinds = {type(value) for value in column}
    if kinds == {str}:
        place = {name: index for index, name in enumerate(dict.fromkeys(column))}
        return {"names": list(place), "index": pack([place[name] for name in column])}
    if kinds == {list}:
        return {"lengths": pack([len(row) for row in column]), "values": pack(list(chain.from_iterable(column)))}
    return _pack_numbers(column, _TYPES.get(kinds.pop(), ()) if len(kinds) == 1 else ())


def _pack_numbers(column: list[Any], names: Sequence[str]) -> Any:
    for name in names:
        try:
            with np.errstate(over="ignore"):
                values = np.array(column).astype(f"<{name}")
        except OverflowError:  # An integer of more than 64 bits.
            continue
        if values.tolist() == column:
            return {name: b64encode(zlib.compress(values.tobytes(), 9)).decode()}
    return column


def unpack(column: Any) -> Any:
    """The inverse of :func:`pack`; what is no packed column is returned as it is.

    Raises:
        ValueError: if a packed column is damaged.
    """
    if not isinstance(column, dict):
        return column
    match sorted(column):
        case ["index", "names"]:
            names = column["names"]
            return [names[place] for place in _places(unpack(column["index"]), names)]
        case ["lengths", "values"]:
            return _rows(unpack(column["values"]), unpack(column["lengths"]))
        case [name] if name in _NAMES:
            return np.frombuffer(_bytes(column[name]), f"<{name}").tolist()
    return column


def _bytes(text: Any) -> bytes:
    if not isinstance(text, str):
        raise ValueError(f"a packed column is {type(text).__name__}, not text")
    inflate = zlib.decompressobj()
    try:
        found = inflate.decompress(b64decode(text, validate=True), LARGEST_UNPACKED)
    except zlib.error as error:
        raise ValueError(f"a packed column is damaged: {error}") from error
    if not inflate.eof:
        raise ValueError("a packed column is truncated, or larger than 1 GiB")
    return found


def _places(places: Any, names: Any) -> list[int]:
    if not isinstance(names, list) or not all(type(place) is int and 0 <= place < len(names) for place in places):
        raise ValueError("a packed column has places that no name stands at")
    return places


def _rows(values: Any, lengths: Any) -> list[list[Any]]:
    if not all(type(length) is int and length >= 0 for length in lengths) or sum(lengths) != len(values):
        raise ValueError(f"a packed column has {len(values):,} values, its rows {sum(lengths):,}")
    return [values[begin:end] for begin, end in pairwise(accumulate(lengths, initial=0))]
