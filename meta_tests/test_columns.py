"""Columns of items as text: nothing is lost, what many cells share is small, and what is damaged is refused."""

from __future__ import annotations

import json
import struct
import zlib
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantsuite import columns
from quantsuite.columns import SHORTEST_PACKED, pack, unpack

NUMBERS = st.one_of(
    st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=SHORTEST_PACKED),
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=SHORTEST_PACKED),
    st.lists(st.integers(-(2**70), 2**70), min_size=SHORTEST_PACKED),
    st.lists(st.integers(-100, 100), min_size=SHORTEST_PACKED),
    st.lists(st.booleans(), min_size=SHORTEST_PACKED),
)
COLUMNS = st.one_of(
    NUMBERS,
    st.lists(st.text(max_size=3), min_size=SHORTEST_PACKED),
    st.lists(st.lists(st.floats(width=32, allow_nan=False), max_size=3), min_size=SHORTEST_PACKED),
    st.lists(st.one_of(st.integers(), st.booleans(), st.floats(allow_nan=False), st.text()), max_size=20),
)


def exact(column: list) -> str:
    """Tells -0.0 from 0.0, and 1 from 1.0 and ``True``."""
    return repr(column)


@given(COLUMNS)
def test_a_column_is_the_same_after_it_was_packed(column: list) -> None:
    assert exact(unpack(json.loads(json.dumps(pack(column))))) == exact(column)


@pytest.mark.parametrize(
    ("column", "name"),
    [
        ([0.5, -0.25] * 8, "f4"),
        ([0.1, 0.5] * 8, "f8"),
        ([1e300, 0.5] * 8, "f8"),
        ([127, -128] * 8, "i1"),
        ([128, 0] * 8, "i2"),
        ([2**31, 0] * 8, "i8"),
        ([True, False] * 8, "b1"),
    ],
)
def test_numbers_have_the_shortest_type_that_holds_each_of_them(column: list, name: str) -> None:
    assert list(pack(column)) == [name]


def test_numbers_are_little_endian_and_deflated_base64_in_any_tool() -> None:
    values = [0.5 * index for index in range(20)]
    text = b64encode(zlib.compress(struct.pack("<20f", *values))).decode()
    assert unpack({"f4": text}) == values


@pytest.mark.parametrize("column", [[1.5] * (SHORTEST_PACKED - 1), [2**70] * 20, [1, 0.5] * 10, None, 3])
def test_what_is_short_or_of_several_types_stays_a_list(column: object) -> None:
    assert pack(column) is column and unpack(column) is column


def test_groups_that_every_cell_repeats_are_a_few_bytes() -> None:
    groups = [f"the_name_of_subject_{index // 125}" for index in range(1000)]
    assert len(json.dumps(pack(groups))) < 400


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ({"f4": "?"}, "damaged|base64"),
        ({"f4": b64encode(b"no zlib").decode()}, "damaged"),
        ({"f4": b64encode(zlib.compress(bytes(64))[:-6]).decode()}, "truncated"),
        ({"f4": b64encode(zlib.compress(bytes(5))).decode()}, "multiple of element size"),
        ({"f4": 3}, "is int, not text"),
        ({"names": ["a"], "index": [1]}, "no name stands at"),
        ({"names": ["a"], "index": [-1]}, "no name stands at"),
        ({"names": 3, "index": [0]}, "no name stands at"),
        ({"lengths": [3], "values": [1.0]}, "has 1 values, its rows 3"),
        ({"lengths": [2, -1], "values": [1.0]}, "has 1 values, its rows"),
    ],
)
def test_a_damaged_column_is_refused(column: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        unpack(column)


def test_a_column_that_would_fill_the_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "LARGEST_UNPACKED", 1000)
    with pytest.raises(ValueError, match="larger than"):
        unpack({"i1": b64encode(zlib.compress(bytes(2000))).decode()})
