"""The width of a product's accumulator, measured.

One large product ``2^q d`` opens the sum, 255 small products ``d`` follow (``2^q - 1``, if that is less), the large one
is taken off at the end.  All small ones are left only if the running sum keeps ``q + 1`` significant bits: with fewer,
half a unit in its last place is at least ``d`` and what is added is lost.  Their number is odd, so that a sum rounded
to a coarser unit anywhere is not theirs, and bfloat16 holds it.  All operands are codes at scale one, so nothing but
the accumulator can round.  Where codes span few binades the large product is spread over many, and sums
kept side by side hold more together than each of them.  FP8 tensor cores of Hopper keep about 14 bits, which is why
DeepSeek-V3 (technical report, section 3.3.2) adds partial sums of 128 in float32.
"""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from quantsuite.checks.draws import anchor, code_values
from quantsuite.checks.outcome import CheckFailure, Measured, NotApplicable
from quantsuite.checks.setting import FLOAT32_BITS, Setting
from quantsuite.kernels.protocol import Product, accumulator_bits
from quantsuite.scheme import Operand, Scheme

SMALL_PRODUCTS = 255
MOST_BITS = 27


@dataclass(frozen=True, kw_only=True)
class Accumulator:
    """What the probe found.

    Args:
        bits: significant bits that the running sum keeps, at least, if it is ``MOST_BITS``.
        promotion: after how many elements of K partial sums go to a wider sum; ``None`` if they do not, or
            if the accumulator is not seen to lose anything.
    """

    bits: int
    promotion: int | None

    def __str__(self) -> str:
        bits = f"at least {self.bits} bits" if self.bits >= MOST_BITS else f"{self.bits} bits"
        return bits if self.promotion is None else f"{bits}, promoted every {self.promotion} elements of K"


def _exponents(setting: Setting) -> tuple[tuple[int, int], tuple[int, int]]:
    """Exponents of the smallest and the largest power of two of the activations' codes and of the weight's."""
    x, weight = (_operand_exponents(o, setting.dtype) for o in (setting.scheme.activation, setting.scheme.weight))
    return x, weight


def _span(setting: Setting) -> int:
    """The largest q for which one product of codes is ``2^q`` times another; beyond it several make the large one."""
    return sum(high - low for low, high in _exponents(setting))


def _operand_exponents(operand: Operand | None, dtype: torch.dtype) -> tuple[int, int]:
    """Exponents of the smallest and the largest power of two that an operand's codes hold."""
    if operand is None:
        return (-12, 12) if dtype == torch.float16 else (-24, 24)
    exponents = [math.log2(value) for value in code_values(operand).tolist() if value > 0]
    whole = [int(exponent) for exponent in exponents if exponent == int(exponent)]
    return min(whole), max(whole)


def _kept(setting: Setting, q: int) -> tuple[float, list[int]]:
    """How many of the small products survive beside ``2^q`` of them, and their places along K."""
    scheme, (_, unit) = setting.scheme, setting.units()
    (x_low, x_high), (w_low, w_high) = _exponents(setting)
    copies = 2 ** max(0, q - _span(setting))
    x_drop = min(q, x_high - x_low)
    w_drop = min(q - x_drop, w_high - w_low)

    k = 128 * math.ceil((SMALL_PRODUCTS + 2 * copies) / 64)
    m, n, k = next(setting.fitting((1, 1, k), (32, 32, k)))
    unit = unit if unit > 1 else k
    free = [i for i in range(k) if i % unit > 1]
    count = min(SMALL_PRODUCTS, 2**q - 1)
    if len(free) < count + 2 * copies:
        raise NotApplicable(f"{scheme} has groups too small to hold their largest value apart")
    first, last, small = free[:copies], free[-copies:], free[copies : copies + count]
    x, weight = torch.zeros(k, dtype=torch.float64), torch.zeros(k, dtype=torch.float64)
    for row, operand, slot in ((x, scheme.activation, 0), (weight, scheme.weight, 1)):
        if operand is not None:
            row[slot::unit] = anchor(operand)
    x[first], x[last], x[small] = 2.0**x_high, -(2.0**x_high), 2.0 ** (x_high - x_drop)
    weight[first + last], weight[small] = 2.0**w_high, 2.0 ** (w_high - w_drop)
    operands = [row.to(setting.dtype).to(setting.device).repeat(rows, 1) for row, rows in ((x, m), (weight, n))]
    result: Tensor = setting.product(*operands)
    if not torch.isfinite(result).all():
        raise CheckFailure(f"small products beside one 2^{q} times as large sum to {result[0, 0].item()}")
    return result[0, 0].double().item() / 2.0 ** (x_high - x_drop + w_high - w_drop), small


def _all_kept(setting: Setting, q: int) -> bool:
    kept, small = _kept(setting, q)
    return abs(kept - len(small)) < 0.5  # A factor of the whole sum is rounded after it.


def measure_accumulator(kernel: Product, scheme: Scheme, *, device: str, dtype: torch.dtype) -> Accumulator:
    """Measure how many bits a product's running sum keeps.

    Raises:
        NotApplicable: if the scheme's operands cannot be made exact.
    """
    if any(operand is not None and not operand.symmetric for operand in (scheme.weight, scheme.activation)):
        raise NotApplicable(f"{scheme} has a zero point")
    setting = Setting(kernel, scheme, device, dtype, seed=0)
    widths = range(1, MOST_BITS)
    lossy = 1 + bisect.bisect_left(widths, True, key=lambda q: not _all_kept(setting, q))
    if lossy == MOST_BITS:
        return Accumulator(bits=MOST_BITS, promotion=None)
    kept, small = _kept(setting, max(lossy, min(lossy + 8, FLOAT32_BITS - 2, _span(setting))))
    lost = len(small) - round(kept)
    return Accumulator(bits=lossy, promotion=small[lost] if 0 < lost < len(small) else None)


def check_accumulator_as_claimed(
    kernel: Product, scheme: Scheme, *, device: str, dtype: torch.dtype, seed: int
) -> Measured:
    """The running sum keeps the bits that are claimed for it, as far as they can be seen."""
    measured, claimed = (
        measure_accumulator(kernel, scheme, device=device, dtype=dtype),
        accumulator_bits(kernel),
    )
    if measured.bits == 1:
        raise CheckFailure("one product and a half beside it sum to something else, whatever the accumulator keeps")
    if measured.bits < min(claimed, MOST_BITS):
        raise CheckFailure(
            f"small products beside one 2^{measured.bits} times as large: the accumulator keeps {measured}, "
            f"{claimed} are claimed"
        )
    promotion = {} if measured.promotion is None else {"promotion": float(measured.promotion)}
    return Measured(0.0, {"bits": float(measured.bits), **promotion})
