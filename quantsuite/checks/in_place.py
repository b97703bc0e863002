"""Properties of a quantized matrix where it stands in a model: that it is what its plan says, and multiplies so.

Everything is held to float64 and to what the scheme defines, never to another run of the same code.
"""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from quantsuite.checks.layers import resident_limit, same_quantized
from quantsuite.checks.nearest import SLACK, Nearest, check_nearest, values_of
from quantsuite.checks.outcome import CheckFailure, compare, same, unchanged
from quantsuite.checks.summation import FLOAT32_BITS, exactly, half_ulp, right_operands, rounded, summation_error
from quantsuite.in_place import Placed
from quantsuite.kernels.protocol import accumulator_bits, rounds_scales
from quantsuite.kernels.tensors import nbytes
from quantsuite.layer import QuantizedLinear, UnsupportedError
from quantsuite.quantize import QuantizedTensor, quantize
from quantsuite.scheme import Execution

ELEMENTS = 2**20
"""Of a matrix that are looked at, in whole rows: all of smaller ones."""
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


@dataclass(frozen=True, kw_only=True)
class Execute:
    """How a model was to be executed.

    Args:
        execution: simulated or real; ``None`` for the model as it was loaded.
        kernel: name of the one that was chosen for real execution, if any.
        seed: of the draw of rows, tokens and columns.
    """

    execution: Execution | None
    kernel: str | None = None
    seed: int = 0


class PlacedLayer:
    """One matrix under test.

    Args:
        placed: the matrix, its plan and its module.
        how: it was to be executed.

    Attributes:
        factor: the largest error of a product over its bound, until now.
    """

    def __init__(self, placed: Placed, how: Execute) -> None:
        self.placed, self._how, self.factor = placed, how, 0.0
        # Another draw for each matrix: a token that one leaves out is looked at in others.
        self._generator = torch.Generator().manual_seed(how.seed + zlib.crc32(placed.name.encode()))

    @property
    def module(self) -> nn.Module:
        if self.placed.module is None:
            raise CheckFailure("nothing stands in its place")
        return self.placed.module

    @property
    def kernel(self) -> Any:
        """What packed the weight of a real layer."""
        return getattr(self.module, "kernel", None)

    @cached_property
    def rows(self) -> Tensor:
        """Those that are looked at: the first, the last, and others at random."""
        n, k = self.placed.weight.shape
        return self._some(n, max(2, ELEMENTS // k))

    def _some(self, size: int, most: int) -> Tensor:
        """Indices from 0 to ``size``, ascending: all, or the first, the last and others at random."""
        if size <= most:
            return torch.arange(size)
        others = torch.randperm(size - 2, generator=self._generator)[: most - 2] + 1
        return torch.cat([torch.tensor([0, size - 1]), others]).sort().values

    def check_identity(self) -> None:
        """That the matrix is quantized under its plan's scheme, in the execution and by the kernel of the run.

        Raises:
            CheckFailure: if it is not.
        """
        if self.placed.stray:
            raise CheckFailure(self.placed.stray)
        scheme, module = self.placed.plan.scheme, self.module
        quantized = isinstance(module, QuantizedLinear)
        if scheme.weight is None:
            if quantized:
                raise CheckFailure(f"is quantized to {module.scheme}, the plan leaves it as it is")
            return
        if not quantized:
            raise CheckFailure(f"is a {type(module).__name__} that is not quantized, the plan says {scheme}")
        if module.scheme != scheme:
            raise CheckFailure(f"is quantized to {module.scheme}, the plan says {scheme}")
        if module.execution != self._how.execution:
            raise CheckFailure(f"is executed {module.execution}, the run says {self._how.execution}")
        if self._how.kernel is not None and module.kernel.name != self._how.kernel:
            raise CheckFailure(f"is multiplied by {module.kernel.name}, the run says {self._how.kernel}")

    @property
    def bits(self) -> float:
        """Bits a weight in memory, scales and padding with them."""
        return 8 * self._bytes / self.placed.weight.numel()

    @property
    def _bytes(self) -> int:
        module = self.module
        if isinstance(module, QuantizedLinear) and module.kernel is not None:
            return max(module.packed_bytes(), nbytes(list(module.packed_tensors())))
        own = module.weight if isinstance(getattr(module, "weight", None), Tensor) else self.placed.weight
        return own.numel() * own.element_size()

    def check_storage(self) -> None:
        """That a real matrix takes as much memory as its format's codes: no less, and no copy beside them.

        Raises:
            CheckFailure: if it does not.
        """
        module, operand = self.module, self.placed.plan.scheme.weight
        if operand is None or not isinstance(module, QuantizedLinear) or module.kernel is None:
            return
        n, k = self.placed.weight.shape
        least = n * k * operand.format.bits / 8
        most = math.inf if getattr(module.kernel, "keeps_values", False) else resident_limit(self._own)
        if not least <= self._bytes <= most:
            limits = f"{operand} takes {least:,.0f} to {most:,.0f}"
            raise CheckFailure(f"takes {self._bytes:,} bytes, {self.bits:.2f} bits a weight; {limits}")

    @cached_property
    def _own(self) -> QuantizedTensor:
        """The weight's codes and scales: as a method chose them, or as rounding to nearest does."""
        operand, chosen = self.placed.plan.scheme.weight, self.placed.plan.weight
        assert operand is not None
        return quantize(self.placed.weight, operand) if chosen is None else chosen

    @cached_property
    def _held(self) -> QuantizedTensor | None:
        """What the kernel says that it keeps, or ``None`` if it does not say, or the layer is simulated."""
        if not hasattr(self.kernel, "unpack"):
            return None
        held, operand, shape = self.module.unpack(), self.placed.plan.scheme.weight, self.placed.weight.shape
        if held.operand != operand or held.shape != shape:
            raise CheckFailure(f"is {held.operand} {list(held.shape)}, the plan says {operand} {list(shape)}")
        return held

    @cached_property
    def weight(self) -> Nearest:
        """What the looked-at rows are multiplied as, float64.

        Raises:
            CheckFailure: if codes or scales are not those that the scheme defines, or that the method chose.
        """
        placed, rows = self.placed, self.rows
        if placed.plan.scheme.weight is None:
            return exactly(placed.weight[rows])
        device = placed.weight.device
        chosen, kept = placed.plan.weight, self._held
        if chosen is not None:
            if kept is not None:
                same_quantized("is not what the method chose", kept, chosen)
            return exactly(values_of(chosen, rows).to(device))
        found = check_nearest(placed.weight, self._own if kept is None else kept, rows.to(device))
        # Of a kernel that does not say what it keeps, elements near a tie may be either.
        return (
            found if self.kernel is not None and kept is None else Nearest(found.values, torch.zeros_like(found.open))
        )

    def check_weight(self) -> None:
        """That codes and scales are those that the scheme defines or a method chose, and simulated values theirs.

        Raises:
            CheckFailure: if they are not.
        """
        values, module, shape = self.weight.values, self.module, self.placed.weight.shape
        if self.kernel is None and isinstance(weight := getattr(module, "weight", None), Tensor):
            # A square weight of another class may be held either way; what it multiplies by tells.
            own = isinstance(module, QuantizedLinear | nn.Linear) or weight.shape != weight.T.shape
            expected = rounded(values, weight.dtype)
            if own or not torch.equal(weight.T[self.rows], expected):
                same("weight", (weight if weight.shape == shape else weight.T)[self.rows], expected)

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
