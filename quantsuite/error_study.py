"""Measured quantization errors of random tensors beside their closed form, for the report's error tables.

Two errors have names of their own.  The *elementwise relative mean absolute error* of a tensor is
``sum |dx| / sum |x|``.  The *relative Frobenius error of a product* is ``|x W^T - x' W'^T| / |x W^T|``, with both
operands quantized.  The first is often printed as if it were the second.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product

import torch
from scipy import stats
from torch import Tensor

from quantsuite import reference
from quantsuite.expected import (
    elements_per_scale,
    has_closed_form,
    relative_mean_error,
    relative_mean_error_beside,
    relative_product_error,
    relative_rms_error,
)
from quantsuite.quantize import dequantize, quantize
from quantsuite.records import ErrorPoint
from quantsuite.scheme import Operand

FALSE_ALARM_OF_A_MEAN = 1e-5
"""Chance that one mean lies outside although the closed form holds; about a hundred are compared in all."""
ELEMENT = "elementwise relative mean absolute error"
PRODUCT = "relative Frobenius error of a product"
SHAPES = ((16, 512), (100, 1024), (4096, 4096))
TERMS = (128, 256, 512, 1024, 2048, 4096)
GROUP_SIZES = (32, 64, 128, 256, 512, 1024)
OUTLIERS = (1.0, 4.0, 16.0, 64.0, 256.0)
SCHEMES = (
    *("int8-g128", "mxint8", "mxfp8", "mxfp8e5m2", "mxfp6e2m3", "mxfp6e3m2"),
    *("int4-g32", "int4-g128", "int4-g128-full", "int4-g128-asym", "int4-g128-sbf16", "int4-g128-clip"),
    *("nf4-g64", "fp4-g32", "mxfp4", "nvfp4", "int3-g128", "int3-g128-clip", "int2-g64", "int2-g64-full"),
)
PRODUCT_ROWS = 128
"""Rows of each operand of a product."""


def element_error(x: Tensor, operand: Operand) -> float:
    """``sum |dx| / sum |x|``, in float64."""
    error = dequantize(quantize(x, operand)).double() - x.double()
    return float(error.abs().sum() / x.double().abs().sum())


def product_error(x: Tensor, weight: Tensor, x_operand: Operand, weight_operand: Operand) -> float:
    """Relative Frobenius error of ``x W^T`` with both operands quantized, the product exact."""
    exact = reference.linear(x, weight)
    quantized = reference.linear(dequantize(quantize(x, x_operand)), dequantize(quantize(weight, weight_operand)))
    return float((quantized - exact).norm() / exact.norm())


def _normal(rows: int, columns: int, seed: int) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def _element_point(study: str, series: str, x_value: float, x: Tensor, name: str, seed: int) -> ErrorPoint:
    operand, shape = Operand.parse(name), (x.shape[0], x.shape[1])
    return ErrorPoint(
        study=study,
        quantity=ELEMENT,
        series=series,
        scheme=name,
        x=x_value,
        shape=list(shape),
        measured=element_error(x, operand),
        predicted=relative_mean_error(operand, shape) if has_closed_form(operand) else None,
        seed=seed,
    )


def _product_point(study: str, terms: int, form: str, granularity: tuple[str, str], seed: int) -> ErrorPoint:
    x, weight = _normal(PRODUCT_ROWS, terms, seed), _normal(PRODUCT_ROWS, terms, seed + 1)
    operands = [Operand.parse(f"{form}-{each}") for each in granularity]
    shape = (PRODUCT_ROWS, terms)
    errors = [relative_rms_error(operand, shape) for operand in operands]
    return ErrorPoint(
        study=study,
        quantity=PRODUCT,
        series=f"{operands[1]}:{operands[0]}",
        scheme=f"{operands[1]}:{operands[0]}",
        x=terms,
        shape=[PRODUCT_ROWS, PRODUCT_ROWS, terms],
        measured=product_error(x, weight, *operands),
        predicted=relative_product_error(errors[0], errors[1]),
        seed=seed,
    )


def by_shape(seed: int, shapes: Sequence[tuple[int, int]] = SHAPES) -> Iterator[ErrorPoint]:
    """The elementwise error of tensors with one scale."""
    for shape in shapes:
        x = _normal(*shape, seed)
        for form in ("int8", "fp8"):
            yield _element_point("elements that share a scale", f"{form}-tensor", x.numel(), x, f"{form}-tensor", seed)


def by_terms(seed: int) -> Iterator[ErrorPoint]:
    """The error of products against K, with one scale a row and with one a tensor."""
    for terms, form, granularity in product(TERMS, ("int8", "fp8"), (("token", "row"), ("tensor", "tensor"))):
        yield _product_point("K", terms, form, granularity, seed)


def by_group_size(seed: int) -> Iterator[ErrorPoint]:
    """The elementwise error against the group size."""
    x = _normal(256, max(GROUP_SIZES), seed)
    for size, form in product(GROUP_SIZES, ("int8", "fp8", "int4", "fp4", "nf4")):
        yield _element_point("group size", form, size, x, f"{form}-g{size}", seed)


def by_outlier_size(seed: int) -> Iterator[ErrorPoint]:
    """The elementwise error of the other elements' rows against the size of one outlier in each row of 512.

    In units of the other elements' standard deviation times four, about where the largest of them lies;
    the outlier itself counts neither in the error nor in the values.
    """
    x = _normal(256, 512, seed)
    rows, columns = x.shape
    for size, name in product(OUTLIERS, ("int8-row", "int8-g64", "fp8-row", "fp8-g64")):
        planted = x.clone()
        planted[:, 100] = 4 * size
        operand = Operand.parse(name)
        block = elements_per_scale(x.shape, operand)
        beside = (block - 1) * relative_mean_error_beside(operand, 4 * size)
        apart = (columns - block) * relative_mean_error(operand, (rows, columns))
        error = (dequantize(quantize(planted, operand)).double() - planted.double()).abs()
        error[:, 100] = planted[:, 100] = 0
        yield ErrorPoint(
            study="outlier size",
            quantity=ELEMENT,
            series=name,
            scheme=name,
            x=size,
            shape=[rows, columns],
            measured=float(error.sum() / planted.double().abs().sum()),
            predicted=(beside + apart) / (columns - 1),
            seed=seed,
        )


def by_bits(seed: int) -> Iterator[ErrorPoint]:
    """The elementwise error of formats and ways to scale them against the bits that a value takes, scales included."""
    x = _normal(256, 1024, seed)
    for name in SCHEMES:
        bits = 8 * quantize(x, Operand.parse(name)).nbytes / x.numel()
        yield _element_point("bits per value", name, bits, x, name, seed)


STUDIES = {
    "shape": by_shape,
    "terms": by_terms,
    "group size": by_group_size,
    "outlier size": by_outlier_size,
    "bits": by_bits,
}


def spread_of_mean(draws: Tensor) -> Tensor:
    """How far the mean of independent draws ``[n, ...]`` may lie from what is expected, by Student's t."""
    quantile = stats.t.isf(FALSE_ALARM_OF_A_MEAN / 2, len(draws) - 1)
    return quantile * draws.std(0) / math.sqrt(len(draws))
