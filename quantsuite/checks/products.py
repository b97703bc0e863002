"""What a product must hold: ``linear(x, pack(weight, scheme))`` is ``x W^T`` with quantized operands.

Each check returns the largest error as a fraction of its bound, 0 where the result is exact.
"""

from __future__ import annotations

import math
from contextlib import suppress

import torch
from torch import Tensor

from quantsuite.bounds import bound_element, exact_int32_terms
from quantsuite.checks.draws import anchor, block_shape, grid, largest_outlier, mixed, reach, top, with_hard_range
from quantsuite.checks.oracle import nearest_values, rounding_error, scale_rounding
from quantsuite.checks.outcome import NotApplicable, compare, same
from quantsuite.checks.setting import FLOAT32_BITS, TILES, Setting, scaled_as_a_whole
from quantsuite.formats import IntegerFormat
from quantsuite.kernels.protocol import Product, accumulator_bits
from quantsuite.scheme import Operand, Scheme

FEW, MANY = 4, 512
"""Products that a sum of wide whole numbers has, and one of codes, about."""


def check_product_within_bound(kernel: Product, scheme: Scheme, *, device: str, dtype: torch.dtype, seed: int) -> float:
    """The product is within the bound of its operands' formats and its accumulator."""
    setting = Setting(kernel, scheme, device, dtype, seed)
    tightest = 0.0
    for m, n, k in setting.bounded((1, 1, 32), (4, 8, 64), (32, 64, 512)):
        x, weight = setting.pair(m, n, k)
        outliers = x.clone()
        outliers[:, ::31] *= 100
        for case, a, w in (
            ("normal", x, weight),
            ("outliers of 100", outliers, weight),
            ("shifted", x + 2, weight + 1),
        ):
            tightest = max(tightest, setting.within(f"{case} [{m}, {k}] x [{n}, {k}]", a, w))
    return tightest


def _nearest(x: Tensor, operand: Operand | None) -> tuple[Tensor, Tensor]:
    """As :func:`nearest_values`; what is not quantized is itself, and so is a diagonal matrix with a zero point."""
    exact = x.double().cpu()
    if operand is not None:
        with suppress(NotApplicable):
            return nearest_values(x, operand)
    is_itself = operand is None or torch.equal(exact, exact.diag().diag())
    return exact, torch.full_like(exact, is_itself, dtype=torch.bool)


def check_product_of_unit_vectors(
    kernel: Product, scheme: Scheme, *, device: str, dtype: torch.dtype, seed: int
) -> float:
    """Each weight alone, and each activation alone, comes out right, however many tokens there are at a time.

    One operand is diagonal, its elements known, so that an output is one element of the other and no sum averages its
    error away.  In float32 the element is the nearest value up to a few roundings, but near a tie and with a zero
    point; there, and in narrower dtypes, to which scales may be rounded, its bound holds.
    """
    setting = Setting(kernel, scheme, device, dtype, seed)
    k, tightest = setting.square(129), 0.0
    drawn, all_bits = mixed(k, k, seed=seed, device=device, dtype=dtype), 2 - torch.finfo(dtype).eps
    for case, outer, inner in (
        ("unit activations", scheme.activation, scheme.weight),
        ("unit weights", scheme.weight, scheme.activation),
    ):
        values = with_hard_range(drawn, inner)
        exact = values.double().cpu()
        diagonal = torch.eye(k, device=device, dtype=dtype) * (all_bits if outer is None else 1.5)
        factor, certain = (matrix.diag() for matrix in _nearest(diagonal, outer))
        nearest, settled = _nearest(values, inner)
        settled = settled & certain & (dtype == torch.float32)
        expected = torch.where(settled, nearest, exact) * factor
        error = (
            torch.zeros_like(exact)
            if inner is None
            else bound_element(exact, inner) + scale_rounding(exact, inner, dtype)
        )
        error = (error * factor).masked_fill(settled, 0)
        largest = expected.abs() + error
        bound = error + rounding_error(largest, dtype, times=5) + setting.roundoff * largest
        x, weight = values, diagonal
        if case == "unit activations":
            x, weight, expected, bound = diagonal, values, expected.T, bound.T
        for what, tokens, got in setting.split_products(x, weight):
            tightest = max(tightest, compare(f"{case}, {what}", got, expected[tokens], bound[tokens]))
    return tightest


def check_product_of_all_magnitudes(
    kernel: Product, scheme: Scheme, *, device: str, dtype: torch.dtype, seed: int
) -> float:
    """The bound holds for weights and activations from tiny to huge."""
    setting = Setting(kernel, scheme, device, dtype, seed)
    x, weight = setting.pair(*setting.shape())
    large, small = 2.0 ** reach(dtype), 2.0 ** -reach(dtype)
    factors = [(1, small), (small, 1), (1, large), (large, 1), (small**0.75, small**0.75)]
    return max(setting.within(f"x * {a:g}, weight * {b:g}", x * a, weight * b) for a, b in factors)


def check_product_with_an_outlier(
    kernel: Product, scheme: Scheme, *, device: str, dtype: torch.dtype, seed: int
) -> float:
    """One weight, then one activation, of 1e30 (256 in float16) leaves the product finite and within the bound."""
    setting = Setting(kernel, scheme, device, dtype, seed)
    x, weight = setting.pair(*setting.shape())
    tightest = 0.0
    for case, index in (("activation", 0), ("weight", 1)):
        operands = [x.clone(), weight.clone()]
        operands[index][0, 1] = largest_outlier(dtype)
        tightest = max(tightest, setting.within(f"one {case} of {largest_outlier(dtype):g}", *operands))
    return tightest


def codes(operand: Operand, rows: int, k: int, unit: int, slot: int, generator: torch.Generator) -> Tensor:
    """Small whole numbers ``[rows, k]`` whose scale is exactly one, float64.

    Of each ``unit`` columns the first two are reserved: with a zero point they hold the smallest and the largest
    value; else column ``slot`` holds the format's largest value, the other zero, so that the largest values of two
    operands with different slots never meet.  With E4M3 scales the first block holds nothing but the tensor's
    largest value.  Floats are whole numbers up to 16, for all mantissa bits of E4M3.
    """
    values = grid(operand)
    largest = anchor(operand) if isinstance(operand.format, IntegerFormat) else 16
    values = values[(values == values.round()) & (values.abs() <= largest)]
    matrix = values[torch.randint(len(values), (rows, k), generator=generator)]
    chunks = matrix.view(rows, k // unit, unit)
    if not operand.symmetric:
        chunks[..., 0], chunks[..., 1] = values[0], values[-1]
        chunks -= values[torch.randint(len(values), (rows, k // unit, 1), generator=generator)]
        return matrix
    chunks[..., :2] = 0
    chunks[..., slot] = anchor(operand)
    if operand.scale.of_tensor:
        chunks[:, 0] = 0
        chunks[:, 0, slot] = top(operand)
    return matrix


def whole_numbers(rows: int, k: int, limit: float, generator: torch.Generator) -> Tensor:
    """Odd numbers ``[rows, k]`` up to ``limit``, of both signs."""
    odd = 2 * torch.randint(max(1, int(limit) // 2), (rows, k), generator=generator, dtype=torch.float64) + 1
    return odd * (1 - 2 * torch.randint(2, (rows, k), generator=generator))


def _exact_pair(setting: Setting, m: int, n: int, k: int, limit: float) -> tuple[Tensor, Tensor]:
    """Operands whose products sum to whole numbers up to ``limit``, mostly."""
    scheme, (_, unit) = setting.scheme, setting.units()
    if unit == 2:
        raise NotApplicable(f"{scheme} has groups too small to hold their largest value apart")
    unit = k if unit == 1 else unit
    generator = torch.Generator().manual_seed(setting.seed)
    pair = (scheme.activation, scheme.weight)
    # Blocks of one scale have one zero point, so that a row that is a block is not divided.
    wholes = [unit if operand is None or operand.symmetric else k for operand in pair]
    units = [width if width > 1 else whole for (_, width), whole in zip(map(block_shape, pair), wholes, strict=True)]
    assert scheme.weight is not None
    w = codes(scheme.weight, n, k, units[1], 1, generator)
    free = torch.arange(k) % units[0] > 1
    largest = w[:, free].abs().max().item()
    if scheme.activation is not None:
        x = codes(scheme.activation, m, k, units[0], 0, generator)
        terms = min(MANY, limit / (largest * x[:, free].abs().max().item()))
    else:
        terms, most = FEW, min(limit / (4 * FEW * largest), 2 / torch.finfo(setting.dtype).eps - 1)
        x = whole_numbers(m, k, most, generator).masked_fill(~free, 0)
    return x.masked_fill(free & (torch.rand(m, k, generator=generator) >= terms / k), 0), w


def check_product_of_codes_is_exact(
    kernel: Product, scheme: Scheme, *, device: str, dtype: torch.dtype, seed: int
) -> float:
    """Where operands are codes at scale one and the sums fit the accumulator, the product is an integer's.

    Activations that are not quantized are whole numbers as large as sums allow.  The product of all tokens at once,
    and of few at a time, is compared bit for bit with int64, rounded once to the dtype of the result.  Scales with a
    zero point may be a rounding away from one, by the order of their operations.
    """
    setting = Setting(kernel, scheme, device, dtype, seed)
    limit = min(2.0 ** min(FLOAT32_BITS, accumulator_bits(kernel)), torch.finfo(dtype).max)
    has_zero_point = not all(o.symmetric for o in (scheme.activation, scheme.weight) if o is not None)
    compared, tightest = False, 0.0
    for m, n, k in setting.fitting((1, 1, 64), (17, 32, 512), (32, 264, 512), (4, 32, 4160)):
        x, w = _exact_pair(setting, m, n, k, limit)
        expected, magnitude = (x.to(torch.int64) @ w.to(torch.int64).T).double(), x.abs() @ w.abs().T
        dtyped = [t.to(dtype) for t in (x, w)]
        held = all(torch.equal(a.double(), b) for a, b in zip(dtyped, (x, w), strict=True))
        if not held or magnitude.max() >= limit:
            continue
        for what, tokens, got in setting.split_products(*(t.to(device) for t in dtyped)):
            compared = True
            bound = rounding_error(magnitude, torch.float32) + rounding_error(expected.abs(), dtype)
            allowed = bound[tokens] if has_zero_point else 0.0
            nearest = expected.to(dtype).double()[tokens]
            tightest = max(tightest, compare(f"codes, {what}", got, nearest, allowed))
    if not compared:
        raise NotApplicable(f"{dtype} cannot hold the codes of {scheme}, or sums of {limit:g} their products")
    return tightest


def check_longest_integer_sum(kernel: Product, scheme: Scheme, *, device: str, dtype: torch.dtype, seed: int) -> float:
    """The longest sum of largest codes that the claimed accumulator holds is exact, up to int32.

    See :func:`~quantsuite.bounds.exact_int32_terms`.
    """
    setting = Setting(kernel, scheme, device, dtype, seed)
    pair = scheme.activation, scheme.weight
    if not all(o is not None and isinstance(o.format, IntegerFormat) and o.symmetric for o in pair):
        raise NotApplicable(f"{scheme} has operands that are not symmetric integers")
    unit = math.lcm(setting.units()[1], TILES[-1])
    x_max, w_max = (int(grid(operand).max()) for operand in pair if operand is not None)
    held = 2 ** accumulator_bits(kernel) // (x_max * w_max)
    k = min(exact_int32_terms(x_max, w_max), held, 2**18) // unit * unit
    if k == 0:
        raise NotApplicable(f"{unit} products of {x_max} and {w_max} overflow the claimed accumulator")
    m, n, k = next(setting.fitting((1, 1, k), (32, 32, k)))
    x, weight = (
        torch.full((rows, k), anchor(operand), dtype=dtype, device=device)
        for rows, operand in zip((m, n), pair, strict=True)
        if operand is not None
    )
    expected = torch.full((m, n), float(x_max * w_max * k)).to(dtype)
    if not torch.isfinite(expected).all():
        raise NotApplicable(f"{dtype} cannot hold {k} products of {x_max} and {w_max}")
    return same(f"{k} products of {x_max} and {w_max}", setting.product(x, weight), expected)


def check_rows_are_independent(kernel: Product, scheme: Scheme, *, device: str, dtype: torch.dtype, seed: int) -> float:
    """A large weight changes the outputs of its own row only; a large activation those of its token only."""
    setting = Setting(kernel, scheme, device, dtype, seed)
    weight_rows, _ = block_shape(scheme.weight)
    m, n, k = setting.shape(n=2 * weight_rows if weight_rows > 16 else 32)
    x, weight = setting.pair(m, n, k)
    before = setting.product(x, weight)
    tried = False
    if not scaled_as_a_whole(scheme.weight):
        changed = weight.clone()
        changed[0, 3] = 1000
        same(
            "outputs of other rows after weight[0, 3] = 1000",
            setting.product(x, changed)[:, weight_rows:],
            before[:, weight_rows:],
        )
        tried = True
    if not scaled_as_a_whole(scheme.activation):
        changed = x.clone()
        changed[0, 3] = 1000
        same("outputs of other tokens after x[0, 3] = 1000", setting.product(changed, weight)[1:], before[1:])
        tried = True
    if not tried:
        raise NotApplicable(f"{scheme} has one scale for each operand")
    return 0.0


def check_product_powers_of_two_factor_out(
    kernel: Product, scheme: Scheme, *, device: str, dtype: torch.dtype, seed: int
) -> float:
    """Multiplying an operand by a power of two multiplies the product by the same."""
    if dtype == torch.float16:
        raise NotApplicable("scaled sums and values become subnormal in float16")
    setting = Setting(kernel, scheme, device, dtype, seed)
    x, weight = setting.pair(*setting.shape())
    expected = setting.product(x, weight).double()
    for factor in (2.0, 0.5, 16.0):
        same(f"x * {factor:g}", setting.product(x * factor, weight), expected * factor)
        same(f"weight * {factor:g}", setting.product(x, weight * factor), expected * factor)
    return 0.0


def check_product_of_zeros(kernel: Product, scheme: Scheme, *, device: str, dtype: torch.dtype, seed: int) -> float:
    """Zero tokens and zero rows give zeros, and an all-zero operand gives an all-zero product."""
    setting = Setting(kernel, scheme, device, dtype, seed)
    x, weight = setting.pair(*setting.shape())
    token, row = len(x) // 2, len(weight) // 2
    x[token], weight[row] = 0, 0
    got = setting.product(x, weight)
    same("the output of a zero token", got[token], torch.zeros_like(got[token]))
    same("the outputs of a zero weight row", got[:, row], torch.zeros_like(got[:, row]))
    same("zero activations", setting.product(torch.zeros_like(x), weight), torch.zeros_like(got))
    return same("zero weight", setting.product(x, torch.zeros_like(weight)), torch.zeros_like(got))


def check_product_shapes(kernel: Product, scheme: Scheme, *, device: str, dtype: torch.dtype, seed: int) -> float:
    """One token, odd sizes, larger ones, and batches of sequences keep their shape and the bound."""
    setting = Setting(kernel, scheme, device, dtype, seed)
    tightest = 0.0
    for m, n, k in setting.bounded((1, 1, 1), (1, 37, 64), (3, 5, 7), (17, 33, 129), (130, 264, 320)):
        tightest = max(tightest, setting.within(f"[{m}, {k}] x [{n}, {k}]", *setting.pair(m, n, k)))
    m, n, k = setting.shape()
    x, weight = setting.pair(m, n, k)
    flat, batch = setting.product(x, weight), math.gcd(m, 4)
    same(
        f"[{batch}, {m // batch}, {k}] x [{n}, {k}]",
        setting.product(x.view(batch, -1, k), weight),
        flat.view(batch, -1, n),
    )
    return tightest
