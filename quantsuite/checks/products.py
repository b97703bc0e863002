"""What a product must hold: ``linear(x, pack(weight, scheme))`` is ``x W^T`` with quantized operands.

Each check returns the largest error as a fraction of its bound, 0 where the result is exact.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from quantsuite import reference
from quantsuite.bounds import FLOAT32_ROUNDOFF, bound_matmul, exact_int32_terms
from quantsuite.checks.draws import anchor, block_shape, grid, largest_outlier, mixed, normal, reach, top
from quantsuite.checks.outcome import CheckFailure, NotApplicable, NotSupported, compare, same
from quantsuite.contestant import Product, claims, unsupported_shape
from quantsuite.formats import IntegerFormat
from quantsuite.granularity import PerTensor
from quantsuite.scheme import Operand, Scheme


@dataclass(frozen=True)
class Setting:
    """A product under a scheme, on a device, in a dtype: what every check here is about."""

    contestant: Product
    scheme: Scheme
    device: str
    dtype: torch.dtype
    seed: int

    def units(self) -> tuple[int, int]:
        """What N and K must be multiples of for all blocks to be whole."""
        n, k_weight = block_shape(self.scheme.weight)
        _, k_activation = block_shape(self.scheme.activation)
        return n, math.lcm(k_weight, k_activation)

    def fitting(self, *wanted: tuple[int, int, int]) -> Iterator[tuple[int, int, int]]:
        """Shapes ``(M, N, K)``, N and K rounded up to whole blocks, that the contestant takes here.

        Raises:
            NotSupported: with the contestant's reason, if it takes none.
        """
        n_unit, k_unit = self.units()
        reason = None
        taken = False
        for m, n, k in wanted:
            shape = (m, n_unit * math.ceil(n / n_unit), k_unit * math.ceil(k / k_unit))
            refused = unsupported_shape(self.contestant, self.scheme, self.device, *shape)
            if refused is None:
                taken = True
                yield shape
            reason = reason or refused
        if not taken:
            raise NotSupported(reason)

    def shape(self, m: int = 32, n: int = 32, k: int = 64) -> tuple[int, int, int]:
        """One shape as by :meth:`fitting`."""
        return next(self.fitting((m, n, k)))

    def draw(self, *shape: int, offset: int = 0) -> Tensor:
        """A normal draw in the setting's dtype."""
        return normal(*shape, seed=self.seed + offset, device=self.device, dtype=self.dtype)

    def pair(self, m: int, n: int, k: int) -> tuple[Tensor, Tensor]:
        """Activations ``[m, k]`` and a weight ``[n, k]``."""
        return self.draw(m, k), self.draw(n, k, offset=1)

    def product(self, x: Tensor, weight: Tensor) -> Tensor:
        """The contestant's ``x W^T``."""
        return self.contestant.linear(x, self.contestant.pack(weight, self.scheme))

    def within(self, case: str, x: Tensor, weight: Tensor) -> float:
        """Compare the product with the float64 reference, within the scheme's bound."""
        got = self.product(x, weight)
        x, weight, bits = x.cpu(), weight.cpu(), claims(self.contestant).accumulator_bits
        try:
            bound = bound_matmul(
                x,
                weight,
                self.scheme.activation,
                self.scheme.weight,
                dtype=got.dtype,
                # Accumulators narrower than float32 may truncate.
                accumulator_roundoff=FLOAT32_ROUNDOFF if bits >= 24 else 2.0 ** (1 - bits),
            )
        except ValueError as error:
            raise NotApplicable(str(error)) from error
        return compare(case, got, reference.linear(x, weight), bound)


def check_product_within_bound(
    contestant: Product, scheme: Scheme, *, device: str, dtype: torch.dtype, seed: int
) -> float:
    """The product is within the bound of its operands' formats and its accumulator."""
    setting = Setting(contestant, scheme, device, dtype, seed)
    tightest = 0.0
    for m, n, k in setting.fitting((1, 1, 32), (4, 8, 64), (32, 64, 512)):
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


def check_product_of_unit_vectors(
    contestant: Product, scheme: Scheme, *, device: str, dtype: torch.dtype, seed: int
) -> float:
    """Each weight alone, and each activation alone, of many magnitudes, comes out within the bound.

    One operand is the identity, so that an output is one element of the other and no sum averages its error away.
    """
    setting = Setting(contestant, scheme, device, dtype, seed)
    unit, tightest = math.lcm(*setting.units()), 0.0
    sizes = (unit * math.ceil(least / unit) for least in (129, 192))
    for k, *_ in setting.fitting(*((size, size, size) for size in sizes)):
        values = mixed(k, k, seed=seed, device=device, dtype=dtype)
        identity = torch.eye(k, device=device, dtype=dtype)
        for case, x, weight in (("unit activations", identity, values), ("unit weights", values, identity)):
            tightest = max(tightest, setting.within(f"{case} [{k}, {k}]", x, weight))
    return tightest


def check_product_of_all_magnitudes(
    contestant: Product, scheme: Scheme, *, device: str, dtype: torch.dtype, seed: int
) -> float:
    """The bound holds for weights and activations from tiny to huge."""
    setting = Setting(contestant, scheme, device, dtype, seed)
    x, weight = setting.pair(*setting.shape())
    large, small = 2.0 ** reach(dtype), 2.0 ** -reach(dtype)
    factors = [(1, small), (small, 1), (1, large), (large, 1), (small**0.75, small**0.75)]
    return max(setting.within(f"x * {a:g}, weight * {b:g}", x * a, weight * b) for a, b in factors)


def check_product_with_an_outlier(
    contestant: Product, scheme: Scheme, *, device: str, dtype: torch.dtype, seed: int
) -> float:
    """One weight, then one activation, of 1e30 (256 in float16) leaves the product finite and within the bound."""
    setting = Setting(contestant, scheme, device, dtype, seed)
    x, weight = setting.pair(*setting.shape())
    tightest = 0.0
    for case, index in (("activation", 0), ("weight", 1)):
        operands = [x.clone(), weight.clone()]
        operands[index][0, 1] = largest_outlier(dtype)
        tightest = max(tightest, setting.within(f"one {case} of {largest_outlier(dtype):g}", *operands))
    return tightest


def codes(operand: Operand | None, rows: int, k: int, unit: int, slot: int, generator: torch.Generator) -> Tensor:
    """Small whole numbers ``[rows, k]`` whose scale is exactly one, float64.

    Of each ``unit`` columns the first two are reserved: column ``slot`` holds the format's largest value,
    the other zero, so that the largest values of two operands with different slots never meet.  With E4M3 scales the
    first block holds nothing but the tensor's largest value.
    """
    exact = [0.0, 1.0]
    if operand is not None:
        largest = anchor(operand) if isinstance(operand.format, IntegerFormat) else 8
        exact = [value for value in grid(operand).tolist() if value == int(value) and abs(value) <= largest]
    values = torch.tensor(exact or [0.0], dtype=torch.float64)
    matrix = values[torch.randint(len(values), (rows, k), generator=generator)]
    chunks = matrix.view(rows, k // unit, unit)
    chunks[..., :2] = 0
    chunks[..., slot] = 1.0 if operand is None else anchor(operand)
    if operand is not None and operand.scale == "e4m3":
        chunks[0, 0] = 0
        chunks[0, 0, slot] = top(operand)
    return matrix


def _exact_pair(setting: Setting, m: int, n: int, k: int) -> tuple[Tensor, Tensor]:
    _, unit = setting.units()
    if unit == 2:
        raise NotApplicable(f"{setting.scheme} has groups too small to hold their largest value apart")
    unit = k if unit == 1 else unit
    generator = torch.Generator().manual_seed(setting.seed)
    weight_unit = block_shape(setting.scheme.weight)[1]
    activation_unit = block_shape(setting.scheme.activation)[1]
    x = codes(setting.scheme.activation, m, k, activation_unit if activation_unit > 1 else unit, 0, generator)
    w = codes(setting.scheme.weight, n, k, weight_unit if weight_unit > 1 else unit, 1, generator)
    return x, w


def check_product_of_codes_is_exact(
    contestant: Product, scheme: Scheme, *, device: str, dtype: torch.dtype, seed: int
) -> float:
    """Where both operands are codes at scale one and the sums fit the accumulator, the product is an integer's.

    It is compared bit for bit with int64, rounded once to the dtype of the result.
    """
    setting = Setting(contestant, scheme, device, dtype, seed)
    if any(operand is not None and not operand.symmetric for operand in (scheme.weight, scheme.activation)):
        raise NotApplicable(f"{scheme} has a zero point")
    for m, n, k in setting.fitting((1, 1, 64), (17, 32, 512)):
        x, w = _exact_pair(setting, m, n, k)
        expected = (x.to(torch.int64) @ w.to(torch.int64).T).double()
        bits = min(24, claims(contestant).accumulator_bits)
        if (x.abs() @ w.abs().T).max() >= 2**bits:
            raise NotApplicable(f"sums of {scheme} at K={k} do not fit {bits} bits")
        dtyped = [t.to(setting.dtype) for t in (x, w)]
        if not all(torch.equal(a.double(), b) for a, b in zip(dtyped, (x, w), strict=True)):
            raise NotApplicable(f"{dtype} cannot hold all codes")
        got = setting.product(*(t.to(device) for t in dtyped))
        if not torch.isfinite(expected.to(got.dtype)).all():
            raise NotApplicable(f"{got.dtype} cannot hold sums of {scheme} at K={k}")
        same(f"codes [{m}, {k}] x [{n}, {k}]", got, expected.to(got.dtype))
    return 0.0


def check_longest_integer_sum(
    contestant: Product, scheme: Scheme, *, device: str, dtype: torch.dtype, seed: int
) -> float:
    """The longest sum of largest codes that the claimed accumulator holds is exact, up to int32.

    See :func:`~quantsuite.bounds.exact_int32_terms`.
    """
    setting = Setting(contestant, scheme, device, dtype, seed)
    pair = scheme.activation, scheme.weight
    if not all(o is not None and isinstance(o.format, IntegerFormat) and o.symmetric for o in pair):
        raise NotApplicable(f"{scheme} has operands that are not symmetric integers")
    unit = math.lcm(setting.units()[1], 64)
    x_max, w_max = (int(grid(operand).max()) for operand in pair if operand is not None)
    held = 2 ** claims(contestant).accumulator_bits // (x_max * w_max)
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


def _scaled_as_a_whole(operand: Operand | None) -> bool:
    return operand is not None and (isinstance(operand.granularity, PerTensor) or operand.scale == "e4m3")


def check_rows_are_independent(
    contestant: Product, scheme: Scheme, *, device: str, dtype: torch.dtype, seed: int
) -> float:
    """A large weight changes the outputs of its own row only; a large activation those of its token only."""
    setting = Setting(contestant, scheme, device, dtype, seed)
    weight_rows, _ = block_shape(scheme.weight)
    m, n, k = setting.shape(n=2 * weight_rows if weight_rows > 16 else 32)
    x, weight = setting.pair(m, n, k)
    before = setting.product(x, weight)
    tried = False
    if not _scaled_as_a_whole(scheme.weight):
        changed = weight.clone()
        changed[0, 3] = 1000
        same(
            "outputs of other rows after weight[0, 3] = 1000",
            setting.product(x, changed)[:, weight_rows:],
            before[:, weight_rows:],
        )
        tried = True
    if not _scaled_as_a_whole(scheme.activation):
        changed = x.clone()
        changed[0, 3] = 1000
        same("outputs of other tokens after x[0, 3] = 1000", setting.product(changed, weight)[1:], before[1:])
        tried = True
    if not tried:
        raise NotApplicable(f"{scheme} has one scale for each operand")
    return 0.0


def check_product_powers_of_two_factor_out(
    contestant: Product, scheme: Scheme, *, device: str, dtype: torch.dtype, seed: int
) -> float:
    """Multiplying an operand by a power of two multiplies the product by the same."""
    setting = Setting(contestant, scheme, device, dtype, seed)
    x, weight = setting.pair(*setting.shape())
    expected = setting.product(x, weight).double()
    for factor in (2.0, 0.5, 16.0):
        same(f"x * {factor:g}", setting.product(x * factor, weight), expected * factor)
        same(f"weight * {factor:g}", setting.product(x, weight * factor), expected * factor)
    return 0.0


def check_product_of_zeros(contestant: Product, scheme: Scheme, *, device: str, dtype: torch.dtype, seed: int) -> float:
    """Zero tokens and zero rows give zeros, and an all-zero operand gives an all-zero product."""
    setting = Setting(contestant, scheme, device, dtype, seed)
    x, weight = setting.pair(*setting.shape())
    x[1], weight[2] = 0, 0
    got = setting.product(x, weight)
    same("the output of a zero token", got[1], torch.zeros_like(got[1]))
    same("the outputs of a zero weight row", got[:, 2], torch.zeros_like(got[:, 2]))
    same("zero activations", setting.product(torch.zeros_like(x), weight), torch.zeros_like(got))
    return same("zero weight", setting.product(x, torch.zeros_like(weight)), torch.zeros_like(got))


def check_product_shapes(contestant: Product, scheme: Scheme, *, device: str, dtype: torch.dtype, seed: int) -> float:
    """One token, odd sizes, larger ones, and batches of sequences keep their shape and the bound."""
    setting = Setting(contestant, scheme, device, dtype, seed)
    tightest = 0.0
    for m, n, k in setting.fitting((1, 1, 1), (1, 37, 64), (3, 5, 7), (17, 33, 129), (130, 264, 320)):
        tightest = max(tightest, setting.within(f"[{m}, {k}] x [{n}, {k}]", *setting.pair(m, n, k)))
    m, n, k = setting.shape()
    x, weight = setting.pair(m, n, k)
    flat = setting.product(x, weight)
    same(f"[4, {m // 4}, {k}] x [{n}, {k}]", setting.product(x.view(4, m // 4, k), weight), flat.view(4, m // 4, n))
    return tightest


def check_product_layouts(contestant: Product, scheme: Scheme, *, device: str, dtype: torch.dtype, seed: int) -> float:
    """Operands that are not contiguous keep the bound."""
    setting = Setting(contestant, scheme, device, dtype, seed)
    x, weight = setting.pair(*setting.shape())
    transposed = setting.within("transposed", x.t().contiguous().t(), weight.t().contiguous().t())
    doubled = [t.repeat_interleave(2, dim=1)[:, ::2] for t in (x, weight)]
    return max(transposed, setting.within("strided", *doubled))


def check_product_repeatable(
    contestant: Product, scheme: Scheme, *, device: str, dtype: torch.dtype, seed: int
) -> float:
    """The same operands give the same product twice, and are not changed."""
    setting = Setting(contestant, scheme, device, dtype, seed)
    x, weight = setting.pair(*setting.shape())
    copies = x.clone(), weight.clone()
    packed = contestant.pack(weight, scheme)
    first = contestant.linear(x, packed).clone()
    same("the activations after the product", x, copies[0])
    same("the weight after the product", weight, copies[1])
    return same("the same product again", contestant.linear(x, packed), first)


def check_product_nan_is_not_hidden(
    contestant: Product, scheme: Scheme, *, device: str, dtype: torch.dtype, seed: int
) -> float:
    """A NaN or infinity in an operand is refused with a ``ValueError``, or shows in all outputs that it enters."""
    setting = Setting(contestant, scheme, device, dtype, seed)
    x, weight = setting.pair(*setting.shape())
    for bad, case, place in itertools.product((torch.nan, torch.inf, -torch.inf), ("x", "weight"), (0, -1)):
        operands = {"x": x.clone(), "weight": weight.clone()}
        operands[case][place, place] = bad
        try:
            got = setting.product(operands["x"], operands["weight"])
        except ValueError:
            continue
        entered = got[place] if case == "x" else got[:, place]
        finite = entered[torch.isfinite(entered)]
        if finite.numel():
            raise CheckFailure(
                f"{case}[{place}, {place}] = {bad} gives finite outputs, such as {finite[0].item():.9g}, and no error"
            )
    return 0.0
