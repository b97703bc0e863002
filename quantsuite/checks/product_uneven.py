"""Products along a K that groups do not divide."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from quantsuite.checks.draws import block_shape
from quantsuite.checks.outcome import NotApplicable, compare
from quantsuite.checks.setting import Setting
from quantsuite.checks.uneven import has_groups, refused_or, remainders, with_small_tail
from quantsuite.kernels.protocol import Product
from quantsuite.quantize import pad_to_blocks
from quantsuite.scheme import Scheme


def _tokens(x: Tensor, tail: int) -> Tensor:
    """Every second token has one element alone, from the last of K backwards; the next one the last group alone."""
    x, k = x.clone(), x.shape[1]
    for number, row in enumerate(x[::2]):
        value = row[-1 - number % tail].clone()
        row.zero_()
        row[-1 - number % tail] = value
    x[1::4, : k - tail] = 0
    return x


def check_product_of_uneven_groups(
    kernel: Product, scheme: Scheme, *, device: str, dtype: torch.dtype, seed: int
) -> float:
    """A K that no group divides is refused, or its last group is multiplied as what it holds, at its own scale."""
    operands = [each for each in (scheme.weight, scheme.activation) if has_groups(each)]
    if not operands or scheme.weight is None:
        raise NotApplicable(f"{scheme} has no groups along K")
    setting = Setting(kernel, scheme, device, dtype, seed)
    width, height = max(block_shape(each)[1] for each in operands), block_shape(scheme.weight)[0]
    m, n, k = next(setting.bounded((32, 32, 2 * width)))
    tightest, taken = 0.0, 0
    for tail in remainders(width):
        shape = m, n + (height > 1), k + tail
        if not setting.takes(*shape):
            continue
        case = f"[{m}, {shape[2]}] x [{shape[1]}, {shape[2]}], of whose last group there are {tail}"
        x, weight = setting.pair(*shape)
        x, weight = _tokens(x, tail), with_small_tail(weight, tail)
        got = refused_or(case, kernel.name, lambda x=x, weight=weight: setting.product(x, weight))
        if got is not None:
            taken, tightest = taken + 1, max(tightest, _compare(setting, case, got, x, weight))
    if not taken:
        raise NotApplicable(f"{kernel.name} refuses a last group of {scheme} that is not full")
    return tightest


def _compare(setting: Setting, case: str, got: Tensor, x: Tensor, weight: Tensor) -> float:
    unit = math.lcm(*(block_shape(each)[1] for each in (setting.scheme.weight, setting.scheme.activation)))
    more = -x.shape[1] % unit
    x, weight = (torch.nn.functional.pad(each, (0, more)) for each in (x, weight))
    assert setting.scheme.weight is not None
    expected, bound = setting.expected(x, pad_to_blocks(weight, setting.scheme.weight.granularity))
    return compare(case, got, expected[:, : got.shape[1]], bound[:, : got.shape[1]])
