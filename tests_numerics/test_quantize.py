"""Quantizing a tensor and back: error bounds, special values, granularities."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quantsuite import reference
from quantsuite.bounds import FLOAT32_ROUNDOFF, bound_element
from quantsuite.formats import FloatFormat
from quantsuite.granularity import share_scales
from quantsuite.quantize import dequantize, fake_quantize, quantize
from quantsuite.scheme import CATALOGUE, Operand

NAMES = [str(scheme) for scheme in CATALOGUE]
NAMES += ["int4-g128", "int3-tensor", "fp8e5m2-row", "fp4-g64", "fp6e3m2-row", "int8-b64x64", "fp8-b128x128"]
ASYMMETRIC = ["int8-row-asym", "int8-tensor-asym", "int4-g128-asym", "int2-g64-asym", "int4-b64x128-asym"]


def each(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("operand", [Operand.parse(name) for name in names], ids=str)


symmetric_operands, asymmetric_operands, operands = each(*NAMES), each(*ASYMMETRIC), each(*NAMES, *ASYMMETRIC)


def draw(seed: int, magnitude: float, outliers: int = 0) -> torch.Tensor:
    """A weight ``[128, 512]`` with planted outliers of a thousand times the magnitude."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(128, 512, generator=generator) * magnitude
    places = torch.randint(weight.numel(), (outliers,), generator=generator)
    weight.view(-1)[places] *= 1000
    return weight


@operands
@given(seed=st.integers(0, 2**31), exponent=st.integers(-30, 30), outliers=st.integers(0, 5), shift=st.floats(-9, 9))
def test_error_is_within_the_bound(operand: Operand, seed: int, exponent: int, outliers: int, shift: float) -> None:
    """Of normal weights of any magnitude, with outliers, and with a mean ``shift`` deviations from zero."""
    weight = draw(seed, 10.0**exponent, outliers) + shift * 10.0**exponent
    error = (dequantize(quantize(weight, operand)).double() - weight.double()).abs()
    assert (error <= bound_element(weight, operand)).all()


@operands
def test_the_bound_is_tight(operand: Operand) -> None:
    """Some element of a normal draw comes within a twentieth of the most that it can err by.

    Just above a power of two half a float's spacing is the fraction ``1 / (1 + 2^-(m+1))`` of the bound
    ``2^-(m+1) |x|``; an integer's error can be all of its bound.
    """
    weight = draw(0, 1.0)
    error = (dequantize(quantize(weight, operand)).double() - weight.double()).abs()
    fmt = operand.format
    attainable = 1 / (1 + 2.0 ** -(fmt.mantissa_bits + 1)) if isinstance(fmt, FloatFormat) else 1.0
    assert (error / bound_element(weight, operand)).max() > 0.95 * attainable


@symmetric_operands
def test_each_value_is_as_near_as_the_float64_reference_gets(operand: Operand) -> None:
    """Float32 roundings of scale and quotient choose another code only within ``4 u |x|`` of a tie.

    Scale and product then differ by one rounding each, ``2 u`` of the result.
    """
    weight = draw(1, 1.0).double()
    ours, exact = dequantize(quantize(weight, operand)).double(), reference.quantize_dequantize(weight, operand)
    roundings = FLOAT32_ROUNDOFF * (4 * weight.abs() + 2 * ours.abs()) * (1 + 8 * FLOAT32_ROUNDOFF)
    assert ((ours - weight).abs() <= (exact - weight).abs() + roundings).all()


@asymmetric_operands
def test_the_symmetric_reference_refuses_a_zero_point(operand: Operand) -> None:
    with pytest.raises(ValueError, match=r"compare with bounds\.bound_element"):
        reference.quantize_dequantize(draw(1, 1.0), operand)


@operands
def test_one_outlier_of_1e30_leaves_finite_values_within_the_bound(operand: Operand) -> None:
    weight = draw(7, 1.0)
    weight[5, 70] = 1e30
    result = dequantize(quantize(weight, operand))
    assert ((result.double() - weight.double()).abs() <= bound_element(weight, operand)).all()
    assert result[5, 70] == pytest.approx(1e30, rel=1 / (2**operand.format.bits - 1))


@operands
def test_zeros_stay_zeros(operand: Operand) -> None:
    assert (dequantize(quantize(torch.zeros(128, 512), operand)) == 0).all()


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("int8-tensor", (1, 1)),
        ("int8-row", (128, 1)),
        ("int8-token", (128, 1)),
        ("int8-g64", (128, 8, 1)),
        ("int8-b64x32", (2, 1, 16, 1)),
        ("int4-g128-asym", (128, 4, 1)),
    ],
)
def test_there_is_one_scale_for_each_block_of_the_granularity(name: str, shape: tuple[int, ...]) -> None:
    assert quantize(draw(8, 1.0), Operand.parse(name)).scale.shape == shape


@symmetric_operands
def test_scales_follow_the_largest_magnitude_of_their_own_block(operand: Operand) -> None:
    """The element that sets a block's scale is represented up to the roundings of scale, quotient and product."""
    weight = draw(9, 1.0)
    view, shared = share_scales(weight, operand.granularity)
    result, _ = share_scales(dequantize(quantize(weight, operand)), operand.granularity)
    peak = view.abs().amax(shared, keepdim=True)
    assert ((result - view).abs()[view.abs() == peak] <= 4 * FLOAT32_ROUNDOFF * view.abs()[view.abs() == peak]).all()


@operands
@pytest.mark.parametrize("value", [0.0, 1e-45, -1e-39, 1e30])
def test_constant_tensors_have_a_defined_result(operand: Operand, value: float) -> None:
    weight = torch.full((128, 512), value)
    result = dequantize(quantize(weight, operand))
    assert torch.isfinite(result).all()
    assert ((result.double() - weight.double()).abs() <= bound_element(weight, operand)).all()


@operands
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_nan_and_infinities_are_refused_with_their_number(operand: Operand, value: float) -> None:
    weight = draw(2, 1.0)
    weight[3, 5] = weight[7, 9] = value
    with pytest.raises(ValueError, match=r"2 of 65536 values are NaN or infinite"):
        quantize(weight, operand)


def test_an_empty_tensor_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \[0, 512\] has no elements"):
        quantize(torch.empty(0, 512), Operand.parse("int8-row"))


def test_a_group_that_does_not_divide_names_those_that_do() -> None:
    message = "^group size 96 does not divide K=512; use one of 32, 64, 128, 256, 512$"
    with pytest.raises(ValueError, match=message):
        quantize(torch.zeros(4, 512), Operand.parse("int8-g96"))


@pytest.mark.parametrize("fmt", ["int8", "fp8"])
def test_a_group_as_long_as_the_row_is_the_row(fmt: str) -> None:
    weight = draw(3, 1.0)
    by_group = dequantize(quantize(weight, Operand.parse(f"{fmt}-g512")))
    assert torch.equal(by_group, dequantize(quantize(weight, Operand.parse(f"{fmt}-row"))))


@asymmetric_operands
@given(shift=st.floats(-100, 100))
def test_a_zero_point_represents_zero_exactly(operand: Operand, shift: float) -> None:
    weight = draw(4, 1.0) + shift
    weight[::3, ::7] = 0
    assert (dequantize(quantize(weight, operand))[::3, ::7] == 0).all()


@operands
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_fake_quantization_is_quantization_and_its_inverse_in_the_tensors_dtype(
    operand: Operand, dtype: torch.dtype
) -> None:
    weight = draw(5, 1.0).to(dtype)
    assert torch.equal(fake_quantize(weight, operand), dequantize(quantize(weight.float(), operand)).to(dtype))


@operands
def test_the_gradient_passes_straight_through(operand: Operand) -> None:
    weight = draw(5, 1.0).requires_grad_()
    cotangent = draw(6, 1.0)
    (fake_quantize(weight, operand) * cotangent).sum().backward()
    assert torch.equal(weight.grad, cotangent)
