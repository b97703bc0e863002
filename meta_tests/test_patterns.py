"""A failed comparison says where the wrong elements lie, and what they have in common."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from quantsuite.checks.outcome import PRODUCT_AXES, CheckFailure, compare, same

Index = tuple[slice | int | list[int], ...]
ROWS, COLUMNS, ALL = 37, 96, slice(None)


def right(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def message(change: Callable[[Tensor], Tensor], shape: tuple[int, ...] = (ROWS, COLUMNS), axes=(), bound=0.0) -> str:
    expected = right(*shape)
    with pytest.raises(CheckFailure) as caught:
        compare("case", change(expected.clone()), expected, bound, axes=axes)
    return str(caught.value)


def shifted(index: object) -> Callable[[Tensor], Tensor]:
    """Adds another number to each element of a part."""

    def change(x: Tensor) -> Tensor:
        x[index] += 1 + torch.rand(x[index].shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype)
        return x

    return change


@pytest.mark.parametrize(
    ("index", "words"),
    [
        ((ALL, [3, 17]), "all of columns 3 and 17;"),
        (([0, 5], [3, 17]), "wrong: only"),
        ((ALL, slice(64, 96)), "all of the last group of 32 columns (64 to 95);"),
        ((ALL, slice(32, 64)), "all of the group of 32 columns (32 to 63);"),
        ((slice(1, None, 2), ALL), "all of every second row from 1 on;"),
        ((slice(16, None), ALL), "all of rows 16 on;"),
        ((slice(32, None), ALL), "all of the last, partial tile of 16: rows 32 on;"),
        ((slice(35, None), ALL), "all of rows 35 on, 3 and up of the last tile of 16;"),
        ((36, ALL), "all of the last row (36);"),
        ((4, ALL), "all of row 4;"),
        ((4, 7), "wrong: one element;"),
        ((ALL, ALL), "wrong: all elements;"),
        ((slice(0, 16), slice(90, 96)), "all of the group of 16 rows (0 to 15), in columns 90 on, 10 and up"),
        ((ALL, [0, 1, 2, 16, 17, 18, 32, 33, 34, 48, 49, 50, 64, 65, 66, 80, 81, 82]), "columns 0 to 2 of every 16;"),
        ((slice(0, 5), ALL), "all of the first 5 rows;"),
        ((ALL, [1, 4, 5, 20, 50]), "all of 5 of 96 columns, the first 1, 4 and 5;"),
    ],
)
def test_wrong_elements_are_told_by_their_place(index: Index, words: str) -> None:
    if index == ([0, 5], [3, 17]):
        words = "only rows 0 and 5, in columns 3 and 17 (2 of 4 elements there);"
    assert words in message(shifted(index))


def test_a_group_of_which_a_bound_hides_some_is_told_as_that_group() -> None:
    missing = [*range(66, 96)]
    missing.remove(80)
    assert "29 of the last group of 32 columns (64 to 95)" in message(shifted((ALL, missing)))


def test_a_column_in_which_a_bound_hides_some_rows_is_told_as_that_column() -> None:
    rows = [row for row in range(ROWS) if row not in (3, 20)]
    assert "only the last column (95) (35 of 37 elements there)" in message(shifted((rows, 95)))


def test_rows_that_chance_chose_are_left_out_beside_a_column() -> None:
    assert "wrong: only the last column (95) (6 of 37 elements there)" in message(shifted(([0, 3, 4, 11, 30, 33], 95)))


def test_three_rows_are_no_step() -> None:
    assert "rows 0, 2 and 4;" in message(shifted(([0, 2, 4], ALL)))


def test_the_diagonal_is_told() -> None:
    assert "only on the diagonal" in message(lambda x: x + torch.eye(8) * right(8, 8).abs(), (8, 8))


def test_what_is_wrong_beyond_an_index_in_memory_order_is_told() -> None:
    found = message(lambda x: shifted(slice(520, None))(x.view(-1)).view(32, 32), (32, 32))
    assert "wrong: elements 520 on, in memory order; 504 of 1024" in found


def test_axes_have_the_names_that_the_caller_gives() -> None:
    assert "all of tokens 16 on" in message(shifted((slice(16, None), ALL)), axes=PRODUCT_AXES)


@pytest.mark.parametrize(
    ("shape", "index", "words"),
    [
        ((50,), slice(3, 7), "all of elements 3 to 6;"),
        ((2, 3, 40), (1, 2, ALL), "all of the last index of axis 0 (1), in the last row (2);"),
        ((4, 5, 6, 7), (ALL, 3), "all of index of axis 1 3;"),
    ],
)
def test_any_number_of_dimensions_is_described(shape: tuple[int, ...], index: Index, words: str) -> None:
    assert words in message(shifted(index), shape)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: x * 2, "all by the factor 2;"),
        (lambda x: -x, "all of the wrong sign;"),
        (lambda x: x / 127, "all by the factor 0.00787402;"),
        (lambda x: x + 3, "all by the difference 3;"),
        (lambda x: x * 0, "all zero;"),
        (lambda x: x * math.nan, "all NaN;"),
        (lambda x: x / 0, "all infinite;"),
        (lambda x: x.roll(-1, 1), "each is the value of the next column;"),
        (lambda x: x.roll(1, 0), "each is the value of the previous row;"),
        (lambda x: x.flip(1), "columns in reverse order;"),
        (lambda x: x.view(-1)[torch.randperm(x.numel())].view_as(x), "the right values in another order;"),
    ],
)
def test_what_wrong_values_have_in_common_is_told(change: Callable[[Tensor], Tensor], words: str) -> None:
    assert words in message(change)


def test_a_factor_is_told_where_only_a_bound_holds() -> None:
    noise = right(ROWS, COLUMNS).flip(0) * 1e-4
    assert "all by the factor 2;" in message(lambda x: x * 2 + noise.clamp(-1e-3, 1e-3), bound=1e-2)


def test_small_errors_of_all_elements_are_no_factor() -> None:
    assert "factor" not in message(lambda x: x * (1 + 1e-6 * torch.rand(x.shape, dtype=x.dtype)))


def test_unrelated_values_have_nothing_in_common() -> None:
    assert "wrong: all elements; 3552 of 3552 elements of [37, 96]" in message(
        lambda x: right(COLUMNS, ROWS).T ** 3 + 9
    )


@pytest.mark.parametrize("bound", [0.0, 1e-46])
def test_where_zero_is_expected_no_ratio_is_told(bound: float) -> None:
    with pytest.raises(CheckFailure) as caught:
        compare("zeros", torch.tensor([0.0, 3.0]), torch.zeros(2, dtype=torch.float64), bound)
    assert "times the bound" not in str(caught.value)
    assert "element [1] is 3, expected 0: error 3, " in str(caught.value)


def test_a_ratio_that_says_nothing_is_left_out() -> None:
    assert "the bound is 1e-30" in message(lambda x: x + 1, bound=1e-30)
    assert "times the bound 0.5" in message(lambda x: x + 1, bound=0.5)


def test_the_reason_is_one_line() -> None:
    with pytest.raises(CheckFailure) as caught:
        same("case", torch.ones(3), torch.zeros(3))
    assert caught.value.reason == (
        "case: element [0] is 1, expected 0: error 1, no error is allowed; "
        "wrong: all elements, all by the difference 1; 3 of 3 elements of [3]"
    )
