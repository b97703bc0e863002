"""What a product must make of weights and of activations at the ends of their dtype, each beside ordinary ones."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from quantsuite.checks.magnitudes import Extreme, draw_extreme
from quantsuite.checks.oracle import rounding_error
from quantsuite.checks.outcome import PRODUCT_AXES, NotApplicable, compare
from quantsuite.checks.setting import Setting
from quantsuite.kernels.protocol import Product
from quantsuite.scheme import Scheme

DIAGONAL = 1.5
LEAST = 48
ROUNDINGS = 4
"""To the dtype: of a scale, of a dequantized element, of a result before it is scaled and after."""


def _require_codes(scheme: Scheme) -> None:
    """Ask for operands that hold a diagonal exactly.

    Raises:
        NotApplicable: if one uses the full range, where the largest magnitude has no code.
    """
    if any(operand is not None and operand.full_range for operand in (scheme.activation, scheme.weight)):
        raise NotApplicable(f"{scheme} has no code for a block's largest magnitude")


def _bound(setting: Setting, extreme: Extreme, factor: float) -> Tensor:
    """Of outputs that are one element times a factor; an element that is dequantized may be rounded as a subnormal.

    Instructions that multiply bfloat16 take its subnormal numbers for zeros (Intel SDM, VDPBF16PS and TDPBF16PS).
    """
    info = torch.finfo(setting.dtype)
    if setting.dtype == torch.bfloat16:
        flushed = extreme.expected.abs() <= info.smallest_normal
        extreme = replace(extreme, allowed=extreme.allowed + extreme.expected.abs() * flushed)
    largest = (extreme.expected.abs() + extreme.allowed) * factor
    rounded = rounding_error(largest, setting.dtype, times=ROUNDINGS) + setting.roundoff * largest
    return extreme.allowed * factor + rounded + info.smallest_normal * info.eps / 2 * factor


def _of_weights(setting: Setting, size: int) -> float:
    """Small and large weights, each alone in an output."""
    __tracebackhide__ = True
    operand = setting.scheme.weight
    assert operand is not None
    tightest = 0.0
    for extreme in draw_extreme(setting.kernel, operand, size, size, dtype=setting.dtype, seed=setting.seed):
        factor = DIAGONAL * extreme.inverse
        x = torch.eye(size, dtype=setting.dtype, device=setting.device) * factor
        what, tokens, got = next(setting.split_products(x, extreme.values.to(setting.device)))
        expected, bound = (extreme.expected * factor).T[tokens], _bound(setting, extreme, factor).T[tokens]
        tightest = max(tightest, compare(f"{extreme.name} weights, {what}", got, expected, bound, axes=PRODUCT_AXES))
    return tightest


def _of_activations(setting: Setting, size: int) -> float:
    """Small and large activations, each alone in an output."""
    __tracebackhide__ = True
    operand = setting.scheme.activation
    assert operand is not None
    tightest = 0.0
    for extreme in draw_extreme(setting.kernel, operand, size, size, dtype=setting.dtype, seed=setting.seed + 1):
        factor = DIAGONAL * extreme.inverse
        weight = torch.eye(size, dtype=setting.dtype, device=setting.device) * factor
        what, tokens, got = next(setting.split_products(extreme.values.to(setting.device), weight))
        expected, bound = (extreme.expected * factor)[tokens], _bound(setting, extreme, factor)[tokens]
        tightest = max(
            tightest, compare(f"{extreme.name} activations, {what}", got, expected, bound, axes=PRODUCT_AXES)
        )
    return tightest


def check_product_of_weights_at_the_ends_of_a_dtype(
    kernel: Product, scheme: Scheme, *, device: str, dtype: torch.dtype, seed: int
) -> float:
    """Weights near the smallest and the largest normal number are neither lost nor infinite.

    Their scales are subnormal in float16, and 2^-127 in E8M0.  Activations are diagonal, so that an output is one
    weight: the nearest value but for roundings to the dtype.
    """
    _require_codes(scheme)
    setting = Setting(kernel, scheme, device, dtype, seed)
    return _of_weights(setting, setting.square(LEAST))


def check_product_of_activations_at_the_ends_of_a_dtype(
    kernel: Product, scheme: Scheme, *, device: str, dtype: torch.dtype, seed: int
) -> float:
    """Activations near the smallest and the largest normal number are neither lost nor infinite.

    As of weights; the weight is diagonal.
    """
    if scheme.activation is None:
        raise NotApplicable(f"{scheme} does not quantize activations")
    _require_codes(scheme)
    setting = Setting(kernel, scheme, device, dtype, seed)
    return _of_activations(setting, setting.square(LEAST))
