"""Layers and fake quantizers of others, made kernels by one line."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import nn
from torch.ao.quantization import FakeQuantize, MinMaxObserver

from meta_tests.training_faults import Detached, FakeLinear, Noisy, kernel_of
from quantsuite.checks import CheckFailure, NotApplicable
from quantsuite.checks.training import check_training_is_inference
from quantsuite.conformance.cases import make_cases
from quantsuite.kernels.layers import kernel_of_fake_quantizer, kernel_of_layer
from quantsuite.kernels.validation import KernelError
from quantsuite.scheme import Scheme

SCHEMES = ("int8-row", "int4-g32-asym", "fp8-row", "mxfp4", "int8-row-full:int8-token-full", "int4-g32:int8-token-asym")
INT8 = Scheme.parse("int8-row")


def check(kernel: Any, dtype: torch.dtype = torch.float32, seed: int = 0) -> float:
    scheme = Scheme.parse(kernel.schemes[0])
    return check_training_is_inference(kernel, scheme, device="cpu", dtype=dtype, seed=seed)


def outcomes(kernel: Any) -> set[str]:
    """The properties that are checked; one that does not hold raises."""
    found = set()
    for case in make_cases([kernel]):
        try:
            case.run()
            found.add(case.property)
        except NotApplicable:
            pass
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_right_layer_trains_as_it_infers(scheme: str, dtype: torch.dtype) -> None:
    assert max(check(kernel_of(FakeLinear, scheme), dtype, seed) for seed in range(5)) <= 1


def test_a_layer_is_a_kernel_under_every_check() -> None:
    assert {"product_within_bound", "product_layouts", "training_is_inference"} <= outcomes(
        kernel_of(FakeLinear, "int8-row")
    )


def test_a_fake_quantizer_is_a_kernel_under_every_check() -> None:
    observer = MinMaxObserver.with_args(eps=2.0**-126)
    make = lambda: FakeQuantize(observer=observer, quant_min=0, quant_max=255)  # noqa: E731
    kernel = kernel_of_fake_quantizer("theirs", make, ["int8-tensor-asym"], dtypes=["float32"])
    assert {"elements_within_bound", "subnormal_values"} <= outcomes(kernel)


def test_a_layer_that_does_not_train_is_checked_in_inference_alone() -> None:
    kernel = kernel_of_layer("theirs", lambda linear: Noisy(linear, INT8), ["int8-row"])
    with pytest.raises(NotApplicable, match="theirs has no trainable, which says what of it is trained"):
        check(kernel)


def test_the_output_of_training_is_named_beside_that_of_inference() -> None:
    with pytest.raises(CheckFailure, match="the output in training, beside that of inference"):
        check(kernel_of(Noisy, "int8-row"))


def test_a_weight_without_a_gradient_is_named() -> None:
    with pytest.raises(CheckFailure, match="no weight has a gradient"):
        check(kernel_of(Detached, "int8-row"))


def test_what_is_no_layer_is_refused() -> None:
    kernel = kernel_of_layer("theirs", lambda linear: linear.weight, ["int8-row"])  # type: ignore[arg-type]
    with pytest.raises(KernelError, match="theirs: convert returned a Parameter, expected"):
        kernel.pack(torch.ones(2, 4), INT8)


def test_a_scheme_that_there_is_not_is_refused() -> None:
    with pytest.raises(KernelError, match=re.escape("theirs: theirs claims 'int9-row'")):
        kernel_of_layer("theirs", nn.Identity, ["int9-row"])  # type: ignore[arg-type]
