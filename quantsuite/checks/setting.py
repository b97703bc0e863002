"""What the checks of a product share: a kernel under a scheme, shapes that it takes, its products and bound."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from quantsuite import reference
from quantsuite.bounds import FLOAT32_ROUNDOFF, bound_matmul
from quantsuite.checks.draws import block_shape, normal
from quantsuite.checks.outcome import CheckFailure, NotApplicable, NotSupported, compare, require_tensor, unchanged
from quantsuite.granularity import PerTensor
from quantsuite.kernels.protocol import Product, accumulator_bits, unsupported_shape
from quantsuite.scheme import Operand, Scheme

FLOAT32_BITS = 24
TILES = (64, 256)
"""What kernels may ask all sizes to be multiples of."""
TOKENS = (1, 2, 4, 8, 16)
"""Numbers of tokens at a time that kernels treat apart."""
PARTS = 24
"""How often few tokens are multiplied, at most."""


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

    def fitting(self, *wanted: tuple[int, int, int]) -> Iterator[tuple[int, int, int]]:
        """Shapes ``(M, N, K)``, N and K rounded up to whole blocks, that the kernel takes here.

        If it takes none, then rounded up to multiples of the first of :data:`TILES` of which it takes any.

        Raises:
            NotSupported: with the kernel's reason, if it takes none of these either.
        """
        taken, reason = False, None
        for tile in (1, *TILES):
            units = [math.lcm(unit, tile) for unit in (1, *self.units())]
            for sizes in wanted:
                m, n, k = (unit * math.ceil(size / unit) for unit, size in zip(units, sizes, strict=True))
                refused = unsupported_shape(self.kernel, self.scheme, self.device, m, n, k)
                if refused is None:
                    taken = True
                    yield m, n, k
                reason = reason or refused
            if taken:
                return
        raise NotSupported(reason)

    def square(self, least: int) -> int:
        """The first size from ``least`` on, in whole blocks or tiles, that the kernel takes as M, N and K alike.

        Raises:
            NotSupported: with the kernel's reason, if it takes none.
        """
        reason = None
        for tile in (1, *TILES):
            unit = math.lcm(*self.units(), tile)
            size = unit * math.ceil(least / unit)
            refused = unsupported_shape(self.kernel, self.scheme, self.device, size, size, size)
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
            return self.kernel.pack(weight, self.scheme)

    def multiply(self, x: Tensor, packed: Any, n: int) -> Tensor:
        """The kernel's ``x W^T`` of a packed weight of ``n`` rows.

        Raises:
            CheckFailure: if it is no tensor ``[..., n]``, has another dtype than ``x``, whose roundings would widen its
                own bound, or if ``x`` was changed.
        """
        __tracebackhide__ = True
        name = f"{self.kernel.name}.linear"
        with unchanged(name, x):
            got = require_tensor(name, self.kernel.linear(x, packed), (*x.shape[:-1], n))
        if got.dtype != x.dtype:
            raise CheckFailure(f"{list(x.shape)} activations: the result is {got.dtype}, expected {x.dtype}")
        return got

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
        got, x, weight = self.product(x, weight), x.cpu(), weight.cpu()
        operands = self.scheme.activation, self.scheme.weight
        bound = bound_matmul(x, weight, *operands, dtype=self.dtype, accumulator_roundoff=self.roundoff)
        return compare(case, got, reference.linear(x, weight), bound)

    def split_products(self, x: Tensor, weight: Tensor) -> Iterator[tuple[str, Tensor, Tensor]]:
        """The product of all tokens at once, and of some, few at a time, with the same packed weight.

        Named, with the numbers of the tokens.
        """
        packed, n = self.pack(weight), weight.shape[0]
        m, k = x.shape
        same_scale = not scaled_as_a_whole(self.scheme.activation) or len(x.abs().amax(1).unique()) == 1
        for tokens in (m, *(size for size in TOKENS if size < m and same_scale)):
            if unsupported_shape(self.kernel, self.scheme, self.device, tokens, n, k) is None:
                every = math.ceil(m / tokens / PARTS)
                places = torch.arange(m).flip(0).split(tokens)[: m // tokens : every]
                parts = [self.multiply(x[place], packed, n) for place in places]
                yield f"{tokens} tokens of [{m}, {k}] x [{n}, {k}]", torch.cat(places), torch.cat(parts)


def scaled_as_a_whole(operand: Operand | None) -> bool:
    """Whether any element may change how all others of its tensor are quantized."""
    return operand is not None and (isinstance(operand.granularity, PerTensor) or operand.scale.of_tensor)
