"""Products of a quantized matrix where it stands in a model: each weight read alone, and activations of a text.

Everything is held to float64 and to what the scheme defines, never to another run of the same code.
"""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cached_property

import torch
from torch import Tensor, nn

from quantsuite.checks.in_place import PlacedLayer
from quantsuite.checks.nearest import SLACK, Nearest, check_nearest
from quantsuite.checks.outcome import CheckFailure, compare, same, unchanged
from quantsuite.checks.summation import FLOAT32_BITS, exactly, half_ulp, right_operands, summation_error
from quantsuite.kernels.protocol import accumulator_bits, rounds_scales
from quantsuite.layer import UnsupportedError
from quantsuite.quantize import quantize

TOKENS = 64
"""Of a pass whose products are looked at."""
COLUMNS = 256
"""Of a weight that are read one by one, in larger ones than :data:`WHOLE`."""
WHOLE = 1024
"""The most columns that are all read one by one."""
DECODED = 4
"""Columns that are read by a product of one token."""
TOKENS_AT_ONCE = (*range(2, 18), 31, 33, 63, 64, 65, 127, 129, 200, 257)
"""Tokens of products that read as many columns: all small batches, and around the multiples of tiles."""
EVERY = 4
"""Of these each matrix takes one in so many, its neighbours others: a kernel multiplies by all of them."""
LARGE = 2.0**17
"""An activation beyond float16, which a model in bfloat16 may have."""
MANY = (9, 128)
"""Sequences and tokens of a product larger than any tile, and of more than 1,024 tokens."""
WORK = 2**32
"""The most multiply-adds of such a product."""
ROUNDINGS_OF_RESULT = 3
"""To the input's dtype, the last of them with a bias: as :func:`quantsuite.bounds.bound_execution` says."""


class MultipliedLayer(PlacedLayer):
    """One matrix under test, with its products.

    Attributes:
        factor: the largest error of a product over its bound, until now.
    """

    factor = 0.0

    def check_columns(self) -> None:
        """That each weight, alone, comes out of a product of many tokens as its codes and scale say, rounded once.

        Raises:
            CheckFailure: if one does not.
        """
        self._check_columns("all at once", [self._columns])

    def check_columns_decoding(self) -> None:
        """That some do so in a product of one token, the last column among them, for which a kernel may have its own.

        Raises:
            CheckFailure: if one does not.
            UnsupportedError: if the kernel takes no single token.
        """
        few = self._few(DECODED)
        self._check_columns("one token at a time", few.split(1))

    def check_columns_of_few(self) -> None:
        """That some do so in products of few tokens, for which kernels have tiles of their own.

        Raises:
            CheckFailure: if one does not.
        """
        for size in TOKENS_AT_ONCE[zlib.crc32(self.placed.name.encode()) % EVERY :: EVERY]:
            with suppress(UnsupportedError):
                self._check_columns(f"{size} tokens at a time", [self._few(size)])

    def check_large_activations(self) -> None:
        """That some do so for an activation that float16 does not hold, if the model's dtype does.

        Raises:
            CheckFailure: if one does not.
        """
        placed = self.placed
        if placed.weight.dtype == torch.float16 or placed.plan.activation_scale is not None:
            return
        with suppress(UnsupportedError):
            self._check_columns(f"at {LARGE:g}", [self._few(DECODED)], LARGE)

    def _few(self, size: int) -> Tensor:
        """Columns at random, the last one the last; each as often as any other if there are too few."""
        drawn = torch.randperm(len(self._columns), generator=self._generator)
        return torch.cat([self._columns[drawn[torch.arange(size - 1) % len(drawn)]], self._columns[-1:]])

    @cached_property
    def _columns(self) -> Tensor:
        k = self.placed.weight.shape[1]
        return self._some(k, k if k <= WHOLE else COLUMNS)

    def _check_columns(self, case: str, parts: Sequence[Tensor], size: float | None = None) -> None:
        placed, columns, size = self.placed, torch.cat(list(parts)), self._unit() if size is None else size
        dtype, roundings = placed.weight.dtype, 1 + rounds_scales(self.kernel)
        got, activations = [], []
        for part in parts:
            x = placed.weight.new_zeros(len(part), placed.weight.shape[1])
            x[torch.arange(len(part)), part] = size
            activations.append(self._tokens(x).values[torch.arange(len(part)), part, None])
            with unchanged("the product", x):
                got.append(self.module(x)[:, self.rows])
        activation = exactly(torch.cat(activations))

        slack = self.weight.open[:, columns].T * activation.values.abs()
        pairs = itertools.product(right_operands(activation, dtype), right_operands(self.weight, dtype))
        exact = (left * right[:, columns].T for left, right in pairs)
        self._check_any(f"weights read {case} [columns, rows]", torch.cat(got), exact, slack, roundings)

    def _check_any(self, case: str, got: Tensor, products: Iterable[Tensor], slack: Tensor, roundings: int) -> float:
        """The largest error over its bound, of the first of several right products that holds.

        Args:
            case: for the message.
            got: bias included.
            products: float64, without the bias.
            slack: by what products may err before they are rounded.
            roundings: to the dtype, of a product; one more is of the sum with a bias.
        """
        first: CheckFailure | None = None
        for product in products:
            own, exact, dtype = slack + SLACK * product.abs(), product, self.placed.weight.dtype
            bound = own + roundings * half_ulp(product.abs() + own, dtype)
            if self.placed.bias is not None:
                exact = product + self.placed.bias.double()[self.rows.to(product.device)]
                bound = bound + SLACK * exact.abs() + half_ulp(exact.abs() + bound, dtype)
            try:
                return compare(case, got, exact, bound)
            except CheckFailure as error:
                first = first or error
        assert first is not None
        raise first

    def _unit(self) -> float:
        """What single activations are: a power of two so large that a bias takes no bits of the product."""
        placed, scale = self.placed, self.placed.plan.activation_scale
        if scale is not None:
            operand = placed.plan.scheme.activation
            assert operand is not None
            return float(scale.max()) * operand.format.max
        if placed.bias is None or not bool(placed.bias.any()):
            return 1.0
        ratio = 256 * float(placed.bias.abs().max()) / max(float(placed.weight.abs().max()), 2.0**-126)
        return 2.0 ** min(max(0, math.ceil(math.log2(ratio))), 8)

    def check_bias(self) -> None:
        """That activations of zero give the bias.

        Raises:
            CheckFailure: if they do not.
        """
        n, k = self.placed.weight.shape
        got = self.module(self.placed.weight.new_zeros(2, k))
        bias = self.placed.bias if self.placed.bias is not None else got.new_zeros(n)
        same("products of zeros [tokens, rows]", got, bias.expand(2, n))

    def check_product(self, case: str, x: Tensor, y: Tensor) -> None:
        """That activations of a pass gave the exact product of quantized operands, within the bound of its rounding.

        Args:
            case: for the message.
            x: ``[..., K]``, as it came.
            y: ``[..., N]``, as it went.

        Raises:
            CheckFailure: if they did not.
        """
        placed = self.placed
        if x.dtype != placed.weight.dtype or y.dtype != x.dtype:
            raise CheckFailure(f"{case}: activations of {x.dtype} gave {y.dtype}, the model is {placed.weight.dtype}")
        tokens = self._tokens(x)
        some = self._some(len(tokens.values), TOKENS).to(x.device)
        got = y.detach().reshape(-1, y.shape[-1])[some][:, self.rows.to(x.device)]
        tokens = Nearest(tokens.values[some], tokens.open[some])
        slack = self._slack(tokens)
        pairs = itertools.product(*(right_operands(each, x.dtype) for each in (tokens, self.weight)))
        products = (left @ right.T for left, right in pairs)
        roundings = ROUNDINGS_OF_RESULT - (placed.bias is not None)
        factor = self._check_any(f"{case} [tokens, rows]", got, products, slack, roundings)
        self.factor = max(self.factor, factor)

    def check_product_of_many(self, x: Tensor) -> None:
        """That a product of more than a thousand tokens is as one of few.

        Args:
            x: ``[..., K]``, activations of a pass, which are repeated.

        Raises:
            CheckFailure: if it is not.
        """
        if self.placed.weight.numel() * math.prod(MANY) > WORK:
            return
        flat = x.reshape(-1, x.shape[-1])
        rows = torch.arange(math.prod(MANY), device=x.device) % len(flat)
        many = flat[rows].reshape(*MANY, -1)
        with unchanged("the product", many):
            y = self.module(many)
        self.check_product(f"{math.prod(MANY)} tokens", many, y)

    def check_product_is_kept(self, x: Tensor, other: nn.Module | None) -> None:
        """That no later product, of this matrix or another, writes over one that was made before.

        Args:
            x: ``[..., K]``, activations of a pass.
            other: of another matrix of the same shape, if there is one.

        Raises:
            CheckFailure: if one does.
        """
        few = x.reshape(-1, x.shape[-1])[:DECODED]
        y = self.module(few)
        kept = y.clone()
        self.module(-few)
        if other is not None:
            other(few)
        same("a product after later ones [tokens, rows]", y, kept)

    def check_rows_of_whole(self, x: Tensor) -> None:
        """That rows of a layer which are a matrix of their own come out where they stand in it.

        Args:
            x: ``[..., K]``, activations of a pass.

        Raises:
            CheckFailure: if they do not.
        """
        if self.placed.whole is not None:
            whole, start = self.placed.whole
            stop = start + len(self.placed.weight)
            same(f"rows {start} to {stop} of the layer", whole(x)[..., start:stop], self.module(x))

    def check_chosen(self, x: Tensor) -> None:
        """That codes which a method chose multiply activations better than zeros would.

        Args:
            x: ``[..., K]``, activations of a pass.

        Raises:
            CheckFailure: if they do not.
        """
        if self.placed.plan.weight is None:
            return
        tokens, own = x.reshape(-1, x.shape[-1])[:TOKENS].double(), self.placed.weight[self.rows].double()
        size, error = ((tokens @ weight.T).norm() for weight in (own, own - self.weight.values))
        if error > size:
            raise CheckFailure(
                f"what the method chose gives products {float(error / size):.2f} times as far from those of the loaded "
                "weight as zeros are"
            )

    def _tokens(self, x: Tensor) -> Nearest:
        """What activations are multiplied as, float64 ``[tokens, K]``."""
        placed, flat = self.placed, x.detach().reshape(-1, x.shape[-1])
        operand = placed.plan.scheme.activation
        if operand is None:
            return exactly(flat)
        every = torch.arange(len(flat), device=x.device)
        scale = placed.plan.activation_scale
        scale = None if scale is None else scale.to(x.device)
        return check_nearest(flat, quantize(flat, operand, scale=scale), every, given_scale=scale)

    def _slack(self, tokens: Nearest) -> Tensor:
        """What summing may err by, and what codes near a tie may differ by, ``[tokens, rows]``."""
        bits = FLOAT32_BITS if self.kernel is None else accumulator_bits(self.kernel)
        bound = summation_error(tokens.values, self.weight.values, self.placed.weight.dtype, bits)
        left, right = tokens.values.abs(), self.weight.values.abs()
        if rounds_scales(self.kernel):
            bound = bound + torch.finfo(self.placed.weight.dtype).eps * (left @ right.T)
        if tokens.open.any():
            bound = bound + tokens.open @ right.T
        return bound + left @ self.weight.open.T if self.weight.open.any() else bound
