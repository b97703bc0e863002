"""Quantizing a tensor and back: error bounds, special values, granularities."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quantsuite import reference
from quantsuite.bounds import bound_element
from quantsuite.formats import FloatFormat
from quantsuite.granularity import share_scales
from quantsuite.quantize import dequantize, fake_quantize, quantize
from quantsuite.scheme import CATALOGUE, Operand

NAMES = [str(scheme) for scheme in CATALOGUE]
NAMES += ["int4-g128", "int3-tensor", "fp8e5m2-row", "fp4-g64", "fp6e3m2-row", "int8-b64x64", "fp8-b128x128"]
operands = pytest.mark.parametrize("operand", [Operand.parse(name) for name in NAMES], ids=str)


def draw(seed: int, magnitude: float, outliers: int = 0) -> torch.Tensor:
    """A weight ``[128, 512]`` with planted outliers of a thousand times the magnitude."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(128, 512, generator=generator) * magnitude
    places = torch.randint(weight.numel(), (outliers,), generator=generator)
    weight.view(-1)[places] *= 1000
    return weight


@operands
@given(seed=st.integers(0, 2**31), exponent=st.integers(-30, 30), outliers=st.integers(0, 5))
def test_error_is_within_the_bound(operand: Operand, seed: int, exponent: int, outliers: int) -> None:
    weight = draw(seed, 10.0**exponent, outliers)
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


@operands
def test_quantization_equals_the_float64_reference_but_at_ties(operand: Operand) -> None:
    """Rounding of scale and quotient to float32 moves a value across a tie in few places, by one step."""
    weight = draw(1, 1.0)
    ours, exact = dequantize(quantize(weight, operand)).double(), reference.quantize_dequantize(weight, operand)
    moved = (ours - exact).abs() > 1e-6 * exact.abs() + 1e-30
    assert moved.float().mean() < 1e-4
    assert ((ours - exact).abs()[moved] <= 2.001 * bound_element(weight, operand)[moved]).all()


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
    message = "group size 96 does not divide K=512; use one of 32, 64, 128, 256, 512"
    with pytest.raises(ValueError, match=message):
        quantize(torch.zeros(4, 512), Operand.parse("int8-g96"))


@pytest.mark.parametrize("fmt", ["int8", "fp8"])
def test_a_group_as_long_as_the_row_is_the_row(fmt: str) -> None:
    weight = draw(3, 1.0)
    by_group = dequantize(quantize(weight, Operand.parse(f"{fmt}-g512")))
    assert torch.equal(by_group, dequantize(quantize(weight, Operand.parse(f"{fmt}-row"))))


@pytest.mark.parametrize("name", ["int8-row-asym", "int4-g128-asym", "int8-tensor-asym"])
def test_a_zero_point_represents_zero_exactly_and_errs_by_a_step_at_most(name: str) -> None:
    """Half a step from rounding the value and half from rounding the zero point, which moves the ends."""
    weight = draw(4, 1.0).abs() + 3
    weight[:, 0] = 0
    quantized = quantize(weight, operand := Operand.parse(name))
    result = dequantize(quantized)
    assert (result[:, 0] == 0).all()
    error, _ = share_scales((result - weight).abs(), operand.granularity)
    assert (error <= quantized.scale * (1 + 1e-5)).all()


@operands
def test_the_gradient_passes_straight_through(operand: Operand) -> None:
    weight = draw(5, 1.0).requires_grad_()
    cotangent = draw(6, 1.0)
    (fake_quantize(weight, operand) * cotangent).sum().backward()
    assert torch.equal(weight.grad, cotangent)
