"""The report's error tables: measured on random tensors, and as the closed form predicts."""

import math
from collections.abc import Callable
from itertools import pairwise

import pytest

from quantsuite.error_study import STUDIES
from quantsuite.expected import elements_per_scale, expected_largest
from quantsuite.records import ErrorPoint
from quantsuite.scheme import Scheme

Record = Callable[[ErrorPoint], None]


def tolerance(point: ErrorPoint) -> float:
    """Five standard deviations of the scales' average, beside which those of the elements are small.

    The largest of n normal values varies as a Gumbel variable of scale 1 / a around its mean a: relatively by
    ``pi / sqrt(6) / a^2`` (Gumbel, 1958).  Rounded to one of two powers of two it varies besides by
    ``1 / (2 sqrt(2))`` at most, where the larger has the probability 1 / 3.
    """
    operand, shape = Scheme.parse(point.scheme).weight, point.shape[-2:]
    assert operand is not None
    count = elements_per_scale(shape, operand)
    relative = math.pi / math.sqrt(6) / expected_largest(count) ** 2
    if operand.scale == "e8m0":
        relative += 1 / math.sqrt(8)
    return 5 * relative / math.sqrt(math.prod(shape) / count)


@pytest.fixture(scope="module")
def points(pytestconfig: pytest.Config) -> dict[str, list[ErrorPoint]]:
    seed = pytestconfig.getoption("seed")
    return {name: list(study(seed)) for name, study in STUDIES.items()}


@pytest.mark.parametrize("study", STUDIES)
def test_measured_errors_are_recorded_and_as_predicted(
    study: str, points: dict[str, list[ErrorPoint]], record_error: Record
) -> None:
    for point in points[study]:
        record_error(point)
    for point in points[study]:
        if point.predicted is not None:
            assert point.measured == pytest.approx(point.predicted, rel=tolerance(point)), point


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
