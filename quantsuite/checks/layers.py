"""What a layer needs of a product beside the product: a bias, codes that a method chose, and little memory."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from quantsuite import reference
from quantsuite.bounds import bound_matmul
from quantsuite.checks.draws import code_values
from quantsuite.checks.oracle import nearest_values
from quantsuite.checks.outcome import CheckFailure, NotApplicable, compare, same
from quantsuite.checks.setting import Setting
from quantsuite.kernels.protocol import Product, nbytes, takes_bias
from quantsuite.quantize import QuantizedTensor, dequantize, quantize
from quantsuite.scheme import Operand, Scheme

TILE = 64
"""What a kernel may pad N and K to multiples of."""
SCALE_BYTES = 8
"""Of a scale with its zero point, at most: a float32 and an int32."""
SLACK = 4096
"""Bytes that a packed weight may take beside codes and scales."""


def _weight(scheme: Scheme) -> Operand:
    assert scheme.weight is not None
    return scheme.weight


def chosen_codes(weight: Tensor, operand: Operand) -> QuantizedTensor:
    """Codes that rounding to nearest does not choose: in the wrong order, none beyond half of the largest."""
    quantized = quantize(weight, operand)
    values = quantized.values.float().flip(1)
    values = values.where(values.abs() <= operand.format.max / 2, 0.0)
    if code_values(operand).numel() < 8:  # of two bits or fewer, none is left
        values = quantized.values.float().flip(1)
    return replace(quantized, values=values.to(quantized.values.dtype))


def same_quantized(case: str, got: QuantizedTensor, expected: QuantizedTensor) -> None:
    """Whether codes and what they are multiplied with are the same, bit for bit."""
    same(f"{case}: codes", got.values.float(), expected.values.float())
    same(f"{case}: scales", got.step, expected.step)
    if expected.zero_point is not None:
        zero_point = got.zero_point if got.zero_point is not None else torch.zeros_like(expected.zero_point)
        same(f"{case}: zero points", zero_point.float(), expected.zero_point.float())


def _unpack(kernel: Product, packed: object) -> QuantizedTensor:
    unpack = getattr(kernel, "unpack", None)
    if unpack is None:
        raise NotApplicable(f"{kernel.name} has no unpack")
    got = unpack(packed)
    if not isinstance(got, QuantizedTensor):
        raise CheckFailure(f"{kernel.name}.unpack returned a {type(got).__name__}, expected a QuantizedTensor")
    return got


def check_product_with_bias(kernel: Product, scheme: Scheme, *, device: str, dtype: torch.dtype, seed: int) -> float:
    """A bias is added once, to its own output, and comes out as it is where activations are zero."""
    if not takes_bias(kernel):
        raise NotApplicable(f"{kernel.name} declares no takes_bias; its caller adds the bias")
    setting = Setting(kernel, scheme, device, dtype, seed)
    tightest = 0.0
    for m, n, k in setting.bounded((1, 37, 64), (17, 64, 128)):
        x, weight = setting.pair(m, n, k)
        packed, bias = setting.pack(weight), setting.draw(n, offset=2)
        at_zero = setting.multiply(torch.zeros_like(x), packed, n, bias=bias)
        same(f"bias at zero activations [{m}, {k}] x [{n}, {k}]", at_zero, bias.expand(m, n))
        for scale in (1.0, 1000.0):
            got = setting.multiply(x, packed, n, bias=bias * scale)
            exact, bound = setting.expected(x, weight)
            added = (bias * scale).double().cpu()
            # The sum is rounded to the dtype at most three times, as bounds.bound_execution says.
            bound = bound + ((1 + torch.finfo(dtype).eps / 2) ** 3 - 1) * added.abs()
            tightest = max(tightest, compare(f"bias of {scale:g} [{m}, {k}] x [{n}, {k}]", got, exact + added, bound))
    return tightest


def check_product_of_chosen_codes(
    kernel: Product, scheme: Scheme, *, device: str, dtype: torch.dtype, seed: int
) -> float:
    """``pack_quantized`` multiplies with the codes that it is given, not with those it would choose."""
    if not hasattr(kernel, "pack_quantized"):
        raise NotApplicable(f"{kernel.name} has no pack_quantized")
    setting = Setting(kernel, scheme, device, dtype, seed)
    tightest = 0.0
    for m, n, k in setting.bounded((1, 8, 64), (17, 64, 256)):
        x, weight = setting.pair(m, n, k)
        chosen = chosen_codes(weight, _weight(scheme))
        got = setting.multiply(x, kernel.pack_quantized(chosen, scheme), n)
        values = dequantize(chosen).double().cpu()
        bound = bound_matmul(
            x.cpu(), values, scheme.activation, None, dtype=dtype, accumulator_roundoff=setting.roundoff
        )
        tightest = max(
            tightest, compare(f"chosen codes [{m}, {k}] x [{n}, {k}]", got, reference.linear(x.cpu(), values), bound)
        )
    return tightest


def check_packed_codes_are_nearest(
    kernel: Product, scheme: Scheme, *, device: str, dtype: torch.dtype, seed: int
) -> float:
    """``unpack(pack(w))`` has the codes of rounding to nearest, wherever float32 arithmetic leaves no choice."""
    operand, setting = _weight(scheme), Setting(kernel, scheme, device, dtype, seed)
    if not hasattr(kernel, "unpack"):
        raise NotApplicable(f"{kernel.name} has no unpack")
    _, n, k = setting.shape(m=1, n=64, k=256)
    weight = setting.draw(n, k)
    _, settled = nearest_values(weight, operand)
    got, own = _unpack(kernel, setting.pack(weight)), quantize(weight, operand)
    if got.shape != weight.shape or got.operand != operand:
        raise CheckFailure(f"unpack gives {got.operand} {list(got.shape)}, expected {operand} {list(weight.shape)}")
    codes, expected = (each.values[:n, :k].float().cpu().where(settled, 0.0) for each in (got, own))
    return same(f"codes of [{n}, {k}]", codes, expected)


def check_chosen_codes_are_kept(
    kernel: Product, scheme: Scheme, *, device: str, dtype: torch.dtype, seed: int
) -> float:
    """``unpack(pack_quantized(q))`` is ``q``: codes, scales and zero points, bit for bit."""
    if not hasattr(kernel, "pack_quantized") or not hasattr(kernel, "unpack"):
        raise NotApplicable(f"{kernel.name} has not both pack_quantized and unpack")
    setting = Setting(kernel, scheme, device, dtype, seed)
    for _, n, k in setting.fitting((1, 8, 64), (1, 64, 256)):
        chosen = chosen_codes(setting.draw(n, k), _weight(scheme))
        same_quantized(f"chosen codes [{n}, {k}]", _unpack(kernel, kernel.pack_quantized(chosen, scheme)), chosen)
    return 0.0


def resident_limit(weight: QuantizedTensor) -> int:
    """The most bytes that a packed weight may take: codes of a padded weight in their bits, scales, and a little."""
    n, k = (TILE * math.ceil(size / TILE) for size in weight.shape)
    return math.ceil(n * k * weight.operand.format.bits / 8) + SCALE_BYTES * weight.scale.numel() + SLACK


def check_resident_bytes(kernel: Product, scheme: Scheme, *, device: str, dtype: torch.dtype, seed: int) -> float:
    """A packed weight takes no more memory than its codes and scales, up to padding: no other copy is kept."""
    if getattr(kernel, "keeps_values", False):
        raise NotApplicable(f"{kernel.name} declares that it keeps values")
    setting = Setting(kernel, scheme, device, dtype, seed)
    _, n, k = setting.shape(m=1, n=256, k=512)
    weight = setting.draw(n, k)
    taken, limit = nbytes(kernel, setting.pack(weight)), resident_limit(quantize(weight, _weight(scheme)))
    if taken > limit:
        raise CheckFailure(
            f"a packed weight [{n}, {k}] takes {taken:,} bytes, {8 * taken / (n * k):.2f} bits a value; "
            f"{scheme.weight} allows {limit:,}, {8 * limit / (n * k):.2f} bits a value"
        )
    return 0.0
