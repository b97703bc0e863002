"""Products of exact operands at all sizes: every element is decided, whatever M, N and K are.

See :mod:`quantsuite.checks.exact` for the operands.  A kernel whose scales are a float32 rounding off, as hardware's
division may leave them, shows so in products of single codes; then, and where a result in a narrower dtype lies so
near to a tie, roundings of scales are granted and nothing else.
"""

from __future__ import annotations

import math
import os
from contextlib import suppress

import torch
from torch import Tensor

from quantsuite.bounds import FLOAT32_ROUNDOFF, ROUNDINGS
from quantsuite.checks.draws import anchor, top
from quantsuite.checks.exact import ExactPair, draw_pair
from quantsuite.checks.oracle import rounding_error
from quantsuite.checks.outcome import NotApplicable, compare
from quantsuite.checks.setting import Setting
from quantsuite.checks.summation import DEVIATIONS
from quantsuite.kernels.protocol import Product, work
from quantsuite.scheme import Scheme

TOKENS = (*range(1, 18), *(tile + step for tile in (32, 64, 128, 256) for step in (-1, 0, 1)))
"""Numbers of tokens: all few, and around tiles."""
AROUND_TILES = (
    *((1, 15), (15, 16), (16, 17), (17, 17), (31, 33), (33, 31), (63, 64), (65, 63)),
    *((127, 65), (129, 127), (128, 128), (255, 257), (257, 255)),
)
"""N and K."""
LARGE = (257, 264, 320)
LONGEST = 16384
LONG = (1024, 2048, 4096, 8192)
"""Sizes that kernels split K by."""
MANY = (1024, 2048, 4096)
"""Sizes that kernels split rows by: threads of a block, and programs of a grid."""
HUGE, HUGE_ROWS = 2**31, 2**15
"""Elements that an index of 32 bits cannot reach, and rows of the weight whose product has them."""
HUGE_VARIABLE = "QUANTSUITE_HUGE"
"""Environment variable that asks for products of more than 2^31 elements."""
SLACK = (2 * ROUNDINGS + DEVIATIONS) * FLOAT32_ROUNDOFF
"""Of a sum's magnitudes: scales of two operands that float32 rounds, and eight deviations of the sum's own roundings.

Operands have random signs, so that partial sums grow as the root of their number and a float32 sum's roundings have a
deviation below ``u`` times the sum of magnitudes (Higham and Mary, 2019, section 2).
"""


def _up(size: int, unit: int) -> int:
    return unit * math.ceil(size / unit)


def _on(setting: Setting, values: Tensor) -> Tensor:
    return values.to(setting.dtype).to(setting.device)


def _scales_are_rounded(setting: Setting, pair: ExactPair, packed: object) -> bool:
    """Whether products of single codes show that float32 rounds the kernel's scales."""
    operand, (m, k) = setting.scheme.activation, pair.x.given.shape
    single = 1.0 if operand is None else top(operand) * (1 if operand.symmetric else anchor(operand) / top(operand))
    columns = torch.arange(m) * max(1, k // m) % k
    x = torch.zeros(m, k, dtype=torch.float64)
    x[torch.arange(m), columns] = single
    stands_for = single if operand is None or not operand.full_range else operand.format.max
    expected = stands_for * pair.weight.values[:, columns].T
    got = setting.multiply(_on(setting, x), packed, len(pair.weight.given)).double().cpu()
    allowed = rounding_error(expected.abs(), setting.dtype, times=3) * 2
    return not torch.equal(got, expected) and bool(((got - expected).abs() <= allowed).all())


def compare_exact(setting: Setting, case: str, pair: ExactPair, packed: object, got: Tensor) -> float:
    """Whether each element is the exact sum, rounded once.

    Raises:
        CheckFailure: if one is not.
    """
    __tracebackhide__ = True
    exact, dtype = pair.product, setting.dtype
    nearest = exact.to(dtype).double()
    if torch.equal(got.double().cpu(), nearest):
        return 0.0
    slack = SLACK * (pair.x.values.abs() @ pair.weight.values.abs().T)
    if dtype == torch.float32:
        rounded = _scales_are_rounded(setting, pair, packed)
        return compare(case, got, nearest, slack + rounding_error(exact.abs(), dtype) if rounded else 0.0)
    low, high = ((exact + sign * slack).to(dtype).double() for sign in (-1, 1))
    return compare(case, got, nearest, torch.maximum(high - nearest, nearest - low))


def product_of(setting: Setting, pair: ExactPair) -> float:
    """Multiply an exact pair and compare."""
    __tracebackhide__ = True
    packed, (m, k), n = setting.pack(_on(setting, pair.weight.given)), pair.x.given.shape, len(pair.weight.given)
    got = setting.multiply(_on(setting, pair.x.given), packed, n)
    return compare_exact(setting, f"codes at scales that differ, [{m}, {k}] x [{n}, {k}]", pair, packed, got)


def _products(setting: Setting, *shapes: tuple[int, int, int], fine: bool = False) -> float:
    """The products of exact pairs of all shapes that have them.

    Raises:
        NotApplicable: if none has.
    """
    reason, tightest = None, []
    for m, n, k in setting.fitting(*shapes):
        try:
            pair = draw_pair(setting, m, n, k, fine=fine)
        except NotApplicable as error:
            reason = error
            continue
        tightest.append(product_of(setting, pair))
    if not tightest:
        assert reason is not None
        raise reason
    return max(tightest)


def check_product_of_scaled_codes_is_exact(
    kernel: Product, scheme: Scheme, *, device: str, dtype: torch.dtype, seed: int
) -> float:
    """Dense codes at power-of-two scales that differ by row, group and token have exact products.

    Nearly no element is zero, so that a lost tail of K, a neighbour's scale or a group that begins one element late
    shows in every shape.
    """
    setting = Setting(kernel, scheme, device, dtype, seed)
    return _products(setting, (1, 1, 32), (5, 24, 96), (33, 40, 512), (16, 72, 1056))


def check_product_of_smallest_codes_is_exact(
    kernel: Product, scheme: Scheme, *, device: str, dtype: torch.dtype, seed: int
) -> float:
    """Of the smallest codes of a float format, subnormal ones too, beside the largest of each block."""
    setting = Setting(kernel, scheme, device, dtype, seed)
    formats = [operand.format for operand in (scheme.weight, scheme.activation) if operand is not None]
    if not any(hasattr(fmt, "smallest_exponent") and fmt.bits == 8 for fmt in formats):
        raise NotApplicable(f"{scheme} has no float format of 8 bits; all codes of others are small")
    return _products(setting, (5, 24, 64), (17, 33, 32), fine=True)


def check_product_of_every_number_of_tokens(
    kernel: Product, scheme: Scheme, *, device: str, dtype: torch.dtype, seed: int
) -> float:
    """One packed weight multiplies 1 to 17 tokens, and numbers of tokens around tiles, exactly."""
    setting = Setting(kernel, scheme, device, dtype, seed)
    m, n, k = next(setting.fitting(*((tokens, 24, 64) for tokens in TOKENS)))
    whole = draw_pair(setting, max(TOKENS), n, k)
    packed = setting.pack(_on(setting, whole.weight.given))
    limit, tightest = work(kernel) or math.inf, 0.0
    for tokens in dict.fromkeys((m, *TOKENS)):
        if tokens * n * k > limit or not setting.takes(tokens, n, k):
            continue
        part = slice(len(whole.x.given) - tokens, None) if tokens % 2 else slice(tokens)
        pair = ExactPair(x=whole.x.rows(part), weight=whole.weight, product=whole.product[part])
        got = setting.multiply(_on(setting, pair.x.given).clone(), packed, n)
        tightest = max(tightest, compare_exact(setting, f"{tokens} tokens, [{n}, {k}]", pair, packed, got))
    return tightest


def check_product_of_sizes_around_tiles(
    kernel: Product, scheme: Scheme, *, device: str, dtype: torch.dtype, seed: int
) -> float:
    """N and K around multiples of tiles, equal and not, and all three sizes large at once give exact products."""
    setting = Setting(kernel, scheme, device, dtype, seed)
    few = ((3, n, k) for n, k in AROUND_TILES)
    return _products(setting, *few, LARGE)


def check_product_of_longest_k_is_exact(
    kernel: Product, scheme: Scheme, *, device: str, dtype: torch.dtype, seed: int
) -> float:
    """Dense sums over K of 16,384, or of 4,160 at least, are exact, as far as the declared accumulator reaches."""
    setting = Setting(kernel, scheme, device, dtype, seed)
    for k in (LONGEST, LONGEST // 2):
        with suppress(NotApplicable):
            return _products(setting, (3, 8, k))
    return _products(setting, (2, 8, LONGEST // 4 + 64))


def check_product_of_k_around_splits_is_exact(
    kernel: Product, scheme: Scheme, *, device: str, dtype: torch.dtype, seed: int
) -> float:
    """Dense sums over K of one block less and one more than 1024, 2048, 4096 and 8192 are exact.

    Without blocks one element less and one more.  Of blocks of many rows, fewer sizes.
    """
    setting = Setting(kernel, scheme, device, dtype, seed)
    height, unit = setting.units()
    around = [_up(part, unit) + step for part in LONG for step in (-unit, unit)]
    return _products(setting, *((2, 4, k) for k in (around if height == 1 else around[1::4])))


def check_product_of_many_tokens_and_outputs(
    kernel: Product, scheme: Scheme, *, device: str, dtype: torch.dtype, seed: int
) -> float:
    """Rows of the weight, and tokens, beyond 1024, 2048 and 4096 have scales of their own and exact products."""
    setting = Setting(kernel, scheme, device, dtype, seed)
    sizes = [size + 1 for size in (MANY if setting.units()[0] == 1 else MANY[::2])]
    return _products(setting, *((m, 4, 32) for m in sizes), *((2, n, 32) for n in sizes))


def check_product_beyond_int32_indices(
    kernel: Product, scheme: Scheme, *, device: str, dtype: torch.dtype, seed: int
) -> float:
    """The last outputs of a product of more than 2^31 elements are right; asked for by QUANTSUITE_HUGE=1."""
    if os.environ.get(HUGE_VARIABLE) != "1":
        raise NotApplicable(f"products of more than 2^31 elements want gigabytes; set {HUGE_VARIABLE}=1")
    setting = Setting(kernel, scheme, device, dtype, seed)
    m, n, k = next(setting.fitting((HUGE // HUGE_ROWS + 64, HUGE_ROWS, 32)))
    if m * n <= HUGE:
        raise NotApplicable(f"{kernel.name} takes no product of more than 2^31 elements")
    few = draw_pair(setting, 64, n, k)
    places = torch.arange(m) % 64
    packed = setting.pack(_on(setting, few.weight.given))
    got = setting.multiply(_on(setting, few.x.given)[places.to(device)], packed, n)
    last = m // 64 * 64 - 64
    return compare_exact(setting, f"tokens from {last} on, [{m}, {n}]", few, packed, got[last : last + 64])
