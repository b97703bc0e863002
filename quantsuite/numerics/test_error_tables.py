"""The report's error tables: measured on random tensors, and as the closed form predicts."""

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch

from quantsuite.error_study import STUDIES, spread_of_mean
from quantsuite.options import RunOptions
from quantsuite.records import ErrorPoint

Record = Callable[[ErrorPoint], None]
DRAWS = dict.fromkeys(STUDIES, 48) | {"shape": 12}
"""Of each study: fewer of the one that has large tensors."""


@pytest.fixture(scope="module")
def draws(pytestconfig: pytest.Config) -> dict[str, list[list[ErrorPoint]]]:
    """The points of each study, with as many seeds."""
    seed = RunOptions.read(pytestconfig.option).seed
    return {name: [list(study(seed + 2 * i)) for i in range(DRAWS[name])] for name, study in STUDIES.items()}


@pytest.fixture(scope="module")
def points(draws: dict[str, list[list[ErrorPoint]]]) -> dict[str, list[ErrorPoint]]:
    return {name: found[0] for name, found in draws.items()}


@pytest.mark.parametrize("study", STUDIES)
def test_measured_errors_are_recorded_and_on_average_as_predicted(
    study: str, draws: dict[str, list[list[ErrorPoint]]], record_error: Record
) -> None:
    for point in draws[study][0]:
        record_error(point)
    for point, *others in zip(*draws[study], strict=True):
        errors = torch.tensor([each.measured for each in (point, *others)], dtype=torch.float64)
        if point.predicted is not None:
            assert abs(errors.mean() - point.predicted) <= spread_of_mean(errors), point


def measured(points: list[ErrorPoint], scheme: str) -> list[float]:
    return [point.measured for point in sorted(points, key=lambda point: point.x) if point.scheme == scheme]


def test_int8_errs_more_the_more_terms_share_a_scale(points: dict[str, list[ErrorPoint]]) -> None:
    errors = measured(points["terms"], "int8-row:int8-token")
    assert errors[-1] > 1.1 * errors[0]


@pytest.mark.parametrize("scheme", ["fp8-row:fp8-token", "fp8-tensor:fp8-tensor"])
def test_fp8_errs_alike_however_many_terms_share_a_scale(scheme: str, points: dict[str, list[ErrorPoint]]) -> None:
    errors = measured(points["terms"], scheme)
    assert max(errors) < 1.1 * min(errors)


def test_the_error_of_a_product_is_not_that_of_its_elements(points: dict[str, list[ErrorPoint]]) -> None:
    """FP8: 0.0225 of the elements, 0.037 of the product; they are different quantities."""
    elements = measured(points["shape"], "fp8-tensor")
    products = measured(points["terms"], "fp8-tensor:fp8-tensor")
    assert min(products) > 1.5 * max(elements)


@pytest.mark.parametrize(("scheme", "grows"), [("int8-row", True), ("int8-g64", True), ("fp8-row", False)])
def test_an_outlier_costs_integers_and_not_floats(
    scheme: str, grows: bool, points: dict[str, list[ErrorPoint]]
) -> None:
    errors = measured(points["outlier size"], scheme)
    if grows:
        assert all(later > 1.2 * earlier for earlier, later in pairwise(errors))
    else:
        assert max(errors) < 1.01 * min(errors)


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ("int4-g32", "int4-g128"),
        ("int4-g128-clip", "int4-g128"),
        ("int4-g128-full", "int4-g128"),
        ("int8-g128", "mxfp8"),
        ("nvfp4", "mxfp4"),
        ("mxfp6e2m3", "mxfp6e3m2"),
    ],
)
def test_normal_values_suit_one_format_better(better: str, worse: str, points: dict[str, list[ErrorPoint]]) -> None:
    (first,), (second,) = (measured(points["bits"], name) for name in (better, worse))
    assert first < second
