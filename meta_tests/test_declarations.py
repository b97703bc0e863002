"""What a kernel declares: how it is asked for, refused where it is nonsense, and shown."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from meta_tests.mutants import PlainProduct
from quantsuite.conformance.cases import make_cases
from quantsuite.kernels import protocol
from quantsuite.kernels.validation import KernelError, validate
from quantsuite.layer import QuantizedLinear
from quantsuite.scheme import Scheme

INT8 = Scheme.parse("int8-row")


def product(**declared: Any) -> SimpleNamespace:
    given = {"name": "mine", "operation": "linear", "schemes": ("int8-row",), "pack": print, "linear": print}
    return validate(SimpleNamespace(**{**given, **declared}), "here")


def test_a_kernel_that_declares_nothing_is_tried_in_three_dtypes() -> None:
    tried = {case.dtype for case in make_cases([product()])}
    assert tried == {torch.float32, torch.bfloat16, torch.float16}


def test_what_holds_without_a_word_is_not_shown() -> None:
    assert protocol.declarations(product()) == {}


def test_every_declared_difference_is_shown_by_its_name() -> None:
    kernel = product(
        schemes=("int8-row", "int8-row:int8-tensor-static"),
        dtypes=("bfloat16",),
        output_dtype="float32",
        accumulator_bits=14,
        layouts="contiguous",
        takes_bias=True,
        rounds_scales=True,
        deterministic=False,
        flushes_subnormals=True,
        keeps_values=True,
        work=4096,
    )
    assert protocol.declarations(kernel) == {
        "dtypes": "bfloat16",
        "output_dtype": "float32",
        "accumulator_bits": "14",
        "layouts": "contiguous",
        "static_scales": "int8-row:int8-tensor-static",
        "takes_bias": "adds the bias itself",
        "rounds_scales": "to the dtype of the input",
        "deterministic": "no",
        "flushes_subnormals": "may become zero",
        "keeps_values": "values, not codes",
        "work": "at most 4,096 multiply-adds",
    }


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"accumulator_bits": 8}, "is 8, expected a whole number from 11, below which the bound of a sum lets all"),
        ({"deterministic": "no"}, "deterministic of mine is 'no', expected one of (True, False)"),
        ({"flushes_subnormals": 2}, "flushes_subnormals of mine is 2, expected one of (True, False)"),
        ({"output_dtype": torch.float32}, "mine has output_dtype torch.float32; use names such as 'bfloat16'"),
        ({"output_dtype": "bfloat16"}, "mine returns torch.bfloat16 of torch.float32, whose values it does not hold"),
        ({"dtypes": ()}, "dtypes of mine is empty, so that nothing is tried"),
    ],
)
def test_nonsense_is_refused_with_its_reason(declared: dict[str, Any], message: str) -> None:
    with pytest.raises(KernelError, match=re.escape(message)):
        product(**declared)


class Widening(PlainProduct):
    """Returns float32 of anything."""

    dtypes = ("bfloat16",)
    schemes = ("int8-row",)

    def linear(self, x: Tensor, packed: Any) -> Tensor:
        return super().linear(x.float(), packed)


class Declared(Widening):
    output_dtype = "float32"


def failures(kernel: Any) -> set[str]:
    found = set()
    for case in make_cases([kernel]):
        try:
            case()
        except pytest.skip.Exception:
            pass
        except AssertionError:
            found.add(case.property)
    return found


def test_an_output_dtype_is_right_where_it_is_declared() -> None:
    assert failures(Declared()) == set() and failures(Widening()) == {"product_repeatable"}


def test_a_layer_returns_the_dtype_of_its_input_whatever_the_kernel_s() -> None:
    layer = QuantizedLinear(torch.ones(2, 4).bfloat16(), torch.ones(2).bfloat16(), INT8, "real", kernel=Declared())
    assert layer(torch.ones(3, 4).bfloat16()).dtype == torch.bfloat16


def test_a_bias_that_a_kernel_does_not_take_keeps_the_dtype_of_its_product() -> None:
    kernel = SimpleNamespace(name="half", linear=lambda x, packed: x.bfloat16())
    assert protocol.multiply(kernel, torch.ones(1, 2), None, bias=torch.ones(2)).dtype == torch.bfloat16
