"""Products of quantized operands: the bound on them, exact integers, and the expected error."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quantsuite import expected, reference
from quantsuite.bounds import accumulation_error, bound_element, bound_matmul, exact_int32_terms
from quantsuite.error_study import spread_of_mean
from quantsuite.quantize import dequantize, fake_quantize, quantize
from quantsuite.scheme import BLOCK_FORMATS, Operand, Scheme
from quantsuite.strategies import tensors

SCHEMES = [
    Scheme.parse(name)
    for name in (
        "int8-row",
        "int8-row:int8-token",
        "int8-tensor:int8-tensor",
        "fp8-row:fp8-token",
        "fp8-b32x32:fp8-g32",
        "int4-g32-asym:int8-token",
        "mxfp4:mxfp8",
        "nvfp4:nvfp4",
        "nf4-g32",
    )
]
schemes = pytest.mark.parametrize("scheme", SCHEMES, ids=str)
dtypes = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)


def product(x: torch.Tensor, weight: torch.Tensor, scheme: Scheme) -> torch.Tensor:
    """In the operands' dtype: simulated quantization."""
    activation = x if scheme.activation is None else fake_quantize(x, scheme.activation)
    return activation @ fake_quantize(weight, scheme.weight).T


def error_and_bound(scheme: Scheme, x: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    error = (product(x, weight, scheme).double() - reference.linear(x, weight)).abs()
    return error, bound_matmul(x, weight, scheme.activation, scheme.weight, dtype=x.dtype)


@schemes
@given(data=st.data())
def test_a_product_is_within_the_bound(scheme: Scheme, data: st.DataObject) -> None:
    weight = data.draw(tensors(scheme.weight)).float().clamp(-1e15, 1e15)
    activation = scheme.activation or Operand.parse("int8-token")
    x = data.draw(tensors(activation)).float().clamp(-1e15, 1e15)
    columns = min(x.shape[1], weight.shape[1])
    error, bound = error_and_bound(scheme, x[:, :columns], weight[:, :columns])
    assert (error <= bound).all()


@schemes
@dtypes
def test_a_product_of_normal_operands_is_within_the_bound(scheme: Scheme, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(rows, 256, generator=generator).to(dtype) for rows in (16, 64))
    error, bound = error_and_bound(scheme, x, weight)
    assert (error <= bound).all()


@schemes
def test_the_bound_of_a_product_of_one_term_is_tight(scheme: Scheme) -> None:
    """One term a sum beside the largest magnitudes: nothing averages out, and a quarter of the bound is reached.

    The rest is the bound of the zeros that meet the largest magnitudes of the other side, whose error is none.
    """
    generator = torch.Generator().manual_seed(1)
    x, weight = torch.randn(256, 32, generator=generator), torch.randn(32, 32, generator=generator)
    x[:, 1:], weight[:, 1:], x[:, 1], weight[:, 2] = 0, 0, 4, 4
    error, bound = error_and_bound(scheme, x, weight)
    assert (error / bound).max() > 0.25


def test_an_exact_accumulator_adds_nothing_and_a_narrow_one_more() -> None:
    x, weight = torch.randn(4, 64), torch.randn(8, 64)
    exact, single, narrow = (
        bound_matmul(x, weight, None, None, dtype=torch.float64, accumulator_roundoff=roundoff)
        for roundoff in (0.0, 2.0**-24, 2.0**-14)
    )
    magnitudes = x.double().abs() @ weight.double().abs().T
    assert (exact <= 1e-14 * magnitudes).all()
    assert torch.allclose(narrow, accumulation_error(64, 2.0**-14) * magnitudes, rtol=1e-9)
    assert (exact < single).all() and (single < narrow).all()


def test_too_many_terms_for_an_accumulator_have_no_bound() -> None:
    with pytest.raises(ValueError, match=r"16,384 terms .* use fewer than 16,384"):
        accumulation_error(2**14, 2.0**-14)


@pytest.mark.parametrize(
    ("x_max", "weight_max", "terms"), [(127, 127, 133_144), (128, 128, 131_071), (127, 7, 2_415_617)]
)
def test_int32_holds_sums_of_as_many_products_as_claimed_and_no_more(x_max: int, weight_max: int, terms: int) -> None:
    assert exact_int32_terms(x_max, weight_max) == terms
    assert terms * x_max * weight_max <= 2**31 - 1 < (terms + 1) * x_max * weight_max


@pytest.mark.parametrize("terms", [133_144, 133_145])
def test_int32_sums_are_exact_up_to_that_many_terms_and_wrap_after(terms: int) -> None:
    codes = torch.full((1, terms), 127, dtype=torch.int8)
    assert (codes.int() @ codes.int().T == codes.long() @ codes.long().T).item() is (terms == 133_144)


INT8_ROW, FP8_TENSOR, NVFP4 = map(Operand.parse, ("int8-row", "fp8-tensor", "nvfp4"))
BLOCKS = ("tensor", "row", "g128")
SHAPES = pytest.mark.parametrize(("rows", "columns", "draws"), [(16, 512, 64), (100, 1024, 32), (512, 4096, 8)])


def relative_errors(operand: Operand, rows: int, columns: int, draws: int) -> torch.Tensor:
    """``(mean, RMS)`` relative error of each of several seeded normal tensors."""
    found = []
    for seed in range(draws):
        x = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
        error = (dequantize(quantize(x, operand)) - x).double()
        found.append([error.abs().sum() / x.double().abs().sum(), error.norm() / x.double().norm()])
    return torch.tensor(found)


@SHAPES
@pytest.mark.parametrize(
    "name",
    [
        *(f"{form}-{name}" for form in ("int8", "fp8", "fp6e2m3", "int4", "fp4", "nf4") for name in BLOCKS),
        *("int4-row-full", "int3-g128-full", "int4-g128-sbf16", "fp4-g64-se8m0", "int4-g64-se4m3"),
        *BLOCK_FORMATS,
    ],
)
def test_the_closed_form_predicts_the_mean_error(name: str, rows: int, columns: int, draws: int) -> None:
    """Within the spread of the draws' mean (Student's t): the closed form approximates nothing."""
    operand = Operand.parse(name)
    forms = (expected.relative_mean_error, expected.relative_rms_error)
    predicted = torch.tensor([form(operand, (rows, columns)) for form in forms], dtype=torch.float64)
    measured = relative_errors(operand, rows, columns, draws)
    spread = spread_of_mean(measured)
    assert ((measured.mean(0) - predicted).abs() <= spread).all(), (measured.mean(0) / predicted, spread / predicted)


def test_the_closed_form_knows_which_of_two_blocks_holds_the_largest_value() -> None:
    draws = torch.randn(2048, 1, 32, generator=torch.Generator().manual_seed(0))
    measured = torch.stack([(fake_quantize(x, NVFP4) - x).abs().double().mean() for x in draws])
    predicted = expected.relative_mean_error(NVFP4, (1, 32)) * expected.MEAN_MAGNITUDE
    assert (measured.mean() - predicted).abs() <= spread_of_mean(measured)


@pytest.mark.parametrize("name", ["int4-row-asym", "int4-row-clip"])
def test_what_has_no_closed_form_says_so(name: str) -> None:
    assert not expected.has_closed_form(Operand.parse(name))
    with pytest.raises(ValueError, match=f"no closed form of {name} is known: drop -asym and -clip"):
        expected.relative_mean_error(Operand.parse(name), (4, 8))


def test_the_error_of_a_product_is_that_of_its_operands_combined() -> None:
    x_error, weight_error = (expected.relative_rms_error(INT8_ROW, (128, 512)) for _ in range(2))
    predicted = expected.relative_product_error(x_error, weight_error)
    generator, measured = torch.Generator().manual_seed(0), []
    for _ in range(64):
        x, weight = (torch.randn(128, 512, generator=generator) for _ in range(2))
        exact = reference.linear(x, weight)
        error = product(x, weight, Scheme.parse("int8-row:int8-token")).double() - exact
        measured.append(error.norm() / exact.norm())
    errors = torch.stack(measured)
    assert (errors.mean() - predicted).abs() <= spread_of_mean(errors)


@pytest.mark.parametrize(("count", "value"), [(1, math.sqrt(2 / math.pi)), (2, 2 / math.sqrt(math.pi))])
def test_the_expected_largest_magnitude_is_that_known_of_few_values(count: int, value: float) -> None:
    assert expected.expected_largest(count) == pytest.approx(value, rel=1e-4)


def test_the_error_of_integers_is_that_of_uniform_noise() -> None:
    """A quarter of the step on average, but for the largest of the 512."""
    step = expected.expected_largest(512) / 127
    mean = expected.relative_mean_error(INT8_ROW, (1, 512)) * math.sqrt(2 / math.pi)
    assert mean == pytest.approx(511 / 512 * step / 4, rel=1e-4)


@pytest.mark.parametrize("count", [2**13, 2**20, 2**24])
def test_the_error_of_a_float_of_many_binades_is_nearly_that_of_a_log_uniform_mantissa(count: int) -> None:
    assert expected.relative_mean_error(FP8_TENSOR, (1, count)) == pytest.approx(2**-5 / (2 * math.log(2)), rel=0.01)
    assert expected.relative_rms_error(FP8_TENSOR, (1, count)) == pytest.approx(
        2**-3 / math.sqrt(32 * math.log(2)), rel=0.01
    )


def test_int4_errs_more_than_int8_by_the_ratio_of_their_steps() -> None:
    int4, int8 = (expected.relative_mean_error(Operand.parse(name), (1, 128)) for name in ("int4-row", "int8-row"))
    ratio = int4 / int8
    assert ratio == pytest.approx(127 / 7, rel=1e-3)


def test_the_bound_of_an_element_is_the_bound_of_a_product_with_one() -> None:
    weight = torch.randn(8, 32, generator=torch.Generator().manual_seed(3))
    operand = Operand.parse("int8-row")
    bound = bound_matmul(torch.eye(32), weight, None, operand, dtype=torch.float32)
    assert torch.allclose(bound.T, bound_element(weight, operand), rtol=1e-3)
