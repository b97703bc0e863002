"""Quantizing a tensor and back: error bounds, special values, granularities."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quantsuite import reference
from quantsuite.bounds import FLOAT32_ROUNDOFF, bound_element
from quantsuite.formats import FloatFormat
from quantsuite.granularity import share_scales
from quantsuite.quantize import dequantize, fake_quantize, pad_to_blocks, quantize
from quantsuite.scheme import BLOCK_FORMATS, CATALOGUE, Operand
from quantsuite.strategies import tensors

NAMES = [str(scheme) for scheme in CATALOGUE]
NAMES += ["int4-g128", "int3-tensor", "fp8e5m2-row", "fp4-g64", "fp6e3m2-row", "int8-b64x64", "fp8-b128x128"]
NAMES += ["int8-row-full", "int4-g64-full", "int2-tensor-full", "int8-g128-sbf16", "int4-g64-se8m0", "fp8-g64-se4m3"]
NAMES += ["nf4-g64", "nf4-row-sbf16", *BLOCK_FORMATS]
SEARCHED = ["int4-g64-clip", "int8-row-clip", "fp4-g64-clip", "nf4-g64-clip"]
ASYMMETRIC = ["int8-row-asym", "int8-tensor-asym", "int4-g128-asym", "int2-g64-asym", "int4-b64x128-asym"]


def each(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("operand", [Operand.parse(name) for name in names], ids=str)


symmetric_operands, asymmetric_operands = each(*NAMES), each(*ASYMMETRIC)
operands, bounded_operands = each(*NAMES, *ASYMMETRIC), each(*NAMES, *ASYMMETRIC, *SEARCHED)


LARGEST_OFF = {"e8m0": 0.25, "e4m3": 2.0**-4}
"""How far off a block's largest magnitude may be, relatively, with scales of these formats: a power of two
clips an E2M1 element of nearly 8 to 6, and E4M3 rounds a scale by half of 2^-3."""
EXACT_PEAKS = [
    name for name in NAMES if Operand.parse(name).scale.name == "fp32" and not Operand.parse(name).full_range
]
exact_peaks = each(*EXACT_PEAKS)


def draw(seed: int, magnitude: float, outliers: int = 0) -> torch.Tensor:
    """A weight ``[128, 512]`` with planted outliers of a thousand times the magnitude."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(128, 512, generator=generator) * magnitude
    places = torch.randint(weight.numel(), (outliers,), generator=generator)
    weight.view(-1)[places] *= 1000
    return weight


@bounded_operands
@given(data=st.data())
def test_error_is_within_the_bound(operand: Operand, data: st.DataObject) -> None:
    """Of finite tensors of any shape, dtype and magnitude."""
    weight = data.draw(tensors(operand))
    error = (dequantize(quantize(weight, operand)).double() - weight.double()).abs()
    assert (error <= bound_element(weight, operand)).all()


@bounded_operands
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


@each(*ASYMMETRIC, *SEARCHED)
def test_the_symmetric_reference_refuses_zero_points_and_searched_scales(operand: Operand) -> None:
    with pytest.raises(ValueError, match=r"compare with bounds\.bound_element"):
        reference.quantize_dequantize(draw(1, 1.0), operand)


@operands
def test_one_outlier_of_1e30_leaves_finite_values_within_the_bound(operand: Operand) -> None:
    weight = draw(7, 1.0)
    weight[5, 70] = 1e30
    result = dequantize(quantize(weight, operand))
    assert ((result.double() - weight.double()).abs() <= bound_element(weight, operand)).all()
    assert result[5, 70] == pytest.approx(
        1e30, rel=LARGEST_OFF.get(operand.scale.name, 1 / (2**operand.format.bits - 1))
    )


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


@pytest.mark.parametrize(
    ("name", "shape"), [("int8-head", (2, 3, 4, 1)), ("int8-token", (2, 3, 4, 1)), ("fp8-g8", (2, 3, 4, 2, 1))]
)
def test_keys_and_values_have_a_scale_for_each_token_and_head(name: str, shape: tuple[int, ...]) -> None:
    """``[batch, tokens, heads, head_dim]``; each head's error is bounded by its own largest value."""
    keys = draw(14, 1.0).reshape(-1)[: 2 * 3 * 4 * 16].reshape(2, 3, 4, 16)
    keys[:, :, 1] *= 1000
    quantized = quantize(keys, Operand.parse(name))
    assert quantized.scale.shape == shape
    assert ((dequantize(quantized).double() - keys.double()).abs() <= bound_element(keys, Operand.parse(name))).all()


@exact_peaks
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


@each("int4-g64-clip", "int8-row-clip", "fp4-g64-clip", "nf4-g64-clip", "int3-tensor-clip")
def test_clip_search_never_has_a_larger_squared_error(operand: Operand) -> None:
    weight = draw(10, 1.0, outliers=5)
    searched, plain = (
        (dequantize(quantize(weight, each)).double() - weight.double()).square()
        for each in (operand, replace(operand, clip=False))
    )
    blocks, shared = share_scales(searched - plain, operand.granularity)
    assert (blocks.sum(shared) <= 1e-12).all()
    if operand.format.bits < 8:
        assert searched.sum() < 0.95 * plain.sum()


@each("int8-row-full", "int4-g64-full", "int2-row-full")
def test_the_full_range_uses_its_most_negative_code_and_the_restricted_one_does_not(operand: Operand) -> None:
    weight = draw(11, 1.0)
    restricted = replace(operand, full_range=False)
    assert quantize(weight, operand).values.min() == operand.format.min
    assert quantize(weight, restricted).values.min() == -operand.format.max


@each("int8-g32-se8m0", "int4-g32-se8m0", "int4-g32-clip", "int3-g32-clip")
def test_clipped_codes_stay_in_the_restricted_range(operand: Operand) -> None:
    """The largest magnitude, negative, lies beyond the range: nearly twice its power of two, or far from the others."""
    block = torch.full((1, 32), 0.3)
    block[0, 3] = -1.999 if operand.scale.name == "e8m0" else -0.75
    assert quantize(block, operand).values.min() == -operand.format.max


@each(*BLOCK_FORMATS)
def test_scales_of_block_formats_take_a_byte_a_block(operand: Operand) -> None:
    weight = draw(12, 1.0)
    quantized = quantize(weight, operand)
    blocks = weight.numel() // operand.granularity.size
    extra = 0 if quantized.tensor_scale is None else 4
    assert quantized.scale.element_size() == 1 and quantized.scale.numel() == blocks
    assert quantized.nbytes == weight.numel() * operand.format.bits // 8 + blocks + extra


@each("mxfp8", "mxfp4", "mxint8", "mxfp6e2m3", "mxfp6e3m2", "mxfp8e5m2")
@pytest.mark.parametrize("exponent", [-100, -3, 0, 17])
def test_a_microscaling_scale_is_the_power_of_two_of_its_specification(operand: Operand, exponent: int) -> None:
    """``floor(log2(amax))`` less the exponent of the largest element: 8 for E4M3, 6 for INT8."""
    largest = {"fp8": 8, "fp8e5m2": 15, "fp6e2m3": 2, "fp6e3m2": 4, "fp4": 2, "int8": 6}[operand.format.name]
    block = torch.zeros(1, 32)
    for peak in (1.0, 1.999):
        block[0, 7] = -peak * 2.0**exponent
        assert quantize(block, operand).step.item() == 2.0 ** (exponent - largest)


def test_an_mxfp4_block_is_that_worked_out_by_hand() -> None:
    """amax 7: scale 2^(2 - 2) = 1; 7 saturates at 6, 2.5 and 5 tie to the even codes 2 and 4, 0.25 to 0."""
    block = torch.zeros(1, 32)
    block[0, :6] = torch.tensor([7.0, -2.5, 5.0, 0.25, -0.3, 3.4])
    result = dequantize(quantize(block, Operand.parse("mxfp4")))
    assert result[0, :6].tolist() == [6.0, -2.0, 4.0, 0.0, -0.5, 3.0]


def test_an_nvfp4_tensor_is_that_worked_out_by_hand() -> None:
    """amax 2,688 = 6 x 448 makes the tensor's scale 1; the second block's, 10 / 6 = 1.667, is 1.625 in E4M3."""
    tensor = torch.zeros(1, 32)
    tensor[0, 0], tensor[0, 16], tensor[0, 17] = 2688.0, 10.0, -4.0
    quantized = quantize(tensor, Operand.parse("nvfp4"))
    assert quantized.tensor_scale == 1
    assert quantized.scale.float().flatten().tolist() == [448.0, 1.625]
    assert dequantize(quantized)[0, [0, 16, 17]].tolist() == [2688.0, 9.75, -3.25]


@each("int8-g64", "mxfp4", "nvfp4", "int4-g64-asym", "int8-b64x64")
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 70), (65, 130)])
def test_padding_changes_nothing_but_the_last_block(operand: Operand, rows: int, columns: int) -> None:
    weight = draw(13, 1.0)[:rows, :columns]
    padded = dequantize(quantize(weight, operand, pad=True))
    assert padded.shape == weight.shape
    whole = pad_to_blocks(weight, operand.granularity)
    assert torch.equal(padded, dequantize(quantize(whole, operand))[:rows, :columns])
    assert ((padded.double() - weight.double()).abs() <= bound_element(whole, operand)[:rows, :columns]).all()


def test_a_scale_in_e4m3_is_rounded_once_where_its_block_is_subnormal() -> None:
    """49,154 / 6 = 8,192.33 smallest subnormals lie above the tie 2^-10 of the factor 2^-126, 8,192 on it."""
    block = torch.zeros(1, 16)
    block[0, 0] = 49_154 * 2.0**-149
    operand = Operand.parse("nvfp4")
    quantized = quantize(block, operand)
    assert quantized.scale.item() == 2.0**-9
    assert ((dequantize(quantized).double() - block.double()).abs() <= bound_element(block, operand)).all()


@each(*NAMES, *ASYMMETRIC, *SEARCHED, "int2-g64-sbf16", "fp4-g64-sbf16", "int3-g64-asym", "int2-g64-full")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_values_up_to_the_largest_of_a_dtype_stay_finite_and_within_the_bound(
    operand: Operand, dtype: torch.dtype
) -> None:
    """The bound and one rounding to the dtype."""
    weight = draw(15, 1.0).clamp(-1, 1).to(dtype) * torch.finfo(dtype).max
    result = dequantize(quantize(weight, operand), dtype).double()
    assert result.isfinite().all()
    bound = bound_element(weight, operand) + torch.finfo(dtype).eps / 2 * result.abs()
    assert ((result - weight.double()).abs() <= bound).all()


def test_an_empty_tensor_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \[0, 512\] has no elements"):
        quantize(torch.empty(0, 512), Operand.parse("int8-row"))


def test_a_group_that_does_not_divide_names_those_that_do() -> None:
    message = "^group size 96 does not divide K=512; use one of 32, 64, 128, 256, 512$"
    with pytest.raises(ValueError, match=message):
        quantize(torch.zeros(4, 512), Operand.parse("int8-g96"))


@pytest.mark.parametrize("fmt", ["int8", "fp8", "nf4", "fp4"])
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
