"""What the checks of a product share: a kernel under a scheme, shapes that it takes, its products and bound."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from quantsuite import reference
from quantsuite.bounds import FLOAT32_ROUNDOFF, bound_matmul
from quantsuite.checks.draws import block_shape, normal
from quantsuite.checks.outcome import CheckFailure, NotApplicable, NotSupported, compare, require_tensor, unchanged
from quantsuite.granularity import PerTensor
from quantsuite.kernels import protocol
from quantsuite.kernels.protocol import Product, accumulator_bits, unsupported_shape, work
from quantsuite.quantize import quantize
from quantsuite.scheme import Operand, Scheme

FLOAT32_BITS = 24
TILES = (1, 16, 64, 256)
"""What kernels may ask all sizes to be multiples of."""
ROWS = (16, 32, 64, 128, 256)
"""What kernels may ask M alone to be a multiple of."""
MOST_ROWS = (16, 8, 4, 2, 1)
"""What M may be at most, for kernels of decoding."""
TOKENS = (1, 2, 4, 8, 16)
"""Numbers of tokens at a time that kernels treat apart."""
PARTS = 24
"""How often few tokens are multiplied, at most."""
FEWEST = 4
"""Rows and blocks of rows to which shapes shrink for a kernel that is slow."""


def _up(size: int, unit: int) -> int:
    return unit * math.ceil(size / unit)


@dataclass(frozen=True)
class Fit:
    """How a shape is changed until a kernel takes it.

    Args:
        tile: what N and K are rounded up to multiples of.
        multiple: what M is rounded up to a multiple of.
        most: what M is at most, if not 0.
    """

    tile: int
    multiple: int = 1
    most: int = 0

    def rows(self, m: int) -> int:
        """The number of rows for ``m`` wanted ones."""
        return _up(min(m, self.most or m), self.multiple)


FITS = (
    *(Fit(tile, tile) for tile in TILES),
    *(Fit(tile, multiple) for tile in TILES for multiple in (1, *ROWS) if multiple != tile),
    *(Fit(tile, most=most) for tile in TILES for most in MOST_ROWS),
)
"""In the order in which they are tried; the first changes nothing."""


@dataclass(frozen=True)
class Setting:
    """A product under a scheme, on a device, in a dtype: what every check here is about."""

    kernel: Product
    scheme: Scheme
    device: str
    dtype: torch.dtype
    seed: int

    def units(self) -> tuple[int, int]:
        """What N and K must be multiples of for all blocks to be whole."""
        n, k_weight = block_shape(self.scheme.weight)
        _, k_activation = block_shape(self.scheme.activation)
        return n, math.lcm(k_weight, k_activation)

    def _affordable(self, m: int, n: int, k: int) -> tuple[int, int, int]:
        """The shape, with M and N halved down to :data:`FEWEST` while it is more work than the kernel declares."""
        limit, unit = work(self.kernel), self.units()[0]
        while limit is not None and m * n * k > limit and max(m, n // unit) > FEWEST:
            m, n = (-(-m // 2), n) if m >= n // unit else (m, unit * -(-n // unit // 2))
        return m, n, k

    def _refused(self, m: int, n: int, k: int) -> str | None:
        """Why the kernel does not take a shape, ``None`` if it does.

        Raises:
            NotApplicable: if it takes longer than the kernel declares for a check.
        """
        limit = work(self.kernel)
        if limit is not None and m * n * k > limit:
            raise NotApplicable(
                f"[{m}, {k}] x [{n}, {k}] is {m * n * k:,} multiply-adds, {limit:,} are declared as work"
            )
        return unsupported_shape(self.kernel, self.scheme, self.device, m, n, k)

    def takes(self, m: int, n: int, k: int) -> bool:
        """Whether the kernel takes a shape here, and it is no more work than it declares for a check."""
        with suppress(NotApplicable):
            return self._refused(m, n, k) is None
        return False

    def fitting(self, *wanted: tuple[int, int, int]) -> Iterator[tuple[int, int, int]]:
        """Shapes ``(M, N, K)``, N and K rounded up to whole blocks, that the kernel takes here.

        For one that it does not take the first of :data:`FITS` that it does; the fit of the shape before it is tried
        first.  Those that are more work than it declares for a check have fewer rows, or are left out.

        Raises:
            NotSupported: with the kernel's reason, if it takes none of these.
            NotApplicable: if all are too much work.
        """
        found: dict[tuple[int, int, int], None] = {}
        reasons: list[str] = []
        too_much: NotApplicable | None = None
        fits = list(FITS)
        for sizes in wanted:
            for fit in fits:
                try:
                    shape = self._fitted(fit, *sizes)
                    refused = self._refused(*shape)
                except NotApplicable as error:
                    too_much = error
                    continue
                if refused is None:
                    fits = [fit, *(other for other in fits if other != fit)]
                    if shape not in found:
                        found[shape] = None
                        yield shape
                    break
                reasons.append(refused)
        if not found:
            raise NotSupported(reasons[0]) if reasons or too_much is None else too_much

    def _fitted(self, fit: Fit, m: int, n: int, k: int) -> tuple[int, int, int]:
        n, k = (_up(size, math.lcm(unit, fit.tile)) for size, unit in zip((n, k), self.units(), strict=True))
        return self._affordable(m, n, k) if fit == FITS[0] else (fit.rows(m), n, k)

    def square(self, least: int) -> int:
        """The first size from ``least`` on, in whole blocks or tiles, that the kernel takes as N and K alike.

        With as many rows, or any number of them that :data:`FITS` has.  Smaller, if that is more work than it declares
        for a check.

        Raises:
            NotSupported: with the kernel's reason, if it takes none.
            NotApplicable: if all are too much work.
        """
        reason, limit, unit = None, work(self.kernel), math.lcm(*self.units())
        if limit is not None:
            least = min(least, max(1, int(limit ** (1 / 3)) // unit) * unit)
        for fit in FITS:
            size = _up(least, math.lcm(unit, fit.tile))
            refused = self._refused(fit.rows(size), size, size)
            if refused is None:
                return size
            reason = reason or refused
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
        """The kernel's ``x W^T``, as by :meth:`multiply`."""
        return self.multiply(x, self.pack(weight), weight.shape[0])

    def pack(self, weight: Tensor) -> Any:
        """The kernel's packed weight.

        Raises:
            CheckFailure: if it changed the weight.
        """
        __tracebackhide__ = True
        with unchanged(f"{self.kernel.name}.pack", weight):
            return protocol.pack(self.kernel, weight, self.scheme)

    def static_scale(self, x: Tensor) -> Tensor | None:
        """What calibration on ``x`` itself gives for static activations, so that the bounds of dynamic ones hold."""
        operand = self.scheme.activation
        if operand is None or operand.dynamic:
            return None
        return quantize(x.nan_to_num(0.0, 0.0, 0.0), replace(operand, dynamic=True)).scale

    def multiply(self, x: Tensor, packed: Any, n: int, bias: Tensor | None = None) -> Tensor:
        """The kernel's ``x W^T`` of a packed weight of ``n`` rows, with a bias if it takes one.

        Raises:
            CheckFailure: if it is no tensor ``[..., n]``, has another dtype than ``x``, whose roundings would widen its
                own bound, or if ``x`` was changed.
        """
        __tracebackhide__ = True
        name = f"{self.kernel.name}.linear"
        with unchanged(name, x):
            y = protocol.multiply(self.kernel, x, packed, bias=bias, activation_scale=self.static_scale(x))
            got = require_tensor(name, y, (*x.shape[:-1], n))
        if got.dtype != (dtype := protocol.output_dtype(self.kernel) or x.dtype):
            raise CheckFailure(f"{list(x.shape)} activations: the result is {got.dtype}, expected {dtype}")
        return got.to(x.dtype)

    @property
    def roundoff(self) -> float:
        """Of one addition in the claimed accumulator; those narrower than float32 may truncate."""
        bits = accumulator_bits(self.kernel)
        return FLOAT32_ROUNDOFF if bits >= FLOAT32_BITS else 2.0 ** (1 - bits)

    def bounded(self, *wanted: tuple[int, int, int]) -> Iterator[tuple[int, int, int]]:
        """Of the shapes of :meth:`fitting` those whose sums have a bound in the claimed accumulator.

        Raises:
            NotApplicable: if none has.
        """
        shapes = [shape for shape in self.fitting(*wanted) if shape[2] * self.roundoff < 1]
        if not shapes:
            raise NotApplicable(self._no_bound)
        yield from shapes

    @property
    def _no_bound(self) -> str:
        return f"sums of {self.scheme} have no bound in {accumulator_bits(self.kernel)} bits"

    def within(self, case: str, x: Tensor, weight: Tensor) -> float:
        """Compare the product with the float64 reference, within the scheme's bound.

        Raises:
            CheckFailure: if an element exceeds it.
            NotApplicable: if sums over K have none in the claimed accumulator.
        """
        if x.shape[-1] * self.roundoff >= 1:
            raise NotApplicable(self._no_bound)
        return compare(case, self.product(x, weight), *self.expected(x, weight))

    def expected(self, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The exact product of operands before quantization (float64), and its bound."""
        x, weight = x.cpu(), weight.cpu()
        operands = self.scheme.activation, self.scheme.weight
        bound = bound_matmul(x, weight, *operands, dtype=self.dtype, accumulator_roundoff=self.roundoff)
        return reference.linear(x, weight), bound

    def split_products(self, x: Tensor, weight: Tensor) -> Iterator[tuple[str, Tensor, Tensor]]:
        """The product of all tokens at once, and of some, few at a time, with the same packed weight.

        Of a kernel that takes neither, with as many at a time as it takes, some of them twice.

        Returns:
            Names, the numbers of the tokens, and their outputs.

        Raises:
            NotSupported: with the kernel's reason, if it takes no number of tokens.
        """
        packed, n = self.pack(weight), weight.shape[0]
        m, k = x.shape
        same_scale = not scaled_as_a_whole(self.scheme.activation) or len(x.abs().amax(1).unique()) == 1
        refused = {size: self._refused(size, n, k) for size in (m, *(t for t in TOKENS if t < m and same_scale))}
        taken = [size for size, reason in refused.items() if reason is None]
        if not taken and same_scale:
            taken = [size for size in ROWS if self._refused(size, n, k) is None][:1]
        if not taken:
            raise NotSupported(refused[m])
        for tokens in taken:
            places = (torch.arange(_up(m, tokens)) % m).flip(0).split(tokens)
            places = places[:: math.ceil(len(places) / PARTS)]
            parts = [self.multiply(x[place], packed, n) for place in places]
            yield f"{tokens} tokens of [{m}, {k}] x [{n}, {k}]", torch.cat(places), torch.cat(parts)


def scaled_as_a_whole(operand: Operand | None) -> bool:
    """Whether any element may change how all others of its tensor are quantized."""
    return operand is not None and (isinstance(operand.granularity, PerTensor) or operand.scale.of_tensor)
