"""Roundings of zero points in a narrow dtype: which are right, and which are torchao's, shown without a check."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from meta_tests.mutants import DequantizedProduct
from quantsuite.checks import CheckFailure
from quantsuite.checks.products import check_product_of_unit_vectors
from quantsuite.granularity import share_scales
from quantsuite.scheme import Operand, Scheme

INT4, INT8 = Scheme.parse("int4-g64-asym"), Scheme.parse("int8-row-asym")


class Rounding:
    """A quantizer with a zero point that rounds its scale and what else it computes."""

    def __init__(self, scale: Callable[[Tensor], Tensor], quotient: Callable[[Tensor], Tensor]) -> None:
        self._scale, self._quotient = scale, quotient

    def quantize(self, x: Tensor, operand: Operand) -> Tensor:
        if not torch.isfinite(x).all():
            raise ValueError("NaN or infinite")
        view, shared = share_scales(x.float(), operand.granularity)
        steps = 2**operand.format.bits - 1
        low, high = view.amin(shared, keepdim=True).clamp(max=0), view.amax(shared, keepdim=True).clamp(min=0)
        scale = self._scale(high / steps - low / steps).clamp(min=2.0**-126)
        zero = self._quotient(-low / scale).round()
        return ((((view / scale).round() + zero).clamp(0, steps) - zero) * scale).reshape(x.shape)


def check(quantizer: Rounding, scheme: Scheme, dtype: torch.dtype, seed: int) -> float:
    kernel = DequantizedProduct(quantizer=quantizer)
    return check_product_of_unit_vectors(kernel, scheme, device="cpu", dtype=dtype, seed=seed)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("scheme", [INT4, INT8], ids=str)
def test_a_scale_that_is_rounded_to_the_dtype_is_right(scheme: Scheme, dtype: torch.dtype) -> None:
    rounding = Rounding(lambda scale: scale.to(dtype).float(), lambda quotient: quotient)
    assert max(check(rounding, scheme, dtype, seed) for seed in range(4)) <= 1


@pytest.mark.parametrize("seed", range(4))
def test_a_zero_point_that_is_rounded_twice_is_found_with_every_seed(seed: int) -> None:
    twice = Rounding(lambda scale: scale, lambda quotient: (quotient * 8).round() / 8)
    with pytest.raises(CheckFailure, match="unit activations"):
        check(twice, INT4, torch.float16, seed)


def test_torchao_chooses_zero_points_in_bfloat16() -> None:
    ao = pytest.importorskip("torchao.quantization")
    layer = nn.Linear(64, 1, bias=False)
    layer.weight = nn.Parameter(torch.zeros(1, 64, dtype=torch.bfloat16), requires_grad=False)
    layer.weight[0, 0], layer.weight[0, 1] = -1.9609375, 0.234375
    holder, asymmetric = nn.Sequential(layer), ao.quant_primitives.MappingType.ASYMMETRIC
    config = ao.IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=ao.PerGroup(64), mapping_type=asymmetric)
    ao.quantize_(holder, config)
    step = (0.234375 + 1.9609375) / 15
    assert (0.234375 - holder[0].weight.dequantize()[0, 1].item()) / step == pytest.approx(0.607, abs=0.001)
    # Its scale leaves 13.477 codes below zero, of which bfloat16 makes 13.5 and rounding 14.
    assert 1.9609375 / holder[0].weight.scale.item() < 13.48 and holder[0].weight.zero_point.item() == 14 - 8


def test_torchao_chooses_zero_points_of_eight_bits_in_float16() -> None:
    qat = pytest.importorskip("torchao.quantization.qat")
    layer = nn.Linear(4, 4, bias=False).half()
    tokens = qat.IntxFakeQuantizeConfig(torch.int8, "per_token", is_symmetric=False)
    fake = qat.FakeQuantizedLinear.from_linear(layer, activation_config=tokens).activation_fake_quantizer
    x = torch.tensor([[-1.078125, 0.00731658935546875, 0.0, 0.0]], dtype=torch.float16)
    step = (x.max() - x.min()).item() / 255
    assert (x - fake(x)).abs().max().item() / step == pytest.approx(0.72, abs=0.01)
